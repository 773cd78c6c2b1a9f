"""The units of a layer: its channels, or the values of a vector."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.inside import network_of
from robust_saliency.types import Array, Images, LogitsFn


def activations(logits_fn: LogitsFn, images: Images, layer: str) -> Array:
    """What every unit of ``layer`` answers to ``images [B, H, W, C]``: ``[B, h, w, U]``, at least float32.

    A vector ``[B, U]`` is a map of one place, ``[B, 1, 1, U]``. ``logits_fn``: that of a :class:`models.Classifier`.
    Raises ValueError for a plain function, a layer that is not there, and one that is neither map nor vector.
    """
    return look(logits_fn, images, (layer,))[0][layer]


def look(logits_fn: LogitsFn, images: Images, layers: Iterable[str]) -> tuple[dict[str, Array], Array]:
    """:func:`activations` of several ``layers`` by name, and the logits ``[B, K]``: one pass. Errors as there."""
    values, logits = pass_through(logits_fn, images, layers)
    return {name: _as_map(value) for name, value in values.items()}, logits


def _as_map(values: Array) -> Array:
    wide = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    return wide if wide.ndim == 4 else wide[:, None, None]


def pass_through(logits_fn: LogitsFn, images: Images, layers: Iterable[str]) -> tuple[dict[str, Array], Array]:
    """The activations of ``layers`` as the network has them, ``[B, h, w, U]`` or ``[B, U]``, and the logits."""
    network = network_of(logits_fn, "What reads the units of a layer", "output")
    layers = tuple(checks.one_of("layer of the network", layer, network.layers) for layer in layers)
    output = network.output(images, capture=layers)
    for layer in layers:
        values = output.features[layer]
        if not hasattr(values, "shape") or len(values.shape) not in (2, 4):
            got = jax.tree.map(lambda leaf: leaf.shape, values)
            raise ValueError(f"Layer {layer!r} must have an activation [B, h, w, U] or [B, U], got shape {got}.")
    return {layer: output.features[layer] for layer in layers}, output.logits
