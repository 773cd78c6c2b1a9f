"""The end that a scheduler asks for (SIGTERM): training saves its step first, all else ends at once."""

import contextlib
import signal
from collections.abc import Callable, Iterator

_SAID = "Ended by SIGTERM; nothing on disk is lost. The same command goes on."
EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: start it again


class Stopped(BaseException):
    """Asked to end, and what could be saved is saved. No Exception, which a study would pass over."""


class _Wish:
    """Of a loop that sees to it itself: whether it was asked to end."""

    said = False


_wishes: list[_Wish] = []  # of the loops that are under way, the innermost last


def listen() -> None:
    """From now on SIGTERM is a wish, and :class:`Stopped` is raised where nothing waits for it."""
    signal.signal(signal.SIGTERM, _heard)


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Inside, nothing is raised: the function that is yielded says whether it is time to save and to raise.

    What came too late for that is raised at the end, so that nothing begins after it.
    """
    wish = _Wish()
    _wishes.append(wish)
    try:
        yield lambda: wish.said
    finally:
        _wishes.remove(wish)
    if wish.said:
        raise Stopped(_SAID)


def _heard(number: int, frame) -> None:
    del number, frame
    if not _wishes:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would end what says so
        raise Stopped(_SAID)
    for wish in _wishes:
        wish.said = True
