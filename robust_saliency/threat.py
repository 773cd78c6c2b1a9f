"""Threat models: which images an adversary may show, and how to stay among them.

A threat model is a ball of radius epsilon around the clean image (in pixels: images lie in ``bounds``), cut with the
box ``bounds`` and, where there is a mask, with the pixels that may change. Everything here is per example.
"""

import math

import jax
import jax.numpy as jnp

from robust_saliency import checks, projections, randomness
from robust_saliency.projections import total
from robust_saliency.types import Array, Images, Key, Scalar, spec

NORMS = ("l1", "l2", "linf")
PROJECTIONS = ("exact", "scale_then_clip")
STARTS = ("gaussian", "none", "sphere", "uniform")


@spec
class Threat:
    """What the adversary may do.

    norm: 'linf', 'l2' or 'l1'.
    epsilon: radius in pixel units of ``bounds``; a scalar, ``[B]``, or for linf also ``[B, H, W, 1 or C]``.
    bounds: lowest and highest pixel value.
    mask: 1 where a pixel may change, 0 where it may not; broadcasts against ``[B, H, W, C]``; None = everywhere.
    projection: 'exact' is the Euclidean projection onto ball and box together. 'scale_then_clip' scales into the ball,
        then clips to the box: feasible, but not the nearest point; published L2 recipes use it, and in l1 it is a much
        weaker adversary. Equal for linf.
    """

    norm: str = "linf"
    epsilon: Scalar = 8 / 255
    bounds: tuple[float, float] = (0.0, 1.0)
    mask: Array | None = None
    projection: str = "exact"

    def __post_init__(self):
        checks.one_of("norm", self.norm, NORMS)
        checks.one_of("projection", self.projection, PROJECTIONS)
        if not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"Threat.bounds must be (low, high) with low < high, got {self.bounds}.")
        if isinstance(self.epsilon, int | float) and not self.epsilon >= 0:
            raise ValueError(f"Threat.epsilon must be at least 0, got {self.epsilon}.")


def radius(threat: Threat, images: Images) -> Array:
    """Epsilon, not negative, in the dtype of ``images`` and in a shape that broadcasts against them."""
    epsilon = jnp.maximum(expand("Threat.epsilon", threat.epsilon, images), 0)
    if threat.norm != "linf" and epsilon.shape[1:] != (1, 1, 1):
        raise ValueError(f"Threat.epsilon per pixel needs norm 'linf', got norm {threat.norm!r}.")
    return epsilon


def expand(name: str, value: Scalar, images: Images) -> Array:
    """A scalar, ``[B]`` or ``[B, H, W, 1 or C]`` in the dtype of ``images`` and with four axes."""
    value = jnp.asarray(value, images.dtype)
    if value.ndim == 1 and value.shape != images.shape[:1]:
        raise ValueError(f"{name} has {value.shape[0]} entries for a batch of {images.shape[0]} images.")
    if value.ndim in (0, 1):
        return value.reshape((-1, 1, 1, 1))
    if value.ndim != images.ndim or any(a not in (1, b) for a, b in zip(value.shape, images.shape, strict=True)):
        raise ValueError(f"{name} of shape {value.shape} does not fit images of shape {images.shape}.")
    return value


def project(images: Images, origin: Images, threat: Threat) -> Images:
    """The point of the threat model around ``origin [B, H, W, C]`` that stands for ``images``.

    linf: ``clip(x, max(o - eps, low), min(o + eps, high))``. Exact, the Karush-Kuhn-Tucker point of ``min |x' - x|_2``
    over ball and box, with ``d = x - o``: l2 ``o + clip(s d, low - o, high - o)`` with the largest ``s <= 1``, l1
    ``o + sign(d) clip(|d| - t, 0, room)`` with the least ``t >= 0``, whose norm is at most eps.
    """
    low, high = threat.bounds
    epsilon = radius(threat, origin)
    free = _free(threat, origin)
    if threat.norm == "linf":
        room = jnp.where(free > 0, epsilon * free, 0)  # an infinite epsilon times a mask of 0 is NaN
        return jnp.clip(images, jnp.maximum(origin - room, low), jnp.minimum(origin + room, high))
    delta = (images - origin) * free
    if threat.projection == "scale_then_clip":
        scale = jnp.minimum(1, epsilon / jnp.maximum(norm(delta, threat.norm), _tiny(delta)))
        return jnp.clip(origin + scale * delta, low, high)
    room = jnp.where(delta > 0, high - origin, origin - low)
    if threat.norm == "l2":
        scaled = projections.l2_scale(delta, room, epsilon) * delta
        return origin + jnp.clip(scaled, low - origin, high - origin)
    left = jnp.clip(jnp.abs(delta) - projections.l1_threshold(delta, room, epsilon), 0, room)
    return jnp.clip(origin + jnp.sign(delta) * left, low, high)


