"""The programs that look into the units of a network: compiled once for a network and its settings."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import attacks, checks, losses, models, neurons, threat
from robust_saliency import data as data_lib
from robust_saliency.config_sections import Neurons
from robust_saliency.neurons import ascent

STEPS_A_CALL = 10  # of an ascent, so that progress shows


class Programs(NamedTuple):
    """Jitted; every row of a result is of one example alone, so that no device waits for another.

    to_float(images) -> images. look(variables, images) -> {'logits', 'activations': by layer ``[B, h, w, U]``}.
    attacked(variables, ensemble, keys, images, labels) -> ``[B, A, H, W, C]``; ensemble: the variables of its networks,
    () = the network alone is attacked. overlaps(activations, thresholds, masks, valid) -> by layer
    :class:`neurons.Overlaps`. differences(variables, images, classes, absent) -> by layer ``[B, U]``; absent: by layer
    ``[U]``. ablated(variables, images, classes, absent, taken) -> by layer :class:`neurons.Ablated`; taken: by layer
    ``[B, U]``. ascend[layer](variables, state, units, num_steps) -> state.
    """

    to_float: Callable
    look: Callable
    attacked: Callable
    overlaps: Callable
    differences: Callable
    ablated: Callable
    ascend: dict[str, Callable]


def layers_of(classifier: models.Classifier, variables: Any, image_shape: tuple[int, ...], wanted) -> tuple[str, ...]:
    """The layers ``wanted``; of none the last one whose activation is a map.

    ValueError, naming the choices, for a layer that is not there or has no units, and where there is no map.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    if not wanted:
        everything = jax.eval_shape(lambda v, x: classifier.apply(v, x, capture=classifier.layers), variables, images)
        maps = [name for name in classifier.layers if len(getattr(everything.features[name], "shape", ())) == 4]
        if not maps:
            known = ", ".join(classifier.layers) or "none"
            raise ValueError(f"No layer of this network is a map: name config.neurons.layers, out of {known}.")
        return tuple(maps[-1:])
    for name in wanted:
        checks.one_of("layer of the network in config.neurons.layers", name, classifier.layers)
    jax.eval_shape(lambda v, x: neurons.look(classifier.logits_fn(v), x, wanted), variables, images)
    return tuple(wanted)


@functools.lru_cache(maxsize=8)
def make_programs(
    classifier: models.Classifier,
    layers: tuple[str, ...],
    settings: Neurons,
    ensemble: tuple[models.Classifier, ...] = (),
) -> Programs:
    """The programs for ``layers`` of ``classifier``; the same objects, so the same compiled code, again.

    ensemble: the networks that adversarial images are made against together; () = ``classifier`` alone.
    """

    def look(variables, images):
        activations, logits = neurons.look(classifier.logits_fn(variables), images, layers)
        return {"logits": logits, "activations": activations}

    def attacked(variables, ensemble_variables, keys, images, labels):
        if ensemble:
            members = [each.logits_fn(held) for each, held in zip(ensemble, ensemble_variables, strict=True)]
            return attacks.ensemble_optimisation(members, keys, images, labels, settings.optimisation).images
        logits_fn = classifier.logits_fn(variables)
        changed = attacks.run(lambda x: losses.cross_entropy(logits_fn(x), labels), keys, images, settings.attack)
        return changed[:, None]

    def overlaps(activations, thresholds, masks, valid):
        return {name: neurons.overlaps(activations[name], thresholds[name], masks, valid) for name in layers}

    def tracings(absent):
        return {name: neurons.Tracing(score=settings.score, value=absent[name]) for name in layers}

    def differences(variables, images, classes, absent):
        logits_fn, specs = classifier.logits_fn(variables), tracings(absent)
        return {name: neurons.prediction_differences(logits_fn, images, classes, name, specs[name]) for name in layers}

    def ablated(variables, images, classes, absent, taken):
        logits_fn, specs = classifier.logits_fn(variables), tracings(absent)
        return {name: neurons.ablated(logits_fn, images, classes, name, taken[name], specs[name]) for name in layers}

    return Programs(
        to_float=jax.jit(lambda images: data_lib.to_float({"image": images})["image"]),
        look=jax.jit(look),
        attacked=jax.jit(attacked),
        overlaps=jax.jit(overlaps),
        differences=jax.jit(differences),
        ablated=jax.jit(ablated),
        ascend={name: jax.jit(_ascend(classifier, name, settings), static_argnums=3) for name in layers},
    )


def _ascend(classifier: models.Classifier, layer: str, settings: Neurons) -> Callable:
    box = threat.Threat(norm="l2", epsilon=float("inf"))
    spec = neurons.Ascent(threat=box, step_size=settings.ascent_step_size, num_steps=settings.ascent_steps, decay=1.0)

    def ascend(variables, state, units, num_steps):
        return ascent.advance(neurons.unit_score(classifier.logits_fn(variables), layer, units), state, spec, num_steps)

    return ascend
