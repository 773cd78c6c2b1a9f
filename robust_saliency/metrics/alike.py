"""Scores that are the similarity of a map to another one, whichever similarity a spec names."""

import jax

from robust_saliency import checks
from robust_saliency.metrics.similarity import SIMILARITIES
from robust_saliency.metrics.sparsity import Relevance, by_option
from robust_saliency.types import Array, Maps, spec

ALIKE = tuple(name for name, (Spec, _) in SIMILARITIES.items() if Spec.direction == "higher")


@spec
class Alike(Relevance):
    """What a spec has whose score is the similarity of a map to another: which of :data:`ALIKE`, at its defaults."""

    range = by_option(lambda self: SIMILARITIES[self.similarity][0].range)
    ties = by_option(lambda self: SIMILARITIES[self.similarity][0].ties)

    similarity: str = "spearman"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("similarity", self.similarity, ALIKE)

    @property
    def similarity_title(self) -> str:
        return SIMILARITIES[self.similarity][0].title


def alike(maps: Maps, other_maps: Maps, spec: Alike) -> Array:
    """The similarity that ``spec`` names of ``maps [B, H, W]`` and others of the same images, ``[B]``."""
    Similarity, similarity = SIMILARITIES[spec.similarity]
    return similarity(maps, other_maps, Similarity(sign=spec.sign))


def alike_each(maps: Maps, others: Array, spec: Alike) -> Array:
    """:func:`alike` for each of several other maps of an image, ``others [B, n, H, W]``: ``[B, n]``."""
    return jax.vmap(lambda other: alike(maps, other, spec), in_axes=1, out_axes=1)(others)
