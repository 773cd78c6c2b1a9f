"""The report on networks of which the truth is known: an honest one passes, planted defences are caught and broken."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import data, models, robustness_checks, robustness_facts, robustness_programs, sharding
from robust_saliency.config import Robustness
from robust_saliency.threat import Threat

SHAPE, CLASSES, NUM = (4, 4, 1), 4, 48
SETTINGS = Robustness(
    threat=Threat(epsilon=0.03), version="fast", steps=20, num_queries=150, num_targets=3, curve_steps=10,
    num_searches=6, num_examples=0, batch_size=24,
)  # fmt: skip


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(3)
    return {
        "w": (0.7 * rng.normal(size=(16, 12))).astype(np.float32),
        "v": rng.normal(size=(12, CLASSES)).astype(np.float32),
    }


def honest(variables, images):
    return jnp.tanh((images - 0.5).reshape(len(images), -1) @ variables["w"]) @ variables["v"]


def scaled(variables, images):
    """Confidence beyond float32: the gradient of cross-entropy is exactly 0."""
    return 1e4 * honest(variables, images)


def quantised(variables, images):
    """Twelve grey levels: the gradient with respect to the image is 0 everywhere."""
    return honest(variables, jnp.round(12 * images) / 12)


def probabilities(variables, images):
    return jax.nn.softmax(honest(variables, images))


@pytest.fixture(scope="module")
def split(weights):
    rng = np.random.default_rng(4)
    images = rng.uniform(0.2, 0.8, (NUM, *SHAPE)).astype(np.float32)
    labels = np.array(jnp.argmax(honest(weights, images), -1), np.int32)
    labels[:2] = (labels[:2] + 1) % CLASSES
    return data.MemorySplit({"image": images, "label": labels, "id": np.arange(NUM, dtype=np.int32)})


def classifier_of(network, weights):
    def apply(variables, images, **_):
        return models.Output(network(variables, images), {}, {})

    return models.Classifier(init=lambda key: weights, apply=apply)


def report(network, weights, split, wide=None):
    mesh = sharding.make_mesh(2, SETTINGS.batch_size, "batch_size")
    subject = robustness_facts.Subject(
        classifier=classifier_of(network, weights),
        variables=sharding.put_replicated(weights, mesh),
        split=split,
        indices=np.arange(NUM),
        num_classes=CLASSES,
        mesh=mesh,
        wide=wide and classifier_of(wide, weights),
    )
    found, facts = robustness_facts.measure(subject, SETTINGS)
    return found, facts, {check.name: check for check in robustness_checks.checklist(facts)}


@pytest.fixture(scope="module")
def truth(weights, split):
    return report(honest, weights, split)


def test_an_honest_network_passes(truth):
    _, facts, checks = truth
    assert [check for check in checks.values() if not check.passed] == []
    assert facts.robust["clean"].sum() == NUM - 2
    share = {name: robust.mean() for name, robust in facts.robust.items()}
    assert 0.1 < share["all"] < share["noise"] - 0.2
    assert share["all"] == share["autoattack"] == min(share.values())


def test_the_smallest_epsilons_agree_with_who_is_robust(truth):
    _, facts, _ = truth
    assert (facts.smallest_epsilon[~facts.robust["clean"]] == 0).all()
    withstands = facts.robust["all"]
    assert (facts.smallest_epsilon[withstands] > facts.epsilon).all()
    assert (facts.smallest_epsilon[~withstands] <= facts.epsilon).all()
    assert np.isfinite(facts.smallest_epsilon).all()


def test_confidence_beyond_float32_is_caught_and_broken_by_the_scale_free_loss(weights, split, truth):
    _, facts, checks = report(scaled, weights, split)
    assert not checks["logits are of a usual size"].passed and not checks["gradients are there"].passed
    assert not checks["the loss does not matter"].passed
    assert "zero for" in checks["gradients are there"].sentence
    assert not checks["more steps are no worse"].passed
    assert robustness_checks.accuracy(facts, "pgd-50") > robustness_checks.accuracy(facts, "apgd-dlr") + 0.2
    np.testing.assert_array_equal(facts.robust["autoattack"], truth[1].robust["autoattack"])


def test_a_quantised_input_is_caught_and_broken_without_gradients(weights, split):
    _, facts, checks = report(quantised, weights, split)
    assert not checks["gradients are there"].passed and not checks["gradients beat queries"].passed
    assert not checks["large epsilon fools everybody"].passed
    assert robustness_checks.accuracy(facts, "square") < robustness_checks.accuracy(facts, "apgd-ce") - 0.2
    assert robustness_checks.accuracy(facts, "all") <= robustness_checks.accuracy(facts, "square")


def test_narrow_arithmetic_that_hides_gradients_is_caught_and_broken_through_float32(weights, split):
    """Grey levels stand for a type so narrow that small changes are lost."""
    _, facts, checks = report(quantised, weights, split, wide=honest)
    narrow, wide = (robustness_checks.accuracy(facts, name) for name in ("apgd-ce", "apgd-ce in float32"))
    assert wide < narrow - 0.2
    assert not checks["gradients are precise"].passed
    assert f"strength lost {narrow - wide:.3f}: attacks on this network are" in checks["gradients are precise"].sentence
    assert robustness_checks.accuracy(facts, "all") <= wide


def test_probabilities_in_the_place_of_logits_are_noticed(weights, split):
    _, _, checks = report(probabilities, weights, split)
    assert not checks["outputs are logits"].passed
    assert checks["outputs are logits"].sentence.startswith("1.000 of the outputs are not negative and sum to 1")


def test_the_runs_of_a_study_share_one_compiled_program(weights):
    """Their networks are the same object (see ``initialise.classifier_of``), their settings equal ones."""
    network, again = classifier_of(honest, weights), dataclasses.replace(SETTINGS)
    assert robustness_programs.make_programs(network, SETTINGS) is robustness_programs.make_programs(network, again)
    other = dataclasses.replace(SETTINGS, curve_steps=7)
    assert robustness_programs.make_programs(network, SETTINGS) is not robustness_programs.make_programs(network, other)


@pytest.mark.parametrize(("alone", "passed"), [(0, True), (2, True), (3, False)])
def test_a_few_examples_that_fall_to_queries_alone_are_chance(truth, alone, passed):
    """On a network that nearly nothing withstands one more example can fall to Square: seen at 1 of 1,000."""
    withstands = np.arange(100) < alone
    robust = truth[1].robust | {"apgd-ce": withstands, "square": np.zeros(100, bool)}
    assert robustness_checks.white_box_beats_black_box(truth[1]._replace(robust=robust)).passed is passed


@pytest.mark.parametrize(("still", "passed"), [(0, True), (1, True), (2, False)])
def test_confidence_on_clean_images_is_no_saturation_where_the_attack_leaves_it_behind(truth, still, passed):
    """Seen on an honest network: cross-entropy exactly 0 on 2 % of the clean images, on none of them after PGD."""
    after = np.where(np.arange(100) < still, 0.0, 3.0)
    facts = truth[1]._replace(loss_is_zero=np.ones(100, bool), loss_after_50=after)
    check = robustness_checks.loss_is_not_saturated(facts)
    assert check.passed is passed
    assert f"exactly 0 for 1.000, and still after 50 steps for {still / 100:.3f}" in check.sentence