def steepest(gradient: Array, threat: Threat, images: Images | None = None, sparsity: Scalar = 0.01) -> Array:
    """The step of unit norm along which the loss rises fastest: ``argmax <g, s>`` over ``|s| <= 1``.

    linf: ``sign(g)``; l2: ``g / |g|_2``. In l1 that is a single value, so that an attack would hardly move; taken
    instead is the sign on the share ``sparsity`` (a scalar or ``[B]``) of values with the largest ``|g|``, divided by
    their number; values that ``images`` show at the edge of the box that g pushes them out of are passed over (SLIDE,
    Tramer and Boneh 2019).

    Only pixels that may change count. An example whose gradient is zero, or holds NaN or infinity, gets the zero step,
    and its neighbours are not touched.
    """
    finite = jnp.all(jnp.isfinite(gradient), axis=(1, 2, 3), keepdims=True)
    gradient = jnp.where(finite, gradient, 0) * _free(threat, gradient)
    if threat.norm == "linf":
        return jnp.sign(gradient)
    if threat.norm == "l1":
        return _sparse_sign(gradient, threat, images, expand("sparsity", sparsity, gradient))
    largest = jnp.max(jnp.abs(gradient), axis=(1, 2, 3), keepdims=True)
    gradient = gradient / jnp.where(largest > 0, largest, 1)
    return gradient / jnp.where(largest > 0, norm(gradient), 1)


def _sparse_sign(gradient: Array, threat: Threat, images: Images | None, sparsity: Array) -> Array:
    if images is not None:
        low, high = threat.bounds
        blocked = ((images <= low) & (gradient < 0)) | ((images >= high) & (gradient > 0))
        gradient = jnp.where(blocked, 0, gradient)
    num = math.prod(gradient.shape[1:])
    k = jnp.clip(jnp.round(sparsity * num), 1, num).astype(jnp.int32)
    chosen = jnp.where(projections.largest(jnp.abs(gradient), k), jnp.sign(gradient), 0)
    return chosen / jnp.maximum(total(jnp.abs(chosen)), 1)


def start(key: Key, origin: Images, threat: Threat, kind: str, scale: Scalar = 0.001) -> Images:
    """A random point of the threat model around ``origin``.

    kind: 'none' = ``origin``; 'uniform' = uniform in the ball; 'sphere' = on its surface (linf: a uniform direction
    stretched until one pixel reaches epsilon; l2, l1: uniform on the sphere); 'gaussian' = ``scale`` times a normal
    draw (TRADES). Each is drawn among the pixels that may change and then brought into the threat model.
    """
    checks.one_of("start", kind, STARTS)
    if kind == "none":
        return project(origin, origin, threat)
    free = jnp.broadcast_to(_free(threat, origin), origin.shape)
    epsilon = radius(threat, origin)
    if kind == "gaussian":
        delta = expand("start_scale", scale, origin) * _normal(key, origin) * free
    elif threat.norm == "linf":
        delta = randomness.draw(jax.random.uniform, key, origin.shape, origin.dtype, minval=-1.0, maxval=1.0) * free
        if kind == "sphere":
            largest = jnp.max(jnp.abs(delta), axis=(1, 2, 3), keepdims=True)
            delta = delta / jnp.where(largest > 0, largest, 1)
        delta = epsilon * delta
    else:
        delta = epsilon * _unit_draw(key, origin, free, threat.norm, inside=kind == "uniform")
    return project(origin + delta, origin, threat)


def _unit_draw(key: Key, origin: Images, free: Array, norm_name: str, *, inside: bool) -> Array:
    """Uniform on the unit sphere among the free values, or in the unit ball.

    l2: a normal direction, and a length ``U^(1/n)``. l1: exponential sizes over their sum with random signs; one more
    exponential in the sum makes it the ball.
    """
    key_direction, key_length = randomness.split(key)
    one_each = (origin.shape[0], 1, 1, 1)
    if norm_name == "l2":
        direction = _normal(key_direction, origin) * free
        length = jnp.ones(one_each, origin.dtype)
        if inside:
            u = randomness.draw(jax.random.uniform, key_length, one_each, origin.dtype)
            length = u ** (1 / jnp.maximum(total(free), 1))
        return length * direction / jnp.maximum(norm(direction), _tiny(direction))
    signed = randomness.draw(jax.random.laplace, key_direction, origin.shape, origin.dtype) * free
    size = norm(signed, "l1")
    if inside:
        size = size + randomness.draw(jax.random.exponential, key_length, one_each, origin.dtype)
    return signed / jnp.maximum(size, _tiny(signed))


def distance(images: Images, origin: Images, threat: Threat) -> Array:
    """The norm of ``images - origin`` per example, ``[B]``: what epsilon bounds."""
    return norm(images - origin, threat.norm)[:, 0, 0, 0]


def norm(delta: Array, name: str = "l2") -> Array:
    """l1, l2 or linf norm per example, ``[B, 1, 1, 1]``."""
    if name == "linf":
        return jnp.max(jnp.abs(delta), axis=(1, 2, 3), keepdims=True)
    return total(jnp.abs(delta)) if name == "l1" else jnp.sqrt(total(delta**2))


def _normal(key: Key, origin: Images) -> Array:
    return randomness.draw(jax.random.normal, key, origin.shape, origin.dtype)


def _free(threat: Threat, images: Images) -> Array:
    if threat.mask is None:
        return jnp.ones((1, 1, 1, 1), images.dtype)
    checks.rank("Threat.mask", threat.mask, 4)
    return expand("Threat.mask", threat.mask, images)


def _tiny(values: Array) -> float:
    return float(jnp.finfo(values.dtype).tiny)
