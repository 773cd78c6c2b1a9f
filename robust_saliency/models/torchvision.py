"""Weights of torchvision's ResNet-18 and ResNet-50 for the bundled networks. PyTorch is not needed.

Source of names, shapes and normalisation: torchvision/models/resnet.py (0.29) and its transforms of ImageNet.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency.models.classifier import Classifier
from robust_saliency.models.resnet import ResNet18, ResNet50

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_UNUSED = "num_batches_tracked"  # PyTorch counts batches for a momentum that these networks do not use


def torchvision_spec(state_dict: Mapping[str, Any]) -> tuple[ResNet18 | ResNet50, int]:
    """Spec and number of classes of the network whose ``state_dict`` this is, for :func:`models.make`.

    Images are normalised as torchvision's own weights were trained: by the mean and deviation of ImageNet.

    Raises:
      ValueError: a tensor by which the networks are known is not there.
    """
    for name in ("conv1.weight", "fc.weight", "layer1.0.conv1.weight"):
        if name not in state_dict:
            raise ValueError(_missing(name, state_dict))
        if not np.shape(state_dict[name]):
            raise ValueError(f"{name} is a single number, not the weights of a layer.")
    Spec = ResNet50 if "layer1.0.conv3.weight" in state_dict else ResNet18
    width, classes = (np.shape(state_dict[name])[0] for name in ("conv1.weight", "fc.weight"))
    return Spec(stem="imagenet", width=width, mean=IMAGENET_MEAN, std=IMAGENET_STD), classes


def from_torchvision(state_dict: Mapping[str, Any], classifier: Classifier) -> dict[str, Any]:
    """``variables`` of ``classifier``, a :class:`ResNet18` or :class:`ResNet50`, with the numbers of ``state_dict``.

    ``state_dict``: name -> array of any float dtype, as torchvision's ``model.state_dict()`` or a file of it has them.
    Variables are float32: a convolution's kernel ``[out, in, h, w]`` becomes ``[h, w, in, out]``, and the last layer is
    transposed. ``num_batches_tracked`` has no use here.

    Raises:
      ValueError: a tensor that is missing, has another shape, or belongs to no layer of the classifier (named); a
        classifier that is none of these networks.
    """
    abstract = jax.eval_shape(classifier.init, jax.random.key(0))
    used = set()

    def take(path, leaf):
        name = torchvision_name([entry.key for entry in path])
        if name not in state_dict:
            raise ValueError(_missing(name, state_dict))
        used.add(name)
        array = np.asarray(state_dict[name], np.float32)
        here = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        if here.shape != leaf.shape:
            needed = (*leaf.shape[:-3:-1], *leaf.shape[:-2])
            raise ValueError(f"Tensor {name!r} has shape {array.shape}, the classifier needs {needed}.")
        return jnp.asarray(here)

    variables = jax.tree_util.tree_map_with_path(take, abstract)
    for name in state_dict:
        if name not in used and not name.endswith(_UNUSED):
            raise ValueError(f"Tensor {name!r} belongs to no layer of the classifier.")
    return variables


def torchvision_name(path: list[str]) -> str:
    """What torchvision calls the variable at ``path``: 'params/block2_1/conv1/norm/scale' is 'layer2.0.bn1.weight'."""
    _, *path = [name for name in path if name != "batch_stats"]
    found = re.fullmatch(r"(stem|logits|block(\d+)_(\d+)/(?:conv(\d)|shortcut))/(?:(conv|norm)/)?(\w+)", "/".join(path))
    if not found:
        raise ValueError(f"from_torchvision fills ResNet18 and ResNet50; this classifier has {'/'.join(path)!r}.")
    layer, stage, index, number, part, leaf = found.groups()
    if layer == "logits":
        return "fc.bias" if leaf == "bias" else "fc.weight"
    leaf = "weight" if part == "conv" else _NORM[leaf]
    if layer == "stem":
        return f"{'conv' if part == 'conv' else 'bn'}1.{leaf}"
    block = f"layer{stage}.{int(index) - 1}"
    if number is None:
        return f"{block}.downsample.{0 if part == 'conv' else 1}.{leaf}"
    return f"{block}.{'conv' if part == 'conv' else 'bn'}{number}.{leaf}"


def _missing(name: str, state_dict: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, state_dict, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"The state_dict is not that of torchvision's ResNet-18 or ResNet-50: it has no tensor {name!r}.{hint}"
