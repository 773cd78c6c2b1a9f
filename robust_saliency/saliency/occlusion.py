"""Occlusion: what the score loses when a window of the image is covered."""

import jax.numpy as jnp
import numpy as np

from robust_saliency.baselines import Baseline, fill
from robust_saliency.saliency._passes import PassesSpec, accumulate, after, at_least, scores_at
from robust_saliency.saliency._reduce import reduce_entries
from robust_saliency.saliency.gradient import checked_images, label_score
from robust_saliency.types import Images, Key, Labels, LogitsFn, Maps, spec


@spec
class Occlusion(PassesSpec):
    """The loss of score by each covered window, given to its pixels.

    window: its side in pixels. stride: between windows, in pixels, at most the window, so that every pixel is covered.
    baseline: what covers. sign: of the mean loss of a pixel; the default 'signed' with channels='sum' keeps what the
    covering raises negative.
    """

    sign: str = "signed"
    channels: str = "sum"
    window: int = 4
    stride: int = 2
    baseline: Baseline = Baseline(kind="mean")

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "window", 1)
        at_least(self, "stride", 1)
        if self.stride > self.window:
            raise ValueError(
                f"Occlusion.stride is {self.stride}, above the window of {self.window}: pixels between windows would "
                "never be covered."
            )


def occlusion(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Occlusion) -> Maps:
    """Entries mean over the windows that cover a pixel of score_y(x) - score_y(x with the window covered).

    All channels are covered at once, so the entries are ``[B, H, W, 1]``: ``[B, H, W]`` maps whatever ``channels`` is,
    but 'none'. Windows start at multiples of the stride; the last reach to the border and are cut off there. In units
    of the score, from one forward pass a window. The baseline is ``baselines.fill(key, images, spec.baseline)``.
    Raises ValueError as :func:`gradient` does, and for a window larger than the image.

    Source: Zeiler, Fergus 2014 (1311.2901), section 4.2; the mean over windows is captum's.
    """
    images = checked_images(images, labels)
    covered = windows(images.shape[1:3], spec.window, spec.stride)
    baseline, before = fill(key, images, spec.baseline), label_score(logits_fn(images), labels, spec.score)

    def update(total, covered):
        points = jnp.where(covered[None], baseline[:, None], after(images, total)[:, None])
        lost = before[:, None] - scores_at(logits_fn, points, labels, spec.score)
        return total + (lost[:, :, None, None, None] * covered[None]).sum(1)

    total = accumulate(update, jnp.zeros_like(images[..., :1]), jnp.asarray(covered), len(covered), len(images), spec)
    return reduce_entries(total / jnp.asarray(covered.sum(0), images.dtype)[None], spec)


def windows(size: tuple[int, int], window: int, stride: int) -> np.ndarray:
    """``[S, H, W, 1]``, True where the window s covers; the last of a row or column reaches the border."""
    if window > min(size):
        raise ValueError(f"Occlusion.window is {window}, but the images are {size[0]} x {size[1]} pixels.")
    rows, columns = (
        [
            (np.arange(side) >= first) & (np.arange(side) < first + window)
            for first in range(0, stride * -(-(side - window) // stride) + 1, stride)
        ]
        for side in size
    )
    return np.stack([np.outer(row, column)[..., None] for row in rows for column in columns])
