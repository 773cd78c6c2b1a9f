"""Expectation over transformation (Athalye et al. 2018, 1802.00420, section 4.2): to attack a network that is random.

A random loss is ``loss_fn(images, keys) -> [B]``, with one key an example to draw from, as
:func:`robust_saliency.randomness.draw` does. An attack with ``eot_samples`` raises its mean over so many draws, new
ones in each step.
"""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp

from robust_saliency import randomness
from robust_saliency.types import Array, Images, Key, LogitsFn, LossFn

_DRAWS, _JUDGEMENT = 0x0E07, 0x0E08  # so that no draw repeats that of the start


def keys_of(key: Key, batch: int, samples: int) -> Key | None:
    """The key of each example ``[B]`` that draws come from; None where nothing is drawn."""
    if not samples:
        return None
    key = randomness.fold_in(key, _DRAWS)
    return key if randomness.is_per_example(key) else jax.random.split(key, batch)


def seen(loss_fn: Callable, keys: Key | None, step: Array, samples: int) -> LossFn:
    """The mean of ``loss_fn(images, keys)`` over the draws of ``step [B]``, as a function of the images alone.

    All draws are computed at once: ``samples`` times the memory of one. With no samples, ``loss_fn`` as it is.
    """
    if not samples:
        return loss_fn
    _takes_keys(loss_fn, "loss_fn")
    draws = randomness.split(jax.vmap(jax.random.fold_in)(keys, step), samples)
    return lambda images: jnp.mean(jax.vmap(loss_fn, (None, 0))(images, draws), axis=0)


def judged(logits_fn: Callable, key: Key, batch: int, samples: int) -> LogitsFn:
    """What a random network says on the average: ``log mean_s softmax(logits_fn(images, keys_s))``, ``[B, K]``.

    The draws are always the same, and none of those that an attack sees. With no samples, ``logits_fn`` as it is.
    """
    if not samples:
        return logits_fn
    _takes_keys(logits_fn, "logits_fn")
    keys = keys_of(randomness.fold_in(key, _JUDGEMENT), batch, samples)
    draws = randomness.split(keys, samples)

    def logits(images: Images) -> Array:
        log_probabilities = jax.nn.log_softmax(jax.vmap(logits_fn, (None, 0))(images, draws), axis=-1)
        return jax.nn.logsumexp(log_probabilities, axis=0) - jnp.log(samples)

    return logits


def _takes_keys(function: Callable, name: str) -> None:
    """Raises ValueError for a function of the images alone, where it can be seen: that of a network not random."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind("images", "keys")
    except TypeError:
        raise ValueError(
            f"eot_samples, or version='rand', is for a random network: {name}(images, keys) with one key an example, "
            f"got {name}{signature}."
        ) from None
