"""The smallest epsilon that fools each example: the whole curve of robust accuracy from one bisection."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.attacks.result import AttackResult
from robust_saliency.types import Array, Images, Scalar


class Bracket(NamedTuple):
    """``low <= smallest epsilon <= high``, ``[B]`` each, as far as the attack can tell.

    high is the norm of an adversary, 0 for an example that is wrong without one, infinite where the highest epsilon
    fooled nobody; low is the largest epsilon at which the attack failed, so only as good as the attack. images: that
    adversary, or the strongest try at the highest epsilon.
    """

    low: Array
    high: Array
    images: Images


def minimal_epsilon(
    attack: Callable[[Array, Images], AttackResult], highest: Scalar, images: Images, num_searches: int
) -> Bracket:
    """Bisects epsilon in ``[0, highest]`` for each of ``images [B, H, W, C]`` with ``attack(epsilon [B], init)``.

    init: where the attack may start (``APGD.init``): the nearest adversary so far, which it brings into the smaller
        ball; before there is one, ``images``. Measured, this is no gain for APGD, whose first step leaves it at once:
        20 steps on the linf network of the quickstart find epsilons 1.02 times as large as from random starts.

    The width of a bracket is at most ``highest / 2^num_searches``: an adversary closer than epsilon narrows it further.
    ValueError for a highest epsilon that is known not to be positive, and for less than one search.
    """
    checks.known_positive("minimal_epsilon: highest", highest)
    checks.at_least(1, num_searches=num_searches, where="minimal_epsilon")
    bracket = begun(attack(jnp.full(images.shape[:1], highest, jnp.float32), images), highest)

    def search(_, bracket: Bracket) -> Bracket:
        epsilon = middle(bracket, highest)
        return narrowed(bracket, attack(epsilon, bracket.images), epsilon)

    return jax.lax.fori_loop(0, num_searches, search, bracket)


def begun(result: AttackResult, highest: Scalar) -> Bracket:
    """The bracket after an attack with the highest epsilon."""
    distance = result.distance
    return Bracket(
        low=jnp.where(result.success, 0, highest).astype(distance.dtype),
        high=jnp.where(result.success, distance, jnp.inf),
        images=result.images,
    )


def middle(bracket: Bracket, highest: Scalar) -> Array:
    """The epsilon to try next."""
    return (bracket.low + jnp.minimum(bracket.high, highest)) / 2


def narrowed(bracket: Bracket, result: AttackResult, epsilon: Array) -> Bracket:
    """The bracket after an attack with ``epsilon``; an example that the highest did not fool keeps its own."""
    open_ = jnp.isfinite(bracket.high)
    closer = open_ & result.success & (result.distance < bracket.high)
    return Bracket(
        low=jnp.where(open_ & ~result.success, jnp.maximum(bracket.low, epsilon), bracket.low),
        high=jnp.where(closer, result.distance, bracket.high),
        images=jnp.where(closer[:, None, None, None], result.images, bracket.images),
    )


def seeded(tries: Sequence[tuple[Array, AttackResult]]) -> Bracket:
    """The bracket after attacks with several epsilons ``[B]``: the nearest adversary, and the largest failure below."""
    first = tries[0][1]
    bracket = Bracket(jnp.zeros_like(first.distance), jnp.full_like(first.distance, jnp.inf), first.images)
    for _, result in tries:
        closer = result.success & (result.distance < bracket.high)
        images = jnp.where(closer[:, None, None, None], result.images, bracket.images)
        bracket = bracket._replace(high=jnp.where(closer, result.distance, bracket.high), images=images)
    low = bracket.low
    for epsilon, result in tries:
        low = jnp.where(~result.success & (epsilon < bracket.high), jnp.maximum(low, epsilon), low)
    return bracket._replace(low=low)


def following(bracket: Bracket, highest: Scalar) -> Array:
    """The epsilon to try next from a bracket of :func:`seeded`: twice ``low``, at most ``highest``, until one fools.

    Then the middle: ``sqrt(low high)``, or half of ``high`` where nothing has failed yet.
    """
    low, high = bracket.low, bracket.high
    middle = jnp.where(low > 0, jnp.sqrt(low * jnp.where(jnp.isfinite(high), high, 1)), high / 2)
    return jnp.where(jnp.isfinite(high), middle, jnp.minimum(2 * low, highest))


def tightened(bracket: Bracket, result: AttackResult, epsilon: Array) -> Bracket:
    """The bracket after an attack with the epsilon that :func:`following` gave."""
    closer = result.success & (result.distance < bracket.high)
    return Bracket(
        low=jnp.where(result.success, bracket.low, jnp.maximum(bracket.low, epsilon)),
        high=jnp.where(closer, result.distance, bracket.high),
        images=jnp.where(closer[:, None, None, None], result.images, bracket.images),
    )


def is_open(bracket: Bracket, highest: Scalar, least: Scalar, share: float) -> Array:
    """Whether more tries would tell more, ``[B]``.

    True while the bracket is wider than ``share`` of its value or of ``least``, whichever is larger, and where nothing
    up to ``highest`` has been seen to fool.
    """
    known = bracket.high - bracket.low <= share * jnp.maximum(bracket.high, least)
    return jnp.where(jnp.isfinite(bracket.high), ~known, bracket.low < highest)


def robust_share(high: Array, epsilons: Array) -> Array:
    """Share of examples that no adversary within each of ``epsilons [E]`` was found for, ``[E]``."""
    return jnp.mean(high[None, :] > jnp.asarray(epsilons)[:, None], axis=1)
