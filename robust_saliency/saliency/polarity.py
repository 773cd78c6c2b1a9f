"""Where the class that is explained gains most, or least, of all classes: active and inactive maps."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from robust_saliency import checks
from robust_saliency.saliency import _classes
from robust_saliency.saliency._reduce import MapSpec, reduce_entries
from robust_saliency.saliency.gradient import checked_images
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, spec


@spec
class Original(MapSpec):
    """|g| of the entries g of the gradient, the largest over the channels (Llorente et al. 2023, equation 2)."""

    channels: str = "max_abs"


@spec
class Positive(MapSpec):
    """max(g, 0), the largest over the channels: where brighter raises the score (equation 3)."""

    sign: str = "positive"
    channels: str = "max_abs"


@spec
class Negative(MapSpec):
    """max(-g, 0), the largest over the channels: where darker raises the score (equation 4)."""

    sign: str = "negative"
    channels: str = "max_abs"


@spec
class _Rivalry(_classes.ClassesSpec):
    channels: str = "max_abs"
    ties: str = "dropped"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("ties", self.ties, ("dropped", "kept"))


@spec
class Active(_Rivalry):
    """The gradient of the label where no other class has a larger one, 0 elsewhere.

    ties: of entries that another class shares: 'dropped' or 'kept'.
    unroll: see :class:`robust_saliency.attacks.PGD`.

    The defaults are the authors' code, ties='dropped', sign='abs', channels='max_abs': it takes the absolute value
    after the comparison, so that a negative gradient counts where it is the least negative of all. Equation 5 of the
    paper is ties='kept', sign='signed', channels='max'. sign='positive' keeps only what raises the class.
    """


@spec
class Inactive(_Rivalry):
    """The gradient of the label where no other class has a smaller one, 0 elsewhere; fields as for :class:`Active`.

    The defaults are the authors' code. Equation 6 of the paper is ties='kept',
    sign='signed', channels='max', which is 0 wherever one channel is not the smallest and the others are negative: it
    shows least where the class loses most. sign='negative' keeps only what lowers the class.
    """


class Polarities(NamedTuple):
    """The five maps of Llorente et al. of one batch, ``[B, H, W]`` each."""

    original: Maps
    positive: Maps
    negative: Maps
    active: Maps
    inactive: Maps


def active(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Active) -> Maps:
    """Entries g_y where g_y > max over c != y of g_c (>= with ties='kept'), else 0, of g_c = d score_c / d x.

    Compared entry by entry, before the channels are reduced; in score per unit of intensity. ``[B, H, W]``, or
    ``[B, H, W, C]`` with channels='none'; from one forward pass and K backward ones; the key is not read. NaN where a
    gradient is. Raises ValueError as :func:`gradient` does.

    Source: Llorente, Boal, Sanchez-Ubeda 2023, equation 5, where the label is the predicted class.
    """
    own, largest, _ = _own_and_rivals(logits_fn, checked_images(images, labels), labels, spec)
    return reduce_entries(_kept(own, own - largest, spec.ties), spec)


def inactive(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Inactive) -> Maps:
    """Entries g_y where g_y < min over c != y of g_c (<= with ties='kept'), else 0; otherwise as :func:`active`.

    Source: Llorente et al. 2023, equation 6.
    """
    own, _, smallest = _own_and_rivals(logits_fn, checked_images(images, labels), labels, spec)
    return reduce_entries(_kept(own, smallest - own, spec.ties), spec)


def polarities(logits_fn: LogitsFn, images: Images, labels: Labels, spec: Active | None = None) -> Polarities:
    """All five maps from one forward pass and K backward ones; ``spec``: score, channels and ties of all.

    Original, active and inactive maps are of absolute entries, as in the authors' code, whatever the sign of ``spec``.
    That code also divides each map by its range, which is left to whoever draws it.
    """
    spec = Active() if spec is None else spec
    images = checked_images(images, labels)
    own, largest, smallest = _own_and_rivals(logits_fn, images, labels, spec)

    def reduced(entries: Array, sign: str) -> Maps:
        return reduce_entries(entries, MapSpec(sign=sign, channels=spec.channels))

    return Polarities(
        original=reduced(own, "abs"),
        positive=reduced(own, "positive"),
        negative=reduced(own, "negative"),
        active=reduced(_kept(own, own - largest, spec.ties), "abs"),
        inactive=reduced(_kept(own, smallest - own, spec.ties), "abs"),
    )


def _own_and_rivals(logits_fn, images: Array, labels: Labels, spec: _Rivalry) -> tuple[Array, Array, Array]:
    """The gradient of the label, and of every entry the largest and the smallest gradient of the other classes."""
    count = _classes.num_classes(logits_fn, images, spec.score)
    checks.known_labels("labels", labels, count)

    def update(carry, place, gradient):
        own, largest, smallest = carry
        is_own = (labels == place)[:, None, None, None]
        return (
            jnp.where(is_own, gradient, own),
            jnp.where(is_own, largest, jnp.maximum(largest, gradient)),
            jnp.where(is_own, smallest, jnp.minimum(smallest, gradient)),
        )

    nothing = jnp.zeros_like(images)
    carry = (nothing, jnp.full_like(images, -jnp.inf), jnp.full_like(images, jnp.inf))
    return _classes.walk(update, carry, logits_fn, images, np.arange(count), spec)


def _kept(own: Array, lead: Array, ties: str) -> Array:
    wins = lead >= 0 if ties == "kept" else lead > 0
    return jnp.where(wins, own, jnp.where(jnp.isnan(lead), lead, 0))
