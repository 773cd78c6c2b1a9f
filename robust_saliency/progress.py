"""Progress of long work: a bar on a terminal, plain lines elsewhere; of several processes the first tells."""

import sys
import time

from tqdm import tqdm

from robust_saliency import processes

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """``with Progress('train', total) as p: p.update(loss=0.3)``: done, images/s, time left, and the values given."""

    def __init__(self, title: str, total: int, initial: int = 0, items_per_step: int = 1):
        self._title, self._total, self._done, self._first = title, total, initial, initial
        self._items_per_step = items_per_step
        self._began = self._last_line = time.monotonic()
        self._bar = None
        if sys.stderr.isatty() and processes.is_first():
            self._bar = tqdm(total=total, initial=initial, desc=title, dynamic_ncols=True, leave=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()

    def update(self, steps: int = 1, **values: float) -> None:
        self._done += steps
        shown = {name: f"{value:.3g}" for name, value in values.items()}
        if self._bar is not None:
            self._bar.set_postfix({**shown, "images/s": f"{self.items_per_second:.0f}"}, refresh=False)
            self._bar.update(steps)
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES or self._done >= self._total:
            self._last_line = now
            listed = " ".join(f"{name} {value}" for name, value in shown.items())
            say(f"{self._title}: {self._done}/{self._total} {listed} {self._rate()}")

    @property
    def items_per_second(self) -> float:
        return (self._done - self._first) * self._items_per_step / max(time.monotonic() - self._began, 1e-9)

    def _rate(self) -> str:
        steps_left = self._total - self._done
        seconds_left = steps_left * self._items_per_step / max(self.items_per_second, 1e-9)
        return f"{self.items_per_second:.0f} images/s, {seconds_left:.0f} s left"


def say(line: str) -> None:
    """One plain line on stderr, above a bar if there is one."""
    if not processes.is_first():
        return
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
