"""Eight virtual CPU devices for the sharding tests; silent rank promotion is an error in the whole suite."""

import atexit
import os
import shutil
import tempfile

import jax
import numpy as np
import pytest

# What takes time here is the compilation of many programs that hardly run. These flags make it take half, and the
# programs no slower. LLVM optimises as ever: at a lower level sums round otherwise, and what is exact is not. Flags of
# the environment come after these and so hold: see CONTRIBUTING.md.
_QUICK_TO_COMPILE = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__[:2] == (0, 10):  # a flag that XLA does not know ends the process
    os.environ["XLA_FLAGS"] = f"{_QUICK_TO_COMPILE} {os.environ.get('XLA_FLAGS', '')}"

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tests that train build the same few programs again and again: each is compiled once by a worker and the commands it
# starts. Workers do not share: JAX does not write an entry in one piece, and another process may read half of it.
_cache = tempfile.mkdtemp()
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache
jax.config.update("jax_compilation_cache_dir", _cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
