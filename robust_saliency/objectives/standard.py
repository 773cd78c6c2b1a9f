"""Standard training: cross-entropy on the clean images."""

from robust_saliency import losses
from robust_saliency.objectives.types import Objective, accuracy, mean
from robust_saliency.types import Scalar, spec


@spec
class Standard:
    """CE(f(x), y) on the clean images.

    label_smoothing: share of the target that is spread evenly over all classes, in [0, 1], see
        :func:`robust_saliency.losses.smoothed_cross_entropy`.
    """

    label_smoothing: Scalar = 0.0


def perturb(classifier, variables, key, batch, spec):
    return batch


def loss(classifier, variables, carry, key, batch, spec):
    """``mean_b CE(f(x_b), y_b)``."""
    output = classifier.apply(variables, batch["image"], mode="train", key=key)
    values = losses.smoothed_cross_entropy(output.logits, batch["label"], spec.label_smoothing)
    value = mean(values, batch)
    return value, (output.state, {"loss": value, "accuracy": accuracy(output.logits, batch)})


standard = Objective(perturb, loss)
