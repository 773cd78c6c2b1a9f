"""Attacks on the explanation: an image that looks alike, is predicted alike, and has another saliency map.

    explained = jnp.argmax(logits_fn(images), axis=-1)
    surrogate = models.with_activation(classifier, "softplus10").logits_fn(variables)
    result = map_attack(logits_fn, key, images, explained, MapAttack(), surrogate)
    result.scores["top_k_intersection"]  # [B]

A map is a first derivative, so its gradient is a second one, and that of a ReLU network is zero almost everywhere. The
gradient is therefore taken through a *surrogate*, the same weights with softplus in the place of ReLU. What is kept,
returned and scored is judged on the network itself.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import attacks, checks, losses, map_distances, randomness, ranks, rows, saliency, threat
from robust_saliency.attacks import APGD, PGD
from robust_saliency.attacks.pgd import clean
from robust_saliency.metrics.similarity import SIMILARITIES, TopK
from robust_saliency.saliency import Gradient, MapSpec
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn, Maps, Saliency, Scalar, spec

DISTANCES = ("mass_centre", "region", "target_map", "top_k")
NEED_A_GOAL = ("region", "target_map")


@spec
class MapAttack:
    """``max_x' D(h(x')) - gamma * mean_k (softmax_k(x') - softmax_k(x))^2`` in the threat model of ``attack``.

    h is the map of ``saliency``, gamma ``prediction_weight``, D one of :mod:`robust_saliency.map_distances`:

    distance: 'top_k' takes the map's mass out of the ``k`` largest pixels of the clean map, 'mass_centre' moves its
        centre of mass; with a goal, 'region' brings its mass there, 'target_map' makes it that map.
    k: pixels, of 'top_k' and of the score.
    prediction_weight: at least 0, in units of D; a scalar or ``[B]``.
    keep_prediction: only images of the class that the clean one is predicted as may be returned; from an iterate of
        another class the next step leads back, up the margin of that class. False: the weight alone holds the
        prediction.
    attack: PGD or APGD; the best iterate is returned, whatever ``keep_best`` says.
    scores: which of :data:`robust_saliency.metrics.SIMILARITIES` compare the maps before and after; 'ssim' needs 11
        pixels a side.

    Sources: Ghorbani, Abid, Zou 2019 (1710.10547): linf, ``epsilon=8/255``, PGD of 300 steps of 0.5/255, k = 1000 of
    224x224, the class kept; from another class their code goes on as before, here the step is that of a switching
    subgradient method (Polyak 1967), which finds more where margins are small. Dombrowski et al. 2019 (1906.07983):
    'target_map' and the weight alone, which their code sets to what is 2.5e4 here at 224x224 (1e6 beside 1e11 on the
    mean square of the shares); theirs is Adam without a ball, in the place of which stand PGD and APGD.
    """

    attack: PGD | APGD = APGD()
    saliency: MapSpec = Gradient()
    distance: str = "top_k"
    k: int = 100
    prediction_weight: Scalar = 0.0
    keep_prediction: bool = True
    scores: tuple[str, ...] = tuple(SIMILARITIES)

    def __post_init__(self):
        checks.one_of("distance", self.distance, DISTANCES)
        for name in self.scores:
            checks.one_of("score", name, SIMILARITIES)


class MapAttackResult(NamedTuple):
    """What the attack found for each example, all of it measured on the network itself, not on the surrogate.

    images: ``[B, H, W, C]`` inside the threat model; the clean image where no iterate had a larger objective.
    kept: bool ``[B]``: ``images`` are predicted as the clean ones, by argmax; with ``keep_prediction`` always true.
    distance: ``|images - clean|`` in the threat's norm, ``[B]``.
    gain: D of the map after less D of the map before, at least 0, ``[B]``; 0 where the image is the clean one, NaN
        where the clean map is zero.
    maps_before, maps_after: ``[B, H, W]``, as the saliency method gives them.
    scores: by name, ``[B]``, of the map after against the map before.
    """

    images: Images
    kept: Array
    distance: Array
    gain: Array
    maps_before: Maps
    maps_after: Maps
    scores: dict[str, Array]


class _Judged(NamedTuple):
    value: Array
    distance: Array
    maps: Maps
    kept: Array
    logits: Array


def map_attack(
    logits_fn: LogitsFn,
    key: Key,
    images: Images,
    labels: Labels,
    spec: MapAttack,
    surrogate: LogitsFn | None = None,
    goal: Array | None = None,
    explain: Saliency = saliency.run,
) -> MapAttackResult:
    """Images in the threat model around ``images [B, H, W, C]`` whose maps of the class ``labels [B]`` are far off.

    surrogate: ``logits_fn`` made twice differentiable, see ``models.with_activation``; None takes ``logits_fn`` itself,
        through which a ReLU network gives no gradient.
    goal: ``[B, H, W]``: weights in [0, 1] for 'region', a map for 'target_map'.
    explain: a saliency method of one's own, ``(logits_fn, key, images, labels, spec.saliency) -> maps [B, H, W]``,
        differentiable. Its random numbers are the same before, during and after.

    ValueError for a goal that is missing, not wanted or of another shape, a k above H W, labels known to be no class,
    and as the saliency method.
    """
    origin = clean(images, spec.attack.threat)
    attack_key, map_key = randomness.split(key)
    logits_before = logits_fn(origin)
    checks.known_labels("labels", labels, logits_before.shape[-1])
    predicted = jnp.argmax(logits_before, axis=-1)
    maps_before = explain(logits_fn, map_key, origin, labels, spec.saliency)
    distance_fn = _distance_fn(spec, maps_before, goal)

    def objective(network: LogitsFn, images: Images, logits: Array) -> tuple[Array, Array, Maps]:
        maps = explain(network, map_key, images, labels, spec.saliency)
        distance = distance_fn(maps)
        return distance - spec.prediction_weight * _change(logits, logits_before), distance, maps

    def judged(images: Images) -> _Judged:
        logits = logits_fn(images)
        value, distance, maps = objective(logits_fn, images, logits)
        kept = jnp.argmax(logits, axis=-1) == predicted
        return _Judged(
            jnp.where(kept, value, -jnp.inf) if spec.keep_prediction else value, distance, maps, kept, logits
        )

    def loss_fn(images: Images) -> Array:
        """The value that the network gives, and the gradient that leads on: also where the value is minus infinity."""
        found = judged(images)
        steering, *_ = objective(surrogate or logits_fn, images, found.logits)
        if spec.keep_prediction:
            steering = jnp.where(found.kept, steering, -losses.margin(found.logits, predicted))
        return jax.lax.stop_gradient(found.value) + (steering - jax.lax.stop_gradient(steering))

    tries = attacks.run(loss_fn, attack_key, origin, _keeping_the_best(spec.attack))
    before, after = distance_fn(maps_before), judged(tries)
    better = after.value > before
    images, maps_after = rows.choose(better, (tries, after.maps), (origin, maps_before))
    result = MapAttackResult(
        images=images,
        kept=after.kept | ~better,
        distance=threat.distance(images, origin, spec.attack.threat),
        gain=rows.choose(better, after.distance, before) - before,
        maps_before=maps_before,
        maps_after=maps_after,
        scores=_scores(spec, maps_after, maps_before),
    )
    return jax.lax.stop_gradient(result)


def _distance_fn(spec: MapAttack, clean_maps: Maps, goal: Array | None) -> Callable[[Maps], Array]:
    if (goal is None) == (spec.distance in NEED_A_GOAL):
        given = "none" if goal is None else f"one of shape {jnp.shape(goal)}"
        names = ", ".join(NEED_A_GOAL)
        raise ValueError(f"A goal [B, H, W] belongs to the distances {names}: got {given} for {spec.distance!r}.")
    if spec.distance == "region":
        return lambda maps: map_distances.region_mass(maps, goal)
    if spec.distance == "target_map":
        return lambda maps: map_distances.target_map(maps, goal)
    if spec.distance == "mass_centre":
        return lambda maps: map_distances.mass_centre(maps, clean_maps)
    largest = ranks.top_share(map_distances.shares(clean_maps), spec.k)  # sorted once, not in every step
    return lambda maps: -map_distances.region_mass(maps, largest)


def _change(logits: Array, logits_before: Array) -> Array:
    """Mean squared change of the probabilities, ``[B]``."""
    widened = (z.astype(jnp.promote_types(z.dtype, jnp.float32)) for z in (logits, logits_before))
    probabilities, before = (jax.nn.softmax(z, axis=-1) for z in widened)
    return jnp.mean(jnp.square(probabilities - jax.lax.stop_gradient(before)), axis=-1)


def _keeping_the_best(attack: PGD | APGD) -> PGD | APGD:
    if isinstance(attack, PGD):
        return dataclasses.replace(attack, keep_best=True)
    if isinstance(attack, APGD):
        return attack
    raise ValueError(
        f"MapAttack.attack must be PGD or APGD, which keep their best iterate, got {type(attack).__name__}."
    )


def _scores(spec: MapAttack, maps: Maps, clean_maps: Maps) -> dict[str, Array]:
    specs = {name: TopK(k=spec.k) if SIMILARITIES[name][0] is TopK else SIMILARITIES[name][0]() for name in spec.scores}
    return {name: SIMILARITIES[name][1](maps, clean_maps, score) for name, score in specs.items()}
