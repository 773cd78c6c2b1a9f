"""Cross-entropy on the clean images beside any objective."""

import functools

from robust_saliency import losses
from robust_saliency.objectives.adversarial import Adversarial
from robust_saliency.objectives.types import Objective, accuracy, mean
from robust_saliency.objectives.wrappers.nesting import Inner, wrapped
from robust_saliency.types import Scalar, spec


@spec
class CleanMix:
    """``(1 - w) L + w CE(f(x), y)``, L the loss of the objective inside, w = clean_weight; 0 = L alone.

    The clean images pass by themselves, with their own batch statistics; those that are kept are L's.
    """

    inner: Inner = Adversarial()
    clean_weight: Scalar = 0.5

    wrapper = "clean_mix"


@functools.cache
def clean_mix(inner: Objective) -> Objective:
    """``inner`` mixed with cross-entropy on clean images."""

    def loss(classifier, variables, carry, key, batch, spec):
        value, (state, metrics) = inner.loss(classifier, variables, carry, key, batch, spec.inner)
        output = classifier.apply(variables, batch["image"], mode="train", key=key)
        clean_value = mean(losses.cross_entropy(output.logits, batch["label"]), batch)
        value = (1 - spec.clean_weight) * value + spec.clean_weight * clean_value
        return value, (state, {**metrics, "loss": value, "accuracy": accuracy(output.logits, batch)})

    return wrapped(inner, loss=loss)
