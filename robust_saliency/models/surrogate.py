"""The same weights under another activation function."""

from collections.abc import Callable

from robust_saliency.models.activations import activation as named
from robust_saliency.models.classifier import Classifier
from robust_saliency.types import Array


def with_activation(classifier: Classifier, activation: str | Callable[[Array], Array]) -> Classifier:
    """The classifier whose hidden units use ``activation``, a function or its name; its variables are the same.

    'softplus30' makes a ReLU network twice differentiable, which an attack on its maps needs; 'guided' makes the
    gradient map guided backpropagation. Bundled nets can do it, and modules of one's own that keep the function in a
    field ``activation`` which their layers use: the module given to ``from_linen``, any submodule for ``from_nnx``.

    ValueError for a classifier that does not say where its activation is.
    """
    if classifier.with_activation is None:
        raise ValueError(
            "This classifier does not say where its activation function is: keep it in a field `activation` of the "
            "module given to from_linen or from_nnx, or build the network anew with another one and use its logits_fn."
        )
    return classifier.with_activation(named(activation) if isinstance(activation, str) else activation)
