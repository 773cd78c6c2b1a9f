"""Restarts: one attack from several random points at once, of which the worst counts for each example."""

import jax
import jax.numpy as jnp

from robust_saliency import randomness, samples
from robust_saliency.attacks.iterated import Iterated
from robust_saliency.types import Array, Images, Key, LossFn


def with_restarts(pieces: Iterated) -> Iterated:
    """``pieces`` run ``spec.num_restarts`` times side by side: one program, no loop over restarts.

    A state has the restarts on the second axis of every leaf, ``[B, R, ...]``; with one restart there is no such axis.
    finish() gives for each example the images of highest loss; a loss that is NaN counts as the lowest.
    """

    def start(key: Key, images: Images, spec):
        if spec.num_restarts == 1:
            return pieces.start(key, images, spec)
        keys = randomness.split(key, spec.num_restarts)
        return jax.vmap(lambda key: pieces.start(key, images, spec), out_axes=1)(keys)

    def advance(loss_fn: LossFn, state, spec, num_steps: int):
        if spec.num_restarts == 1:
            return pieces.advance(loss_fn, state, spec, num_steps)
        state = jax.tree.map(samples.spread, state)
        return jax.vmap(lambda state: pieces.advance(loss_fn, state, spec, num_steps), 1, 1)(state)

    def finish(loss_fn: LossFn, state, spec) -> Images:
        if spec.num_restarts == 1:
            return pieces.finish(loss_fn, state, spec)

        def tried(state) -> tuple[Images, Array]:
            images = pieces.finish(loss_fn, state, spec)
            return images, pieces.seen(loss_fn, state, spec)(images)

        images, losses = jax.vmap(tried, in_axes=1)(state)
        worst = jnp.argmax(jnp.where(jnp.isnan(losses), -jnp.inf, losses), axis=0)
        return jnp.take_along_axis(images, worst[None, :, None, None, None], axis=0)[0]

    return Iterated(start, advance, finish, pieces.seen)
