"""The examples that activate a unit most, and the part of each that it saw."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.types import Array, Images


class Top(NamedTuple):
    """The k examples on which each of U units is most active, the most active first.

    ``values [U, k]``: the unit's largest activation in the example. ``ids``: int32 ``[U, k]``. ``places``: int32
    ``[U, k, 2]``, row and column of that activation in the layer. Where there were fewer examples: NaN, -1, -1.
    ``rest [U]``: the unit's lowest activation anywhere in any example, NaN where there was none.
    """

    values: Array
    ids: Array
    places: Array
    rest: Array

    @property
    def activated(self) -> Array:
        """Bool ``[U, k]``: whether the example raises the unit above its rest.

        After a ReLU an example that leaves a unit at 0 everywhere does not activate it, though it may be among the k:
        then those of 0 are all tied, and the smallest ids were taken. Of a dead unit no example is activated. What is
        said of top examples (class distributions) must count these alone.
        """
        return self.values > self.rest[:, None]


def top(activations: Array, ids: Array, k: int, valid: Array | None = None) -> Top:
    """The ``k`` of the examples ``ids [B]`` that activate each unit of ``activations [B, h, w, U]`` most.

    Ties go to the smaller id, and in an example to the first place, row by row. What is NaN does not count, nor does an
    example that is not ``valid [B]``. The result does not depend on the order of the batch; :func:`merge` joins those
    of several batches.
    """
    checks.rank("activations", activations, 4)
    checks.rank("ids", ids, 1)
    checks.same_batch(activations=activations, ids=ids)
    checks.at_least(1, k=k, where="top")
    batch, _, width, units = activations.shape
    flat = activations.reshape(batch, -1, units)
    known = ~jnp.isnan(flat)
    if valid is not None:
        known &= jnp.asarray(valid, bool)[:, None, None]
    place = jnp.where(known, flat, -jnp.inf).argmax(1).astype(jnp.int32)
    largest = jnp.where(known.any(1), jnp.take_along_axis(flat, place[:, None], axis=1)[:, 0], jnp.nan)
    lowest = jnp.where(known, flat, jnp.inf).min((0, 1))
    rest = jnp.where(known.any((0, 1)), lowest, jnp.nan)
    candidates = largest.T, jnp.broadcast_to(jnp.asarray(ids, jnp.int32)[None], (units, batch)), place.T
    values, ids, place = _first(candidates, k)
    places = jnp.where(place[..., None] < 0, -1, jnp.stack([place // width, place % width], axis=-1))
    return Top(values, ids, places, rest)


def merge(first: Top, second: Top) -> Top:
    """The top of the examples of both, which are not the same ones; of one layer and one k."""
    if first.values.shape != second.values.shape:
        raise ValueError(f"Tops of one layer and one k are merged, got {first.values.shape} and {second.values.shape}.")
    pairs = zip(first[:3], second[:3], strict=True)
    values, ids, places = (jnp.concatenate(pair, axis=1) for pair in pairs)
    values, ids, rows, columns = _first((values, ids, places[..., 0], places[..., 1]), first.values.shape[1])
    return Top(values, ids, jnp.stack([rows, columns], axis=-1), jnp.fmin(first.rest, second.rest))


def _first(candidates: tuple[Array, ...], k: int) -> tuple[Array, ...]:
    """The k candidates ``[U, n]`` of largest value, then smallest id; NaN comes last, and its other entries are -1."""
    values, *others = candidates
    missing = max(0, k - values.shape[1])
    padded = [jnp.pad(-values, ((0, 0), (0, missing)), constant_values=jnp.nan)]
    padded += [jnp.pad(other, ((0, 0), (0, missing)), constant_values=-1) for other in others]
    falling, *others = (array[:, :k] for array in jax.lax.sort(tuple(padded), dimension=1, num_keys=2))
    return -falling, *(jnp.where(jnp.isnan(falling), -1, other) for other in others)


def crops(images: Images, boxes: Array, size: tuple[int, int]) -> Images:
    """A window of ``size`` from each of ``images [k, H, W, C]``, in the middle of its box: ``[k, h, w, C]``.

    boxes: ``[k, 4]``, first row, first column, and those after the last (:func:`receptive_fields`). A window that would
    leave the image is moved inside: every pixel shown is the image's own, and a box that the border cuts is shown
    whole. ValueError for a window larger than the images.
    """
    checks.rank("images", images, 4)
    checks.same_batch(images=images, boxes=boxes)
    if any(side > whole for side, whole in zip(size, images.shape[1:3], strict=True)):
        raise ValueError(f"A crop of {size[0]}x{size[1]} does not fit images of {images.shape[1]}x{images.shape[2]}.")

    def crop(image, box):
        starts = [(box[axis] + box[axis + 2] - size[axis]) // 2 for axis in (0, 1)]
        inside = [jnp.clip(start, 0, image.shape[axis] - size[axis]) for axis, start in enumerate(starts)]
        return jax.lax.dynamic_slice(image, (*inside, 0), (*size, image.shape[2]))

    return jax.vmap(crop)(images, boxes)
