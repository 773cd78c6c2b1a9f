"""Whether a map follows the colour of what it explains: a melanoma varies in colour, and that is a sign of it."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from robust_saliency import checks, ranks
from robust_saliency.metrics import perturbed
from robust_saliency.metrics.localisation import Masks, inside_of, unless_empty
from robust_saliency.metrics.sparsity import Relevance, by_option, peak, relevance
from robust_saliency.types import Array, Images, Maps, spec


@spec
class ColourAgreement(Relevance):
    """Rank correlation, within the mask, of the map with how much the colour varies around each pixel."""

    title = by_option(lambda self: f"Agreement with colour variation in the {self.mask}")
    ties: ClassVar[str] = "have their average rank"
    direction: ClassVar[str] = "higher"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    mask: str = "lesion"
    window: int = 5  # side in pixels of what is around a pixel, odd

    def __post_init__(self):
        super().__post_init__()
        if self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"window must be odd and at least 3 pixels, got {self.window}.")


def colour_agreement(images: Images, maps: Maps, masks: Masks, spec: ColourAgreement | None = None) -> Array:
    r"""Spearman's correlation of :math:`a_i` with :math:`v_i` over the pixels of the mask, ``[B]``: in [-1, 1].

    :math:`v_i = \sqrt{\sum_c \mathrm{Var}_{j \in W(i)} x_{jc}}`: the deviation of the colour in the square window
    around pixel i, of which what lies outside the image is left out. 0: the map does not follow the colour, as one of
    random numbers; 1: it ranks the pixels of the lesion as their colour varies. NaN where fewer than two pixels lie in
    the mask, or either has but one value there.

    Source: a reconstruction. Margeloiu et al. 2020 (2012.01166) say that maps of robust networks point at regions of
    strong colour variation within the lesion, and measure it nowhere.
    """
    spec = spec or ColourAgreement()
    perturbed.check_shapes(images, maps)
    values = relevance(maps, spec.sign)
    inside = inside_of(masks, spec.mask, values)
    correlation = _correlation(_ranks(values, inside), _ranks(colour_variation(images, spec.window), inside), inside)
    return unless_empty(inside, correlation + 0 * values[:, 0, 0])


def colour_variation(images: Images, window: int) -> Array:
    """Standard deviation of the colour in the ``window`` around each pixel, over all channels together: ``[B, H, W]``.

    Of the differences from the pixel itself, so that it is exactly 0 where all are of one colour.
    """
    checks.floating("images", images)
    reach = window // 2
    padding = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    height, width = images.shape[1:3]
    framed = jnp.pad(images, padding)
    exists = np.pad(np.ones((1, height, width, 1), bool), padding)
    total = square = jnp.zeros_like(images)
    count = np.zeros((1, height, width, 1))
    for row in range(window):
        for column in range(window):
            place = np.s_[:, row : row + height, column : column + width]
            away = jnp.where(exists[place], framed[place] - images, 0)
            total, square, count = total + away, square + away**2, count + exists[place]
    count = count.astype(images.dtype)
    variance = jnp.maximum(square / count - (total / count) ** 2, 0)
    return jnp.sqrt(jnp.sum(variance, axis=-1))


def _ranks(values: Array, inside: Array) -> Array:
    """The ranks of the pixels inside among each other, up to a constant: all that lie outside come before them."""
    return ranks.centred(jnp.where(inside, values, -jnp.inf)).astype(values.dtype)


def _correlation(a: Array, b: Array, inside: Array) -> Array:
    """Pearson's ``[B]`` over the pixels inside; NaN where one of the two does not vary there."""
    count = jnp.maximum(jnp.sum(inside, axis=(1, 2), keepdims=True), 1).astype(a.dtype)

    def varies(values):
        return jnp.max(values, axis=(1, 2), where=inside, initial=-jnp.inf) > jnp.min(
            values, axis=(1, 2), where=inside, initial=jnp.inf
        )

    def deviations(values):
        mean = jnp.sum(values, axis=(1, 2), keepdims=True, where=inside) / count
        away = jnp.where(inside, values - mean, 0)
        return away / jnp.maximum(peak(away), 1)

    first, second = deviations(a), deviations(b)
    product, *squares = (jnp.sum(x * y, axis=(1, 2)) for x, y in ((first, second), (first, first), (second, second)))
    is_known = varies(a) & varies(b)
    scale = jnp.where(is_known, jnp.sqrt(squares[0]) * jnp.sqrt(squares[1]), 1)
    return jnp.where(is_known, jnp.clip(product / scale, -1, 1), jnp.nan)
