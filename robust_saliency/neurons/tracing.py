"""Tracing a prediction to units: what the score of a class loses when a unit is taken away.

Source: Dong, Bao, Su, Zhu 2019 (1901.09035), after the prediction difference of Zintgraf et al. 2017 (1702.04595). A
reconstruction: of the paper only a review could be read. Choices: the score, and what a unit is set to.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.neurons.units import pass_through
from robust_saliency.types import Array, Images, Labels, LogitsFn, Scalar, spec


@spec
class Tracing:
    """What is compared, and how a unit is taken away.

    score: of class c, 'logit' z_c, 'probability' softmax(z)_c, or 'log_odds' log(p_c / (1 - p_c)), in nats.
    value: what the whole map of a unit is set to: 0, or one value a unit ``[U]``, such as its mean over a data set.
    chunk_size: units taken away in one pass, so that a pass holds chunk_size * B images; 0 takes as many as
        ``max_images`` allows. The result does not depend on it, but for rounding.
    max_images: images in one pass when chunk_size is 0; a batch above it goes one unit at a time.
    """

    score: str = "logit"
    value: Scalar = 0.0
    chunk_size: int = 0
    max_images: int = 256

    def __post_init__(self):
        checks.one_of("score", self.score, _SCORES)
        checks.at_least(0, chunk_size=self.chunk_size, where="Tracing")
        checks.at_least(1, max_images=self.max_images, where="Tracing")


class Influences(NamedTuple):
    """The units that count most for and against a class, the strongest first, int32 ``[B, k]``, and what they count.

    Where fewer than k count: -1, and a difference of NaN.
    """

    supporting: Array
    support: Array
    opposing: Array
    opposition: Array


class Ablated(NamedTuple):
    """What the score of the class loses ``[B]``, and whether the network then names another class: bool ``[B]``."""

    lost: Array
    flipped: Array


def prediction_differences(
    logits_fn: LogitsFn, images: Images, labels: Labels, layer: str, spec: Tracing | None = None
) -> Array:
    """``f_c(h) - f_c(h with unit n set to value)`` for the class c of ``labels [B]`` and each unit: ``[B, U]``.

    In units of the score; above 0 the unit counts for the class; exactly 0 where the unit has that value already.
    Differences of units add up to the score only where what follows the layer is linear. ``logits_fn``: that of a
    :class:`models.Classifier`.

    Forward passes only: one of the whole network, and U of what follows the layer. In a compiled program what the
    layer replaces is dead code, which XLA leaves out; a shortcut around the layer is alive and is computed again for
    each unit, and outside of jit all is. Raises ValueError as :func:`activations` does, and for a ``value`` of
    another number of units.
    """
    spec = spec or Tracing()
    checks.same_batch(images=images, labels=labels)
    captured, logits = pass_through(logits_fn, images, (layer,))
    values = captured[layer]
    batch, units = len(images), values.shape[-1]
    absent = _absent(values, spec)

    def without(chosen: Array) -> Array:
        """The scores ``[B, chunk]`` without each of the chosen units; those of an image are neighbours in the pass."""
        is_chosen = (jnp.arange(units)[None] == chosen[:, None]).reshape(1, -1, *absent.shape[1:-1], units)
        changed = jnp.where(is_chosen, absent[None], values[:, None])
        flat = changed.reshape(-1, *values.shape[1:])
        logits = logits_fn.output(_copied(images, chunk), edit={layer: lambda _: flat}).logits
        return _score(logits, _copied(labels, chunk), spec.score).reshape(batch, chunk)

    chunk = min(units, spec.chunk_size or max(1, spec.max_images // max(1, batch)))
    passes = math.ceil(units / chunk)
    order = jnp.minimum(jnp.arange(passes * chunk), units - 1).reshape(passes, chunk)
    left = jnp.moveaxis(jax.lax.map(without, order), 0, 1).reshape(batch, -1)[:, :units]
    stays = (values == absent).reshape(batch, -1, units).all(1)
    return jnp.where(stays, 0, _score(logits, labels, spec.score)[:, None] - left)


def ablated(
    logits_fn: LogitsFn, images: Images, labels: Labels, layer: str, taken: Array, spec: Tracing | None = None
) -> Ablated:
    """``f_c(h) - f_c(h with all units of taken set to value)``, taken being bool ``[B, U]``; as
    :func:`prediction_differences`, which takes one unit at a time, and of which this is no sum."""
    spec = spec or Tracing()
    checks.same_batch(images=images, labels=labels, taken=taken)
    captured, logits = pass_through(logits_fn, images, (layer,))
    values = captured[layer]
    absent = _absent(values, spec)
    if taken.shape != (len(images), values.shape[-1]):
        raise ValueError(f"taken must be {(len(images), values.shape[-1])}, one a unit, got shape {taken.shape}.")
    goes = taken.reshape(len(images), *absent.shape[1:-1], -1)
    left = logits_fn.output(images, edit={layer: lambda _: jnp.where(goes, absent, values)}).logits
    lost = _score(logits, labels, spec.score) - _score(left, labels, spec.score)
    return Ablated(lost, jnp.argmax(left, -1) != jnp.argmax(logits, -1))


def most_influential(differences: Array, k: int) -> Influences:
    """The k units of largest difference above 0, and the k of lowest below, of each row of ``[B, U]``; ties by unit."""
    checks.rank("differences", differences, 2)
    checks.at_least(1, k=k, where="most_influential")
    return Influences(*_strongest(differences, k, 1), *_strongest(differences, k, -1))


def _strongest(differences: Array, k: int, sign: int) -> tuple[Array, Array]:
    counts = jnp.where(sign * differences > 0, sign * differences, jnp.nan)
    padded = jnp.pad(counts, ((0, 0), (0, max(0, k - counts.shape[1]))), constant_values=jnp.nan)
    unit = jax.lax.broadcasted_iota(jnp.int32, padded.shape, 1)
    falling, order = (array[:, :k] for array in jax.lax.sort((-padded, unit), dimension=1, num_keys=2))
    return jnp.where(jnp.isnan(falling), -1, order), -sign * falling


def _absent(values: Array, spec: Tracing) -> Array:
    """What a unit of ``values [B, ..., U]`` becomes, to be broadcast over them."""
    units = values.shape[-1]
    if jnp.shape(spec.value) not in ((), (units,)):
        raise ValueError(f"Tracing.value must be a number or [{units}], one a unit, got shape {jnp.shape(spec.value)}.")
    return jnp.broadcast_to(jnp.asarray(spec.value, values.dtype), (units,)).reshape((1,) * (values.ndim - 1) + (-1,))


def _copied(rows: Array, copies: int) -> Array:
    return jnp.broadcast_to(rows[:, None], (len(rows), copies, *rows.shape[1:])).reshape(-1, *rows.shape[1:])


def _score(logits: Array, labels: Labels, score: str) -> Array:
    checks.known_labels("labels", labels, logits.shape[1])
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return _SCORES[score](logits, labels)


def _logit(logits: Array, labels: Labels) -> Array:
    return jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]


def _log_odds(logits: Array, labels: Labels) -> Array:
    """``z_c - log sum_{k != c} exp z_k``, which is right where ``1 - p`` would be lost to rounding."""
    is_own = labels[:, None] == jnp.arange(logits.shape[1])[None]
    return _logit(logits, labels) - jax.nn.logsumexp(jnp.where(is_own, -jnp.inf, logits), axis=1)


_SCORES = {
    "log_odds": _log_odds,
    "logit": _logit,
    "probability": lambda logits, labels: _logit(jax.nn.softmax(logits), labels),
}
