"""Grad-CAM and Grad-CAM++: the activation maps of a layer, weighed by what each of its channels does for the class."""

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.inside import network_of
from robust_saliency.saliency._network import layer_of
from robust_saliency.saliency._reduce import MapSpec, reduce_entries
from robust_saliency.saliency.gradient import checked_images, label_score
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, spec


@spec
class GradCAM(MapSpec):
    """The channels of a layer weighed by their mean gradient, as large as the image.

    layer: the name of a layer whose activation is a map; '' = the last such.
    upsampling: from the size of the layer to that of the image: 'bilinear' or 'nearest'.
    sign: the published ReLU is the default 'positive'; of the layer's map, before it is enlarged.
    """

    sign: str = "positive"
    layer: str = ""
    upsampling: str = "bilinear"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("upsampling", self.upsampling, ("bilinear", "nearest"))


@spec
class GradCAMPlusPlus(GradCAM):
    """Grad-CAM with weights that favour places of positive gradient; fields as for :class:`GradCAM`."""


def grad_cam(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: GradCAM) -> Maps:
    """Entries sum over channels k of w_k A_k, w_k the mean over places of d score_y / d A_k; units of the score.

    ``[B, H, W]``, or ``[B, H, W, 1]`` with channels='none', for the channels of the image take no part. ``logits_fn``:
    that of a :class:`models.Classifier`. Raises ValueError as :func:`gradient` does, for a plain function, and for a
    layer that is not there or whose activation is no map.

    Source: Selvaraju et al. 2017 (1610.02391), equations 1 and 2.
    """
    activations, gradients = _at_layer(logits_fn, images, labels, spec)
    weights = gradients.mean((1, 2), keepdims=True)
    return _enlarged(weights * activations, images, spec)


def grad_cam_plus_plus(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: GradCAMPlusPlus) -> Maps:
    """Entries sum over k of w_k A_k with w_k = sum over places of a max(g, 0); otherwise as :func:`grad_cam`.

    g = d score_y / d A_k, and a = g^2 / (2 g^2 + (sum over places of A_k) g^3), 0 where g or what it is divided by is.
    The paper's score is exp(score), whose factor, common to an image, is left out: it changes no comparison within a
    map, and overflows.

    Source: Chattopadhay et al. 2018 (1710.11063), equations 5 and 19, with the *sum* of the activations as printed
    (so does pytorch-grad-cam; xplique takes their mean).
    """
    activations, gradients = _at_layer(logits_fn, images, labels, spec)
    below = 2 + activations.sum((1, 2), keepdims=True) * gradients
    shares = jnp.where((gradients != 0) & (below != 0), 1 / jnp.where(below == 0, 1, below), 0)
    weights = (shares * jnp.maximum(gradients, 0)).sum((1, 2), keepdims=True)
    return _enlarged(weights * activations, images, spec)


def _at_layer(logits_fn: LogitsFn, images: Images, labels: Labels, spec: GradCAM) -> tuple[Array, Array]:
    """Activations ``[B, h, w, c]`` of the layer, and the gradient of the score with respect to them."""
    network = network_of(logits_fn, type(spec).__name__, "output")
    images = checked_images(images, labels)
    layer = layer_of(network, images, spec.layer)
    activations = network.output(images, capture=(layer,)).features[layer]

    def score(values: Array) -> Array:
        return label_score(network.output(images, edit={layer: lambda _: values}).logits, labels, spec.score).sum()

    return tuple(array.astype(images.dtype) for array in (activations, jax.grad(score)(activations)))


def _enlarged(weighed: Array, images: Images, spec: GradCAM) -> Maps:
    small = reduce_entries(weighed.sum(-1, keepdims=True), spec)
    shape = (*images.shape[:3], *small.shape[3:])
    return jax.image.resize(small, shape, spec.upsampling)
