"""Whether an explanation depends on where zero lies: two networks that do the same on images that differ by a shift.

It explains a second network, so it needs the saliency method itself and not only the maps of one network. So it is
not among ``METRICS`` but a function of its own; its spec carries the same facts.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp

from robust_saliency.metrics.sparsity import Relevance
from robust_saliency.metrics.stability import relative_distance
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, Scalar, spec

Explain = Callable[[LogitsFn, Key, Images, Labels], Maps]


@spec
class InputInvariance(Relevance):
    """Relative distance between the maps of two networks that do the same on images that differ by a shift.

    shift: a scalar, one a channel ``[C]``, or an image ``[H, W, C]``, in units of the image; -1 is the paper's.
    """

    title: ClassVar[str] = "Input invariance"
    direction: ClassVar[str] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, math.inf)

    shift: Scalar = -1.0


def input_invariance(
    explain: Explain,
    logits_fn: LogitsFn,
    key: Key,
    images: Images,
    labels: Labels,
    spec: InputInvariance | None = None,
) -> Array:
    """:func:`input_invariance_of` the two maps of :func:`shifted_maps`: ``[B]``, 0 for an invariant method.

    explain: ``(logits_fn, key, images, labels) -> maps``, such as a method of ``robust_saliency.saliency`` with its
    spec. Costs two maps.
    """
    spec = spec or InputInvariance()
    return input_invariance_of(*shifted_maps(explain, logits_fn, key, images, labels, spec.shift), spec)


def input_invariance_of(maps: Maps, maps_of_shifted: Maps, spec: InputInvariance | None = None) -> Array:
    """``|r_f(x) - r_g(x + s)|_2 / |r_f(x)|_2``, r the relevance, ``g(x) = f(x - s)``: ``[B]``, at least 0, 0 is best.

    The gradient has 0 up to rounding; input x gradient of a linear ``w x`` has ``|s w| / |x w|`` while no sign turns.
    NaN where the map is zero, or one of the two not finite.

    Source: Kindermans et al. 2017 (1711.00867), who compare by eye; the distance is a reconstruction.
    """
    return relative_distance(maps, maps_of_shifted, (spec or InputInvariance()).sign)


def shifted_maps(
    explain: Explain, logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, shift: Scalar
) -> tuple[Maps, Maps]:
    """The map of f at ``images [B, H, W, C]`` and that of ``g(x) = f(x - shift)`` at ``images + shift``, by one key.

    f sees the same images both times, in [0, 1] as it expects; g is made by wrapping, and no weight is changed. The
    method is given ``images + shift``, which lie outside [0, 1]: that is the point of it. A baseline of the method
    stays where it is, and noisy images that it cuts to [0, 1] are others than before; both count as dependence.
    """
    there = images + _of_shape(shift, images)
    return explain(logits_fn, key, images, labels), explain(Shifted(logits_fn, shift), key, there, labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Shifted:
    """``g(x) = f(x - shift)``; can be looked into by the methods that do so wherever f can."""

    logits_fn: Any
    shift: Scalar

    def __call__(self, images: Images) -> Array:
        return self.logits_fn(images - _of_shape(self.shift, images))

    @property
    def output(self) -> Callable:
        inner = self.logits_fn.output
        return lambda images, *args, **options: inner(images - _of_shape(self.shift, images), *args, **options)

    @property
    def layers(self) -> tuple[str, ...]:
        return self.logits_fn.layers

    @property
    def with_activation(self) -> Callable:
        inner = self.logits_fn.with_activation
        return lambda activation: Shifted(inner(activation), self.shift)


def _of_shape(shift: Scalar, images: Images) -> Array:
    shapes = ((), images.shape[-1:], images.shape[1:])
    if jnp.shape(shift) not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"InputInvariance.shift must have the shape {expected}, got {jnp.shape(shift)}.")
    return jnp.broadcast_to(jnp.asarray(shift, images.dtype), images.shape)
