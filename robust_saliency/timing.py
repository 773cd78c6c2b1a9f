"""Times of compiled programs: how long one takes to compile, and two of them turn about."""

import statistics
import time
from collections.abc import Callable

import jax


def compiled(program: Callable, *args) -> tuple[Callable, float]:
    """``program`` compiled for ``args``, which returns when its result is ready; and the seconds of compiling."""
    began = time.monotonic()
    executable = jax.jit(program).lower(*args).compile()
    seconds = time.monotonic() - began
    return lambda *args: jax.block_until_ready(executable(*args)), seconds


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
