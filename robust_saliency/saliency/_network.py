"""For methods that look inside the network: what is behind a logits_fn."""

import jax

from robust_saliency import checks
from robust_saliency.types import Images, LogitsFn


def network_of(logits_fn: LogitsFn, method: str, attribute: str):
    """``logits_fn``; raises ValueError where it is a plain function, of which only the logits are known."""
    if not hasattr(logits_fn, attribute):
        raise ValueError(
            f"{method} looks inside the network: give it Classifier.logits_fn(variables) itself, not another function "
            f"of images, got {type(logits_fn).__name__}."
        )
    return logits_fn


def layer_of(network, images: Images, layer: str) -> str:
    """``layer``, or where it is '' the last one whose activation is a map ``[B, h, w, c]`` (a block follows its parts).

    A map of one place, such as a mean that keeps its axes, is none: it shows nothing.

    Raises ValueError for a layer that is not there, or whose activation is no map.
    """
    if layer:
        checks.one_of("layer of the network", layer, network.layers)
    names = (layer,) if layer else network.layers
    features = jax.eval_shape(lambda x: network.output(x, capture=names).features, images)
    shapes = {name: getattr(features[name], "shape", ()) for name in names}
    maps = [name for name, shape in shapes.items() if len(shape) == 4 and shape[1] * shape[2] > 1]
    if not maps:
        what = f"{layer} is none" if layer else "this network has none"
        raise ValueError(f"Grad-CAM needs a layer whose activation is a map [B, h, w, c]; {what}.")
    return maps[-1]
