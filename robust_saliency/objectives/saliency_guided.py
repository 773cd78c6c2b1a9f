"""Saliency-guided training (Ismail et al. 2021, 2111.14338): what the map calls unimportant must not matter."""

import jax
import jax.numpy as jnp

from robust_saliency import checks, losses, randomness, ranks, saliency
from robust_saliency.objectives.passes import in_a_row
from robust_saliency.objectives.types import Objective, accuracy, mean
from robust_saliency.types import Array, Images, Key, Scalar, spec

FEATURES = ("entry", "pixel")
MAPS = ("gradient", "input_x_gradient", "integrated_gradients", "smoothgrad")
OVER = ("channel", "image")
REPLACEMENTS = ("constant", "mean", "uniform")


@spec
class SaliencyGuided:
    """``mean CE(f(x), y) + weight mean KL(p(x) || p(x~))``: x~ is x with its least important features replaced.

    Algorithm 1. The paper leaves the choices below to the data set; defaults are the authors' code for colour images
    (interpretable.py, with random masking), and fraction that of their MNIST command.

    fraction: of the n features of an image ``round(fraction n)`` are replaced, exactly, half to even (the code rounds
        down). A scalar, or one an example ``[B]``.
    map: gradient, input_x_gradient, integrated_gradients or smoothgrad, each with its own defaults, in mode 'eval'.
    score: of the true class, what the map differentiates: logit, probability, log_probability, loss.
    importance: of the entries e of a pixel: 'signed' mean e, so that evidence against the class goes first; 'abs'
        |mean e| (the code's flag abs); 'mean_abs' mean |e|.
    features: 'pixel', all channels of which are replaced together, or 'entry', each channel of each pixel by itself.
    replacement: 'uniform' draws each entry between the least and the largest value, 'mean' takes the mean value,
        'constant' takes ``constant`` (the code for MNIST: the value at the top left).
    over: where that range or mean is taken: each 'channel' of an image, or the whole 'image'.

    Features of equal importance are taken in reading order, so from the top left: of a map that is mostly zero the
    upper zeros.
    """

    fraction: Scalar = 0.5
    weight: Scalar = 1.0
    map: str = "gradient"
    score: str = "logit"
    importance: str = "signed"
    features: str = "pixel"
    replacement: str = "uniform"
    over: str = "channel"
    constant: Scalar = 0.0

    def __post_init__(self):
        checks.one_of("map", self.map, MAPS)
        checks.one_of("importance", self.importance, IMPORTANCES)
        checks.one_of("features", self.features, FEATURES)
        checks.one_of("replacement", self.replacement, REPLACEMENTS)
        checks.one_of("over", self.over, OVER)
        _method(self)


IMPORTANCES = {
    "abs": lambda entries: jnp.abs(jnp.mean(entries, axis=-1)),
    "mean_abs": lambda entries: jnp.mean(jnp.abs(entries), axis=-1),
    "signed": lambda entries: jnp.mean(entries, axis=-1),
}


def perturb(classifier, variables, key, batch, spec):
    """Adds ``masked`` images to the batch."""
    key_map, key_fill = randomness.split(key)
    entries = saliency.run(classifier.logits_fn(variables), key_map, batch["image"], batch["label"], _method(spec))
    chosen = least_important(entries, spec)
    masked = jnp.where(chosen, _fill(key_fill, batch["image"], spec), batch["image"])
    return {**batch, "masked": jax.lax.stop_gradient(masked)}


def loss(classifier, variables, carry, key, batch, spec):
    """The gradient flows through both arguments of the KL, as in the authors' code.

    Clean and masked images pass separately, in this order, and BatchNorm keeps what both leave.
    """
    clean, masked = in_a_row(classifier, variables, key, batch["image"], batch["masked"])
    divergence = mean(losses.kl(clean.logits, masked.logits), batch)
    value = mean(losses.cross_entropy(clean.logits, batch["label"]), batch) + spec.weight * divergence
    metrics = {"loss": value, "kl": divergence, "accuracy": accuracy(clean.logits, batch)}
    return value, (masked.state, metrics)


def least_important(entries: Array, spec: SaliencyGuided) -> Array:
    """Which values of an image are replaced, given its signed map ``[B, H, W, C]``: bool, ``[B, H, W, C or 1]``."""
    single = entries[..., None] if spec.features == "entry" else entries[..., None, :]
    importance = IMPORTANCES[spec.importance](single)
    place = ranks.order(importance.reshape(len(entries), -1)).rank.reshape(importance.shape)
    count = jnp.round(jnp.asarray(spec.fraction) * importance[0].size).astype(jnp.int32)
    return place < count.reshape((-1, 1, 1, 1))


def _method(spec: SaliencyGuided):
    return saliency.SALIENCY[spec.map][0](score=spec.score, sign="signed", channels="none")


def _fill(key: Key, images: Images, spec: SaliencyGuided) -> Images:
    axes = (1, 2) if spec.over == "channel" else (1, 2, 3)
    if spec.replacement == "constant":
        return jnp.full_like(images, spec.constant)
    if spec.replacement == "mean":
        return jnp.mean(images, axis=axes, keepdims=True)
    low, high = (extreme(images, axis=axes, keepdims=True) for extreme in (jnp.min, jnp.max))
    return low + (high - low) * randomness.draw(jax.random.uniform, key, images.shape, images.dtype)


saliency_guided = Objective(perturb, loss)
