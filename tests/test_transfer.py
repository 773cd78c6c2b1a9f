"""Adversaries of one network shown to others: closed forms on linear networks, and a hidden gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, models, sharding, survivors, transfer
from robust_saliency.attacks import stages
from robust_saliency.threat import Threat
from robust_saliency.transfer_checks import white_box_beats_transfer

SHAPE, NUM, EPSILON, BATCH = (2, 2, 1), 21, 0.1, 8
SPEC = attacks.Untargeted(attack=attacks.APGD(threat=Threat(epsilon=EPSILON), num_steps=10))


def linear(variables, images, **_):
    """Two classes; the margin of class 1 is w . (x - 1/2)."""
    score = (images - 0.5).reshape(len(images), -1) @ variables["w"]
    return models.Output(jnp.stack([-score, score], -1) / 2, {}, {})


def quantised(variables, images, **_):
    """The same network behind twelve grey levels: its gradient is 0, its decisions nearly those of ``linear``."""
    return linear(variables, jnp.round(12 * images) / 12)


def network(weights, apply=linear):
    mesh = sharding.make_mesh(2, BATCH, "batch_size")
    classifier = models.Classifier(init=lambda key: weights, apply=apply)
    variables = sharding.put_replicated({"w": np.asarray(weights, np.float32)}, mesh)
    return transfer.Network(classifier, variables, mesh, BATCH)


W1, W2 = np.array([1.0, 1.0, 1.0, 1.0]), np.array([1.0, 1.0, -1.0, 0.5])


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    images = rng.uniform(0.2, 0.8, (NUM, *SHAPE)).astype(np.float32)
    labels = ((images - 0.5).reshape(NUM, -1) @ W1 > 0).astype(np.int32)
    labels[2] = 1 - labels[2]
    return {"image": images, "label": labels, "id": np.arange(NUM, dtype=np.int32)}


def attacked(source, rows, **more):
    return survivors.attack(
        source.classifier.logits_fn, source.variables, lambda at: {k: v[at] for k, v in rows.items()}, np.arange(NUM),
        stages.stages(SPEC, 2), key=jax.random.key(0), mesh=source.mesh, batch_size=BATCH, title="test", **more,
    )  # fmt: skip


def margins(w, rows):
    """Signed margin ``[N]``: positive where right."""
    return (2 * rows["label"] - 1) * ((rows["image"] - 0.5).reshape(NUM, -1) @ w)


def test_the_matrix_of_two_linear_networks_is_known_in_closed_form(rows):
    networks = [network(W1), network(W2)]
    found = [attacked(each, rows) for each in networks]
    correct = transfer.transfer(networks, (each.images for each in found), rows["label"])
    for s, source in enumerate((W1, W2)):
        for t, target in enumerate((W1, W2)):
            # x - epsilon y sign(w_s) moves the margin of w_t by epsilon w_t . sign(w_s); who was wrong is left alone.
            moved = np.where(margins(source, rows) > 0, EPSILON * target @ np.sign(source), 0)
            np.testing.assert_array_equal(correct[s, t], margins(target, rows) > moved)
    for t, each in enumerate(found):
        np.testing.assert_array_equal(correct[t, t], each.robust)
    assert 0 < correct[0, 0].sum() < correct[0, 1].sum() < NUM, "the matrix must not be all or nothing"


def test_a_network_of_hidden_gradients_falls_to_the_adversaries_of_an_honest_one(rows):
    networks = [network(W1), network(W1, quantised)]
    images = [attacked(each, rows).images for each in networks]
    correct = transfer.transfer(networks, images, rows["label"])
    check = white_box_beats_transfer(correct, ["honest", "quantised"])
    assert not check.passed
    assert check.sentence.startswith("quantised is right on") and "those made on honest" in check.sentence
    assert "honest is right" not in check.sentence and check.sentence.endswith("so they are hidden.")
    twins = transfer.transfer([networks[0]] * 2, [images[0]] * 2, rows["label"])
    assert white_box_beats_transfer(twins, ["honest", "twin"]).passed


def test_one_program_serves_every_weight_of_a_network(rows):
    one = network(W1)
    other = one._replace(variables=network(W2).variables)
    correct = transfer.transfer([one, other], [rows["image"]] * 2, rows["label"])
    np.testing.assert_array_equal(correct[0], [margins(W1, rows) > 0, margins(W2, rows) > 0])
    assert transfer._program(one.classifier)._cache_size() == 1


def test_adversaries_that_did_all_their_steps_fool_others_as_the_closed_form_says(rows):
    """Also those of examples that were wrong before; who left when first fooled would be found right too often."""
    networks = [network(W1), network(W2)]
    images = [attacked(each, rows, spare_the_fooled=False).images for each in networks]
    correct = transfer.transfer(networks, images, rows["label"])
    for s, source in enumerate((W1, W2)):
        for t, target in enumerate((W1, W2)):
            np.testing.assert_array_equal(correct[s, t], margins(target, rows) > EPSILON * target @ np.sign(source))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, ""),
        ({"id": np.arange(2, NUM + 2)}, "b was attacked on other examples than a: they share 19 of 21."),
        (
            {"label": np.zeros(NUM, int)},
            "b was attacked on other examples than a: under the same ids they have other labels.",
        ),
        (
            {"image": np.zeros((NUM, *SHAPE))},
            "b was attacked on other examples than a: under the same ids they are other images.",
        ),
    ],
)
def test_other_examples_are_told_in_one_sentence(rows, change, sentence):
    said = transfer.different_examples({"a": rows, "same": dict(rows), "b": {**rows, **change}})
    assert said.startswith(sentence) and bool(said) == bool(sentence)
