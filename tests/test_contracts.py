"""What every registered method must do. A new method adds one row to the table of its kind.

Attacks and objectives have theirs here, saliency methods in saliency/test_saliency_contract.py, metrics in
metrics/test_metrics.py.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, losses, metrics, models, objectives, randomness, saliency, threat, types
from robust_saliency.threat import Threat

REGISTRIES = {
    "attack": attacks.ATTACKS,
    "decision": attacks.DECISIONS,
    "metric": metrics.METRICS,
    "objective": objectives.OBJECTIVES,
    "saliency": saliency.SALIENCY,
    "wrapper": objectives.WRAPPERS,
}
ENTRIES = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry]

# name -> the fields of a spec that is quick and, on a linear model, reaches the worst image of its threat model.
ATTACK_ROWS = {
    "apgd": {"num_steps": 40, "unroll": False, "start": "none"},
    "fgsm": {},
    "fgsm_rs": {"relative_step": 1e4},
    "pgd": {"step_size": 0.05, "num_steps": 4, "unroll": False, "start": "none"},
}

# What is left of a random start after a step of ten thousand epsilons and the way back.
WORST_WITHIN = {"fgsm_rs": 5e-5}

_SHORT = attacks.PGD(num_steps=3, step_size=0.05, start="none", unroll=False)
# name -> the fields of a spec that is quick.
DECISION_ROWS = {
    "autoattack": {"steps": 4, "num_queries": 10, "num_targets": 2},
    "carlini_wagner": {"num_steps": 20, "num_searches": 3, "learning_rate": 0.05},
    "deepfool": {"num_steps": 4},
    "fab": {"num_steps": 4},
    "square": {"num_steps": 30},
    "targeted": {"attack": _SHORT, "num_targets": 2},
    "untargeted": {"attack": _SHORT},
}

SHAPE = (4, 3, 5, 2)


# All registries


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_a_spec_is_frozen_documented_and_complete_without_arguments(kind, name):
    spec_type = REGISTRIES[kind][name][0]
    assert types.is_spec(spec_type)
    spec = spec_type()
    leaves, structure = jax.tree.flatten(spec)
    assert all(isinstance(leaf, float) for leaf in leaves)
    assert jax.tree.unflatten(structure, leaves) == spec
    hash(structure)
    assert len(spec_type.__doc__.strip()) > 10 and not spec_type.__doc__.startswith(spec_type.__name__ + "(")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.anything = 1


@pytest.mark.parametrize("kind", REGISTRIES)
def test_names_are_plain_and_specs_are_not_shared(kind):
    specs = [entry[0] for entry in REGISTRIES[kind].values()]
    assert len(set(specs)) == len(specs)
    assert all(name.isidentifier() and name == name.lower() for name in REGISTRIES[kind])


# Attacks


def test_every_attack_has_a_row():
    assert set(ATTACK_ROWS) == set(attacks.ATTACKS)


@pytest.fixture
def weights(rng):
    return rng.normal(size=SHAPE[1:]).astype(np.float32)


@pytest.fixture
def images(rng):
    return rng.uniform(0.3, 0.7, SHAPE).astype(np.float32)


def make(name, **fields):
    return attacks.ATTACKS[name][0](**{**ATTACK_ROWS[name], **fields})


def run(weights, images, spec, ids=None):
    """The attack on a two-class linear model whose loss rises along ``weights``, with one key an example."""
    ids = jnp.arange(images.shape[0]) if ids is None else jnp.asarray(ids)

    def loss_fn(x):
        score = jnp.tensordot(x, weights, 3)
        return losses.margin(jnp.stack([0 * score, score], -1), jnp.zeros(ids.shape, jnp.int32))

    def attack(ids, images, spec):
        return attacks.run(loss_fn, randomness.per_example_keys(jax.random.key(0), ids), images, spec)

    return np.asarray(jax.jit(attack)(ids, images, spec))


@pytest.mark.parametrize("norm", threat.NORMS)
@pytest.mark.parametrize("name", ATTACK_ROWS)
def test_finds_the_worst_image_of_a_linear_model(name, norm, images, weights):
    largest = np.abs(weights) == np.abs(weights).max()
    direction = {
        "l1": np.sign(weights) * largest,
        "l2": weights / np.linalg.norm(weights),
        "linf": np.sign(weights),
    }[norm]
    result = run(weights, images, make(name, threat=Threat(norm=norm, epsilon=0.1)))
    assert result.shape == SHAPE and result.dtype == np.float32
    np.testing.assert_allclose(result, images + 0.1 * direction, atol=WORST_WITHIN.get(name, 1e-6))


@pytest.mark.parametrize("norm", threat.NORMS)
@pytest.mark.parametrize("name", ATTACK_ROWS)
def test_stays_in_ball_box_and_mask(name, norm, weights, rng):
    images = rng.choice([0.0, 0.5, 1.0], SHAPE).astype(np.float32)
    mask = rng.integers(0, 2, (4, 3, 5, 1)).astype(np.float32)
    epsilon = np.array([0.0, 0.1, 0.5, 9.0], np.float32)
    model = Threat(norm=norm, epsilon=jnp.asarray(epsilon), mask=jnp.asarray(mask))
    result = run(weights, images, make(name, threat=model))
    assert result.min() >= 0 and result.max() <= 1
    assert (np.asarray(threat.distance(result, images, model)) <= epsilon + 1e-6).all()
    np.testing.assert_array_equal(result[0], images[0])
    fixed = np.broadcast_to(mask == 0, SHAPE)
    np.testing.assert_array_equal(result[fixed], images[fixed])
    assert (np.sum((result - images) * weights, (1, 2, 3))[1:] > 0.01).all()


@pytest.mark.parametrize("name", ATTACK_ROWS)
def test_an_example_does_not_depend_on_its_neighbours(name, images, weights):
    spec, order = make(name), np.array([2, 0, 0, 3])
    whole = run(weights, images, spec)
    np.testing.assert_array_equal(run(weights, images[order], spec, ids=order), whole[order])
    np.testing.assert_array_equal(run(weights, images[1:2], spec, ids=[1]), whole[1:2])


@pytest.mark.parametrize("name", ATTACK_ROWS)
def test_an_attack_says_how_many_passes_it_makes(name, images, weights):
    spec, calls = make(name), []
    if hasattr(spec, "unroll"):
        spec = dataclasses.replace(spec, unroll=True, num_steps=3)

    def loss_fn(x):
        calls.append(isinstance(x, jax.core.Tracer))
        return jnp.tensordot(x, weights, 3)

    attacks.run(loss_fn, jax.random.key(0), jnp.asarray(images), spec)
    assert spec.passes == (len(calls), sum(calls)), "outside jit only a gradient traces"


@pytest.mark.parametrize("name", ATTACK_ROWS)
def test_epsilon_is_data(name, images, weights):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def reach(spec):
        result = attacks.run(lambda x: jnp.tensordot(x, weights, 3), jax.random.key(0), images, spec)
        return jnp.max(jnp.abs(result - images))

    for epsilon in (0.01, 0.02, 0.04):
        np.testing.assert_allclose(reach(make(name, threat=Threat(epsilon=epsilon))), epsilon, rtol=1e-4)


@pytest.mark.parametrize("name", ATTACK_ROWS)
def test_no_gradient_flows_through_an_adversary(name, images, weights):
    def total(scale):
        loss_fn = lambda x: jnp.tensordot(x, scale * weights, 3)  # noqa: E731
        return jnp.sum(attacks.run(loss_fn, jax.random.key(0), scale * images, make(name)))

    assert jax.grad(total)(1.0) == 0


@pytest.mark.parametrize("name", ATTACK_ROWS)
def test_eight_bit_images_are_refused(name, images, weights):
    with pytest.raises(ValueError, match=r"floating point.*uint8.*divide 8-bit images by 255"):
        run(weights, (255 * images).astype(np.uint8), make(name))


@pytest.mark.parametrize("name", [name for name in ATTACK_ROWS if attacks.iterated(make(name))])
def test_the_pieces_of_an_iterated_attack_make_the_whole(name, images, weights):
    spec, key = make(name), jax.random.key(0)
    pieces = attacks.iterated(spec)

    def loss_fn(x):
        return jnp.tensordot(x, weights, 3)

    @jax.jit
    def in_pieces(images):
        state = pieces.start(key, images, spec)
        for _ in range(spec.num_steps):
            state = pieces.advance(loss_fn, state, spec, 1)
        return pieces.finish(loss_fn, state, spec)

    whole = jax.jit(lambda x: attacks.run(loss_fn, key, x, spec))(images)
    np.testing.assert_allclose(in_pieces(images), whole, atol=1e-6)


def test_attacks_run_names_the_choices(images, key):
    with pytest.raises(ValueError, match=r"No attack has the spec Threat\. Choices: .*fgsm.*pgd"):
        attacks.run(lambda x: x, key, images, Threat())


# Decisions


def test_every_decision_has_a_row():
    assert set(DECISION_ROWS) == set(attacks.DECISIONS)


@pytest.fixture(scope="module", params=DECISION_ROWS)
def decide(request):
    """``(ids, images, epsilon, mask) -> AttackResult`` on a linear network of four classes, compiled once in all."""
    Spec, function = attacks.DECISIONS[request.param]
    fields = DECISION_ROWS[request.param]
    class_weights = np.random.default_rng(5).normal(size=(*SHAPE[1:], 4)).astype(np.float32)

    def logits_fn(images):
        return jnp.tensordot(images - 0.5, class_weights, 3)

    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(ids, images, epsilon, mask):
        model = Threat(norm="l2", epsilon=epsilon, mask=mask)
        if "attack" in fields:
            spec = Spec(**{**fields, "attack": dataclasses.replace(fields["attack"], threat=model)})
        else:
            spec = Spec(**fields, threat=model)
        labels = jnp.argmax(logits_fn(images), -1).astype(jnp.int32)
        keys = randomness.per_example_keys(jax.random.key(0), ids)
        result = function(logits_fn, keys, images, labels, spec)
        return result, losses.margin(logits_fn(result.images), labels)

    return run


def test_a_decision_stays_in_the_threat_model_and_says_the_truth(decide, rng):
    images = rng.choice([0.0, 0.4, 0.6, 1.0], SHAPE).astype(np.float32)
    mask = rng.integers(0, 2, (4, 3, 5, 1)).astype(np.float32)
    epsilon = np.array([0.0, 0.1, 0.8, 9.0], np.float32)
    result, margin = decide(np.arange(4), images, epsilon, mask)
    found = np.asarray(result.images)
    assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
    np.testing.assert_array_equal(found[0], images[0])
    fixed = np.broadcast_to(mask == 0, SHAPE)
    np.testing.assert_array_equal(found[fixed], images[fixed])
    size = np.sqrt(np.sum((found - images) ** 2, (1, 2, 3)))
    assert (size <= epsilon + 1e-5).all()
    np.testing.assert_allclose(result.distance, size, atol=1e-5)
    np.testing.assert_allclose(result.margin, margin, atol=1e-5)
    np.testing.assert_array_equal(result.success, np.asarray(result.margin) >= 0)
    assert (np.asarray(result.forwards) > 0).all()
    # Neither the order of the examples nor another epsilon compiles or changes anything.
    order = np.array([2, 0, 3, 3])
    again, _ = decide(order, images[order], epsilon[order], mask[order])
    np.testing.assert_array_equal(again.images, found[order])


_TWO_STEPS = attacks.PGD(num_steps=2)
OBJECTIVE_ROWS = {
    "standard": {"label_smoothing": 0.1},
    "adversarial": {"attack": _TWO_STEPS, "include_clean": True},
    "consistent": {"attack": _TWO_STEPS, "target": "least_likely"},
    "fgsm_rs": {},
    "free": {},
    "grad_align": {},
    "gradient_penalty": {},
    "lesion_mask_control": {"attack": _TWO_STEPS, "divergence": "js"},
    "mart": {"attack": _TWO_STEPS},
    "n_fgsm": {},
    "random_mask_control": {"attack": _TWO_STEPS, "divergence": "logit_l2"},
    "saliency_guided": {},
    "scaat": {"attack": _TWO_STEPS, "renewed": True, "strength": "until_flip", "budget": "saliency"},
    "trades": {"attack": _TWO_STEPS},
}
# name -> the fields of a wrapper that is quick; it stands around 'adversarial'.
WRAPPER_ROWS = {
    "adaptive_epsilon": {"num_shares": 2},
    "awp": {"gamma": 0.02},
    "clean_mix": {"clean_weight": 0.3},
}


@pytest.fixture(scope="module")
def classifier():
    return models.make(models.SmallCNN(width=2), (16, 16, 3), 3)


@pytest.fixture
def batch(rng):
    return {
        "image": jnp.asarray(rng.random((4, 16, 16, 3)), jnp.float32),
        "label": jnp.array([0, 1, 2, 0], jnp.int32),
        "id": jnp.arange(4, dtype=jnp.int32),
        "valid": jnp.array([True, True, True, False]),
        "lesion_mask": jnp.asarray(rng.random((4, 16, 16)) < 0.4, jnp.float32),
    }


def test_every_objective_has_a_row():
    assert set(OBJECTIVE_ROWS) == set(objectives.OBJECTIVES)
    assert set(WRAPPER_ROWS) == set(objectives.WRAPPERS)


def row_of(name):
    """The objective and the spec of a row; of a wrapper those of it around 'adversarial'."""
    if name in OBJECTIVE_ROWS:
        Spec, objective = objectives.OBJECTIVES[name]
        return objective, Spec(**OBJECTIVE_ROWS[name])
    Spec, wrap = objectives.WRAPPERS[name]
    objective, inner = row_of("adversarial")
    return wrap(objective), Spec(inner=inner, **WRAPPER_ROWS[name])


@pytest.mark.parametrize("name", [*OBJECTIVE_ROWS, *WRAPPER_ROWS])
def test_an_objective_is_pure_finite_and_ignores_padding(name, classifier, batch, key):
    (objective, spec), variables = row_of(name), classifier.init(key)
    objective.check(classifier, spec)
    perturbed = jax.jit(lambda batch: objective.perturb(classifier, variables, key, batch, spec))(batch)
    assert set(batch) <= set(perturbed)
    chex.assert_trees_all_equal({field: perturbed[field] for field in batch}, batch)

    @jax.jit
    def value_and_gradient(params, batch):
        def loss(params):
            carry = objective.start(batch, spec)
            return objective.loss(classifier, {**variables, "params": params}, carry, key, batch, spec)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, (state, values)), gradient = value_and_gradient(variables["params"], perturbed)
    assert loss.shape == ()
    assert float(values["loss"]) == float(loss)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, values, gradient)))
    assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
    chex.assert_trees_all_equal_structs(state, variables["state"])
    # What stands in the padded row does not count.
    weights = perturbed.get("weight_perturbation")
    of_examples = {field: value for field, value in perturbed.items() if value is not weights}
    padded = {field: value.at[3].set(jnp.zeros_like(value[3])) for field, value in of_examples.items()}
    padded |= {} if weights is None else {"weight_perturbation": weights}
    chex.assert_trees_all_close(value_and_gradient(variables["params"], padded)[1], gradient, atol=1e-6)


def scaled(tree, factor):
    return jax.tree.map(lambda leaf: factor * leaf, tree)


@pytest.mark.parametrize("name", [*OBJECTIVE_ROWS, *WRAPPER_ROWS])
def test_an_objective_is_traced_once_and_the_order_of_the_batch_does_not_count(name, classifier, batch, key):
    """A whole step, with one key an example: each adversary, mask or guide follows its example wherever that stands."""
    (objective, spec), variables = row_of(name), classifier.init(key)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, carry, keys, batch, spec):
        given = {**variables, "params": params}
        perturbed = objective.perturb(classifier, given, keys, batch, spec)

        def loss(params, carry):
            return objective.loss(classifier, {**variables, "params": params}, carry, key, perturbed, spec)

        (value, (state, _)), (slope, along) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, carry)
        of_weights = perturbed.pop("weight_perturbation", ())
        return (value, state, slope, of_weights), (perturbed, objective.advance(carry, along, perturbed, spec))

    keys, order = randomness.per_example_keys(key, batch["id"]), jnp.array([2, 0, 3, 1])
    carry = jax.tree.map(lambda leaf: leaf + 0.01 * batch["image"], objective.start(batch, spec))
    whole, examples = step(variables["params"], carry, keys, batch, spec)
    turned_carry, turned_keys, turned_batch = jax.tree.map(lambda leaf: leaf[order], (carry, keys, batch))
    turned, turned_examples = step(variables["params"], turned_carry, turned_keys, turned_batch, spec)
    chex.assert_trees_all_close(turned, whole, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(turned_examples, jax.tree.map(lambda leaf: leaf[order], examples), atol=1e-5)
    # Other weights, images and numbers, epsilon too: each counts, and none is a new trace.
    others, dimmed = scaled(variables["params"], 0.9), {**batch, "image": batch["image"] / 2}
    assert step(others, carry, keys, batch, spec)[0][0] != whole[0]
    assert step(variables["params"], carry, keys, dimmed, spec)[0][0] != whole[0]
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(step(variables["params"], carry, keys, batch, scaled(spec, 0.5)), (whole, examples))
