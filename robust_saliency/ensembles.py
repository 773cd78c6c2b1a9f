"""Several models as one: what an adversary that must fool them all descends on."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import checks
from robust_saliency.types import Array, Images, LogitsFn, LossFn

COMBINE = ("logits", "probabilities")

Weights = Sequence[float] | Array | None  # one a model, at least 0; None: all the same


def ensemble_logits(logits_fns: Sequence[LogitsFn], weights: Weights = None, combine: str = "logits") -> LogitsFn:
    """The logits of the models together, ``[B, K]``, with weights w that are scaled to sum to one.

    combine: 'logits' gives ``sum_i w_i z_i``; 'probabilities' gives ``log sum_i w_i softmax(z_i)``, log-probabilities,
        never from a probability that has underflowed. Softmax of the first is the geometric mean of the models, of the
        second the arithmetic mean.
    """
    checks.one_of("combine", combine, COMBINE)
    shares = normalised(weights, len(logits_fns))

    def logits_fn(images: Images) -> Array:
        logits = _stacked("logits", [logits_fn(images) for logits_fn in logits_fns])
        if combine == "logits":
            return jnp.sum(shares.astype(logits.dtype)[:, None, None] * logits, axis=0)
        log_shares = jnp.log(shares).astype(logits.dtype)[:, None, None]
        return jax.nn.logsumexp(log_shares + jax.nn.log_softmax(logits, axis=-1), axis=0)

    return logits_fn


def ensemble_loss(loss_fns: Sequence[LossFn], weights: Weights = None) -> LossFn:
    """``sum_i w_i loss_i`` for each example, ``[B]``, with weights w that are scaled to sum to one."""
    shares = normalised(weights, len(loss_fns))

    def loss_fn(images: Images) -> Array:
        losses = _stacked("losses", [loss_fn(images) for loss_fn in loss_fns])
        return jnp.sum(shares.astype(losses.dtype)[:, None] * losses, axis=0)

    return loss_fn


def normalised(weights: Weights, num_models: int) -> Array:
    """``weights / sum(weights)``, ``[num_models]``; values are looked at where they are known while tracing."""
    if num_models < 1:
        raise ValueError("An ensemble needs at least one model, got none.")
    if weights is None:
        return jnp.full(num_models, 1 / num_models)
    if jnp.shape(weights) != (num_models,):
        raise ValueError(f"An ensemble of {num_models} models needs as many weights, got shape {jnp.shape(weights)}.")
    if not isinstance(weights, jax.core.Tracer):
        known = np.asarray(weights)
        if not (np.all(known >= 0) and 0 < np.sum(known) < np.inf):
            raise ValueError(f"Weights of an ensemble must be at least 0 and not all 0, got {known.tolist()}.")
    weights = jnp.asarray(weights, jnp.result_type(float))
    return weights / jnp.sum(weights)


def _stacked(name: str, values: list[Array]) -> Array:
    """``[models, ...]`` in at least float32."""
    shapes = {value.shape for value in values}
    if len(shapes) > 1:
        raise ValueError(f"The models of an ensemble give {name} of different shapes: {sorted(shapes)}.")
    stacked = jnp.stack(values)
    return stacked.astype(jnp.promote_types(stacked.dtype, jnp.float32))
