"""A control that uses the true lesion mask: what would training gain if it knew where the lesion is?

No method to be compared with others, since it reads what an explanation is judged by.
"""

from robust_saliency import checks
from robust_saliency.objectives.divergence import DivergenceSpec, adversary_loss, attacked, loss
from robust_saliency.objectives.types import Objective
from robust_saliency.types import spec

ATTACKED = ("inside", "outside")


@spec
class LesionMaskControl(DivergenceSpec):
    """A control that USES THE TRUE LESION MASK: SCAAT's loss, its adversary confined by the mask in place of a map.

    attacked: where the adversary may change pixels: 'outside' the true lesion, what SCAAT would do if its maps were
        right, or 'inside' it alone, its opposite. An example whose mask leaves no pixel is shown clean.
    attack, divergence, divergence_weight, raises, attack_mode, statistics: see :class:`DivergenceSpec`.

    Training data without lesion masks are refused.
    """

    attacked: str = "outside"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("attacked", self.attacked, ATTACKED)


def perturb(classifier, variables, key, batch, spec: LesionMaskControl):
    """Adds ``adversarial`` images and ``changeable`` ``[B, H, W]``, 1 where the true mask lets a pixel change."""
    lesion = batch["lesion_mask"] > 0
    changeable = lesion if spec.attacked == "inside" else ~lesion
    loss_fn = adversary_loss(classifier.logits_fn(variables, mode=spec.attack_mode), batch, spec)
    return attacked(loss_fn, key, batch, changeable, spec)


lesion_mask_control = Objective(perturb, loss, reads=("lesion_mask",))
