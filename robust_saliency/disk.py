"""What a full or broken disk says, wherever in a library it comes out.

Orbax writes in threads of its own, through TensorStore, which knows no OSError: of a full disk comes a ValueError of
another thread with the number of the system's error in its text, and the tasks that it cuts off complain one by one.
"""

import logging
import os
import re
import sys
import warnings

_NUMBER = re.compile(r"os_error_code='(\d+)'")


def reason(error: BaseException | None) -> str:
    """The system's words for what failed behind ``error`` ('No space left on device'); '' where it was no file."""
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        if found := _NUMBER.search(str(error)):
            return os.strerror(int(found[1]))
        error = error.__cause__ or error.__context__
    return ""


def mute_cut_off_tasks() -> None:
    """From now on only what is raised is told: not what tasks say that a failed save has cut off."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # A full disk is told where it matters.
    warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry")
    said = sys.unraisablehook

    def hook(unraisable) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
            said(unraisable)

    sys.unraisablehook = hook
