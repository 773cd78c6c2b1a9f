"""Adversarial training (Madry et al. 2018, 1706.06083, equation 2.1): cross-entropy on the worst images there are."""

from robust_saliency import attacks, checks, losses
from robust_saliency.objectives.attack_checks import check_steps
from robust_saliency.objectives.types import Objective, accuracy, mean
from robust_saliency.types import LossFn, Scalar, spec

ATTACK_MODES = ("batch", "eval")


@spec
class Adversarial:
    """``(1 - clean_weight) CE(f(x'), y) + clean_weight CE(f(x), y)``, x' from ``attack`` on cross-entropy.

    include_clean: False trains on adversarial images only, and clean_weight is not used.
    attack_mode: what BatchNorm does while the adversary is sought. 'eval', the default, uses running statistics and
        keeps examples apart; 'batch' uses those of the batch, so that an adversary depends on its neighbours.
    label_smoothing: of the loss that is minimised, not of the one that the adversary raises; see :class:`Standard`.
    """

    attack: attacks.PGD | attacks.FGSM = attacks.PGD()
    include_clean: bool = False
    clean_weight: Scalar = 0.5
    attack_mode: str = "eval"
    label_smoothing: Scalar = 0.0

    def __post_init__(self):
        checks.one_of("attack_mode", self.attack_mode, ATTACK_MODES)
        check_steps(self)


def perturb(classifier, variables, key, batch, spec):
    """Adds ``adversarial`` images to the batch."""
    loss_fn = attacked_loss(classifier, variables, batch, spec)
    return {**batch, "adversarial": attacks.run(loss_fn, key, batch["image"], spec.attack)}


def attacked_loss(classifier, variables, batch, spec) -> LossFn:
    """Cross-entropy of the batch's labels as a function of images, ``[B]``: what the adversary raises."""
    logits_fn = classifier.logits_fn(variables, mode=spec.attack_mode)
    return lambda images: losses.cross_entropy(logits_fn(images), batch["label"])


def loss(classifier, variables, carry, key, batch, spec):
    """Clean and adversarial images pass separately, each with its own batch statistics; the latter's are kept."""

    def value_of(images):
        output = classifier.apply(variables, images, mode="train", key=key)
        values = losses.smoothed_cross_entropy(output.logits, batch["label"], spec.label_smoothing)
        return output, mean(values, batch)

    output, value = value_of(batch["adversarial"])
    metrics = {"robust_accuracy": accuracy(output.logits, batch)}
    if spec.include_clean:
        clean, clean_value = value_of(batch["image"])
        value = (1 - spec.clean_weight) * value + spec.clean_weight * clean_value
        metrics["accuracy"] = accuracy(clean.logits, batch)
    return value, (output.state, {"loss": value, **metrics})


adversarial = Objective(perturb, loss)
