"""The gradient of a score, and the gradient times the input."""

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.baselines import Baseline, fill
from robust_saliency.saliency._reduce import MapSpec, reduce_entries
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, spec


@spec
class Gradient(MapSpec):
    """The gradient of the score with respect to the pixels: how much a small change of each would move the score.

    See :class:`MapSpec` for score, sign and channels.
    """


@spec
class InputXGradient(MapSpec):
    """(x - baseline) times the gradient; the default baseline is black, which gives x times the gradient."""

    baseline: Baseline = Baseline()


def gradient(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: Gradient) -> Maps:
    """Entries d score_y / d x, in score per unit of intensity, from one backward pass for the whole batch.

    ``[B, H, W]``, or ``[B, H, W, C]`` with channels='none'; the key is not read. Raises ValueError for images that are
    not floating ``[B, H, W, C]``, labels that are not integers ``[B]`` or known to be no class, or fewer than two
    classes.

    Source: Simonyan, Vedaldi, Zisserman 2014 (1312.6034), section 3, whose map is score='logit', sign='abs',
    channels='max_abs'.
    """
    images = checked_images(images, labels)
    return reduce_entries(score_gradient(logits_fn, images, labels, spec.score), spec)


def input_x_gradient(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: InputXGradient) -> Maps:
    """Entries (x - b) * d score_y / d x, in units of the score; shapes and errors as for :func:`gradient`.

    The baseline b is ``baselines.fill(key, images, spec.baseline)``. Source: Shrikumar et al. 2016 (1605.01713).
    """
    images = checked_images(images, labels)
    difference = images - fill(key, images, spec.baseline)
    return reduce_entries(difference * score_gradient(logits_fn, images, labels, spec.score), spec)


def score_gradient(logits_fn: LogitsFn, images: Images, labels: Labels, score: str, points: int = 1) -> Array:
    """Signed d score_y / d x, ``[B, H, W, C]``: that of the sum over examples, which do not depend on one another.

    points: see :func:`label_score`.
    """
    return jax.grad(lambda x: label_score(logits_fn(x), labels, score, points).sum())(images)


def label_score(logits: Array, labels: Labels, score: str, points: int = 1) -> Array:
    """``[B]``: the score of each label (:class:`MapSpec`), at least float32 whatever the model computes in.

    points: so many neighbouring rows of the logits have the label of one image. The labels come as the user gave them,
    since those that a loop has repeated can no longer be read.
    """
    scores = class_scores(logits, labels.shape[0] * points, score)
    checks.known_labels("labels", labels, scores.shape[1])
    each = jnp.broadcast_to(labels[:, None], (labels.shape[0], points)).reshape(-1)
    return jnp.take_along_axis(scores, each[:, None], axis=1)[:, 0]


def class_scores(logits: Array, batch_size: int, score: str) -> Array:
    """``[B, K]``: the score of every class (:class:`MapSpec`), at least float32 whatever the model computes in."""
    if logits.ndim != 2 or logits.shape[0] != batch_size or logits.shape[1] < 2:
        raise ValueError(
            f"logits_fn must return [B, K] for B = {batch_size} images and at least two classes, "
            f"got shape {logits.shape}."
        )
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if score == "logit":
        return logits
    if score == "probability":
        return jax.nn.softmax(logits)
    log_probabilities = jax.nn.log_softmax(logits)
    return -log_probabilities if score == "loss" else log_probabilities


def checked_images(images: Images, labels: Labels) -> Images:
    """``images``, at least float32; raises ValueError unless they are ``[B, H, W, C]`` and labels integers ``[B]``."""
    checks.rank("images", images, 4)
    checks.floating("images", images)
    checks.rank("labels", labels, 1)
    checks.same_batch(images=images, labels=labels)
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise ValueError(f"labels must be integers [B], got dtype {jnp.result_type(labels)}.")
    images = jnp.asarray(images)
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))
