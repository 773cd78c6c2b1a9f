"""Losses per example, unreduced ``[B]``, in at least float32. Attacks maximise them, training minimises them."""

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.types import Array, Labels

_LEAST_DIFFERENCE = 1e-12


def cross_entropy(logits: Array, labels: Labels) -> Array:
    """``logsumexp(z) - z_y`` per example: nats, >= 0, higher = further from the label.

    Computed as ``softplus(logsumexp_{k != y} z_k - z_y)``. As the difference it is exactly 0 in float32 from a margin
    of 17 on, and its gradient loses the part of z_y: it then points elsewhere, not merely to 0.
    """
    logits = _checked(logits, labels)
    others = jnp.where(_one_hot(labels, logits), -jnp.inf, logits)
    difference = jax.nn.logsumexp(others, axis=-1) - _score(logits, labels)
    # Of a label that is no class, as in a padded row, the value is NaN; its gradient must not be, times 0 it counts.
    known = ~jnp.isnan(difference)
    return jnp.where(known, jax.nn.softplus(jnp.where(known, difference, 0)), difference)


def margin(logits: Array, labels: Labels) -> Array:
    """``max_{k != y} z_k - z_y`` per example: logit units, positive once the example is fooled.

    The label is left out by its index, not by its value, so a tie with the label gives exactly 0. Unlike cross-entropy
    its gradient does not vanish on a confident model (Carlini and Wagner 2017, without the lower clip).
    """
    logits = _checked(logits, labels)
    others = jnp.where(_one_hot(labels, logits), -jnp.inf, logits)
    return jnp.max(others, axis=-1) - _score(logits, labels)


def dlr(logits: Array, labels: Labels) -> Array:
    """``(max_{k != y} z_k - z_y) / (z_(1) - z_(3))``, z sorted descending: difference of logits ratio, K >= 3.

    At least -1, positive once the example is fooled, 0 for a tie with the label; scaling or shifting the logits changes
    nothing, so a confident model cannot hide its gradient. The denominator is at least 1e-12. Source: Croce and Hein
    2020 (2003.01690), equation 6.
    """
    logits = _checked(logits, labels)
    _at_least(3, logits, "dlr")
    largest, _, third = _largest(logits, 3)
    return _ratio(margin(logits, labels), largest - third)


def targeted_margin(logits: Array, labels: Labels, targets: Labels) -> Array:
    """``z_t - z_y`` per example: logit units, positive once the target beats the label. Targets differ from labels."""
    logits = _checked(logits, labels)
    checks.known_labels("targets", targets, logits.shape[-1])
    checks.known_different(targets, labels)
    return _score(logits, targets) - _score(logits, labels)


def targeted_dlr(logits: Array, labels: Labels, targets: Labels) -> Array:
    """``(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2)``, z sorted descending; 4 classes or more; positive once t beats y.

    Source: Croce and Hein 2020 (2003.01690), equation 7.
    """
    logits = _checked(logits, labels)
    _at_least(4, logits, "targeted_dlr")
    largest, _, third, fourth = _largest(logits, 4)
    return _ratio(targeted_margin(logits, labels, targets), largest - (third + fourth) / 2)


def kl(logits: Array, other_logits: Array) -> Array:
    """``KL(p || q) = sum_k p_k (log p_k - log q_k)`` per example: nats, >= 0; ``p`` of ``logits``, ``q`` of the other.

    Computed from log-softmax, so a probability that underflows to 0 adds 0, not NaN.
    """
    checks.rank("logits", logits, 2)
    if logits.shape != other_logits.shape:
        raise ValueError(f"KL needs logits of one shape, got {logits.shape} and {other_logits.shape}.")
    log_p, log_q = (jax.nn.log_softmax(_widened(z), axis=-1) for z in (logits, other_logits))
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


LOSSES = {"cross_entropy": cross_entropy, "dlr": dlr, "margin": margin}


def _score(logits: Array, labels: Labels) -> Array:
    return jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]


def _one_hot(labels: Labels, logits: Array) -> Array:
    return labels[:, None] == jnp.arange(logits.shape[-1])[None, :]


def _largest(logits: Array, count: int) -> list[Array]:
    # Not top_k: XLA gathers a batch that is split over devices to compute it.
    order = jnp.argsort(-jax.lax.stop_gradient(logits), axis=-1)
    values = jnp.take_along_axis(logits, order[:, :count], axis=-1)
    return [values[:, k] for k in range(count)]


def _ratio(above: Array, below: Array) -> Array:
    return above / jnp.maximum(below, _LEAST_DIFFERENCE)


def _at_least(count: int, logits: Array, name: str) -> None:
    if logits.shape[-1] < count:
        raise ValueError(f"{name} needs at least {count} classes, got {logits.shape[-1]}; margin needs two.")


def _checked(logits: Array, labels: Labels) -> Array:
    checks.rank("logits", logits, 2)
    checks.rank("labels", labels, 1)
    checks.same_batch(logits=logits, labels=labels)
    if logits.shape[-1] < 2:
        raise ValueError(f"At least two classes are needed, got logits of shape {logits.shape}.")
    checks.known_labels("labels", labels, logits.shape[-1])
    return _widened(logits)


def _widened(logits: Array) -> Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
