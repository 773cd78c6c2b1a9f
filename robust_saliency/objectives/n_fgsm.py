"""N-FGSM (de Jorge et al. 2022, 2202.01181): one gradient step from strong noise, and no way back into the ball."""

import dataclasses

from robust_saliency import attacks, threat
from robust_saliency.objectives.adversarial import Adversarial, adversarial, attacked_loss
from robust_saliency.objectives.single_step import single_step
from robust_saliency.objectives.types import Objective
from robust_saliency.types import Scalar, spec


@spec
class NFGSM(Adversarial):
    """``CE(f(x'), y)``, ``x' = clip(x + n + relative_step eps sign(g))``, g the gradient of CE at ``x + n``.

    :class:`Adversarial` on these images. The noise n is uniform in the ball of ``relative_noise`` epsilons and clipped
    to the box; so is x', but it is not projected onto the ball of epsilon, so that it may leave the threat model.
    Algorithm 1 with the authors' defaults, linf; in other norms (ours) noise and step are those of the norm.

    attack: whom validation attacks with, inside the threat model, and whose threat model gives epsilon, norm and mask;
        so does its sparsity that of the step in l1.
    """

    relative_step: Scalar = 1.0
    relative_noise: Scalar = 2.0


def perturb(classifier, variables, key, batch, spec):
    """Adds ``adversarial`` images to the batch."""
    images, model = batch["image"], spec.attack.threat
    epsilon = threat.radius(model, images)
    noisy = threat.start(key, images, _of_radius(model, spec.relative_noise * epsilon), "uniform")
    # A ball that holds every noise with every step: the projection only clips to the box.
    reach = _of_radius(model, (spec.relative_noise + spec.relative_step) * epsilon)
    step = single_step(spec.attack, reach, spec.relative_step * epsilon, init=noisy)
    loss_fn = attacked_loss(classifier, variables, batch, spec)
    return {**batch, "adversarial": attacks.run(loss_fn, key, images, step)}


def _of_radius(model: threat.Threat, epsilon) -> threat.Threat:
    return dataclasses.replace(model, epsilon=epsilon)


n_fgsm = Objective(perturb, adversarial.loss)
