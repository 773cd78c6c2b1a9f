"""The parent of one of several processes. JAX ends a process by SIGABRT when another of the run has died, wherever it
is, with a trace of its own; the parent says what happened, and with which status to start again."""

import os
import signal
import subprocess
import sys
import threading

from robust_saliency import preemption, processes

_PARENT = "ROBUST_SALIENCY_PARENT"  # in the child's environment: a pipe that closes when the parent dies


def is_due(argv: list[str]) -> bool:
    """Whether this process is to be a parent: the command line asks for several processes, and nobody is its own."""
    if _PARENT in os.environ:
        threading.Thread(target=_die_with, args=(int(os.environ[_PARENT]),), daemon=True).start()
        return False
    return any(word.lstrip("-").lower() in ("multihost", "multihost=true", "multihost=1") for word in argv[1:])


def supervise(argv: list[str]) -> int:
    """Runs the command line in a child; its exit status, and a message where JAX ended it."""
    reading, writing = os.pipe()
    asked: list[int] = []

    def ask(number: int, frame) -> None:
        asked.append(number)
        if child is not None:
            child.send_signal(number)

    child = None
    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the child too
    child = subprocess.Popen(
        [sys.executable, *argv], env={**os.environ, _PARENT: str(reading)}, pass_fds=(reading,), close_fds=True
    )
    os.close(reading)
    for number in asked[:1]:  # one that came before there was a child
        child.send_signal(number)
    status = child.wait()
    os.close(writing)
    if status == -signal.SIGABRT:
        print(f"Ended by SIGABRT, see above. Most likely: {processes.ANOTHER_DIED}", file=sys.stderr)
    if status == -signal.SIGKILL:
        print("Ended by SIGKILL from outside. Most likely: the machine ran out of memory.", file=sys.stderr)
    if status in (-signal.SIGABRT, -signal.SIGTERM):
        return preemption.EXIT_STATUS
    return status if status >= 0 else 128 - status


def _die_with(pipe: int) -> None:
    os.read(pipe, 1)
    os._exit(1)
