"""An attack in pieces."""

from collections.abc import Callable
from typing import NamedTuple


class Iterated(NamedTuple):
    """Compile a few steps once, and between the pieces look, save, or drop the images fooled.

    start(key, images, spec) -> state; advance(loss_fn, state, spec, num_steps) -> state; finish(loss_fn, state, spec)
    -> images. seen(loss_fn, state, spec) -> the loss that the next step raises, a function of the images alone.
    """

    start: Callable
    advance: Callable
    finish: Callable
    seen: Callable | None = None
