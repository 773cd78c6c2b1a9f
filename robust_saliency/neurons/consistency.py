"""Consistency of a unit: how close to one another the classes are whose images activate it most.

Source: Dong, Su, Zhu, Bao 2017 (1708.05493), there the level of a concept, and Dong, Bao, Su, Zhu 2019 (1901.09035).
Neither text could be read: the quadratic form is known, and that the affinity comes from distances in WordNet. The rest
is a reconstruction: the kernel and its ``sigma``, the number k of top examples (:func:`top`), and that each of them
counts the same.
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from robust_saliency import checks
from robust_saliency.types import Array, Labels, Scalar, spec


@spec
class Affinity:
    """How affinity falls with the distance of two classes in a hierarchy.

    sigma: of the kernel, in edges of the tree.
    """

    sigma: Scalar = 1.0

    def __post_init__(self):
        checks.known_positive("Affinity.sigma", self.sigma)


def class_distribution(labels: Labels, activated: Array, num_classes: int) -> Array:
    """The shares of the classes among the top examples of each unit, ``[U, K]``, summing to 1.

    labels: of those examples, int32 ``[U, k]``, such as ``all_labels[top.ids]``. activated: bool ``[U, k]``, which of
    them count, :attr:`Top.activated`; a unit without one, such as a dead unit, has NaN. ValueError for labels that are
    known to be none of the K classes.
    """
    checks.rank("labels", labels, 2)
    checks.known_labels("labels", labels, num_classes)
    if activated.shape != labels.shape:
        raise ValueError(
            f"labels and activated are of the same examples [U, k], got {labels.shape}, {activated.shape}."
        )
    is_class = jnp.asarray(labels)[..., None] == jnp.arange(num_classes)[None, None]
    counts = (is_class & activated[..., None]).sum(1).astype(jnp.float32)
    total = activated.sum(1)[:, None]
    return jnp.where(total > 0, counts / jnp.where(total > 0, total, 1), jnp.nan)


def consistency(distributions: Array, affinity: Array) -> Array:
    """``p^T A p`` of the class distribution p of each unit ``[U, K]``, ``[U]``: higher is more consistent.

    ``affinity [K, K]``: in [0, 1], 1 on the diagonal; the value is then the mean affinity of two top examples drawn
    with replacement, 1 where all are of one class. The identity gives ``sum_c p_c^2``, at least 1 / K. NaN where p is.
    """
    checks.rank("distributions", distributions, 2)
    num_classes = distributions.shape[1]
    if affinity.shape != (num_classes, num_classes):
        raise ValueError(f"affinity must be [{num_classes}, {num_classes}], one row a class, got {affinity.shape}.")
    return jnp.einsum("ui,ij,uj->u", distributions, affinity, distributions)


def affinity(distances: Array, spec: Affinity | None = None) -> Array:
    """``exp(-d^2 / (2 sigma^2))`` of class distances ``[K, K]``: 1 for a class and itself. A reconstruction."""
    spec = spec or Affinity()
    return jnp.exp(-jnp.square(jnp.asarray(distances, jnp.float32) / spec.sigma) / 2)


def tree_distances(names: Sequence[str], parents: Mapping[str, str]) -> np.ndarray:
    """Edges between any two of ``names`` in the tree that ``parents`` (child -> parent) describes: int ``[K, K]``.

    Raises ValueError for a name that the tree lacks, a circle, and two names without a common ancestor.
    """
    paths = [_ancestors(name, parents) for name in names]
    return np.array([[_edges(first, second) for second in paths] for first in paths])


def _ancestors(name: str, parents: Mapping[str, str]) -> list[str]:
    """From ``name`` up to the root."""
    checks.one_of("class in the hierarchy", name, {*parents, *parents.values()})
    path = [name]
    while path[-1] in parents:
        path.append(parents[path[-1]])
        if path[-1] in path[:-1]:
            raise ValueError(f"The hierarchy goes in a circle above {name!r}: {' -> '.join(path)}.")
    return path


def _edges(first: list[str], second: list[str]) -> int:
    for steps, ancestor in enumerate(first):
        if ancestor in second:
            return steps + second.index(ancestor)
    raise ValueError(
        f"{first[0]!r} (root {first[-1]!r}) and {second[0]!r} (root {second[-1]!r}) have no common ancestor."
    )
