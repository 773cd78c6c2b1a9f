"""What a decision attack returns, and how it is judged: on the images that are returned, not on what was meant."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import losses, threat
from robust_saliency.threat import Threat
from robust_saliency.types import Array, Images, Labels, LogitsFn


class AttackResult(NamedTuple):
    """An attack's answer for each example.

    images: ``[B, H, W, C]`` inside the threat model: an adversary where the attack succeeded, else its strongest try.
    success: bool ``[B]``: the margin of ``images`` is at least 0 (a tie counts), or NaN: a network that does not answer
        is not right. True too for an example that was wrong before; its image is then the clean one.
    success_8bit: the same after rounding ``images`` to 8 bits, as a PNG would.
    margin: ``max_{k != y} z_k - z_y`` of ``images``, ``[B]``.
    distance: ``|images - clean|`` in the threat's norm, ``[B]``.
    forwards, backwards: passes of this example through the network, int32 ``[B]``; those of this judgement not counted.
    trace: the attacked loss of the iterate after each step, ``[B, num_steps]``; None where it was not asked for.
    """

    images: Images
    success: Array
    success_8bit: Array
    margin: Array
    distance: Array
    forwards: Array
    backwards: Array
    trace: Array | None = None


def judge(
    logits_fn: LogitsFn,
    tries: Images,
    origin: Images,
    labels: Labels,
    model: Threat,
    forwards: int,
    backwards: int,
) -> AttackResult:
    """Judges ``tries``, which lie in the threat model around ``origin``; what was wrong from the start stays clean."""
    wrong_before = fooled(logits_fn, origin, labels)
    images = jax.lax.stop_gradient(jnp.where(wrong_before[:, None, None, None], origin, tries))
    margin = losses.margin(logits_fn(images), labels)
    low, high = model.bounds
    rounded = low + jnp.round((images - low) / (high - low) * 255) / 255 * (high - low)
    one_each = jnp.zeros(labels.shape, jnp.int32)
    return AttackResult(
        images=images,
        success=~(margin < 0),
        success_8bit=fooled(logits_fn, rounded, labels),
        margin=margin,
        distance=threat.distance(images, origin, model),
        forwards=one_each + forwards,
        backwards=one_each + backwards,
    )


def fooled(logits_fn: LogitsFn, images: Images, labels: Labels) -> Array:
    """True where another class has at least the logit of the label, and where the margin is NaN, bool ``[B]``."""
    return ~(losses.margin(logits_fn(images), labels) < 0)
