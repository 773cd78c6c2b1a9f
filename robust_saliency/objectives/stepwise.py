"""An adversary whose threat model is decided anew between steps: by the map of the iterate, or until it succeeds."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import attacks, rows
from robust_saliency.objectives import protection
from robust_saliency.types import Array, Images, Key, LogitsFn, LossFn


class Stepwise(NamedTuple):
    """Adversaries ``[B, H, W, C]``, the room ``[B, H, W]`` and the share of epsilon ``[B]`` of each one's last step."""

    images: Images
    room: Array
    strength: Array


class _Running(NamedTuple):
    """Between two steps. ``going`` ``[B]``: who has not flipped. Of all leaves the batch is the first axis."""

    attack: Any
    room: Array
    strength: Array
    going: Array


def step_by_step(
    loss_fn: LossFn,
    logits_fn: LogitsFn,
    room_at: Callable[[Images, int | Array], Array],
    key: Key,
    images: Images,
    spec,
) -> Stepwise:
    """``spec.attack``, PGD, step by step; ``room_at(images, step)`` is the room that the map of an iterate leaves.

    Step 0 and the start have the room of the clean images. With ``spec.renewed`` each later step has that of the
    iterate it starts from, onto which it also projects. With strength='until_flip' the start and step 0 have epsilon
    over ``num_steps``, each later step as much more; who predicts another class than for the clean image before a step
    takes no part in it or in any after it. No gradient flows through the result.
    """
    pieces, num_steps = attacks.iterated(spec.attack), spec.attack.num_steps
    grows = spec.strength == "until_flip"
    predicted = jnp.argmax(logits_fn(images), axis=-1)

    def confined(room: Array, strength: Array):
        model = protection.confined(spec.attack.threat, room, images, strength)
        return dataclasses.replace(spec.attack, threat=model, unroll=True)

    def step(number: int | Array, now: _Running, renew: bool) -> _Running:
        going = now.going
        if grows:
            going &= jnp.argmax(logits_fn(now.attack.images), axis=-1) == predicted
        room = room_at(now.attack.images, number) if renew else now.room
        strength = jnp.full_like(now.strength, (number + 1) / num_steps if grows else 1)
        moved = pieces.advance(loss_fn, now.attack, confined(room, strength), 1)
        return rows.choose(going, _Running(moved, room, strength, going), now._replace(going=going))

    first = room_at(images, 0)
    strength = jnp.full_like(first[:, 0, 0], 1 / max(num_steps, 1) if grows else 1)
    state = pieces.start(key, images, confined(first, strength))
    now = _Running(state, first, strength, jnp.ones_like(strength, bool))
    if num_steps > 0:
        now = step(0, now, renew=False)
    if spec.attack.unroll:
        for number in range(1, num_steps):
            now = step(number, now, spec.renewed)
    else:
        now = jax.lax.fori_loop(1, num_steps, lambda number, now: step(number, now, spec.renewed), now)
    return jax.lax.stop_gradient(Stepwise(pieces.finish(loss_fn, now.attack, spec.attack), now.room, now.strength))
