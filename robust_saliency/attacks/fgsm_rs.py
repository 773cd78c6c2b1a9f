"""FGSM from a random start (Wong et al. 2020, 2001.03994, algorithm 3): the adversary of fast adversarial training."""

from robust_saliency import threat
from robust_saliency.attacks.pgd import PGD, check, pgd
from robust_saliency.threat import Threat
from robust_saliency.types import Images, Key, LossFn, Scalar, spec


@spec
class FGSMRS:
    """One steepest step of ``relative_step`` epsilons from a uniform point of the ball, then back into the ball.

    relative_step: a scalar or ``[B]``; the paper's is 1.25. Networks trained with much more, or with none of the random
        start, are prone to catastrophic overfitting.
    """

    threat: Threat = Threat()
    relative_step: Scalar = 1.25

    def __post_init__(self):
        if isinstance(self.relative_step, int | float) and not self.relative_step >= 0:
            raise ValueError(f"FGSMRS.relative_step must be at least 0, got {self.relative_step}.")

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes of an image."""
        return 1, 1


def fgsm_rs(loss_fn: LossFn, key: Key, images: Images, spec: FGSMRS) -> Images:
    """``d ~ uniform in the ball; project(x + d + relative_step eps * steepest(gradient of loss at x + d))``."""
    images = check(images)
    relative_step = threat.expand("FGSMRS.relative_step", spec.relative_step, images)
    step_size = relative_step * threat.radius(spec.threat, images)
    return pgd(loss_fn, key, images, PGD(threat=spec.threat, step_size=step_size, num_steps=1, start="uniform"))
