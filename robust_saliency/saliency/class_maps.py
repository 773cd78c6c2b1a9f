"""The maps of many classes at once."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import checks
from robust_saliency.saliency import _classes
from robust_saliency.saliency._reduce import reduce_entries
from robust_saliency.types import Images, LogitsFn, Maps, spec


@spec
class ClassMaps(_classes.ClassesSpec):
    """How the gradients of the classes become maps."""


def class_maps(logits_fn: LogitsFn, images: Images, spec: ClassMaps, classes: Sequence[int] | None = None) -> Maps:
    """The gradient map of each of ``classes`` (all of them where None): ``[B, S, H, W]``, in the order asked for.

    Entries d score_c / d x as :func:`gradient` gives them for labels c, from one forward pass and one backward pass a
    class; ``[B, S, H, W, C]`` with channels='none'. Raises ValueError as :func:`gradient` does, and for classes that
    the network does not have.
    """
    checks.rank("images", images, 4)
    checks.floating("images", images)
    images = jnp.asarray(images).astype(jnp.promote_types(images.dtype, jnp.float32))
    count = _classes.num_classes(logits_fn, images, spec.score)
    chosen = np.arange(count) if classes is None else np.asarray(classes)
    if chosen.ndim != 1 or not chosen.size or not np.issubdtype(chosen.dtype, np.integer):
        raise ValueError(f"classes must be numbers of classes, one at least, got {classes!r}.")
    if chosen.min() < 0 or chosen.max() >= count:
        raise ValueError(f"classes must lie in 0..{count - 1}, for the network has {count}; got {chosen.tolist()}.")

    def update(maps, place, gradient):
        return maps.at[:, place].set(reduce_entries(gradient, spec))

    shape = jax.eval_shape(lambda x: reduce_entries(x, spec), images).shape
    nothing = jnp.zeros((shape[0], len(chosen), *shape[1:]), images.dtype)
    return _classes.walk(update, nothing, logits_fn, images, chosen, spec)
