"""The layer that a class activation map is made of."""

import jax

from robust_saliency import checks
from robust_saliency.types import Images


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
