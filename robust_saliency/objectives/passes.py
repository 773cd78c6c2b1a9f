"""Passes in mode 'train' that several regimes share."""

import jax
import jax.numpy as jnp

from robust_saliency import losses, randomness
from robust_saliency.types import Array, Images, Key


def in_a_row(classifier, variables, key: Key, first: Images, second: Images):
    """The outputs of ``first`` and of ``second`` images, each a pass of its own with its own batch statistics.

    The second pass goes on from the state that the first left, so BatchNorm counts both, the second last: its state is
    the one to keep. The first draws its dropout from ``key`` itself, as standard training does, the second another.
    """
    one = classifier.apply(variables, first, mode="train", key=key)
    after = {**variables, "state": one.state}
    return one, classifier.apply(after, second, mode="train", key=randomness.fold_in(key, 1))


def with_input_gradient(classifier, variables, key: Key, images: Images, batch):
    """The output of ``images``, their cross-entropy ``[B]``, and its gradient in the pixels ``[B, H, W, C]``.

    The gradient is of the sum over the valid examples, and can itself be differentiated in the parameters. Under
    BatchNorm it counts what an image does to its neighbours through the statistics of the batch.
    """

    def total(images) -> tuple[Array, tuple]:
        output = classifier.apply(variables, images, mode="train", key=key)
        values = losses.cross_entropy(output.logits, batch["label"])
        return jnp.sum(jnp.where(batch["valid"], values, 0)), (output, values)

    gradient, (output, values) = jax.grad(total, has_aux=True)(images)
    return output, values, gradient
