"""The report on networks of which the truth is known: an honest one passes, planted defences are caught and broken."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import (
    attacks,
    data,
    models,
    randomness,
    robustness_checks,
    robustness_facts,
    robustness_programs,
    sharding,
)
from robust_saliency.config_sections import Robustness
from robust_saliency.threat import Threat

SHAPE, CLASSES, NUM = (4, 4, 1), 4, 48
SETTINGS = Robustness(
    threat=Threat(epsilon=0.03), version="fast", steps=20, num_queries=150, num_targets=3, curve_steps=10,
    num_searches=12, num_examples=0, batch_size=24,
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


def subject_of(network, weights, split, wide=None):
    mesh = sharding.make_mesh(2, SETTINGS.batch_size, "batch_size")
    return robustness_facts.Subject(
        classifier=classifier_of(network, weights),
        variables=sharding.put_replicated(weights, mesh),
        split=split,
        indices=np.arange(NUM),
        num_classes=CLASSES,
        mesh=mesh,
        wide=wide and classifier_of(wide, weights),
    )


def report(network, weights, split, wide=None):
    subject = subject_of(network, weights, split, wide)
    found, facts = robustness_facts.measure(subject, SETTINGS)
    return found, facts, {check.name: check for check in robustness_checks.checklist(facts)}


@pytest.fixture(scope="module")
def truth(weights, split):
    return report(honest, weights, split)


def test_an_honest_network_passes(truth):
    _, facts, checks = truth
    failed = [check.sentence for check in checks.values() if not check.passed]
    assert failed == [
        "AutoAttack in its fast version: 20 steps, 150 queries, 3 of 3 wrong classes: below the standard of 100 steps, "
        "5000 queries, 3 classes and the standard version, so a full attack may find more."
    ]
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


def test_probabilities_in_the_place_of_logits_are_noticed(weights, split, truth):
    programs = robustness_programs.make_programs(classifier_of(probabilities, weights), SETTINGS)
    keys = randomness.per_example_keys(jax.random.key(0), jnp.arange(NUM))
    found = jax.device_get(programs.facts(weights, keys, split.gather(np.arange(NUM))))["looks_like_probabilities"]
    (check,) = (
        check
        for check in robustness_checks.checklist(truth[1]._replace(looks_like_probabilities=found))
        if check.name == "outputs are logits"
    )
    assert not check.passed
    assert check.sentence.startswith("1.000 of the outputs are not negative and sum to 1")


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


def columns_at(network, weights, images, labels, settings):
    """What the search finds on one batch."""
    split = data.MemorySplit({"image": images, "label": labels, "id": np.arange(len(labels), dtype=np.int32)})
    subject = subject_of(network, weights, split)
    programs = robustness_programs.make_programs(subject.classifier, settings)
    keys = randomness.per_example_keys(jax.random.key(0), jnp.arange(len(labels)))
    batch = {"image": jnp.asarray(images), "label": jnp.asarray(labels)}
    found = robustness_facts._at_epsilons(programs, subject, keys, batch, settings)
    return jax.device_get(found), programs


def affine(variables, images):
    return (images - 0.5).reshape(len(images), -1) @ variables


@pytest.mark.parametrize(("norm", "dual"), [("l2", 2), ("linf", 1)])
def test_the_smallest_epsilon_is_that_of_the_closed_form_though_epsilon_is_small_against_the_box(norm, dual):
    rng = np.random.default_rng(0)
    weights = (rng.normal(size=(16 * 16 * 3, 3)) * 0.7).astype(np.float32)
    images = (0.5 + 0.1 * rng.normal(size=(48, 16, 16, 3))).clip(0.2, 0.8).astype(np.float32)
    logits = np.asarray(affine(weights, images), np.float64)
    labels = logits.argmax(1).astype(np.int32)
    truth = np.array([
        min((row[y] - row[k]) / np.linalg.norm(weights[:, k] - weights[:, y], ord=dual) for k in range(3) if k != y)
        for row, y in zip(logits, labels, strict=True)
    ])  # fmt: skip
    epsilon = float(np.median(truth))
    settings = dataclasses.replace(SETTINGS, threat=Threat(norm=norm, epsilon=epsilon), curve_steps=20)
    found, programs = columns_at(affine, weights, images, labels, settings)
    smallest, width = found["smallest_epsilon"], found["epsilon_width"]
    assert robustness_facts._box_radius(settings, (16, 16, 3)) > 50 * epsilon
    assert abs(np.median(smallest) / epsilon - 1) < 0.05
    assert abs((smallest > 0.99 * epsilon).mean() - (truth > 0.99 * epsilon).mean()) <= 1 / 48
    assert (smallest >= truth * (1 - 1e-4)).all()
    assert (width <= 0.02 * np.maximum(smallest, epsilon)).all() and (width >= 0).all()
    assert programs.attacked._cache_size() == 1


def test_an_attack_that_fails_in_the_whole_box_is_caught_whatever_others_found(truth):
    """Each example has a smallest epsilon, for some adversary fooled it."""
    facts = truth[1]._replace(fooled_in_box=np.arange(NUM) > 2)
    assert np.isfinite(facts.smallest_epsilon).all()
    check = robustness_checks.reaches_zero(facts)
    assert not check.passed and "3 of 48 examples withstand" in check.sentence
    assert "for want of steps (it made 10; the budget is below the standard one) or of a gradient" in check.sentence
    full = robustness_checks.STANDARD | {"version": "standard", "num_targets": 3, "curve_steps": 20}
    full = facts._replace(budget=facts.budget._replace(**full))
    assert robustness_checks.reaches_zero(full).sentence.endswith("so the attack fails for want of a gradient.")
    hasty = full._replace(budget=full.budget._replace(curve_steps=1))
    assert "for want of steps (it made 1;" in robustness_checks.reaches_zero(hasty).sentence
    thousand = facts._replace(fooled_in_box=np.arange(1000) > 9)
    assert robustness_checks.reaches_zero(thousand).passed
    assert not robustness_checks.reaches_zero(facts._replace(fooled_in_box=np.arange(1000) > 10)).passed


def test_a_white_box_without_gradient_is_caught_where_square_fools_everybody(weights, split):
    """With epsilon 0.25 queries fool all, so every smallest epsilon is finite; the attack is judged on its own."""
    settings = dataclasses.replace(SETTINGS, threat=Threat(epsilon=0.25))
    rows = split.gather(np.arange(NUM))
    found, _ = columns_at(quantised, weights, rows["image"], rows["label"], settings)
    spec = attacks.Square(threat=settings.threat, num_steps=300)
    key, square = jax.random.key(0), jax.jit(attacks.square, static_argnums=0)
    by_queries = square(lambda x: quantised(weights, x), key, rows["image"], rows["label"], spec).success
    assert by_queries.mean() > 0.9 and found["fooled_in_box"].mean() < 0.9


def test_what_the_search_found_counts_in_the_headline(weights, split):
    """Cross-entropy is 0 in float32, and one step and one query find nothing: only the search does."""
    settings = dataclasses.replace(SETTINGS, steps=1, num_queries=1, num_targets=1, curve_steps=20)
    facts = robustness_facts.measure(subject_of(scaled, weights, split), settings)[1]
    others = np.all([found for name, found in facts.robust.items() if name not in ("search", "all")], axis=0)
    assert (others & ~facts.robust["search"]).any(), "the test shows nothing if the search finds nothing of its own"
    assert not (facts.robust["all"] & (facts.fooled_once | (facts.smallest_epsilon <= facts.epsilon))).any()
    np.testing.assert_array_equal(facts.robust["all"], others & facts.robust["search"])
    assert facts.robust["all"].mean() == (facts.smallest_epsilon > facts.epsilon).mean(), "headline and curve agree"


def test_a_loss_that_rises_on_fooled_examples_is_no_lack_of_convergence(truth):
    fooled = np.arange(100) < 60
    margins = {f"margin_after_{n}": np.where(fooled, 1.0 * n, -2.0) for n in (10, 40, 50)}
    assert robustness_checks.attack_has_converged(truth[1]._replace(**margins)).passed
    late = margins | {"margin_after_50": np.where(np.arange(100) < 63, 50.0, -2.0)}
    assert not robustness_checks.attack_has_converged(truth[1]._replace(**late)).passed
    rising = margins | {"margin_after_50": np.where(fooled, 50.0, -0.9)}
    assert not robustness_checks.attack_has_converged(truth[1]._replace(**rising)).passed


@pytest.mark.parametrize(
    ("noise", "pgd", "left", "passed", "words"),
    [
        (90, 40, 38, True, "0.400"),
        (100, 100, 100, False, "nothing can be told"),
        (100, 100, 50, False, "points nowhere"),
        (50, 60, 50, False, "points nowhere"),
        (1, 1, 0, True, "0.010"),
    ],
)
def test_an_attack_that_gains_nothing_over_noise_proves_no_gradient(truth, noise, pgd, left, passed, words):
    robust = {name: np.arange(100) < n for name, n in {"noise": noise, "pgd-50": pgd, "all": left}.items()}
    check = robustness_checks.white_box_beats_noise(truth[1]._replace(robust=robust))
    assert check.passed is passed and words in check.sentence


def partly_nan(variables, images):
    return honest(variables, images).at[:, 0].add(jnp.where(images[:, 0, 0, 0] < 0.3, jnp.nan, 0))


def test_outputs_that_are_nan_are_broken_fooled_and_not_random(weights, split, truth):
    rows = split.gather(np.arange(NUM))
    found, programs = columns_at(partly_nan, weights, rows["image"], rows["label"], SETTINGS)
    keys = randomness.per_example_keys(jax.random.key(0), jnp.arange(NUM))
    facts = jax.device_get(programs.facts(weights, keys, rows))
    broken = rows["image"][:, 0, 0, 0] < 0.3
    assert broken.any() and facts["output_is_broken"][broken].all() and facts["noise"][broken].all()
    assert not facts["output_is_broken"][rows["image"][:, 0, 0, 0] > 0.34].any()
    deep = rows["image"][:, 0, 0, 0] < 0.3 - 2 * SETTINGS.threat.epsilon
    assert deep.any() and found["fooled_once"][deep].all()
    outputs = [programs.logits(weights, rows) for _ in range(2)]
    assert not robustness_facts._differ(*outputs).any()
    check = robustness_checks.outputs_are_finite(truth[1]._replace(output_is_broken=facts["output_is_broken"]))
    assert not check.passed and f"for {facts['output_is_broken'].sum()} of 48" in check.sentence.lower()


def test_a_network_that_is_random_is_noticed(weights, split):
    """Within one program XLA would compute the same thing once."""
    rng = np.random.default_rng(0)

    def jittery(variables, images):
        shape = jax.ShapeDtypeStruct((len(images), CLASSES), jnp.float32)
        noise = jax.pure_callback(lambda x: rng.normal(size=(len(x), CLASSES)).astype(np.float32), shape, images)
        return honest(variables, images) + noise

    programs = robustness_programs.make_programs(classifier_of(jittery, weights), SETTINGS)
    first, second = (programs.logits(weights, split.gather(np.arange(8))) for _ in range(2))
    assert robustness_facts._differ(first, second).all()
    assert not robustness_facts._differ(first, first).any()


def test_a_mask_is_no_obstacle_and_an_epsilon_a_pixel_is_one_sentence(weights, split):
    mask = np.ones((1, *SHAPE), np.float32)
    settings = dataclasses.replace(SETTINGS, threat=Threat(epsilon=0.03, mask=mask))
    network = classifier_of(honest, weights)
    equal = dataclasses.replace(SETTINGS, threat=Threat(epsilon=0.03, mask=mask.copy()))
    assert robustness_programs.make_programs(network, settings) is robustness_programs.make_programs(network, equal)
    each = dataclasses.replace(SETTINGS, threat=Threat(epsilon=np.full((1, *SHAPE), 0.03)))
    with pytest.raises(ValueError, match=r"^A robustness report needs one epsilon, got shape \(1, 4, 4, 1\)\.$"):
        robustness_facts.measure(subject_of(honest, weights, split), each)
