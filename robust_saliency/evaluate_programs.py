"""The programs that an evaluation compiles: once for a network and an evaluation, whatever the weights."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import attacks, losses, map_attacks, metrics, models
from robust_saliency import data as data_lib
from robust_saliency.config import MASK_FIELDS, Method
from robust_saliency.config_sections import Evaluation
from robust_saliency.evaluate_blind import blind_kinds, blind_maps
from robust_saliency.threat import Threat


class Programs(NamedTuple):
    """Jitted functions of (variables, ...); attacks, decisions and maps by label.

    attacks: of maximisers, on cross-entropy; decisions: of decision attacks that have no stages. measure: the metrics
    of a map; explain_again: those that need maps of other images too, by the label of the method; map_attacks: what
    makes some of these images, by the attack on the explanation.
    """

    to_float: Callable
    predict: Callable
    correct: Callable
    attacks: dict
    decisions: dict
    maps: dict
    blind: Callable
    measure: Callable
    explain_again: dict
    map_attacks: dict


class Explained(NamedTuple):
    """A batch: its rows as they were read, on the devices, the network's answer, and the map of each method."""

    rows: dict
    batch: dict
    example: dict
    maps: dict


@functools.lru_cache(maxsize=8)
def make_programs(classifier: models.Classifier, settings: Evaluation, masks: tuple[str, ...]) -> Programs:
    """The programs of ``settings`` for ``classifier``; the same objects, so the same compiled code, again."""

    def predict(variables, batch):
        logits = classifier.logits_fn(variables)(batch["image"])
        return {
            "prediction": jnp.argmax(logits, axis=-1),
            "confidence": metrics.confidence(logits),
            "correct": metrics.correct(logits, batch["label"]),
        }

    def correct(variables, images, labels):
        return metrics.correct(classifier.logits_fn(variables)(images), labels)

    return Programs(
        to_float=jax.jit(data_lib.to_float),
        predict=jax.jit(predict),
        correct=jax.jit(correct),
        attacks={
            label: jax.jit(_attack_program(classifier, method))
            for label, method in settings.attacks
            if not is_decision(method)
        },
        decisions={
            label: jax.jit(_decision_program(classifier, method))
            for label, method in settings.attacks
            if is_decision(method)
        },
        maps={label: jax.jit(_map_program(classifier, method)) for label, method in settings.maps},
        blind=jax.jit(functools.partial(blind_maps, masks, tuple(label for label, _ in settings.maps))),
        measure=jax.jit(_measure_program(classifier, settings, masks)),
        explain_again=_again_programs(classifier, settings, masks),
        map_attacks={attack: jax.jit(_map_attack(classifier, attack)) for attack in _map_attacks(settings, masks)},
    )


def _attack_program(classifier: models.Classifier, method: Method) -> Callable:
    def attacked(variables, keys, batch):
        logits_fn = classifier.logits_fn(variables)

        def loss_fn(images):
            return losses.cross_entropy(logits_fn(images), batch["label"])

        return method.function(loss_fn, keys, batch["image"], method.spec)

    return attacked


def is_decision(method: Method) -> bool:
    """Whether an attack says itself who is fooled; the others maximise a loss."""
    return any(type(method.spec) is Spec for Spec, _ in attacks.DECISIONS.values())


def _decision_program(classifier: models.Classifier, method: Method) -> Callable:
    def fooled(variables, keys, batch):
        logits_fn = classifier.logits_fn(variables)
        return method.function(logits_fn, keys, batch["image"], batch["label"], method.spec).success

    return fooled


def _map_program(classifier: models.Classifier, method: Method) -> Callable:
    def explain(variables, keys, batch):
        return method.function(classifier.logits_fn(variables), keys, batch["image"], batch["explained"], method.spec)

    return explain


def _map_attacks(settings: Evaluation, masks: tuple[str, ...]) -> list[metrics.ExplanationAttack]:
    """The attacks on the explanation that metrics ask for, each once."""
    usable, _ = usable_metrics(settings, masks)
    return list(dict.fromkeys(method.spec.attack for _, method in usable if "attacked_fn" in method.needs))


