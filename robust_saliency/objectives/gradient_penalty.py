"""A penalty on the gradient of the loss in the pixels, by double backpropagation (Drucker and LeCun 1992)."""

import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.objectives.passes import with_input_gradient
from robust_saliency.objectives.types import Objective, accuracy, mean
from robust_saliency.types import Array, Scalar, spec


@spec
class GradientPenalty:
    """``mean CE(f(x), y) + weight mean size(d CE(f(x), y) / dx)``, of each example's own cross-entropy.

    gradient_size: 'squared_l2' ``sum_d g_d^2`` (Drucker and LeCun 1992; Ross and Doshi-Velez 2018, 1711.09404), 'l2'
        ``|g|_2``, or 'l1' ``sum_d |g_d|``. To first order epsilon times 'l1' is what a linf attack adds to the loss,
        and epsilon times 'l2' what an L2 attack adds.
    weight: reconstruction: the papers search it for each data set, over several powers of ten. Pixels lie in [0, 1].
    """

    weight: Scalar = 1.0
    gradient_size: str = "squared_l2"

    def __post_init__(self):
        checks.one_of("gradient_size", self.gradient_size, SIZES)


def _squared_l2(gradient: Array) -> Array:
    return jnp.sum(jnp.square(gradient), axis=(1, 2, 3))


def _l2(gradient: Array) -> Array:
    # Where the gradient is zero the norm has none; 0 is taken.
    square = _squared_l2(gradient)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _l1(gradient: Array) -> Array:
    return jnp.sum(jnp.abs(gradient), axis=(1, 2, 3))


SIZES = {"l1": _l1, "l2": _l2, "squared_l2": _squared_l2}


def perturb(classifier, variables, key, batch, spec):
    return batch


def loss(classifier, variables, carry, key, batch, spec):
    """One pass in mode 'train' gives the cross-entropy, its gradient in the pixels and the state."""
    output, values, gradient = with_input_gradient(classifier, variables, key, batch["image"], batch)
    penalty = mean(SIZES[spec.gradient_size](gradient), batch)
    value = mean(values, batch) + spec.weight * penalty
    metrics = {"loss": value, "penalty": penalty, "accuracy": accuracy(output.logits, batch)}
    return value, (output.state, metrics)


gradient_penalty = Objective(perturb, loss)
