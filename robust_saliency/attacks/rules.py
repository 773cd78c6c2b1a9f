"""Update rules of optax by name, with a state of its own for each example."""

from typing import Any

import jax
import optax

from robust_saliency import checks
from robust_saliency.types import Array

RULES = {
    "adabelief": optax.scale_by_belief,
    "adam": optax.scale_by_adam,
    "lion": optax.scale_by_lion,
    "radam": optax.scale_by_radam,
    "rmsprop": optax.scale_by_rms,
    "yogi": optax.scale_by_yogi,
}


def start(name: str, like: Array) -> Any:
    """The state before the first step for values of the shape of ``like [B, ...]``; every leaf has the batch first."""
    return jax.vmap(checks.lookup("rule", name, RULES)().init)(like)


def descend(name: str, gradient: Array, state: Any) -> tuple[Array, Any]:
    """The direction to add, about -1 to 1 a value, so that what ``gradient [B, ...]`` is of falls; and the next state.

    The gradient must be finite: most rules never forget an infinity.
    """
    update, state = jax.vmap(checks.lookup("rule", name, RULES)().update)(gradient, state)
    return -update, state
