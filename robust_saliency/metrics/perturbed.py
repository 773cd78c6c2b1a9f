"""What metrics that change an image's pixels share: an order of the pixels, and the score of the changed images."""

import jax
import jax.numpy as jnp

from robust_saliency import checks, randomness, ranks
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps

ORDERS = ("morf", "lerf")
# Of a class, and so an amount that a map may be held to; or whether a class is still the greatest.
AMOUNTS = ("probability", "logit")
SCORES = (*AMOUNTS, "accuracy", "allegiance")


def rank_order(maps: Array, key: Key) -> Array:
    """Place ``[B, H, W]`` of each pixel in descending order, 0 first; ties in an order drawn from ``key``."""
    checks.rank("maps", maps, 3)
    values = maps.reshape(maps.shape[0], -1)
    lots = randomness.draw(jax.random.bits, key, values.shape, dtype=jnp.uint16)
    return ranks.order(-values, lots).rank.reshape(maps.shape)


def amount(logits: Array, labels: Labels, kind: str) -> Array:
    """The 'probability' or the 'logit' of the label: ``[B, ...]`` of ``logits [B, ..., K]``, at least float32."""
    check_labels(logits, labels)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    values = logits if kind == "logit" else jax.nn.softmax(logits, axis=-1)
    index = labels.reshape(-1, *(1,) * (logits.ndim - 1))
    return jnp.take_along_axis(values, index, axis=-1)[..., 0]


def scores(logits: Array, labels: Labels, whole: Array, kind: str) -> Array:
    """What a curve shows ``[B, points]`` of ``logits [B, points, K]``; ``whole [B, K]`` are those of the whole image.

    'accuracy' is 1 where the argmax is the label, 'allegiance' where it is that of the whole image, else 0; NaN logits
    stay NaN.
    """
    if kind in AMOUNTS:
        return amount(logits, labels, kind)
    if kind == "accuracy":
        check_labels(logits, labels)
    kept = jnp.argmax(whole, axis=-1) if kind == "allegiance" else labels
    same = jnp.argmax(logits, axis=-1) == kept[:, None]
    unknown = jnp.any(jnp.isnan(logits), axis=-1)
    return jnp.where(unknown, jnp.nan, same.astype(jnp.promote_types(logits.dtype, jnp.float32)))


def logits_of(logits_fn: LogitsFn, changed, count: int, meaningless: Array) -> Array:
    """Logits ``[B, count, K]`` of ``changed(k) -> images``, k = 0 .. count - 1; NaN where ``meaningless [B]``.

    One batch at a time, so that memory does not grow with the count.
    """
    logits = jnp.swapaxes(jax.lax.map(lambda k: logits_fn(changed(k)), jnp.arange(count)), 0, 1)
    return jnp.where(meaningless[:, None, None], jnp.nan, logits)


def is_meaningless(relevance: Array) -> Array:
    """``[B]``: where :func:`relevance` found nothing in a map, and so made all of it NaN."""
    return jnp.isnan(relevance[:, 0, 0])


def check_labels(logits: Array, labels: Labels) -> None:
    """ValueError unless ``labels`` are one an example and, where that is known, classes of ``logits [B, ..., K]``."""
    checks.rank("labels", labels, 1)
    checks.same_batch(logits=logits, labels=labels)
    checks.known_labels("labels", labels, logits.shape[-1])


def check_shapes(images: Images, maps: Maps) -> None:
    """ValueError unless ``images`` are floats ``[B, H, W, C]`` and ``maps`` theirs."""
    checks.rank("images", images, 4)
    checks.floating("images", images)
    if maps.shape != images.shape[:3]:
        raise ValueError(f"Maps must be {images.shape[:3]} for images {images.shape}, got {maps.shape}.")
