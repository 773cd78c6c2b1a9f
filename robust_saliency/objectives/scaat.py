"""SCAAT-style training: an adversary that changes only what the network's own saliency map calls unimportant.

A reconstruction. Of SCAAT (Xu, Qin, Huang, Wang, Luo 2023, 2311.05143) only the abstract could be read: adversarial
samples are made under the guidance of the saliency map, and maps become sparser and more faithful at no loss of
accuracy. Norm, epsilon, steps, constraint, the meaning of "adaptive" and the loss are not known; each is a field here.
"""

import jax.numpy as jnp

from robust_saliency import attacks, checks, randomness, saliency
from robust_saliency.objectives import protection
from robust_saliency.objectives.divergence import DivergenceSpec, adversary_loss, attacked, loss
from robust_saliency.objectives.stepwise import step_by_step
from robust_saliency.objectives.types import Objective
from robust_saliency.types import Scalar, spec

PROTECTS = ("energy", "rank")
BUDGETS = ("saliency", "uniform")
STRENGTHS = ("fixed", "until_flip")
EXPLAINED = ("predicted", "true")


@spec
class SCAAT(DivergenceSpec):
    """CE(f(x), y) + divergence_weight D(f(x), f(x')), x' changed only where a saliency map s is low (a reconstruction).

    attack, divergence, divergence_weight, raises, attack_mode, statistics: see :class:`DivergenceSpec`; only the attack
        is confined, the validation attack of a training run is not.
    guide: whose map ``s = |map|`` at x decides, any of :data:`robust_saliency.saliency.SALIENCY`. Held constant.
    explained: the class of the map, the 'true' one or the one 'predicted' for x.
    protect: 'rank' lets the adversary change exactly the ``round(quantile n)`` lowest of n pixels, ties by position;
        'energy' protects the smallest set of pixels that holds the share ``energy`` of sum s.
    quantile, energy: in [0, 1]; data, so that a schedule can anneal them.
    budget: epsilon of a pixel that may change: 'uniform', or 'saliency' ``epsilon (1 - s / max s)``, linf only.
    renewed: False keeps the mask, and the budget, of x. True takes them from the map of the current iterate before
        every step but the first, so that the last step projects onto the last mask.
    strength: 'fixed', or 'until_flip': at step t = 1 .. T epsilon is ``t / T`` of its value, and an example stops where
        it stands once its prediction is no longer that of x.

    'renewed' and 'until_flip' need the attack pgd with one start and without keep_best.
    """

    guide: saliency.MapSpec = saliency.Gradient()
    explained: str = "true"
    protect: str = "rank"
    quantile: Scalar = 0.5
    energy: Scalar = 0.5
    budget: str = "uniform"
    renewed: bool = False
    strength: str = "fixed"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("explained", self.explained, EXPLAINED)
        checks.one_of("protect", self.protect, PROTECTS)
        checks.one_of("budget", self.budget, BUDGETS)
        checks.one_of("strength", self.strength, STRENGTHS)
        if getattr(self.guide, "channels", None) == "none":
            raise ValueError("SCAAT.guide must give one value a pixel: channels='none' keeps them apart.")
        if self.budget == "saliency" and self.attack.threat.norm != "linf":
            raise ValueError(f"SCAAT.budget 'saliency' is per pixel: norm 'linf', got {self.attack.threat.norm!r}.")
        if self.is_stepwise and not _is_plain_pgd(self.attack):
            raise ValueError(
                "SCAAT.renewed=True and strength='until_flip' look between the steps of an attack: they need pgd with "
                f"num_restarts=1 and keep_best=False, got {type(self.attack).__name__}."
            )

    @property
    def is_stepwise(self) -> bool:
        """Whether something is decided anew between the steps of the attack."""
        return self.renewed or self.strength == "until_flip"


def perturb(classifier, variables, key, batch, spec: SCAAT):
    """Adds ``adversarial`` images and ``changeable`` ``[B, H, W]``, 1 where the last step could change a pixel.

    With strength='until_flip' also ``strength`` ``[B]``, the share of epsilon at which each example stopped.
    """
    images = batch["image"]
    logits_fn = classifier.logits_fn(variables, mode=spec.attack_mode)
    loss_fn = adversary_loss(logits_fn, batch, spec)
    labels = batch["label"] if spec.explained == "true" else jnp.argmax(logits_fn(images), axis=-1)

    def room_at(images, step):
        maps = saliency.run(logits_fn, randomness.fold_in(key, step), images, labels, spec.guide)
        return room(maps, spec)

    if spec.is_stepwise:
        found = step_by_step(loss_fn, logits_fn, room_at, key, images, spec)
        added = {"adversarial": found.images, "changeable": found.room > 0}
        return {**batch, **added} | ({"strength": found.strength} if spec.strength == "until_flip" else {})
    return attacked(loss_fn, key, batch, room_at(images, 0), spec)


def room(maps, spec: SCAAT):
    """The share of epsilon that each pixel may move, ``[B, H, W]``, 0 where ``spec`` protects it from the adversary."""
    if spec.protect == "rank":
        free = protection.least_salient(maps, spec.quantile)
    else:
        free = protection.outside_energy(maps, spec.energy)
    return jnp.where(free, protection.headroom(maps) if spec.budget == "saliency" else 1.0, 0.0)


def _is_plain_pgd(attack) -> bool:
    return isinstance(attack, attacks.PGD) and attack.num_restarts == 1 and not attack.keep_best


scaat = Objective(perturb, loss)
