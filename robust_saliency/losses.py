"""Losses per example, unreduced ``[B]``, in at least float32. Attacks maximise them, training minimises them."""

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.types import Array, Labels, Scalar

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


def smoothed_cross_entropy(logits: Array, labels: Labels, smoothing: Scalar) -> Array:
    """``logsumexp(z) - (1 - s) z_y - s mean_k z_k`` per example: cross-entropy with a smoothed target; nats.

    The target is ``1 - s + s / K`` on the label and ``s / K`` on each other class, ``smoothing`` s in [0, 1]; 0 is
    :func:`cross_entropy`. Least, and then above 0, where the probabilities are the target. Source: Szegedy et al. 2016
    (1512.00567), section 7.
    """
    logits = _checked(logits, labels)
    return cross_entropy(logits, labels) + smoothing * (_score(logits, labels) - jnp.mean(logits, axis=-1))


def boosted_cross_entropy(logits: Array, labels: Labels) -> Array:
    """``-log p_y - log(1.0001 - max_{k != y} p_k + 1e-12)`` per example: nats, higher = further from the label.

    Besides raising the label it lowers the strongest other class. At least about -1e-4. Source: the BCE of MART (Wang
    et al. 2020, ICLR), with the constants of the authors' code.
    """
    logits = _checked(logits, labels)
    log_p = jax.nn.log_softmax(logits, axis=-1)
    strongest = jnp.exp(jnp.max(jnp.where(_one_hot(labels, logits), -jnp.inf, log_p), axis=-1))
    return -_score(log_p, labels) - jnp.log(1.0001 - strongest + 1e-12)


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
    log_p, log_q = (jax.nn.log_softmax(z, axis=-1) for z in _pair("KL", logits, other_logits))
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def js(logits: Array, other_logits: Array) -> Array:
    """``(KL(p || m) + KL(q || m)) / 2`` with ``m = (p + q) / 2`` per example: nats, in [0, log 2], symmetric.

    With ``d = log q - log p``, ``log(q / m) = log 2 + log sigmoid(d)``, which neither overflows nor divides by 0.
    Source: Lin 1991, equation 4.1 with equal weights, the Jensen-Shannon divergence.
    """
    log_p, log_q = (jax.nn.log_softmax(z, axis=-1) for z in _pair("JS", logits, other_logits))
    d = log_q - log_p
    of_p = jnp.exp(log_p) * (jax.nn.log_sigmoid(-d) - jax.nn.log_sigmoid(0.0))
    of_q = jnp.exp(log_q) * (jax.nn.log_sigmoid(d) - jax.nn.log_sigmoid(0.0))
    return jnp.sum(of_p + of_q, axis=-1) / 2


def logit_l2(logits: Array, other_logits: Array) -> Array:
    """``sum_k (z_k - z'_k)^2`` per example: squared logit units, >= 0; a shift of all logits counts, unlike in kl, js.

    Source: the pairing of logits of Kannan, Kurakin, Goodfellow 2018 (1803.06373), there a mean.
    """
    logits, other_logits = _pair("logit_l2", logits, other_logits)
    return jnp.sum(jnp.square(logits - other_logits), axis=-1)


LOSSES = {"cross_entropy": cross_entropy, "dlr": dlr, "margin": margin}
# Of two predictions: each is 0 where they are equal, and has no gradient there.
DIVERGENCES = {"js": js, "kl": kl, "logit_l2": logit_l2}


def _pair(name: str, logits: Array, other_logits: Array) -> tuple[Array, Array]:
    checks.rank("logits", logits, 2)
    if logits.shape != other_logits.shape:
        raise ValueError(f"{name} needs logits of one shape, got {logits.shape} and {other_logits.shape}.")
    return _widened(logits), _widened(other_logits)


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
