"""What is done to a batch on the device: 8 bits to floats, and random changes of images together with their masks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from robust_saliency import checks, randomness
from robust_saliency.types import Array, Batch, Key, Scalar, spec

MASKS = ("lesion_mask", "evidence_mask", "concepts")
COLOURS = ("brightness", "contrast", "saturation")
NUMBERS = ("flip", "vertical_flip", "transpose", "down", "right", "angle", *COLOURS)


@spec
class AugmentSpec:
    """Which random changes a training batch undergoes; off by default, and off is the identity bit by bit.

    ``flip`` (left-right), ``vertical_flip`` and ``transpose`` happen with probability 1/2 each. ``crop_padding``: a
    shift of up to so many pixels, edges repeated (a random crop of the padded image). ``rotation`` (with ``rotate``):
    largest angle in degrees, drawn from U(-rotation, rotation). ``brightness``, ``contrast``, ``saturation`` (with
    ``colour``): b draws a factor from U(max(0, 1 - b), 1 + b).

    Raises:
      ValueError: ``crop_padding`` < 0, or a strength that its switch, ``rotate`` or ``colour``, leaves without effect.
    """

    flip: bool = False
    vertical_flip: bool = False
    transpose: bool = False
    crop_padding: int = 0
    rotate: bool = False
    rotation: Scalar = 0.0
    colour: bool = False
    brightness: Scalar = 0.0
    contrast: Scalar = 0.0
    saturation: Scalar = 0.0

    def __post_init__(self):
        if isinstance(self.crop_padding, int) and self.crop_padding < 0:
            raise ValueError(f"augment.crop_padding must be at least 0 pixels, got {self.crop_padding}.")
        for name, switch in {"rotation": "rotate", **dict.fromkeys(COLOURS, "colour")}.items():
            value = getattr(self, name)
            # In a traced or flattened spec the strengths are no numbers
            if isinstance(value, int | float) and value and not getattr(self, switch):
                raise ValueError(
                    f"augment.{name} is {value}, which does nothing while augment.{switch} is False: "
                    f"set augment.{switch} to True, or augment.{name} to 0."
                )


def to_float(batch: Batch) -> dict[str, Array]:
    """``batch`` with 8-bit images as float32 in [0, 1] and masks as float32 0 or 1; all else as it came."""
    masks = (name for name in batch if name in MASKS or name.endswith("_mask"))
    floats = {name: jnp.asarray(batch[name]).astype(jnp.float32) for name in masks}
    image = jnp.asarray(batch["image"])
    if image.dtype == jnp.uint8:
        floats["image"] = image.astype(jnp.float32) / 255.0
    return {**batch, **floats}


def augment(key: Key, batch: Batch, spec: AugmentSpec) -> dict[str, Array]:
    """``batch`` with its float images ``[B, H, W, C]`` in [0, 1] changed at random, each example on its own.

    Flips, transposition, shift and rotation move the masks ``[B, H, W]`` and concepts ``[B, H, W, n]`` in the same way
    (rotated images are interpolated bilinearly, masks take the nearest pixel, so that they stay 0 or 1; beyond the edge
    the edge pixel repeats). Colour changes the image alone: x times brightness, then contrast about the mean grey of
    the image, then saturation about the grey of each pixel (no change with one channel), then a clip to [0, 1].

    ``key`` is one key, or one key an example: then an example's change does not depend on the batch it is in.

    Raises:
      ValueError: images that are not floating point, or ``transpose`` of images that are not square.
    """
    checks.floating("batch['image']", batch["image"])
    checks.rank("batch['image']", batch["image"], 4)
    return change(draw_numbers(key, batch["image"].shape[0], batch["image"].dtype), batch, spec)


def draw_numbers(key: Key, num: int, dtype=jnp.float32) -> dict[str, Array]:
    """All random numbers that ``num`` examples may need, each ``[num]`` from U(0, 1)."""
    # One call for all: XLA spends seconds on compiling each use of the generator. Each change keeps its own numbers.
    uniform = randomness.draw(jax.random.uniform, key, (num, len(NUMBERS)), dtype)
    return {name: uniform[:, column] for column, name in enumerate(NUMBERS)}


def change(numbers: dict[str, Array], batch: Batch, spec: AugmentSpec) -> dict[str, Array]:
    """What :func:`augment` does, with the random numbers given."""
    image = jnp.asarray(batch["image"])
    if spec.transpose and image.shape[1] != image.shape[2]:
        raise ValueError(f"augment.transpose needs square images, got {image.shape[1]} x {image.shape[2]} pixels.")
    planes = {"image": image} | {name: jnp.asarray(batch[name]) for name in MASKS if name in batch}
    if spec.flip:
        planes = _where(numbers["flip"] < 0.5, planes, lambda plane: jnp.flip(plane, 2))
    if spec.vertical_flip:
        planes = _where(numbers["vertical_flip"] < 0.5, planes, lambda plane: jnp.flip(plane, 1))
    if spec.transpose:
        planes = _where(numbers["transpose"] < 0.5, planes, lambda plane: jnp.swapaxes(plane, 1, 2))
    if spec.crop_padding:
        planes = _shift(numbers["down"], numbers["right"], planes, spec.crop_padding)
    if spec.rotate:
        planes = _rotate(jnp.deg2rad(spec.rotation).astype(image.dtype) * (2 * numbers["angle"] - 1), planes)
    if spec.colour:
        factors = (
            _factor(numbers[name], strength)
            for name, strength in zip(COLOURS, (spec.brightness, spec.contrast, spec.saturation), strict=True)
        )
        planes = {**planes, "image": _recolour(planes["image"], *factors)}
    return {**batch, **planes}


def _where(coin: Array, planes: dict[str, Array], change: Callable[[Array], Array]) -> dict[str, Array]:
    return {
        name: jnp.where(coin.reshape(-1, *[1] * (plane.ndim - 1)), change(plane), plane)
        for name, plane in planes.items()
    }


def _shift(down: Array, right: Array, planes: dict[str, Array], most: int) -> dict[str, Array]:
    height, width = planes["image"].shape[1:3]

    def offset(uniform):
        return jnp.minimum((uniform * (2 * most + 1)).astype(jnp.int32), 2 * most) - most

    rows = jnp.arange(height)[None, :, None] + offset(down)[:, None, None]
    columns = jnp.arange(width)[None, None, :] + offset(right)[:, None, None]
    return {name: _pick(plane, rows, columns) for name, plane in planes.items()}


def _rotate(angle: Array, planes: dict[str, Array]) -> dict[str, Array]:
    image = planes["image"]
    height, width = image.shape[1:3]
    cos, sin = jnp.cos(angle)[:, None, None], jnp.sin(angle)[:, None, None]
    y = (jnp.arange(height, dtype=image.dtype) - (height - 1) / 2)[None, :, None]
    x = (jnp.arange(width, dtype=image.dtype) - (width - 1) / 2)[None, None, :]
    rows = cos * y - sin * x + (height - 1) / 2
    columns = sin * y + cos * x + (width - 1) / 2
    near_rows, near_columns = jnp.round(rows).astype(jnp.int32), jnp.round(columns).astype(jnp.int32)
    turned = {name: _pick(plane, near_rows, near_columns) for name, plane in planes.items() if name != "image"}
    return {"image": _interpolate(image, rows, columns), **turned}


def _recolour(image: Array, brightness: Array, contrast: Array, saturation: Array) -> Array:
    image = brightness * image
    mean = jnp.mean(_grey(image), axis=(1, 2, 3), keepdims=True)
    image = contrast * image + (1 - contrast) * mean
    image = saturation * image + (1 - saturation) * _grey(image) if image.shape[-1] == 3 else image
    return jnp.clip(image, 0.0, 1.0)


def _factor(uniform: Array, strength: Scalar) -> Array:
    """``[B, 1, 1, 1]`` from U(max(0, 1 - strength), 1 + strength)."""
    low = jnp.maximum(0.0, 1.0 - strength)
    return (low + (1.0 + strength - low) * uniform).astype(uniform.dtype)[:, None, None, None]


def _grey(image: Array) -> Array:
    """Luma of ITU-R 601, ``[B, H, W, 1]``."""
    if image.shape[-1] != 3:
        return jnp.mean(image, axis=-1, keepdims=True)
    return 0.299 * image[..., :1] + 0.587 * image[..., 1:2] + 0.114 * image[..., 2:]


def _pick(plane: Array, rows: Array, columns: Array) -> Array:
    """The pixels of ``plane`` at ``rows`` and ``columns`` (int, broadcast to ``[B, H, W]``), clamped to its edges."""
    rows = jnp.clip(rows, 0, plane.shape[1] - 1)
    columns = jnp.clip(columns, 0, plane.shape[2] - 1)
    return jax.vmap(lambda one, r, c: one[r, c])(plane, rows, columns)


def _interpolate(image: Array, rows: Array, columns: Array) -> Array:
    rows = jnp.clip(rows, 0, image.shape[1] - 1)
    columns = jnp.clip(columns, 0, image.shape[2] - 1)
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    top, left = top.astype(jnp.int32), left.astype(jnp.int32)
    upper = (1 - right) * _pick(image, top, left) + right * _pick(image, top, left + 1)
    lower = (1 - right) * _pick(image, top + 1, left) + right * _pick(image, top + 1, left + 1)
    return (1 - down) * upper + down * lower
