"""Infidelity: does a map foretell by how much the score changes when the image is perturbed?"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from robust_saliency import baselines, checks, randomness
from robust_saliency.metrics import perturbed
from robust_saliency.metrics.sparsity import Relevance, by_option, peak, relevance
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, Scalar, spec

PERTURBATIONS = ("noise", "squares")
SCALINGS = ("none", "best", "share")


@spec
class Infidelity(Relevance):
    """Mean square of what a map foretells of the score's change under perturbations, less the change itself."""

    title = by_option(lambda self: f"Infidelity, {self.perturbation}, scaling {self.scaling}")
    direction: ClassVar[str] = "lower"
    range = by_option(lambda self: (0.0, 1.0 if self.scaling == "share" else math.inf))

    sign: str = "raw"
    perturbation: str = "noise"
    sigma: Scalar = 0.1
    most_side: int = 8
    baseline: baselines.Baseline = baselines.Baseline()
    num_samples: int = 32
    score: str = "logit"
    scaling: str = "none"

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("perturbation", self.perturbation, PERTURBATIONS)
        checks.one_of("score", self.score, perturbed.AMOUNTS)
        checks.one_of("scaling", self.scaling, SCALINGS)
        checks.at_least(1, num_samples=self.num_samples, most_side=self.most_side, where="Infidelity")


def infidelity(
    logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, maps: Maps, spec: Infidelity | None = None
) -> Array:
    """``mean_j (beta <I_j, a> - (f(x) - f(x - I_j)))^2`` over ``num_samples`` perturbations, ``[B]``: lower is better.

    a is the map, f the 'logit' or 'probability' of the label. perturbation: 'noise', ``I = sigma n`` with one standard
    normal a pixel, the same for all its channels, so that a map whose channels were summed is what a gradient foretells
    (saliency spec: channels='sum', sign='signed'); or 'squares', where x - I is x with a square at random set to the
    baseline (side 1 to ``most_side``, evenly) and ``<I, a>`` the sum of a over it, which fits maps that are
    attributions of the difference to the baseline, such as integrated gradients or input x gradient.

    scaling: 'none', ``beta = 1``, the source's definition, in squared units of f; maps of another unit than f are far
    off, and magnitudes cannot foretell a sign. 'best', ``beta = mean(<I,a> d) / mean(<I,a>^2)`` with ``d`` the change
    of f, the least that a factor can reach. 'share', that over ``mean d^2``: 0 foretells everything but a factor, 1
    nothing, so that networks of other logits compare; NaN where no perturbation changes f.

    Source: Yeh et al. 2019 (1901.09392), equation 2 and proposition on scaling; the channels, the even distribution of
    the squares and 'share' are ours.
    """
    spec = spec or Infidelity()
    perturbed.check_shapes(images, maps)
    values = relevance(maps, spec.sign)
    unit = peak(values)
    foretold, logits = _draws(logits_fn, key, images, values / unit, spec)
    change = perturbed.amount(logits_fn(images), labels, spec.score)[:, None]
    change = change - perturbed.amount(logits, labels, spec.score)
    if spec.scaling == "none":
        return jnp.mean((unit[:, :, 0] * foretold - change) ** 2, axis=-1)
    beta = _ratio(jnp.mean(foretold * change, -1), jnp.mean(foretold**2, -1), 0)
    left = jnp.mean((beta[:, None] * foretold - change) ** 2, axis=-1)
    return left if spec.scaling == "best" else jnp.minimum(_ratio(left, jnp.mean(change**2, -1), jnp.nan), 1)


def _draws(logits_fn: LogitsFn, key: Key, images: Images, maps: Maps, spec: Infidelity) -> tuple[Array, Array]:
    """``<I, a> [B, num_samples]`` and the logits of ``x - I``, ``[B, num_samples, K]``; a draw at a time."""
    fill_key, draw_key = randomness.split(key)
    baseline = baselines.fill(fill_key, images, spec.baseline)

    def draw(j):
        here = randomness.fold_in(draw_key, j)
        if spec.perturbation == "noise":
            noise = spec.sigma * randomness.draw(jax.random.normal, here, maps.shape).astype(images.dtype)
            return jnp.sum(noise * maps, axis=(1, 2)), logits_fn(images - noise[..., None])
        inside = random_squares(here, maps.shape, min(spec.most_side, *maps.shape[1:]))
        return jnp.sum(inside * maps, axis=(1, 2)), logits_fn(jnp.where(inside[..., None], baseline, images))

    foretold, logits = jax.lax.map(draw, jnp.arange(spec.num_samples))
    return jnp.swapaxes(foretold, 0, 1), jnp.swapaxes(logits, 0, 1)


def random_squares(key: Key, shape: tuple[int, int, int], most_side: int) -> Array:
    """A square an image, bool ``[B, H, W]``: its side even in 1 .. most_side, its place even among those inside."""
    drawn = randomness.draw(jax.random.uniform, key, (shape[0], 3))
    side = 1 + jnp.floor(drawn[:, :1] * most_side)
    places = [jnp.floor(drawn[:, k : k + 1] * (shape[k] - side + 1)) for k in (1, 2)]
    rows, columns = (
        (jnp.arange(shape[k])[None] >= place) & (jnp.arange(shape[k])[None] < place + side)
        for k, place in zip((1, 2), places, strict=True)
    )
    return rows[:, :, None] & columns[:, None, :]


def _ratio(a: Array, b: Array, otherwise: float) -> Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), otherwise)
