"""Fast adversarial training (Wong et al. 2020, 2001.03994): adversarial training with FGSM from a random start."""

import dataclasses

from robust_saliency import threat
from robust_saliency.objectives.adversarial import Adversarial, adversarial
from robust_saliency.objectives.single_step import single_step
from robust_saliency.objectives.types import Objective
from robust_saliency.types import Scalar, spec


@spec
class FGSMRS(Adversarial):
    """``CE(f(x'), y)``, x' a single FGSM step from a uniform start in the ball, projected back into it.

    The step is that of :class:`robust_saliency.attacks.FGSMRS`; the rest is :class:`Adversarial`.

    attack: whom validation attacks with, and whose threat model, and sparsity in l1, training takes. Training makes a
        single step; only an attack of several shows that a network has learnt to mislead the single step (catastrophic
        overfitting).
    relative_step: length of the step in epsilons; the paper's is 1.25.
    """

    relative_step: Scalar = 1.25


def perturb(classifier, variables, key, batch, spec):
    """Adds ``adversarial`` images to the batch."""
    model = spec.attack.threat
    step_size = spec.relative_step * threat.radius(model, batch["image"])
    attack = single_step(spec.attack, model, step_size, start="uniform")
    return adversarial.perturb(classifier, variables, key, batch, dataclasses.replace(spec, attack=attack))


fgsm_rs = Objective(perturb, adversarial.loss)
