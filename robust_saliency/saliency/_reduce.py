"""From signed entries [B, H, W, C] to a map, in one place and one order: first the sign rule, then the channels."""

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.types import Array, Maps, spec

SCORES = ("logit", "log_probability", "probability", "loss")
SIGNS = {
    "abs": jnp.abs,
    "squared": jnp.square,
    "signed": lambda entries: entries,
    "positive": lambda entries: jnp.maximum(entries, 0),
    "negative": lambda entries: jnp.maximum(-entries, 0),
}
CHANNELS = ("sum_abs", "max_abs", "l2", "sum", "max", "none")
KEEP_THE_SIGN = ("sum", "max", "none")


@spec
class MapSpec:
    """What every saliency spec has: what is differentiated, and how entries become a map.

    score: the scalar that is differentiated, of the label y: 'logit' z_y, 'log_probability' log softmax(z)_y,
        'probability' softmax(z)_y, or 'loss' -log softmax(z)_y.
    sign: elementwise on the entries e: 'abs' |e|, 'squared' e^2, 'signed' e, 'positive' max(e, 0), 'negative'
        max(-e, 0).
    channels: then over the channels of the result r: 'sum_abs' sum |r|, 'max_abs' max |r|, 'l2' sqrt(sum r^2),
        'sum' sum r, 'max' max r, or 'none', which keeps them.

    The map is therefore non-negative unless sign='signed', which only channels='sum', 'max' and 'none' preserve; any
    other channels with it are a ValueError.
    """

    score: str = "logit"
    sign: str = "abs"
    channels: str = "sum_abs"

    def __post_init__(self):
        checks.one_of("score", self.score, SCORES)
        checks.one_of("sign", self.sign, SIGNS)
        checks.one_of("channels", self.channels, CHANNELS)
        if self.sign == "signed" and self.channels not in KEEP_THE_SIGN:
            raise ValueError(
                f"sign='signed' with channels={self.channels!r} loses the sign; use channels='sum', 'max' or 'none' "
                f"with sign='signed', or sign='abs' or 'squared' with channels={self.channels!r}."
            )


def reduce_entries(entries: Array, spec: MapSpec) -> Maps:
    """The map of signed ``entries [B, H, W, C]``: ``[B, H, W]``, or ``[B, H, W, C]`` with channels='none'."""
    entries = SIGNS[spec.sign](entries)
    if spec.channels == "none":
        return entries
    if spec.channels == "sum":
        return entries.sum(-1)
    if spec.channels == "sum_abs":
        return jnp.abs(entries).sum(-1)
    if spec.channels == "max_abs":
        return jnp.abs(entries).max(-1)
    if spec.channels == "max":
        return entries.max(-1)
    return _l2(entries)


def _l2(entries: Array) -> Array:
    # Divided by the largest entry: gradients of a saturated network, 1e-25, would vanish when squared in float32.
    # At zero the derivative is set to 0, since maps are themselves differentiated (losses on maps, attacks on maps).
    largest = jax.lax.stop_gradient(jnp.abs(entries).max(-1, keepdims=True))
    safe = jnp.where(largest > 0, largest, 1)
    squares = jnp.square(entries / safe).sum(-1)
    nonzero = largest[..., 0] > 0
    return jnp.where(nonzero, safe[..., 0] * jnp.sqrt(jnp.where(nonzero, squares, 1)), 0)
