"""GradAlign (Andriushchenko and Flammarion 2020, 2007.02617): FGSM training that keeps the loss linear in the ball."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from robust_saliency import randomness, threat
from robust_saliency.objectives.adversarial import Adversarial, adversarial
from robust_saliency.objectives.passes import with_input_gradient
from robust_saliency.objectives.single_step import single_step
from robust_saliency.objectives.types import Objective, mean
from robust_saliency.types import Array, Scalar, spec


@spec
class GradAlign(Adversarial):
    """CE on images of FGSM plus ``weight mean(1 - cos(grad_x CE(x), grad_x CE(x + eta)))``.

    Beside the penalty it is :class:`Adversarial` against one step. eta is uniform in the ball of the threat model and,
    as in the authors' code, not clipped to the box. An example of which a gradient is exactly zero does not count, also
    as there.

    attack: whom validation attacks with, and whose threat model, and sparsity in l1, training takes, see
        :class:`FGSMRS`.
    weight: the paper's lambda, 0.2 for epsilon 8/255 on CIFAR-10; it grows with epsilon.
    through_clean: the gradient in the parameters flows through grad_x CE(x) too. The paper does not say; False, as in
        the code, holds it fixed.
    """

    weight: Scalar = 0.2
    through_clean: bool = False


def perturb(classifier, variables, key, batch, spec):
    """Adds ``adversarial`` images, and ``noisy`` images x + eta, to the batch."""
    key_attack, key_noise = randomness.split(key)
    model = spec.attack.threat
    fgsm = single_step(spec.attack, model, threat.radius(model, batch["image"]), start="none")
    batch = adversarial.perturb(classifier, variables, key_attack, batch, dataclasses.replace(spec, attack=fgsm))
    no_box = dataclasses.replace(model, bounds=(-math.inf, math.inf))
    return {**batch, "noisy": threat.start(key_noise, batch["image"], no_box, "uniform")}


def loss(classifier, variables, carry, key, batch, spec):
    """Both gradients are taken in mode 'train' with the same dropout; BatchNorm keeps what the adversaries leave."""
    value, (state, metrics) = adversarial.loss(classifier, variables, carry, key, batch, spec)
    _, _, clean = with_input_gradient(classifier, variables, key, batch["image"], batch)
    _, _, noisy = with_input_gradient(classifier, variables, key, batch["noisy"], batch)
    cosine, known = _cosine(clean if spec.through_clean else jax.lax.stop_gradient(clean), noisy)
    penalty = mean(1 - cosine, {**batch, "valid": batch["valid"] & known})
    value = value + spec.weight * penalty
    return value, (state, {**metrics, "loss": value, "alignment": 1 - penalty})


def _cosine(first: Array, second: Array) -> tuple[Array, Array]:
    """Cosine of the angle ``[B]``, and where neither is zero ``[B]``."""
    (first, known_first), (second, known_second) = _unit(first), _unit(second)
    return jnp.sum(first * second, axis=(1, 2, 3)), known_first & known_second


def _unit(gradient: Array) -> tuple[Array, Array]:
    # Divided by the largest entry first: gradients of a confident network, 1e-25, would vanish when squared.
    largest = jax.lax.stop_gradient(threat.norm(gradient, "linf"))
    known = largest > 0
    scaled = gradient / jnp.where(known, largest, 1)
    square = jnp.sum(jnp.square(scaled), axis=(1, 2, 3), keepdims=True)
    return scaled / jnp.sqrt(jnp.where(known, square, 1)), known[:, 0, 0, 0]


grad_align = Objective(perturb, loss)
