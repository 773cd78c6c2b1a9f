"""Guided backpropagation: the gradient of a network whose activations let only positive gradients back."""

from robust_saliency.inside import network_of
from robust_saliency.saliency._reduce import MapSpec
from robust_saliency.saliency.gradient import gradient
from robust_saliency.types import Images, Key, Labels, LogitsFn, Maps, spec


@spec
class GuidedBackprop(MapSpec):
    """The gradient of the score with the activation function 'guided' in the place of the network's own.

    Of a network of other activations than ReLU it therefore explains another function. It keeps edges of the image and
    hardly depends on the class or on the last layers (Adebayo et al. 2018; Nie et al. 2018): a method to compare with,
    not to trust.
    """


def guided_backprop(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: GuidedBackprop) -> Maps:
    """Entries of :func:`gradient` under ReLUs whose backward pass is max(g, 0) 1[x > 0]; shapes and errors as there.

    ``logits_fn``: that of a :class:`models.Classifier` that knows where its activation functions are, see
    :func:`models.with_activation`. Source: Springenberg et al. 2015 (1412.6806), section 3.4.
    """
    network = network_of(logits_fn, "GuidedBackprop", "with_activation")
    return gradient(network.with_activation("guided"), key, images, labels, spec)
