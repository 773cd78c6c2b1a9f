"""MART (Wang et al., ICLR 2020, rklOg6EFwS): adversarial training that minds examples misclassified when clean."""

import jax
import jax.numpy as jnp

from robust_saliency import attacks, checks, losses
from robust_saliency.objectives.adversarial import ATTACK_MODES, adversarial
from robust_saliency.objectives.attack_checks import check_steps
from robust_saliency.objectives.passes import in_a_row
from robust_saliency.objectives.types import Objective, accuracy, mean
from robust_saliency.threat import Threat
from robust_saliency.types import Scalar, spec

# Of the authors' code: the weight of an example that is surely right stays positive.
_ABOVE_ONE = 1.0000001


@spec
class MART:
    """``mean BCE(p(x'), y) + beta mean KL(p(x) || p(x')) (1 - p_y(x))``, x' from ``attack`` on cross-entropy.

    BCE is :func:`robust_saliency.losses.boosted_cross_entropy`. Algorithm 1, with the defaults of the authors' code
    for CIFAR-10; the KL comes from log-softmax, where the code adds 1e-12 to the probabilities of x'.
    attack_mode: see :class:`robust_saliency.objectives.Adversarial`.

    What it gains against PGD it partly loses against AutoAttack: judge it by more than the accuracy of a validation.
    """

    attack: attacks.PGD | attacks.FGSM = attacks.PGD(
        threat=Threat(epsilon=0.031), step_size=0.007, num_steps=10, start="gaussian", start_scale=0.001
    )
    beta: Scalar = 6.0
    attack_mode: str = "eval"

    def __post_init__(self):
        checks.one_of("attack_mode", self.attack_mode, ATTACK_MODES)
        check_steps(self)


def loss(classifier, variables, carry, key, batch, spec):
    """The gradient also flows through the weight ``1 - p_y(x)`` and through p(x), as in the authors' code.

    Clean and adversarial images pass separately, in this order, and BatchNorm keeps what both leave.
    """
    clean, worst = in_a_row(classifier, variables, key, batch["image"], batch["adversarial"])
    # By one-hot: to gather the label of padding, which may be any number, gives NaN, and so does its unused gradient.
    label = jax.nn.one_hot(batch["label"], clean.logits.shape[-1], dtype=clean.logits.dtype)
    of_label = jnp.sum(label * jax.nn.softmax(clean.logits), axis=-1)
    divergence = losses.kl(clean.logits, worst.logits) * (_ABOVE_ONE - of_label)
    value = mean(losses.boosted_cross_entropy(worst.logits, batch["label"]) + spec.beta * divergence, batch)
    metrics = {
        "loss": value,
        "accuracy": accuracy(clean.logits, batch),
        "robust_accuracy": accuracy(worst.logits, batch),
    }
    return value, (worst.state, metrics)


mart = Objective(adversarial.perturb, loss)
