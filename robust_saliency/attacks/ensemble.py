"""Ensemble optimisation: adversaries of several models at once, as Dong et al. (2017, 1708.05493) made theirs.

Reconstruction: the full text of the paper was not to be had. Known is that adversarial images, about ten a real one and
apparently of other target classes, were optimised against an ensemble so that they transfer. The equation is the
ensemble attack of Liu et al. (2017, 1611.02770), on which the paper seems to build, from memory of it.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks, losses, randomness, threat
from robust_saliency.attacks import rules
from robust_saliency.attacks.pgd import clean, value_and_gradient
from robust_saliency.attacks.targets import check
from robust_saliency.ensembles import COMBINE, ensemble_logits, ensemble_loss
from robust_saliency.threat import Threat
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, LossFn, Scalar, spec

DISTANCES = ("l2", "rms", "squared_l2")
TARGETS = ("least_likely", "none", "random")


@spec
class EnsembleOptimisation:
    """``min_x' distance_weight d(x', x) + loss(x')`` by Adam on the image itself, from a random start.

    Towards a target t the loss is ``-log p_t``, away from the label y it is ``-log(1 - p_y)``: at least 0 either way.
    All of it is a reconstruction, see the module; no default is the paper's.

    threat: what holds after every step. As it stands, the box alone; a mask and an epsilon may be added.
    distance: d, 'l2' = ``|x' - x|_2``, 'squared_l2', or 'rms' = ``|x' - x|_2 / sqrt(H W C)`` (Liu et al.); pixel units.
    distance_weight: a scalar or ``[B]``.
    combine: 'losses' averages the losses of the models; 'logits' and 'probabilities' take the loss of the average, see
        :func:`robust_saliency.ensembles.ensemble_logits`.
    weights: of the models, one each, scaled to sum to one; None = all the same.
    target: 'random' = a wrong class drawn for each adversary, 'least_likely' = the class to which the models together
        give the least probability on the clean image (a wrong one), 'none' = away from the label.
    num_adversaries: images made of each image.
    start_scale: pixels, standard deviation of the noise that each starts from; at 0 they differ by target alone.
    learning_rate: pixels; a scalar or ``[B]``.
    num_steps: gradients of each model for each adversary.
    unroll: as for PGD, and of the adversaries, which are made one after the other, in the memory of one.
    """

    threat: Threat = Threat(norm="l2", epsilon=math.inf)
    distance: str = "l2"
    distance_weight: Scalar = 0.1
    combine: str = "losses"
    weights: Array | None = None
    target: str = "random"
    num_adversaries: int = 10
    start_scale: Scalar = 0.01
    learning_rate: Scalar = 0.01
    num_steps: int = 50
    unroll: bool = False

    def __post_init__(self):
        checks.one_of("distance", self.distance, DISTANCES)
        checks.one_of("combine", self.combine, ("losses", *COMBINE))
        checks.one_of("target", self.target, TARGETS)
        counts = {"num_adversaries": self.num_adversaries, "num_steps": self.num_steps}
        checks.at_least(1, **counts, where="EnsembleOptimisation")

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes of an image through each model; the judgement is not counted."""
        steps = self.num_adversaries * self.num_steps
        return steps + (self.target == "least_likely"), steps


class Adversaries(NamedTuple):
    """N adversaries of each image.

    images: ``[B, N, H, W, C]``, the last iterates.
    targets: ``[B, N]``, the class that each was driven to; without targets the label, which it was driven from.
    fooled: bool ``[B, N, models]``: the target has at least the largest of the other logits; without targets, another
        class has at least the logit of the label.
    success: bool ``[B, N]``: all models are fooled.
    distance: ``|images - clean|`` in the threat's norm, ``[B, N]``.
    """

    images: Images
    targets: Labels
    fooled: Array
    success: Array
    distance: Array


def ensemble_optimisation(
    logits_fns: Sequence[LogitsFn] | LogitsFn,
    key: Key,
    images: Images,
    labels: Labels,
    spec: EnsembleOptimisation,
    targets: Labels | None = None,
) -> Adversaries:
    """Adversaries of ``images [B, H, W, C]`` against all of ``logits_fns``, a single model included.

    targets: ``[B, num_adversaries]``, classes to drive to instead of those of ``spec.target``.
    """
    models = (logits_fns,) if callable(logits_fns) else tuple(logits_fns)
    origin = clean(images, spec.threat)
    is_targeted = targets is not None or spec.target != "none"
    key_targets, key_starts = randomness.split(key)
    if targets is None:
        targets = _targets(models, key_targets, origin, labels, spec)
    expected = (origin.shape[0], spec.num_adversaries)
    if targets.shape != expected:
        raise ValueError(f"targets must be [B, num_adversaries], {list(expected)}, got shape {list(targets.shape)}.")
    check(models[0], origin, labels, targets if is_targeted else None)

    def one(key: Key, goal: Labels) -> tuple[Images, Array, Array]:
        loss_fn = _loss(models, goal, spec, is_targeted=is_targeted)
        found = _descended(loss_fn, threat.start(key, origin, spec.threat, "gaussian", spec.start_scale), origin, spec)
        margins = jnp.stack([losses.margin(model(found), goal) for model in models], axis=-1)
        return found, margins <= 0 if is_targeted else margins >= 0, threat.distance(found, origin, spec.threat)

    keys = randomness.split(key_starts, spec.num_adversaries)
    # One after the other: a batch that devices share is gathered where a second axis of images stands before it.
    if spec.unroll:
        pairs = zip(keys, targets.T, strict=True)
        found, fooled, distance = (
            jnp.stack(parts, axis=1) for parts in zip(*(one(*pair) for pair in pairs), strict=True)
        )
    else:
        results = jax.lax.map(lambda pair: one(*pair), (keys, targets.T))
        found, fooled, distance = (jnp.moveaxis(result, 0, 1) for result in results)
    return Adversaries(jax.lax.stop_gradient(found), targets, fooled, jnp.all(fooled, axis=-1), distance)


def _targets(
    models: Sequence[LogitsFn], key: Key, origin: Images, labels: Labels, spec: EnsembleOptimisation
) -> Labels:
    count = spec.num_adversaries
    shape = (origin.shape[0], count)
    if spec.target == "none":
        return jnp.broadcast_to(labels[:, None], shape)
    if spec.target == "random":
        num_classes = jax.eval_shape(models[0], origin).shape[-1]
        offset = randomness.draw(jax.random.randint, key, shape, labels.dtype, minval=1, maxval=num_classes)
        return (labels[:, None] + offset) % num_classes
    logits = ensemble_logits(models, spec.weights, "probabilities")(origin)
    is_label = labels[:, None] == jnp.arange(logits.shape[-1])[None]
    least = jnp.argmin(jnp.where(is_label, jnp.inf, logits), axis=-1).astype(labels.dtype)
    return jnp.broadcast_to(least[:, None], shape)


def _loss(models: Sequence[LogitsFn], goal: Labels, spec: EnsembleOptimisation, *, is_targeted: bool) -> LossFn:
    """What is to fall: large where the models are not fooled."""
    loss = losses.cross_entropy if is_targeted else _surprise_of_others
    if spec.combine != "losses":
        together = ensemble_logits(models, spec.weights, spec.combine)
        return lambda x: loss(together(x), goal)
    return ensemble_loss([lambda x, model=model: loss(model(x), goal) for model in models], spec.weights)


def _surprise_of_others(logits: Array, labels: Labels) -> Array:
    """``-log(1 - p_y)``, also where p_y is 1 in float32."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    is_label = labels[:, None] == jnp.arange(logits.shape[-1])[None]
    others = jnp.where(is_label, -jnp.inf, logits)
    return jax.nn.logsumexp(logits, axis=-1) - jax.nn.logsumexp(others, axis=-1)


def _descended(loss_fn: LossFn, first: Images, origin: Images, spec: EnsembleOptimisation) -> Images:
    weight = threat.expand("EnsembleOptimisation.distance_weight", spec.distance_weight, origin)
    learning_rate = threat.expand("EnsembleOptimisation.learning_rate", spec.learning_rate, origin)

    def step(state: tuple[Images, Any]) -> tuple[Images, Any]:
        images, moments = state
        _, gradient = value_and_gradient(loss_fn, images)
        finite = jnp.all(jnp.isfinite(gradient), axis=(1, 2, 3), keepdims=True)
        gradient = jnp.where(finite, gradient, 0) + weight * _distance_gradient(images - origin, spec.distance)
        direction, moments = rules.descend("adam", gradient, moments)
        return threat.project(images + learning_rate * direction, origin, spec.threat), moments

    state = first, rules.start("adam", first)
    if spec.unroll:
        for _ in range(spec.num_steps):
            state = step(state)
        return state[0]
    return jax.lax.fori_loop(0, spec.num_steps, lambda _, state: step(state), state)[0]


def _distance_gradient(delta: Array, distance: str) -> Array:
    """Of ``|d|_2``, of its square or of its share a value; zero where d is."""
    if distance == "squared_l2":
        return 2 * delta
    length = threat.norm(delta)
    unit = delta / jnp.where(length > 0, length, 1)
    return unit / math.sqrt(math.prod(delta.shape[1:])) if distance == "rms" else unit
