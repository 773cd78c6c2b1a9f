"""Expected gradients (GradientSHAP): integrated gradients averaged over baselines."""

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.baselines import Baseline, fill
from robust_saliency.randomness import draw, fold_in, split
from robust_saliency.saliency._passes import PassesSpec, accumulate, after, at_least, score_gradients
from robust_saliency.saliency._reduce import reduce_entries
from robust_saliency.saliency.gradient import checked_images
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, spec


@spec
class ExpectedGradients(PassesSpec):
    """The gradient at random points between the image and random baselines, times their difference.

    num_samples: points an image.
    references: images ``[N, H, W, C]`` of which each point draws one as its baseline; None: ``baseline``.
    baseline: drawn anew for each point, which tells apart only the kind 'uniform'.
    """

    num_samples: int = 32
    references: Array | None = None
    baseline: Baseline = Baseline(kind="uniform")

    def __post_init__(self):
        super().__post_init__()
        at_least(self, "num_samples", 1)


def expected_gradients(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: ExpectedGradients) -> Maps:
    """Entries E over b, a ~ U(0, 1) of (x - b) d score_y / d x at b + a (x - b), in units of the score.

    ``[B, H, W]``, or ``[B, H, W, C]`` with channels='none'. Point i draws from ``fold_in(key, i)``: more samples extend
    the fewer. Signed entries sum to score(x) - E score(b) in expectation. Raises ValueError as :func:`gradient` does,
    and for references that are not images of the same shape.

    Sources: Erion et al. 2021 (1906.10670), equation 3; Lundberg and Lee's GradientSHAP, without its noise on x.
    """
    images = checked_images(images, labels)
    if spec.references is not None:
        checks.floating("ExpectedGradients.references", spec.references)
        if jnp.shape(spec.references)[1:] != images.shape[1:] or not len(spec.references):
            raise ValueError(
                f"ExpectedGradients.references must be images [N, {', '.join(map(str, images.shape[1:]))}], "
                f"N at least 1, got shape {jnp.shape(spec.references)}."
            )

    def update(total, indices):
        baselines, shares = jax.vmap(lambda index: _drawn(fold_in(key, index), images, spec), out_axes=1)(indices)
        differences = after(images, total)[:, None] - baselines
        points = baselines + shares * differences
        return total + (differences * score_gradients(logits_fn, points, labels, spec.score)).sum(1)

    total = accumulate(
        update, jnp.zeros_like(images), jnp.arange(spec.num_samples), spec.num_samples, len(images), spec
    )
    return reduce_entries(total / spec.num_samples, spec)


def _drawn(key: Key, images: Images, spec: ExpectedGradients) -> tuple[Array, Array]:
    """A baseline of each image, and how far from it towards the image the point lies ``[B, 1, 1, 1]``."""
    key_share, key_baseline = split(key)
    shares = draw(jax.random.uniform, key_share, (len(images), 1, 1, 1), images.dtype)
    if spec.references is None:
        return fill(key_baseline, images, spec.baseline), shares
    references = jnp.asarray(spec.references, images.dtype)
    places = draw(jax.random.randint, key_baseline, (len(images),), jnp.int32, minval=0, maxval=len(references))
    return references[places], shares
