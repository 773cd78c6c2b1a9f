"""A worker that runs tasks by name as they are asked for, so that two libraries can take turns. Plain Python."""

import sys
import time
from collections.abc import Callable


def serve(tasks: dict[str, Callable[[], object]]) -> None:
    """Answers each line on standard input, a task's name, with the seconds that it took."""
    print("ready", file=_answers, flush=True)
    for line in sys.stdin:
        began = time.monotonic()
        tasks[line.strip()]()
        print(time.monotonic() - began, file=_answers, flush=True)


# What the libraries themselves print must not stand between the answers.
_answers, sys.stdout = sys.stdout, sys.stderr
