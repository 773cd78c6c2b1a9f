"""Several processes of one run, one a host: they agree on what one of them knows, and the first of them writes.

All processes call the same functions of this file in the same order; a single process has nobody to ask.
"""

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

HEARTBEAT_SECONDS = 30  # without a sign of life for so long a process counts as dead, and JAX ends the others

ANOTHER_DIED = (
    "Another process of this run died or cannot be reached; see what it said. Start all of them again with the same "
    "commands: training goes on from its last checkpoint."
)
# What errors of the runtimes say of a lost connection: Gloo on CPU, NCCL on GPU, JAX's coordination on all.
_LOST = (
    "closed by peer", "connection reset", "connection refused", "coordination service", "heartbeat",
    "ncclremoteerror", "timed out waiting", "deadline_exceeded",
)  # fmt: skip
_AT_ONCE = 2**28  # bytes of all processes together that lie on each device while values are gathered

T = TypeVar("T")


def count() -> int:
    """How many processes there are. Does not import JAX: a report needs none."""
    return sys.modules["jax"].process_count() if _together() else 1


def index() -> int:
    """The number of this process, from 0."""
    return sys.modules["jax"].process_index() if _together() else 0


def is_first() -> bool:
    """Whether this is the process that writes and reports; of one process always."""
    return index() == 0


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Waits for the other processes; what is None, Slurm, Kubernetes or a Cloud TPU says.

    Must come before anything is computed. Raises ValueError where nothing says who the others are.
    """
    import jax

    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        options = ", ".join(f"--{name}" for name in given)
        raise ValueError(f"--multihost takes all of {options} or none of them; {' and '.join(missing)} is missing.")
    if process_id is not None and not 0 <= process_id < num_processes:
        raise ValueError(f"--process_id must lie in 0 to --num_processes - 1 = {num_processes - 1}, got {process_id}.")
    if coordinator is not None:
        print(f"waiting for {num_processes} processes at {coordinator}", file=sys.stderr, flush=True)
    # SIGTERM stays this program's: see preemption.py.
    jax.config.update("jax_enable_preemption_service", False)
    # Until the processes have met there is nothing to save, and no handler of Python's would run.
    deferred = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"--multihost: the processes did not find each other ({' '.join(str(error).split())[:200]}). Outside "
            "Slurm, Kubernetes and Cloud TPU give each --coordinator=HOST:PORT, --num_processes=N and its --process_id."
        ) from error
    finally:
        signal.signal(signal.SIGTERM, deferred)


def on_first(act: Callable[[], T]) -> T:
    """What ``act()`` returns in the first process, in all; an exception that it raises there, in all."""
    if count() == 1:
        return act()
    found: tuple[Any, Exception | None] = (None, None)
    if is_first():
        try:
            found = act(), None
        except Exception as error:
            found = None, error
    value, error = gathered(found)[0]
    if error is not None:
        raise error
    return value


def gathered(value: T) -> list[T]:
    """The ``value`` of every process, in their order, in all of them. It must be possible to pickle it."""
    if count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    own = pickle.dumps(value)
    # As two numbers, for JAX makes one of 64 bits a number of 32.
    halves = multihost_utils.process_allgather(np.array(divmod(len(own), 2**30), np.int32))
    sizes = [int(high) * 2**30 + int(low) for high, low in halves]
    # Of a power of two: the program that gathers is compiled for each length.
    length = 1 << (min(max(sizes), max(1, _AT_ONCE // count())) - 1).bit_length()
    parts = [bytearray() for _ in sizes]
    for first in range(0, max(sizes), length):
        piece = np.zeros(length, np.uint8)
        held = own[first : first + length]
        piece[: len(held)] = np.frombuffer(held, np.uint8)
        for part, row in zip(parts, multihost_utils.process_allgather(piece), strict=True):
            part += row.tobytes()
    return [pickle.loads(part[:size]) for part, size in zip(parts, sizes, strict=True)]


def check_same(what: str, value: Any) -> None:
    """Raises ValueError, in all processes, where they do not hold the same ``value``: they would wait for ever."""
    values = gathered(value)
    if any(other != values[0] for other in values):
        listed = ", ".join(f"{other} in process {number}" for number, other in enumerate(values))
        raise ValueError(f"The processes do not read the same {what}: {listed}. Is the file system the same for all?")


def share(length: int) -> slice:
    """This process's part of so many things: the parts of all, in order, are the whole."""
    return slice(length * index() // count(), length * (index() + 1) // count())


def is_of_another(error: BaseException) -> bool:
    """Whether an error of JAX says that another process is lost."""
    return count() > 1 and any(word in str(error).lower() for word in _LOST)


def name() -> str:
    """'Process 1 of 2: ', for messages; '' of one process."""
    return f"Process {index()} of {count()}: " if count() > 1 else ""


def leave(status: int) -> None:
    """Ends this process with ``status``: at once where there are others, for whom an orderly end would wait."""
    if count() == 1:
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():
        time.sleep(1)  # it holds JAX's coordination: others that fail with it would be ended before they say why
    os._exit(status)


def _together() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()
