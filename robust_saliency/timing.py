"""Times of compiled programs: what one costs before it runs, and two of them turn about."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache


class Costs(NamedTuple):
    """Seconds of tracing and lowering; of compiling, and of compiling when the persistent cache holds the program.

    mebibytes: of the arrays that the program reads, writes and keeps in between, on one device, as XLA plans them.
    """

    trace_seconds: float
    compile_seconds: float
    warm_seconds: float
    mebibytes: float


def compiled(program: Callable, *args) -> tuple[Callable, float]:
    """``program`` compiled for ``args``, which returns when its result is ready; and the seconds of compiling."""
    began = time.monotonic()
    executable = jax.jit(program).lower(*args).compile()
    seconds = time.monotonic() - began
    return lambda *args: jax.block_until_ready(executable(*args)), seconds


def compiled_with_costs(program: Callable, *args) -> tuple[Callable, Costs]:
    """As :func:`compiled`, with all that it costs; into a persistent cache that is new and its own."""
    with _empty_cache():
        began = time.monotonic()
        lowered = jax.jit(lambda *args: program(*args)).lower(*args)
        traced = time.monotonic()
        executable = lowered.compile()
        done = time.monotonic()
        # A new function: what JAX keeps in memory of the first is not for it, as for another process.
        again = jax.jit(lambda *args: program(*args)).lower(*args)
        warm = time.monotonic()
        again.compile()
        end = time.monotonic()
    memory = executable.memory_analysis()
    planned = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    costs = Costs(traced - began, done - traced, end - warm, planned / 2**20)
    return lambda *args: jax.block_until_ready(executable(*args)), costs


def operations(program: Callable, *args) -> float:
    """Floating-point operations of ``program`` as it is written, additions and multiplications one each.

    Counted as for a GPU, also where there is none: on a CPU narrow convolutions run in other shapes, among zeros that
    nobody asked for (:mod:`robust_saliency.models.convolution_on_cpu`).
    """
    return jax.jit(program).trace(*args).lower(lowering_platforms=("cuda",)).cost_analysis()["flops"]


@contextlib.contextmanager
def _empty_cache() -> Iterator[None]:
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, value in zip(names, (folder, 0.0), strict=True):
                jax.config.update(name, value)
            compilation_cache.reset_cache()
            yield
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()


def in_turns(work: Callable[[], object], other: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Median seconds of ``work``, and the median over pairs of its seconds over those of ``other``; both warmed up."""
    work()
    other()
    pairs = [(_seconds(work), _seconds(other)) for _ in range(repetitions)]
    return statistics.median(mine for mine, _ in pairs), statistics.median(mine / theirs for mine, theirs in pairs)


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
