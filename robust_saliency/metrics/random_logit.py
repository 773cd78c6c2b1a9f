"""Whether an explanation is of its class: the map of the label's logit beside that of another class."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from robust_saliency import checks, randomness
from robust_saliency.metrics.alike import Alike, alike
from robust_saliency.metrics.sparsity import by_option
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, SaliencyFn, spec


@spec
class RandomLogit(Alike):
    """How alike the map is to that of another class, drawn at random."""

    title = by_option(lambda self: f"Random logit, {self.similarity_title}")
    direction: ClassVar[str] = "lower"


def random_logit(
    logits_fn: LogitsFn,
    saliency_fn: SaliencyFn,
    key: Key,
    images: Images,
    labels: Labels,
    maps: Maps,
    spec: RandomLogit | None = None,
) -> Array:
    """``similarity(m_y(x), m_k(x))``, k uniform over the other classes, ``[B]``: 1 for a method that ignores its class.

    Lower is better, but a random map is as low as any. The range is that of the similarity; sign='abs' forgets that
    the maps of two classes can be opposite, sign='raw' does not. ``logits_fn`` is asked for the number of classes, not
    for a pass. ValueError for a network of one class.

    Source: Sixt, Granz, Landgraf 2020 (1912.09818), the random logit test, with the similarity 'ssim'.
    """
    spec = spec or RandomLogit()
    checks.rank("images", images, 4)
    checks.floating("images", images)
    checks.same_batch(images=images, labels=labels)
    key_class, key_maps = randomness.split(key)
    others = other_labels(key_class, labels, jax.eval_shape(logits_fn, images).shape[-1])
    return alike(maps, saliency_fn(key_maps, images, others), spec)


def other_labels(key: Key, labels: Labels, num_classes: int) -> Labels:
    """For each of ``labels [B]`` one of the other classes, each as likely."""
    if num_classes < 2:
        raise ValueError(f"A random logit is one of another class: at least two are needed, got {num_classes}.")
    checks.known_labels("labels", labels, num_classes)
    steps = randomness.draw(jax.random.randint, key, labels.shape, jnp.int32, minval=1, maxval=num_classes)
    return (labels + steps.astype(labels.dtype)) % num_classes
