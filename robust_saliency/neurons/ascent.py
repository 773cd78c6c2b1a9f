"""Normalised-gradient ascent of a score over images, without a regulariser: what feature visualisation is made of.

Source: Engstrom et al. 2019 (1906.00945) and Santurkar et al. 2019 (1906.09453), whose code takes steps of length 1 in
L2 inside the box. It is the loop of projected gradient descent, but from an image that need not be anybody's, and
without an epsilon unless one is asked for.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks, threat
from robust_saliency.threat import Threat
from robust_saliency.types import Array, Images, Key, LossFn, Scalar, spec


@spec
class Ascent:
    """``x <- project(x + step_size g / |g|_2)``, ``num_steps`` times, g the gradient of the score at x.

    threat: box and ball around the first images; the default is the box [0, 1] alone. Its norm is that of the steps.
    step_size: pixels, in that norm; a scalar or ``[B]``. The published 1 is for 224 x 224 pixels.
    decay: share of the step size that is lost, evenly, until the last step: 0 keeps it, 1 ends at steps near 0. A step
        that does not get shorter circles around a maximum.
    start: 'none', or 'gaussian': the images under noise of deviation ``start_scale``. Noise around grey, as published,
        is grey images and a gaussian start.
    unroll: as of an attack.
    """

    threat: Threat = Threat(norm="l2", epsilon=math.inf)
    step_size: Scalar = 1.0
    num_steps: int = 200
    decay: Scalar = 0.0
    start: str = "none"
    start_scale: Scalar = 0.05
    unroll: bool = False

    def __post_init__(self):
        checks.one_of("start", self.start, ("gaussian", "none"))
        checks.at_least(0, num_steps=self.num_steps, where="Ascent")
        checks.known_within("Ascent.decay", self.decay, 0, 1)


class State(NamedTuple):
    """Between two steps: how many are done ``[B]``, the images begun with, and those reached."""

    step: Array
    origin: Images
    images: Images


def ascend(score_fn: LossFn, key: Key, images: Images, spec: Ascent) -> Images:
    """Images of higher ``score_fn(images) -> [B]``, from ``images [B, H, W, C]``: the last of the steps.

    A step of an image without a gradient (a unit that is silent there) is none. No gradient flows through the result.
    ValueError for images that are not floating ``[B, H, W, C]`` or known to leave the box.
    """
    return jax.lax.stop_gradient(advance(score_fn, start(key, images, spec), spec, spec.num_steps).images)


def start(key: Key, images: Images, spec: Ascent) -> State:
    """The state before the first step."""
    checks.rank("images", images, 4)
    checks.floating("images", images)
    checks.known_in_bounds(images, spec.threat.bounds)
    origin = jnp.clip(images.astype(jnp.promote_types(images.dtype, jnp.float32)), *spec.threat.bounds)
    first = threat.start(key, origin, spec.threat, spec.start, spec.start_scale)
    return State(jnp.zeros(len(images), jnp.int32), origin, first)


def advance(score_fn: LossFn, state: State, spec: Ascent, num_steps: int) -> State:
    """``num_steps`` further steps: compile ten once and call it again."""
    step_size = threat.expand("Ascent.step_size", spec.step_size, state.images)

    def step(state: State) -> State:
        gradient = jax.grad(lambda images: jnp.sum(score_fn(images)))(state.images)
        done = (state.step / max(spec.num_steps, 1)).astype(gradient.dtype)[:, None, None, None]
        length = step_size * jnp.maximum(1 - spec.decay * done, 0)
        moved = state.images + length * threat.steepest(gradient, spec.threat, state.images)
        return State(state.step + 1, state.origin, threat.project(moved, state.origin, spec.threat))

    if not spec.unroll:
        return jax.lax.fori_loop(0, num_steps, lambda _, state: step(state), state)
    for _ in range(num_steps):
        state = step(state)
    return state
