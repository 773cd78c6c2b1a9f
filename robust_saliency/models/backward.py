"""The value of one network with the gradient of another."""

import jax.numpy as jnp
from jax.lax import stop_gradient

from robust_saliency.types import Images, LogitsFn


def backward_through(logits_fn: LogitsFn, through: LogitsFn) -> LogitsFn:
    """The function whose value is ``logits_fn`` and whose derivative is that of ``through``.

    An attack on it is judged by the one and steered by the other. Against a step that has no derivative, or a useless
    one (quantised input, narrow arithmetic), ``through`` is the network with something smooth in its place. It costs a
    forward pass more. Where ``through`` is not finite it does not count.

    Source: backward pass differentiable approximation, Athalye et al. 2018 (1802.00420), section 4.1.
    """

    def function(images: Images):
        wide = through(images)
        wide = jnp.where(jnp.isfinite(wide), wide, 0)
        # A custom derivative would not do: it cannot close over weights that are arguments of a compiled program.
        return stop_gradient(logits_fn(images)) + (wide - stop_gradient(wide))

    return function
