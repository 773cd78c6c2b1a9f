"""What is measured of an example needs no other, so no program of an evaluation talks between devices.

On virtual CPU devices that is more than speed: of programs dispatched together one can wait for the other for ever.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import (
    attacks,
    map_attacks,
    metrics,
    models,
    neuron_programs,
    neurons,
    robustness_programs,
    saliency,
    sharding,
    survivors,
)
from robust_saliency.attacks import stages
from robust_saliency.config_sections import Neurons, Robustness
from robust_saliency.evaluate_programs import make_programs
from robust_saliency.neurons import ascent
from robust_saliency.randomness import per_example_keys
from robust_saliency.threat import Threat
from tests import tiny
from tests.saliency.test_saliency_contract import ROWS

COLLECTIVE = re.compile(r"= \S+ (all-gather|all-reduce|all-to-all|collective-permute)")
BATCH = 4


def collectives(program, *arguments):
    """And calls of LAPACK, which on several virtual devices can wait for each other too."""
    text = program.lower(*arguments).compile().as_text()
    return COLLECTIVE.findall(text) + re.findall(r"lapack_\w+", text)


@pytest.fixture(scope="module")
def placed():
    classifier = models.make(models.SmallCNN(width=2), (16, 16, 3), 5)
    mesh = sharding.make_mesh(2, BATCH, "batch_size")
    rng = np.random.default_rng(0)
    rows = {
        "image": rng.random((BATCH, 16, 16, 3)).astype(np.float32),
        "label": np.arange(BATCH, dtype=np.int32),
        "id": np.arange(BATCH, dtype=np.int32),
        "lesion_mask": np.ones((BATCH, 16, 16), np.float32),
        "evidence_mask": np.ones((BATCH, 16, 16), np.float32),
        "explained": np.zeros(BATCH, np.int32),
    }
    variables = sharding.put_replicated(classifier.init(jax.random.key(0)), mesh)
    batch = sharding.put_batch(rows, mesh)
    return classifier, variables, batch, per_example_keys(jax.random.key(0), batch["id"])


def test_the_check_finds_a_collective(placed):
    _, _, batch, _ = placed
    assert collectives(jax.jit(lambda x: x - jnp.mean(x)), batch["image"]) != []
    assert collectives(jax.jit(lambda x: jnp.linalg.inv(x[..., 0])), batch["image"]) != []


SHORT = {"num_steps": 2}
MODELS = [Threat(norm=norm, epsilon=0.1) for norm in ("l1", "l2", "linf")]
SPECS = [
    attacks.Untargeted(attack=attacks.PGD(**SHORT)),
    *(attacks.Targeted(attack=attacks.APGD(threat=model, **SHORT)) for model in MODELS),
    *(attacks.FAB(threat=model, targeted=True, unroll=True, **SHORT) for model in MODELS),
    *(attacks.Square(threat=model, num_steps=20) for model in MODELS),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{type(spec).__name__}-{stages.threat_of(spec).norm}")
def test_attacks(placed, spec):
    classifier, variables, batch, keys = placed
    programs = survivors._programs(classifier.logits_fn, spec)
    arguments = (variables, keys, batch["image"], batch["label"], np.int32(0))
    state = programs.start(*arguments)
    assert collectives(programs.start, *arguments) == []
    assert collectives(programs.advance, variables, state, 2) == []
    assert collectives(programs.look, variables, state) == []


def test_a_look_into_neurons(placed):
    classifier, variables, batch, keys = placed
    settings = Neurons(ascent_steps=2, attack=attacks.PGD(num_steps=2))
    programs = neuron_programs.make_programs(classifier, ("conv4",), settings)
    images, labels, units = batch["image"], batch["label"], batch["id"]
    seen = jax.eval_shape(programs.look, variables, images)["activations"]
    maps = {name: jax.device_put(np.zeros(each.shape, np.float32), images.sharding) for name, each in seen.items()}
    per_unit = {"conv4": np.zeros(seen["conv4"].shape[-1], np.float32)}
    masks = jax.device_put(np.ones((BATCH, 16, 16, 2), np.uint8), images.sharding)
    state = ascent.State(jax.device_put(np.zeros(BATCH, np.int32), labels.sharding), images, images)
    assert collectives(programs.look, variables, images) == []
    assert collectives(programs.attacked, variables, (), keys, images, labels) == []
    together = neuron_programs.make_programs(classifier, ("conv4",), settings, (classifier,) * 2)
    assert collectives(together.attacked, variables, (variables,) * 2, keys, images, labels) == []
    assert collectives(programs.overlaps, maps, per_unit, masks, labels > 0) == []
    assert collectives(programs.differences, variables, images, labels, per_unit) == []
    assert collectives(programs.ascend["conv4"], variables, state, units, 2) == []


def test_a_robustness_report(placed):
    classifier, variables, batch, keys = placed
    programs = robustness_programs.make_programs(classifier, Robustness(curve_steps=2))
    assert collectives(programs.facts, variables, keys, batch) == []
    assert collectives(programs.attacked, variables, keys, batch, jnp.full(BATCH, 0.1)) == []
    assert collectives(programs.logits, variables, batch) == []


def with_averages(batch, programs):
    return {**batch, **{f"average of {method}": batch["image"][..., 0] for method in programs.maps}}


def test_maps_and_metrics(placed):
    classifier, variables, batch, keys = placed
    programs = make_programs(classifier, tiny.experiment().evaluation, ("lesion", "evidence"))
    assert collectives(programs.predict, variables, batch) == []
    for explain in programs.maps.values():
        assert collectives(explain, variables, keys, batch) == []
    assert collectives(programs.blind, keys, with_averages(batch, programs)) == []
    maps = next(iter(programs.maps.values()))(variables, keys, batch)
    assert collectives(programs.measure, variables, keys, batch, maps) == []


@pytest.mark.parametrize("name", ["active", "grad_cam", "guided_ig", "rise"])
def test_saliency_methods(placed, name):
    classifier, variables, batch, keys = placed

    def explain(variables, keys, batch):
        logits_fn = classifier.logits_fn(variables)
        return saliency.run(logits_fn, keys, batch["image"], batch["label"], ROWS[name])

    assert collectives(jax.jit(explain), variables, keys, batch) == []


def test_maps_of_noisy_and_of_attacked_images(placed):
    classifier, variables, batch, keys = placed
    attack = {"name": "attack_stability", "attack": {"num_steps": 2}}
    changes = {"metrics": {"gini": {"name": "noise_stability", "num_samples": 2}, "entropy": attack}}
    programs = make_programs(classifier, tiny.experiment(evaluation=changes).evaluation, ("lesion", "evidence"))
    for label in ("gradient", "random", "average of gradient"):
        program = programs.explain_again[label]
        given = with_averages(batch, programs)
        maps, attacked = batch["image"][..., 0], [1 - batch["image"]]
        assert collectives(program, variables, keys, keys, given, maps, attacked) == [], label
    (attacked,) = programs.map_attacks.values()
    assert collectives(attacked, variables, keys, {**batch, "explained": batch["label"]}) == []


def test_neurons(placed):
    classifier, variables, batch, keys = placed

    def facts(variables, keys, batch):
        logits_fn = classifier.logits_fn(variables)
        units = neurons.activations(logits_fn, batch["image"], "conv3")
        differences = neurons.prediction_differences(
            logits_fn, batch["image"], batch["label"], "conv3", neurons.Tracing(chunk_size=4)
        )
        score = neurons.unit_score(logits_fn, "conv3/conv", 0)
        return (
            neurons.overlaps(units, jnp.zeros(8), batch["lesion_mask"][..., None]),
            neurons.most_influential(differences, 3),
            neurons.ascend(score, keys, batch["image"], neurons.Ascent(num_steps=1, start="gaussian", unroll=True)),
        )

    assert collectives(jax.jit(facts), variables, keys, batch) == []


def test_maps_of_noisy_images_and_their_logits_and_of_other_classes(placed):
    classifier, variables, batch, keys = placed
    specs = [metrics.RelativeOutputStability(noise=metrics.Noise(num_samples=2)), metrics.RandomLogit()]

    def measure(variables, keys, batch):
        logits_fn = classifier.logits_fn(variables)

        def saliency_fn(keys, images, labels):
            return saliency.run(logits_fn, keys, images, labels, saliency.Gradient())

        given = {"key": keys, "images": batch["image"], "labels": batch["label"], "maps": batch["image"][..., 0]}
        return [metrics.run(spec, logits_fn=logits_fn, saliency_fn=saliency_fn, **given) for spec in specs]

    assert collectives(jax.jit(measure), variables, keys, batch) == []


def test_pixels_filled_in_from_their_neighbours(placed):
    """By one linear system an image."""
    _, _, batch, _ = placed
    filled = jax.jit(metrics.imputation.linear)
    assert collectives(filled, batch["image"], batch["image"][..., 0] > 0.5) == []


@pytest.mark.parametrize("name", metrics.SIMILARITIES)
def test_similarities(placed, name):
    _, _, batch, _ = placed
    Spec, function = metrics.SIMILARITIES[name]
    maps = batch["image"][..., 0], batch["image"][..., 1]
    assert collectives(jax.jit(lambda first, second: function(first, second, Spec())), *maps) == []


@pytest.mark.parametrize("distance", ["mass_centre", "top_k"])
def test_attacks_on_maps(placed, distance):
    classifier, variables, batch, keys = placed
    spec = map_attacks.MapAttack(distance=distance, attack=attacks.APGD(num_steps=5, unroll=False))

    def run(variables, keys, batch):
        surrogate = models.with_activation(classifier, "softplus10").logits_fn(variables)
        logits_fn = classifier.logits_fn(variables)
        return map_attacks.map_attack(logits_fn, keys, batch["image"], batch["label"], spec, surrogate)

    assert collectives(jax.jit(run), variables, keys, batch) == []
