"""Memory that a program gives back is the next program's, counted in page faults."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys
import jax, jax.numpy as jnp
from robust_saliency import memory

keeps = sys.argv[1] == "keep" and memory.keep_freed()
# Temporary memory of 64 MiB, for which glibc asks the system each time.
program = jax.jit(lambda x: jnp.sin(x) @ x[:, :4])
x = jnp.ones((4096, 4096))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    jax.block_until_ready(program(x))
faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 40
print(json.dumps({"keeps": keeps, "faults": faults}))
"""


def run(word: str, **env: str) -> dict:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    own |= {"JAX_PLATFORMS": "cpu"} | env
    done = subprocess.run([sys.executable, "-c", PROGRAM, word], env=own, capture_output=True, check=True)
    return json.loads(done.stdout)


def test_temporary_memory_is_touched_once():
    kept = run("keep")
    if not kept["keeps"]:
        pytest.skip("this system's C library is not glibc")
    anew = run("leave")
    assert anew["faults"] > 64 * 2**20 / 2 / os.sysconf("SC_PAGE_SIZE")
    assert kept["faults"] < anew["faults"] / 4, "a few runs, until its pieces have found their places"


def test_who_sets_the_allocator_has_decided():
    assert not run("keep", MALLOC_ARENA_MAX="2")["keeps"]
