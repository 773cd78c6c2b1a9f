"""A control that chooses pixels by lot: is it the map that helps SCAAT, or that fewer pixels are attacked?"""

import jax

from robust_saliency import randomness
from robust_saliency.objectives import protection
from robust_saliency.objectives.divergence import DivergenceSpec, adversary_loss, attacked, loss
from robust_saliency.objectives.types import Objective
from robust_saliency.types import Scalar, spec


@spec
class RandomMaskControl(DivergenceSpec):
    """SCAAT's loss, its adversary confined to pixels drawn at random, for every image of every step anew.

    quantile: in [0, 1]: exactly ``round(quantile n)`` of the n pixels may change; a schedule can anneal it.
    attack, divergence, divergence_weight, raises, attack_mode, statistics: see :class:`DivergenceSpec`.
    """

    quantile: Scalar = 0.5


def perturb(classifier, variables, key, batch, spec: RandomMaskControl):
    """Adds ``adversarial`` images and ``changeable`` ``[B, H, W]``, 1 where the lot lets a pixel change."""
    key, lots_key = randomness.split(key)
    lots = randomness.draw(jax.random.uniform, lots_key, batch["image"].shape[:3])
    changeable = protection.least_salient(lots, spec.quantile)
    loss_fn = adversary_loss(classifier.logits_fn(variables, mode=spec.attack_mode), batch, spec)
    return attacked(loss_fn, key, batch, changeable, spec)


random_mask_control = Objective(perturb, loss)
