"""Adversarial weight perturbation (Wu, Xia, Wang 2020, 2004.05884): the weights are attacked beside the images."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from robust_saliency import checks, randomness, trainable
from robust_saliency.objectives.adversarial import Adversarial
from robust_saliency.objectives.types import Objective
from robust_saliency.objectives.wrappers.nesting import Inner, refuse_carry, wrapped
from robust_saliency.types import Array, Key, Scalar, spec

# Tensors that belong to a layer's offset or normalisation, however many axes they have.
NOT_WEIGHTS = ("bias", "scale")
_PASS = 0xA3B


@spec
class AWP:
    """``L(w + v)``, L the loss of the objective inside, whose gradient at ``w + v`` updates w.

    For each weight tensor ``v = gamma |w| g / |g|``, g the gradient of L at w on the perturbed batch, norms those of
    the whole tensor; v = 0 where g is 0. Weights are tensors of more than one axis that are not named bias or scale:
    no BatchNorm, no bias. The pass that g is of is in mode 'train', and its batch statistics are dropped.

    trainable: patterns on parameter names, of which those that match alone are attacked; () = all. Should equal
        ``train.trainable``: the loss at other values of a frozen weight is of no network that training can reach.
    gamma: 0 = none. The authors' code has 0.01 for adversarial training, and 0.005 for TRADES from the tenth epoch on;
        such a warm-up is ``config.schedules.awp.after``.

    Source: the paper's perturbation relative to each layer's weights, one step of it, as in the authors' code.
    """

    inner: Inner = Adversarial()
    gamma: Scalar = 0.01
    trainable: tuple[str, ...] = ()

    wrapper = "awp"

    def __post_init__(self):
        if isinstance(self.trainable, str):
            raise ValueError(f"AWP.trainable must be a tuple of patterns, got the string {self.trainable!r}.")
        for pattern in self.trainable:
            checks.regular_expression("AWP.trainable", pattern)


@functools.cache
def awp(inner: Objective) -> Objective:
    """``inner`` at the worst weights near the network's.

    ValueError for an objective that keeps something between steps: its one backward pass would be two.
    """
    refuse_carry("awp", inner)

    def perturb(classifier, variables, key, batch, spec):
        """Adds ``weight_perturbation``, v, a tree like the parameters."""
        batch = inner.perturb(classifier, variables, key, batch, spec.inner)
        key_pass = randomness.fold_in(_of_the_batch(key), _PASS)

        def value(params):
            given = {**variables, "params": params}
            return inner.loss(classifier, given, (), key_pass, batch, spec.inner)[0]

        gradient = _of_trained(jax.grad(value)(variables["params"]), spec.trainable)
        v = worst_weights(variables["params"], gradient, spec.gamma)
        return {**batch, "weight_perturbation": jax.lax.stop_gradient(v)}

    def check(classifier, spec):
        params = jax.eval_shape(classifier.init, jax.random.key(0))["params"]
        trainable.labels(params, spec.trainable, "config.objective.awp.trainable")

    def loss(classifier, variables, carry, key, batch, spec):
        moved = jax.tree.map(jnp.add, variables["params"], batch["weight_perturbation"])
        return inner.loss(classifier, {**variables, "params": moved}, carry, key, batch, spec.inner)

    return wrapped(inner, perturb, loss, check)


def worst_weights(params: Any, gradient: Any, gamma: Scalar) -> Any:
    """``gamma |w| g / |g|`` of each weight tensor, 0 for all others: a tree like ``params``."""

    def perturbation(path, w: Array, g: Array) -> Array:
        name = str(getattr(path[-1], "key", "")) if path else ""
        if w.ndim < 2 or name in NOT_WEIGHTS:
            return jnp.zeros_like(w)
        largest = jnp.max(jnp.abs(g))
        scaled = g / jnp.where(largest > 0, largest, 1)
        return gamma * _norm(w) * scaled / jnp.where(largest > 0, _norm(scaled), 1)

    return jax.tree_util.tree_map_with_path(perturbation, params, gradient)


def _of_trained(gradient: Any, patterns: tuple[str, ...]) -> Any:
    """``gradient`` where a parameter is trained, and 0 elsewhere."""
    labels = trainable.labels(gradient, patterns)
    return jax.tree.map(lambda g, label: g if label == trainable.TRAINED else jnp.zeros_like(g), gradient, labels)


def _of_the_batch(key: Key) -> Key:
    """One key; of one an example the sum of their bits, which does not depend on the order of the examples."""
    if not randomness.is_per_example(key):
        return key
    bits = jax.random.key_data(key)
    return jax.random.wrap_key_data(jnp.sum(bits, axis=0, dtype=bits.dtype), impl=jax.random.key_impl(key))


def _norm(values: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(values)))
