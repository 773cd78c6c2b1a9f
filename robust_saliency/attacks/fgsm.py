"""The fast gradient sign method (Goodfellow et al. 2015) and its L2 form, the fast gradient method."""

from robust_saliency import threat
from robust_saliency.attacks.pgd import PGD, check, pgd
from robust_saliency.threat import Threat
from robust_saliency.types import Images, Key, LossFn, spec


@spec
class FGSM:
    """One steepest step of length epsilon from the clean image."""

    threat: Threat = Threat()

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes of an image."""
        return 1, 1


def fgsm(loss_fn: LossFn, key: Key, images: Images, spec: FGSM) -> Images:
    """``project(x + eps * steepest(gradient of loss at x))``: linf ``x + eps sign(g)``, l2 ``x + eps g / |g|``."""
    images = check(images)
    step_size = threat.radius(spec.threat, images)
    return pgd(loss_fn, key, images, PGD(threat=spec.threat, step_size=step_size, num_steps=1, start="none"))
