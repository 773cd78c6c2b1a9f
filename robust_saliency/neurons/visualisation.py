"""Feature visualisation by optimisation: what a unit, or a class, would like to see.

The scores to give to :func:`ascend`. Source: Engstrom et al. 2019 (1906.00945), section 4; Santurkar et al. 2019
(1906.09453) for classes. Of a robust network no regulariser is needed; of another one noise comes out.
"""

import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.neurons.units import activations
from robust_saliency.types import Array, Images, Labels, LogitsFn, LossFn


def unit_score(logits_fn: LogitsFn, layer: str, units: int | Labels, place: tuple[int, int] | None = None) -> LossFn:
    """``images [B, H, W, C] -> [B]``: the activation of a unit of ``layer``.

    units: one for all images, or one an image ``[B]``. place: row and column of the one activation that counts; None =
    the mean of the unit's map. After a ReLU a silent unit has no gradient: begin with an image that it answers to, or
    name the layer before the ReLU, such as ``conv4/conv`` (the authors let the gradient through instead).

    The function raises ValueError as :func:`activations` does, and for a unit or a place that the layer does not have.
    """

    def score(images: Images) -> Array:
        maps = activations(logits_fn, images, layer)
        _, height, width, count = maps.shape
        checks.known_labels(f"units of layer {layer!r}", units, count)
        if place is not None and not (0 <= place[0] < height and 0 <= place[1] < width):
            raise ValueError(f"Layer {layer!r} has {height} x {width} places, got place {tuple(place)}.")
        values = maps.mean((1, 2)) if place is None else maps[:, place[0], place[1]]
        return _chosen(values, units)

    return score


def class_score(logits_fn: LogitsFn, labels: int | Labels) -> LossFn:
    """``images [B, H, W, C] -> [B]``: the logit of a class, one for all images or one an image ``[B]``."""

    def score(images: Images) -> Array:
        logits = logits_fn(images)
        checks.known_labels("labels", labels, logits.shape[-1])
        return _chosen(logits, labels)

    return score


def _chosen(values: Array, columns: int | Labels) -> Array:
    columns = jnp.broadcast_to(jnp.asarray(columns), values.shape[:1])
    return jnp.take_along_axis(values, columns[:, None], axis=1)[:, 0]
