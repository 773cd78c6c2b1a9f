"""Whether an explanation depends on what the network has learnt: maps as layer by layer gets fresh weights.

It needs two sets of weights, so it is not among ``METRICS`` but a function of its own; its spec carries the same facts.

    fresh = classifier.init(key)  # as before training, never of another distribution
    explain = jax.jit(lambda variables, key, images, labels: ...)
    saliency_of = lambda variables: functools.partial(explain, variables)
    maps = randomised_maps(saliency_of, variables, fresh, classifier.layers, key, images, labels)
    curve = jax.jit(parameter_randomisation_of)(maps)  # [B, points]
    points(variables, classifier.layers)  # what they are called

Variables are plain nested dicts ``{'params', 'state'}`` whose paths begin with the names of layers, as those of
``models.from_linen`` and ``from_nnx`` do; ``layers`` are names in the order in which the layers finish.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.metrics.alike import Alike, alike_each
from robust_saliency.metrics.sparsity import by_option
from robust_saliency.types import Array, Images, Key, Labels, SaliencyFn, spec

Variables = Mapping[str, Any]
ORDERS = ("cascading", "independent")
TRAINED = "trained"
NO_LAYER = "no layer"


@spec
class ParameterRandomisation(Alike):
    """How alike the map is to those of the network with fresh weights in some of its layers.

    order: 'cascading', from the logits down, each point with all layers before it; or 'independent', one at a time.
    """

    title = by_option(lambda self: f"Parameter randomisation, {self.order}, {self.similarity_title}")
    direction: ClassVar[str] = "lower"

    order: str = "cascading"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("order", self.order, ORDERS)


def parameter_randomisation(
    saliency_of: Callable[[Variables], SaliencyFn],
    variables: Variables,
    fresh: Variables,
    layers: Iterable[str],
    key: Key,
    images: Images,
    labels: Labels,
    spec: ParameterRandomisation | None = None,
) -> Array:
    """:func:`parameter_randomisation_of` the maps of :func:`randomised_maps`: a curve ``[B, points]``.

    One draw of fresh weights: the mean over several keys of ``classifier.init`` is the reader's.
    """
    spec = spec or ParameterRandomisation()
    maps = randomised_maps(saliency_of, variables, fresh, layers, key, images, labels, spec.order)
    return parameter_randomisation_of(maps, spec)


def parameter_randomisation_of(maps: Array, spec: ParameterRandomisation | None = None) -> Array:
    """``similarity(m_0, m_k)`` of ``maps [B, points, H, W]``, the first that of the trained network: ``[B, points]``.

    The first is 1, lower is better from then on: a method that keeps its map explains no learnt weight. sign='abs' and
    'raw' are the two of the paper. NaN where one of the two maps is zero, as of a network that is dead, or not finite.

    Source: Adebayo et al. 2018 (1810.03292), sections 3.1 and 3.2: Spearman with and without the absolute value, SSIM.
    """
    return alike_each(maps[:, 0], maps, spec or ParameterRandomisation())


def randomised_maps(
    saliency_of: Callable[[Variables], SaliencyFn],
    variables: Variables,
    fresh: Variables,
    layers: Iterable[str],
    key: Key,
    images: Images,
    labels: Labels,
    order: str = "cascading",
) -> Array:
    """Maps ``[B, points, H, W]``: of the trained network, then with fresh weights from the logits down.

    saliency_of: ``variables -> saliency_fn``; called once a point, so it is jitted inside, not around. All points have
    the same ``key``, so that a method's own random numbers do not count as change.
    """
    mixed = mixtures(variables, fresh, layers, order)
    return jnp.stack([saliency_of(each)(key, images, labels) for each in mixed], axis=1)


def points(variables: Variables, layers: Iterable[str]) -> tuple[str, ...]:
    """What the points of a curve are called: 'trained', then each block that gets fresh weights, the logits first."""
    return (TRAINED, *blocks(variables, layers))


def mixtures(variables: Variables, fresh: Variables, layers: Iterable[str], order: str) -> list[Variables]:
    """``variables``, then with those of ``fresh`` in more and more blocks, or in one at a time, the logits first."""
    checks.one_of("order", order, ORDERS)
    layers = tuple(layers)
    names = blocks(variables, layers)
    ends = range(1, len(names) + 1)
    chosen = [names[:end] if order == "cascading" else names[end - 1 : end] for end in ends]
    return [variables, *(randomised(variables, fresh, layers, some) for some in chosen)]


def randomised(variables: Variables, fresh: Variables, layers: Iterable[str], chosen: Collection[str]) -> Variables:
    """``variables`` with the parameters and the state of ``fresh`` in the ``chosen`` of :func:`blocks`.

    The running statistics of BatchNorm are part of their block: those of the trained network are not the statistics of
    what a fresh convolution gives. ValueError for a block that is none, and for variables of two networks.
    """
    blocks_of = _blocks_of(variables, layers)
    for name in chosen:
        checks.one_of("block", name, set(blocks_of.values()))
    shapes, fresh_shapes = (jax.tree.map(jnp.shape, tree) for tree in (variables, fresh))
    if shapes != fresh_shapes:
        raise ValueError("variables and fresh must be of one network: their names or their shapes differ.")
    return jax.tree_util.tree_map_with_path(
        lambda path, own, other: other if blocks_of[_names(path)] in chosen else own, variables, fresh
    )


def blocks(variables: Variables, layers: Iterable[str]) -> tuple[str, ...]:
    """The parts that get fresh weights together, from the logits down: last to finish first.

    Each parameter, and each value of the state, belongs to the outermost of ``layers`` that it lies in, but for a layer
    that holds all parameters. So a residual block is one; leave it out of ``layers``, and its convolutions are. What
    lies in none, such as a class token of the network itself, is the block 'no layer', the last.
    """
    layers = tuple(layers)
    found = set(_blocks_of(variables, layers).values())
    return (*(name for name in reversed(layers) if name in found), *({NO_LAYER} & found))


def _blocks_of(variables: Variables, layers: Iterable[str]) -> dict[tuple[str, ...], str]:
    """The block of each leaf, by its path."""
    paths = [_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(variables)]
    layers = set(layers)
    around = {path: [name for name in _prefixes(path) if name in layers] for path in paths}
    params = [set(around[path]) for path in paths if path[0] == "params"]
    whole = set.intersection(*params) if params else set()
    if all(names <= whole for names in params):
        whole = set()  # a network of one layer
    return {path: next((name for name in around[path] if name not in whole), NO_LAYER) for path in paths}


def _prefixes(path: tuple[str, ...]) -> list[str]:
    """The modules that a leaf lies in, the outermost first. State of Linen has its collection before the module."""
    kind, *inside = path
    starts = (0, 1) if kind == "state" else (0,)
    return ["/".join(inside[start:end]) for start in starts for end in range(start + 1, len(inside))]


def _names(path: tuple) -> tuple[str, ...]:
    return tuple(str(getattr(entry, "key", entry)) for entry in path)