def _map_attack(classifier: models.Classifier, attack: metrics.ExplanationAttack) -> Callable:
    spec = map_attacks.MapAttack(
        attack=attacks.APGD(threat=Threat(norm=attack.norm, epsilon=attack.epsilon), num_steps=attack.num_steps),
        distance=attack.distance,
        k=attack.k,
        scores=(),
    )
    try:
        differentiable = models.with_activation(classifier, attack.surrogate) if attack.surrogate else classifier
    except ValueError as error:
        raise ValueError(
            f"The metric attack_stability attacks through the activation {attack.surrogate!r}: {error} Or attack "
            "through the network as it is, with attack.surrogate='', if it can be differentiated twice."
        ) from error

    def attacked(variables, keys, batch):
        networks = classifier.logits_fn(variables), differentiable.logits_fn(variables)
        return map_attacks.map_attack(networks[0], keys, batch["image"], batch["explained"], spec, networks[1]).images

    return attacked


def _measure_program(classifier: models.Classifier, settings: Evaluation, masks: tuple[str, ...]) -> Callable:
    specs = {label: method.spec for label, method in own_metrics(settings, masks).items()}

    def measure(variables, keys, batch, maps):
        return metrics.measure(specs, **_available(classifier, variables, keys, batch, maps, masks))

    return measure


def own_metrics(settings: Evaluation, masks: tuple[str, ...]) -> dict[str, Method]:
    """By label the metrics that judge one map of an image, without those that need maps of other images."""
    usable, _ = usable_metrics(settings, masks)
    return {label: method for label, method in usable if not _explains_again(method)}


def _again_programs(classifier: models.Classifier, settings: Evaluation, masks: tuple[str, ...]) -> dict:
    """By label of a map what :func:`_again_program` makes; empty where no metric asks for it."""
    usable, _ = usable_metrics(settings, masks)
    specs = {label: method.spec for label, method in usable if _explains_again(method)}
    if not specs:
        return {}
    maps_of = {label: _map_program(classifier, method) for label, method in settings.maps}
    all_blind = functools.partial(blind_maps, masks, tuple(maps_of))
    blind = {label: functools.partial(_one_blind, label, all_blind) for label in blind_kinds(settings, masks)}
    return {
        label: jax.jit(_again_program(classifier, explain, specs, masks, _map_attacks(settings, masks)))
        for label, explain in (maps_of | blind).items()
    }


def _one_blind(label: str, all_blind: Callable, variables, keys, batch: dict):
    return all_blind(keys, batch)[label]


def _again_program(
    classifier, explain: Callable, specs: dict[str, Any], masks: tuple[str, ...], known: list[metrics.ExplanationAttack]
) -> Callable:
    """``(variables, keys, map_keys, batch, maps, attacked) -> values``.

    map_keys: those that the maps were made with; attacked: the images of each of the ``known`` attacks.
    """

    def measure(variables, keys, map_keys, batch, maps, attacked):
        available = _available(classifier, variables, keys, batch, maps, masks)
        available["saliency_fn"] = lambda keys, images, labels: explain(
            variables, keys, {**batch, "image": images, "explained": labels}
        )
        available["map_key"] = map_keys
        available["attacked_fn"] = lambda attack: attacked[known.index(attack)]
        return metrics.measure(specs, **available)[0]

    return measure


def _available(classifier: models.Classifier, variables, keys, batch: dict, maps, masks: tuple[str, ...]) -> dict:
    """What a metric may ask for."""
    return {
        "logits_fn": classifier.logits_fn(variables),
        "key": keys,
        "images": batch["image"],
        "labels": batch["explained"],
        "maps": maps,
        "masks": _masks_of(batch, masks),
    }


def _explains_again(method: Method) -> bool:
    return not {"saliency_fn", "attacked_fn"}.isdisjoint(method.needs)


def usable_metrics(settings: Evaluation, masks: tuple[str, ...]) -> tuple[list[tuple[str, Method]], dict[str, str]]:
    """The metrics whose masks the data has, and for each of the others the reason why it is not measured."""
    usable, skipped = [], {}
    for label, method in settings.metrics:
        wanted = [getattr(method.spec, field) for field in MASK_FIELDS if hasattr(method.spec, field)]
        missing = [name for name in wanted if name not in masks]
        if missing:
            skipped[label] = f"the data has no {' and no '.join(missing)} mask"
        else:
            usable.append((label, method))
    return usable, skipped


def _masks_of(batch: dict, masks: tuple[str, ...]) -> dict:
    return {name: batch[f"{name}_mask"] for name in masks}
