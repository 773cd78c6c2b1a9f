"""Standard training: cross-entropy on the clean images."""

from robust_saliency import losses
from robust_saliency.objectives.types import Objective, accuracy, mean
from robust_saliency.types import spec


@spec
class Standard:
    """CE(f(x), y) on the clean images; no choices."""


def perturb(classifier, variables, key, batch, spec):
    return batch


def loss(classifier, variables, carry, key, batch, spec):
    """``mean_b CE(f(x_b), y_b)``."""
    output = classifier.apply(variables, batch["image"], mode="train", key=key)
    value = mean(losses.cross_entropy(output.logits, batch["label"]), batch)
    return value, (output.state, {"loss": value, "accuracy": accuracy(output.logits, batch)})


standard = Objective(perturb, loss)
