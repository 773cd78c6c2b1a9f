"""Square attack (Andriushchenko et al. 2020, 1912.00049): random search with square changes, without gradients."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import checks, losses, randomness, threat
from robust_saliency.attacks.iterated import Iterated
from robust_saliency.attacks.pgd import clean
from robust_saliency.attacks.result import AttackResult, judge
from robust_saliency.threat import Threat
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Scalar, spec

# The share of pixels in a square halves after these queries of 10,000.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@spec
class Square:
    """A random square is changed in each step, and the change is kept where it raises the margin ``max z_k - z_y``.

    linf (algorithm 2): starts from vertical stripes of ``+-epsilon``; a square takes one random sign of ``epsilon`` for
    each channel. l2 (algorithm 3): starts from a grid of bumps (two pyramids of opposite sign in a square); window 1
    gets a bump added to its direction, and the norm of window 2, which is set to zero, and what of epsilon is unused.
    l1 is a reconstruction of the version in the code of 2103.01208: algorithm 3 with l1 norms, in which each of the C
    channels of window 1 gets C times the norm that all channels have in both windows. That is more than epsilon where
    C > 1, so that the exact projection leaves a sparse perturbation: much stronger than channels that keep their norm.

    num_steps: queries after the one of the start. An example that is fooled keeps its image.
    rescaled: the schedule of squares is stretched over ``num_steps``. False leaves it at 10,000 queries, of which an
        attack of fewer sees the beginning: so it is in the authors' AutoAttack.
    p_init: share of the pixels in the first squares, a scalar or ``[B]``; it halves nine times, see
        :func:`halving_steps`.
    unroll: unrolled steps instead of a rolled loop.

    Source: the papers, and the authors' code for the schedule, for sides (l2, l1: odd and 3 or more) and for bumps.
    Unlike there, each example has its own positions, signs and turns; squares reach the last row and column; a side is
    no longer than the image's shorter one; the grid is centred on both axes. A linf square that would change nothing
    takes the opposite signs (the authors' first code draws again, that of AutoAttack spends the query).
    """

    threat: Threat = Threat()
    num_steps: int = 5000
    rescaled: bool = True
    p_init: Scalar = 0.8
    unroll: bool = False

    def __post_init__(self):
        checks.at_least(0, num_steps=self.num_steps, where="Square")
        if isinstance(self.p_init, int | float) and not 0 < self.p_init <= 1:
            raise ValueError(f"Square.p_init must be above 0 and at most 1, got {self.p_init}.")

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes of an image."""
        return self.num_steps + 1, 0


class State(NamedTuple):
    """An attack between two steps, all of it per example: rows may be dropped, moved and refilled.

    step: int32 ``[B]``, how many are done. key: key array ``[B]``. images: the strongest try. margin: its margin, at
    least 0 once the example is fooled; -inf where it was NaN.
    """

    step: Array
    key: Key
    origin: Images
    images: Images
    labels: Labels
    margin: Array


def square(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Square) -> AttackResult:
    """The attack away from ``labels``."""
    state = start(logits_fn, key, images, labels, spec)
    state = advance(logits_fn, state, spec, spec.num_steps)
    return judge(logits_fn, finish(logits_fn, state, spec), state.origin, labels, spec.threat, *spec.passes)


def start(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Square) -> State:
    """The state before the first step; spends one query.

    A single key is split into one an example. With a key an example, the result of an example does not depend on the
    batch around it, unless the keys are 'rbg': of those JAX draws a whole batch from the first, so that nothing new is
    drawn once the first example is past its last step.
    """
    origin = jax.lax.stop_gradient(clean(images, spec.threat))
    keys = key if randomness.is_per_example(key) else jax.random.split(key, len(origin))
    first = (_stripes if spec.threat.norm == "linf" else _grid)(randomness.fold_in(keys, 0), origin, spec.threat)
    step = jnp.zeros_like(labels, jnp.int32)
    return State(step, keys, origin, first, labels, _margin(logits_fn, first, labels))


def advance(logits_fn: LogitsFn, state: State, spec: Square, num_steps: int) -> State:
    """``num_steps`` further steps; those of an example past ``spec.num_steps`` change nothing."""
    propose = _square if spec.threat.norm == "linf" else _windows

    def step(state: State) -> State:
        # 0 is the stream of the start.
        key = jax.vmap(jax.random.fold_in)(state.key, state.step + 1)
        tried = propose(key, state, spec)
        margin = _margin(logits_fn, tried, state.labels).astype(state.margin.dtype)
        goes_on = state.step < spec.num_steps
        better = goes_on & (state.margin < 0) & (margin > state.margin)
        return state._replace(
            step=state.step + goes_on,
            images=jnp.where(better[:, None, None, None], tried, state.images),
            margin=jnp.where(better, margin, state.margin),
        )

    if spec.unroll:
        for _ in range(num_steps):
            state = step(state)
        return state
    return jax.lax.fori_loop(0, num_steps, lambda _, state: step(state), state)


def finish(logits_fn: LogitsFn, state: State, spec: Square) -> Images:
    """The image of highest margin."""
    return jax.lax.stop_gradient(state.images)


PIECES = Iterated(start, advance, finish)


def halving_steps(num_steps: int) -> list[int]:
    """The first steps with half the share of the steps before, from 0: 11, 51, 201, ... of 10,000, 6, 26, ... of 5,000.

    Those at which ``floor(10000 step / num_steps)`` has passed 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000.
    """
    return [-(-(point + 1) * num_steps // 10_000) for point in HALVINGS]


def side(step: Array, spec: Square, height: int, width: int) -> Array:
    """Side of the square in step ``step [B]``, int32 ``[B]``: ``sqrt(p H W)`` rounded, p the share of the schedule."""
    halving = jnp.asarray(halving_steps(spec.num_steps if spec.rescaled else 10_000))
    halvings = jnp.sum(step[:, None] >= halving[None], axis=1)
    share = jnp.asarray(spec.p_init, jnp.float32).reshape(-1) * 0.5**halvings
    length = jnp.round(jnp.sqrt(share * (height * width))).astype(jnp.int32)
    shorter = min(height, width)
    if spec.threat.norm == "linf":
        return jnp.clip(length, 1, shorter)
    length = jnp.maximum(length, 3)
    return jnp.minimum(length + 1 - length % 2, shorter - 1 + shorter % 2)


def _margin(logits_fn: LogitsFn, images: Images, labels: Labels) -> Array:
    margin = jax.lax.stop_gradient(losses.margin(logits_fn(images), labels))
    return jnp.where(jnp.isnan(margin), -jnp.inf, margin)


def _stripes(key: Key, origin: Images, model: Threat) -> Images:
    count, _, width, channels = origin.shape
    signs = _signs(_uniform(key, (count, 1, width, channels)), origin)
    return threat.project(origin + threat.radius(model, origin) * signs, origin, model)


def _square(key: Key, state: State, spec: Square) -> Images:
    count, height, width, channels = state.images.shape
    u = _uniform(key, (count, 2 + channels))
    rows, columns = _places(u[:, :2], side(state.step, spec, height, width), height, width)
    inside = _inside(rows, columns, side(state.step, spec, height, width))
    change = threat.radius(spec.threat, state.origin) * _signs(u[:, None, None, 2:], state.origin)

    def painted(change: Array) -> Images:
        return jnp.where(inside, threat.project(state.origin + change, state.origin, spec.threat), state.images)

    tried = painted(change)
    same = jnp.all(tried == state.images, axis=(1, 2, 3), keepdims=True)
    return jnp.where(same, painted(-change), tried)


def _grid(key: Key, origin: Images, model: Threat) -> Images:
    count, height, width, channels = origin.shape
    length = max(min(height, width) // 5, 1)
    down, across = height // length, width // length
    u = _uniform(key, (count, down, 1, across, 1, 1 + channels))
    rows, columns = (jnp.arange(length).reshape(shape) for shape in ((1, -1, 1), (1, 1, -1)))
    bump = _bump(rows, columns, jnp.full(1, length), model.norm).reshape(1, 1, length, 1, length, 1)
    bumps = jnp.where(u[..., :1] < 0.5, bump, jnp.swapaxes(bump, 2, 4)) * _signs(u[..., 1:], origin)
    delta = bumps.reshape(count, down * length, across * length, channels)
    above, left = (height - down * length) // 2, (width - across * length) // 2
    below, right = height - down * length - above, width - across * length - left
    delta = jnp.pad(delta, ((0, 0), (above, below), (left, right), (0, 0)))
    return _stretched(delta * _free(model, origin), origin, model)


def _windows(key: Key, state: State, spec: Square) -> Images:
    """Algorithm 3: window 1 gets a bump, the norm of both windows, and what is unused."""
    count, height, width, channels = state.images.shape
    model, norm_name = spec.threat, spec.threat.norm
    length = side(state.step, spec, height, width)
    u = _uniform(key, (count, 5 + channels))
    rows, columns = _places(u[:, :2], length, height, width)
    first = _inside(rows, columns, length)
    second = _inside(*_places(u[:, 2:4], length, height, width), length)
    turned = u[:, 4, None, None] < 0.5
    bump = _bump(jnp.where(turned, columns, rows), jnp.where(turned, rows, columns), length, norm_name)
    bump = bump[..., None] * _signs(u[:, None, None, 5:], state.origin) * _free(model, state.origin)

    delta = state.images - state.origin
    both = jnp.where(first | second, delta, 0)
    available = _available(delta, both, threat.radius(model, state.origin), norm_name)
    new = bump + _unit(jnp.where(first, delta, 0), norm_name)
    delta = jnp.where(first, available * _unit(new, norm_name), jnp.where(second, 0, delta))
    return _stretched(delta, state.origin, model)


def _available(delta: Array, both: Array, epsilon: Array, norm_name: str) -> Array:
    """The norm of each channel of window 1 to be; ``both`` is ``delta`` in the two windows."""
    channels = delta.shape[-1]
    if norm_name == "l1":
        return channels * threat.norm(both, "l1") + jnp.maximum(epsilon - threat.norm(delta, "l1"), 0)
    unused = jnp.maximum(epsilon**2 - threat.norm(delta) ** 2, 0)
    return jnp.sqrt(_size(both, "l2") ** 2 + unused / channels)


def _stretched(delta: Array, origin: Images, model: Threat) -> Images:
    """``delta`` brought to norm epsilon, then into the box; in l1 what is longer is left to the projection."""
    scale = _over(threat.radius(model, origin), threat.norm(delta, model.norm))
    if model.norm == "l1":
        scale = jnp.maximum(scale, 1)
    else:
        # On the sphere the two projections are one, and this one is cheap.
        model = dataclasses.replace(model, projection="scale_then_clip")
    return threat.project(origin + scale * delta, origin, model)


def _bump(rows: Array, columns: Array, length: Array, norm_name: str) -> Array:
    """Two pyramids of equal norm, the lower one negative, together of norm 1: ``[B, H, W]``, 0 outside the square.

    Each, ``h1 x h2`` values, has at distance d (the larger one of those along the axes) from its middle
    ``(h1 // 2, h2 // 2)`` the sum of ``1 / j^2`` over ``d < j <= length // 2 + 1``.
    """
    length = length[:, None, None]
    inside = _inside(rows, columns, length[:, 0, 0])[..., 0]
    upper = rows < length // 2
    height = jnp.where(upper, length // 2, length - length // 2)
    row = jnp.where(upper, rows, rows - length // 2)
    distance = jnp.maximum(jnp.abs(row - height // 2), jnp.abs(columns - length // 2))
    terms = 1 / np.arange(1, max(rows.shape[1], columns.shape[2]) // 2 + 2, dtype=np.float32) ** 2
    sums = jnp.asarray(np.concatenate([[0], np.cumsum(terms)]), jnp.float32)
    pyramid = sums[length // 2 + 1] - sums[jnp.minimum(distance, length // 2 + 1)]
    halves = [jnp.where(inside & half, pyramid, 0)[..., None] for half in (upper, ~upper)]
    return _unit(_unit(halves[0], norm_name) - _unit(halves[1], norm_name), norm_name)[..., 0]


def _places(u: Array, length: Array, height: int, width: int) -> tuple[Array, Array]:
    """Row ``[B, H, 1]`` and column ``[B, 1, W]`` from the corner of the square that ``u [B, 2]`` picks."""
    top, left = (jnp.floor(u[:, k] * (n - length + 1)).astype(jnp.int32) for k, n in enumerate((height, width)))
    rows = jnp.arange(height)[None, :, None] - top[:, None, None]
    return rows, jnp.arange(width)[None, None, :] - left[:, None, None]


def _inside(rows: Array, columns: Array, length: Array) -> Array:
    """True in the square, ``[B, H, W, 1]``."""
    length = length[:, None, None]
    return ((rows >= 0) & (rows < length) & (columns >= 0) & (columns < length))[..., None]


def _size(delta: Array, norm_name: str) -> Array:
    """Norm of each channel, ``[B, 1, 1, C]``."""
    if norm_name == "l1":
        return jnp.sum(jnp.abs(delta), axis=(1, 2), keepdims=True)
    return jnp.sqrt(jnp.sum(delta**2, axis=(1, 2), keepdims=True))


def _unit(delta: Array, norm_name: str) -> Array:
    """Each channel over its norm; zero stays zero."""
    return _over(delta, _size(delta, norm_name))


def _over(delta: Array, size: Array) -> Array:
    return delta / jnp.where(size > 0, size, 1)


def _uniform(key: Key, shape: tuple[int, ...]) -> Array:
    return randomness.draw(jax.random.uniform, key, shape)


def _signs(u: Array, like: Array) -> Array:
    return jnp.where(u < 0.5, -1, 1).astype(like.dtype)


def _free(model: Threat, images: Images) -> Array:
    if model.mask is None:
        return jnp.ones((1, 1, 1, 1), images.dtype)
    return threat.expand("Threat.mask", model.mask, images)
