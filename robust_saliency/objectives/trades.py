"""TRADES (Zhang et al. 2019, 1901.08573): accuracy on clean images, traded for agreement with the worst around them."""

from robust_saliency import attacks, checks, losses
from robust_saliency.objectives.adversarial import ATTACK_MODES
from robust_saliency.objectives.attack_checks import check_start, check_steps
from robust_saliency.objectives.passes import in_a_row
from robust_saliency.objectives.types import Objective, accuracy, mean
from robust_saliency.threat import Threat
from robust_saliency.types import Scalar, spec


@spec
class TRADES:
    """``mean CE(f(x), y) + beta mean KL(p(x) || p(x'))``, x' from ``attack`` on the same KL with p(x) held fixed.

    Algorithm 1, with the defaults of the authors' code for CIFAR-10; beta is the paper's 1 / lambda.
    attack: must not start at the clean image: the KL has no gradient there to follow, and steps would be along its
        rounding errors; the authors start from normal noise of deviation 0.001.
    attack_mode: see :class:`robust_saliency.objectives.Adversarial`.

    Raises ValueError for an attack that starts at the clean image.
    """

    attack: attacks.PGD | attacks.APGD = attacks.PGD(
        threat=Threat(epsilon=0.031), step_size=0.007, num_steps=10, start="gaussian", start_scale=0.001
    )
    beta: Scalar = 6.0
    attack_mode: str = "eval"

    def __post_init__(self):
        checks.one_of("attack_mode", self.attack_mode, ATTACK_MODES)
        check_steps(self)
        check_start(self, "kl")


def perturb(classifier, variables, key, batch, spec):
    """Adds ``adversarial`` images to the batch."""
    logits_fn = classifier.logits_fn(variables, mode=spec.attack_mode)
    clean = logits_fn(batch["image"])

    def loss_fn(images):
        return losses.kl(clean, logits_fn(images))

    return {**batch, "adversarial": attacks.run(loss_fn, key, batch["image"], spec.attack)}


def loss(classifier, variables, carry, key, batch, spec):
    """The gradient flows through both arguments of the KL, as in the authors' code.

    Clean and adversarial images pass separately, in this order, and BatchNorm keeps what both leave. The authors' code
    passes the clean images once more after these two, which only counts their statistics twice.
    """
    clean, worst = in_a_row(classifier, variables, key, batch["image"], batch["adversarial"])
    value = mean(losses.cross_entropy(clean.logits, batch["label"]), batch)
    divergence = mean(losses.kl(clean.logits, worst.logits), batch)
    value = value + spec.beta * divergence
    metrics = {
        "loss": value,
        "kl": divergence,
        "accuracy": accuracy(clean.logits, batch),
        "robust_accuracy": accuracy(worst.logits, batch),
    }
    return value, (worst.state, metrics)


trades = Objective(perturb, loss)
