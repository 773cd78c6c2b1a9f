"""Cross-entropy on clean images plus a divergence to an adversary: what SCAAT and its controls have in common."""

import dataclasses

import jax

from robust_saliency import attacks, checks, losses
from robust_saliency.objectives import protection
from robust_saliency.objectives.adversarial import ATTACK_MODES
from robust_saliency.objectives.attack_checks import check_start, check_steps
from robust_saliency.objectives.passes import in_a_row
from robust_saliency.objectives.types import accuracy, mean
from robust_saliency.types import Array, Batch, Key, LogitsFn, LossFn, Scalar, spec

DIVERGENCES = ("cross_entropy", *losses.DIVERGENCES)
RAISES = ("cross_entropy", "divergence")
STATISTICS = ("adversarial", "clean")


@spec
class DivergenceSpec:
    """``mean CE(f(x), y) + divergence_weight * mean D(f(x), f(x'))``, the gradient through both arguments of D.

    attack: how x' is sought, and the threat model that its pixels are taken from.
    divergence: D. 'kl' KL(p(x) || p(x')), 'js', 'logit_l2' (see :mod:`robust_saliency.losses`), or 'cross_entropy'
        CE(f(x'), y), which does not look at f(x).
    divergence_weight: lambda, at least 0.
    raises: what the adversary raises: 'divergence', the same D with f(x) held constant, or 'cross_entropy'.
    attack_mode: what BatchNorm does while maps and adversary are sought, 'eval' or 'batch', as in
        :class:`robust_saliency.objectives.Adversarial`.
    statistics: whose batch statistics join the running ones, those of the 'clean' images alone, or 'adversarial': those
        of the adversarial images too, after the clean ones, as in TRADES.

    Raises ValueError for an attack that raises a divergence from the clean image: a divergence has no gradient there to
    follow, so a random start is needed (of the default attack Gaussian noise of deviation 0.001, as in TRADES).
    """

    attack: attacks.PGD | attacks.FGSM = attacks.PGD(start="gaussian")
    divergence: str = "kl"
    divergence_weight: Scalar = 1.0
    raises: str = "divergence"
    attack_mode: str = "eval"
    statistics: str = "clean"

    def __post_init__(self):
        checks.one_of("divergence", self.divergence, DIVERGENCES)
        checks.one_of("raises", self.raises, RAISES)
        checks.one_of("attack_mode", self.attack_mode, ATTACK_MODES)
        checks.one_of("statistics", self.statistics, STATISTICS)
        check_steps(self)
        if raised(self) in losses.DIVERGENCES:
            check_start(self, raised(self), ", or raises='cross_entropy'")


def raised(spec: DivergenceSpec) -> str:
    """The name of what the adversary raises."""
    return spec.divergence if spec.raises == "divergence" else "cross_entropy"


def adversary_loss(logits_fn: LogitsFn, batch: Batch, spec: DivergenceSpec) -> LossFn:
    """What the adversary raises, as a function of its images."""
    name, labels = raised(spec), batch["label"]
    if name == "cross_entropy":
        return lambda images: losses.cross_entropy(logits_fn(images), labels)
    clean = jax.lax.stop_gradient(logits_fn(batch["image"]))
    return lambda images: losses.DIVERGENCES[name](clean, logits_fn(images))


def attacked(loss_fn: LossFn, key: Key, batch: Batch, room: Array, spec: DivergenceSpec) -> Batch:
    """Adds ``adversarial`` images and ``changeable`` ``[B, H, W]``, where ``room`` lets a pixel change.

    room: as in :func:`protection.confined`; bool is all of epsilon or none.
    """
    model = protection.confined(spec.attack.threat, room, batch["image"])
    adversarial = attacks.run(loss_fn, key, batch["image"], dataclasses.replace(spec.attack, threat=model))
    return {**batch, "adversarial": adversarial, "changeable": room > 0}


def loss(classifier, variables, carry, key, batch, spec: DivergenceSpec):
    """Clean images and ``batch['adversarial']`` pass separately, each with its own batch statistics and dropout."""
    clean, adversarial = in_a_row(classifier, variables, key, batch["image"], batch["adversarial"])
    distance = mean(_divergence(clean.logits, adversarial.logits, batch, spec), batch)
    value = mean(losses.cross_entropy(clean.logits, batch["label"]), batch) + spec.divergence_weight * distance
    metrics = {
        "loss": value,
        "accuracy": accuracy(clean.logits, batch),
        "robust_accuracy": accuracy(adversarial.logits, batch),
        "divergence": distance,
        "changeable_share": mean(batch["changeable"].mean((1, 2)), batch),
    }
    if "strength" in batch:
        metrics["strength"] = mean(batch["strength"], batch)
    return value, ((clean if spec.statistics == "clean" else adversarial).state, metrics)


def _divergence(clean: Array, adversarial: Array, batch: Batch, spec: DivergenceSpec) -> Array:
    if spec.divergence == "cross_entropy":
        return losses.cross_entropy(adversarial, batch["label"])
    return losses.DIVERGENCES[spec.divergence](clean, adversarial)
