"""A Gaussian filter on a layer's activation, part of the network in training and in evaluation."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.blur import gaussian_blur
from robust_saliency.models.classifier import Classifier
from robust_saliency.types import Array


def with_smoothing(classifier: Classifier, layer: str, sigma: float) -> Classifier:
    """The classifier whose activation ``a [B, H, W, C]`` of ``layer`` is ``G_sigma * a``, each channel by itself.

    G is the normalised Gaussian of ``sigma`` pixels of that activation, reflected at its edges, so that a constant map
    stays as it is and every map keeps its mean. It can be differentiated; 0 leaves the network as it is. ``capture``
    sees the smoothed activation, a user's own ``edit`` of the layer comes after it, and the variables are the same.

    Source: Bhusal et al. 2026 (2603.07302), of which only the abstract is known here: a differentiable Gaussian filter
    on an intermediate feature map. The layer, sigma, the edges and the uncut kernel are a reconstruction.

    ValueError for a layer that is not there or is no map, and for a sigma that is negative or not finite.
    """
    checks.one_of("layer to smooth", layer, classifier.layers)
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"The sigma of a smoothing must be finite and at least 0, got {sigma}.")
    if sigma == 0:
        return classifier

    def smooth(activation: Array) -> Array:
        checks.rank(f"An activation that is smoothed, here of layer {layer!r},", activation, 4)
        wide = activation.astype(jnp.promote_types(activation.dtype, jnp.float32))
        return gaussian_blur(wide, sigma).astype(activation.dtype)

    def apply(variables, images, *, mode="eval", key=None, capture=(), edit=None):
        edit = dict(edit or {})
        own = edit.get(layer, lambda activation: activation)
        edit[layer] = lambda activation: own(smooth(activation))
        return classifier.apply(variables, images, mode=mode, key=key, capture=capture, edit=edit)

    def with_activation(function):
        return with_smoothing(classifier.with_activation(function), layer, sigma)

    smoothed = classifier._replace(
        apply=apply, with_activation=None if classifier.with_activation is None else with_activation
    )
    if classifier.image_shape is not None:
        _look_through(smoothed)
    return smoothed


def smoothed(classifier: Classifier, spec: Any) -> Classifier:
    """The classifier of a bundled net under the smoothing that its ``spec`` asks for: none where the layer is ''."""
    return with_smoothing(classifier, spec.smoothing, spec.smoothing_sigma) if spec.smoothing else classifier


def _look_through(classifier: Classifier) -> None:
    images = jax.ShapeDtypeStruct((1, *classifier.image_shape), jnp.float32)
    jax.eval_shape(lambda key, images: classifier.apply(classifier.init(key), images), jax.random.key(0), images)
