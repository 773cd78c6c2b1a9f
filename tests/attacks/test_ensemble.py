"""Ensemble optimisation on linear models, whose minima are known, and what it promises of its N adversaries."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from robust_saliency.attacks.ensemble import Adversaries, EnsembleOptimisation, ensemble_optimisation
from robust_saliency.threat import Threat
from tests.keys import fast_key

SHAPE, NUM = (3, 2, 2), 6
# Alike enough to be fooled together, and not so alike that fooling one fools the other.
WEIGHTS = np.random.default_rng(5).normal(size=(3, *SHAPE, 4)).astype(np.float32) * 3
WEIGHTS = WEIGHTS[:1] + 0.8 * WEIGHTS[1:]
MODELS = [lambda x, w=w: jnp.tensordot(x - 0.5, w, 3) for w in WEIGHTS]
TRACES = []
SPEC = EnsembleOptimisation(
    threat=Threat(norm="l2", epsilon=np.float32(np.inf)), num_adversaries=3, num_steps=100, learning_rate=0.02
)


def compiled(function):
    """Code that runs for milliseconds need not be optimised for seconds."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@compiled
def attack(images, labels, spec, targets=None):
    TRACES.append(spec)
    return ensemble_optimisation(MODELS, fast_key(0), images, labels, spec, targets)


@pytest.fixture
def examples(rng):
    """Images, and the labels that the models give them together."""
    images = rng.uniform(0.2, 0.8, (NUM, *SHAPE)).astype(np.float32)
    images[:, 0, 0, 0] = [0, 1, 0, 1, 0, 1]
    return images, np.argmax(sum(m(images) for m in MODELS), -1).astype(np.int32)


def predicted(images):
    """Classes that the models give ``[B, N, H, W, C]``: ``[B, N, models]``."""
    return np.stack([np.argmax(m(images.reshape(-1, *SHAPE)), -1).reshape(images.shape[:2]) for m in MODELS], -1)


@pytest.mark.parametrize(
    ("target", "combine"),
    [
        ("least_likely", "probabilities"),
        ("none", "logits"),
        ("random", "losses"),
    ],
)
def test_the_adversaries_fool_all_models_and_say_so(target, combine, examples):
    images, labels = examples
    result = attack(images, labels, dataclasses.replace(SPEC, target=target, combine=combine, distance_weight=0.02))
    assert result.images.shape == (NUM, 3, *SHAPE)
    assert (np.asarray(result.images) >= 0).all() and (np.asarray(result.images) <= 1).all()
    classes = predicted(np.asarray(result.images))
    if target == "none":
        np.testing.assert_array_equal(result.fooled, classes != labels[:, None, None])
        np.testing.assert_array_equal(result.targets, np.repeat(labels[:, None], 3, 1))
    else:
        np.testing.assert_array_equal(result.fooled, classes == np.asarray(result.targets)[..., None])
        assert (np.asarray(result.targets) != labels[:, None]).all()
    np.testing.assert_array_equal(result.success, np.asarray(result.fooled).all(-1))
    assert np.mean(result.success) > 0.9
    moved = (np.asarray(result.images) - images[:, None]).reshape(NUM, 3, -1)
    np.testing.assert_allclose(result.distance, np.linalg.norm(moved, axis=-1), rtol=1e-5)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (np.asarray(result.images)[:, one] != np.asarray(result.images)[:, other]).any((1, 2, 3)).all()


def test_who_is_not_fooled_is_not_counted(examples):
    images, labels = examples
    result = attack(images, labels, dataclasses.replace(SPEC, distance_weight=100.0))
    assert not np.asarray(result.success).any()
    assert np.asarray(result.fooled).shape == (NUM, 3, 2)


@pytest.mark.parametrize("distance", ["l2", "rms", "squared_l2"])
def test_it_reaches_the_minimum_of_what_it_says_it_minimises(distance, examples):
    """The mean cross-entropy of linear models is convex, so that scipy knows the least value within the box."""
    images, labels = examples
    weight = {"l2": 1.0, "rms": 4.0, "squared_l2": 1.0}[distance]
    targets = np.repeat(((labels + 1) % 4)[:, None], 3, 1)
    spec = dataclasses.replace(SPEC, distance=distance, distance_weight=weight, learning_rate=0.002, num_steps=1500)
    found = np.asarray(attack(images, labels, spec, targets).images, np.float64)
    flat = WEIGHTS.reshape(2, -1, 4).astype(np.float64)

    def objective(x, origin, target):
        logits = (x - 0.5) @ flat
        surprise = np.log(np.exp(logits).sum(-1)) - logits[:, target]
        length = np.sqrt(np.sum((x - origin) ** 2) + 1e-18)
        d = {"l2": length, "rms": length / np.sqrt(12), "squared_l2": length**2}[distance]
        return weight * d + surprise.mean()

    away = 0
    for b in range(NUM):
        origin = images[b].reshape(-1).astype(np.float64)
        best = min(
            (
                minimize(objective, start, (origin, targets[b, 0]), "L-BFGS-B", bounds=[(0, 1)] * 12, tol=1e-12)
                for start in (np.clip(origin + 0.05, 0, 1), found[b, 0].reshape(-1))
            ),
            key=lambda best: best.fun,
        )
        away += np.linalg.norm(best.x - origin) > 0.1
        for n in range(3):
            reached = objective(found[b, n].reshape(-1), origin, targets[b, 0])
            assert reached - best.fun < 0.005 * (objective(origin, origin, targets[b, 0]) - best.fun) + 2e-3
    assert away >= 3, "a test whose minima are the clean images shows little"


def test_distance_falls_with_a_larger_distance_weight_in_one_trace(examples):
    images, labels = examples
    # Of as many steps as no other test, so that the trace is one of its own.
    spec = dataclasses.replace(SPEC, target="none", num_steps=99)
    before = len(TRACES)
    distances = [
        np.asarray(attack(images, labels, dataclasses.replace(spec, distance_weight=np.float32(weight))).distance)
        for weight in (0.01, 0.1, 1.0, 100.0)
    ]
    assert len(TRACES) == before + 1
    for nearer, farther in zip(distances[1:], distances[:-1], strict=True):
        assert (nearer < farther).mean() > 0.9
        assert nearer.mean() < farther.mean()


def test_a_model_without_weight_need_not_be_fooled_and_has_no_say_in_the_target(examples):
    images, labels = examples
    weights = np.array([1.0, 0.0], np.float32)
    spec = dataclasses.replace(SPEC, target="least_likely", distance_weight=0.02, weights=weights)
    result = attack(images, labels, spec)
    assert np.asarray(result.fooled)[..., 0].all()
    assert not np.asarray(result.fooled)[..., 1].all()
    least, second = np.argsort(np.asarray(MODELS[0](images)), -1)[:, :2].T
    np.testing.assert_array_equal(result.targets, np.repeat(least[:, None], 3, 1))
    # A label is never a target, though it be the least likely.
    mistaken = attack(images, jnp.asarray(least, jnp.int32), spec)
    np.testing.assert_array_equal(mistaken.targets, np.repeat(second[:, None], 3, 1))


def test_a_single_model_is_an_ensemble_and_its_loss_away_from_the_label_is_stable():
    """A model so sure that 1 - p is 0 in float32."""

    def logits_fn(x):
        score = 100 * x.mean((1, 2, 3))
        return jnp.stack([score, 80 + 0 * score], -1)

    images, labels = jnp.full((1, *SHAPE), 0.99), jnp.zeros(1, jnp.int32)
    spec = dataclasses.replace(SPEC, target="none", start_scale=0.0, distance="rms")
    result = compiled(lambda x: ensemble_optimisation(logits_fn, fast_key(0), x, labels, spec))(images)
    assert result.fooled.shape == (1, 3, 1)
    assert np.asarray(result.success).all()
    np.testing.assert_array_equal(result.images[:, 1:], result.images[:, :-1])


def test_random_targets_are_all_wrong_classes_alike():
    images, labels = jnp.full((400, 1, 1, 1), 0.5), jnp.arange(400, dtype=jnp.int32) % 4
    spec = EnsembleOptimisation(num_adversaries=10, num_steps=1)
    result = compiled(
        lambda x, y: ensemble_optimisation(lambda x: x[:, 0, 0] * jnp.arange(4.0)[None], fast_key(0), x, y, spec)
    )(images, labels)
    counts = np.bincount(np.asarray((result.targets - labels[:, None]) % 4).reshape(-1), minlength=4)
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:], 4000 / 3, rtol=0.1)


def test_mask_and_epsilon_hold(examples, rng):
    images, labels = examples
    mask = rng.integers(0, 2, (1, 3, 2, 1)).astype(np.float32)
    model = Threat(norm="l2", epsilon=np.float32(0.1), mask=jnp.asarray(mask))
    result = attack(images, labels, dataclasses.replace(SPEC, threat=model, distance_weight=0.0))
    fixed = np.broadcast_to((mask == 0)[:, None], result.images.shape)
    clean = np.broadcast_to(images[:, None], result.images.shape)
    np.testing.assert_array_equal(np.asarray(result.images)[fixed], clean[fixed])
    assert (np.asarray(result.distance) <= 0.1 + 1e-6).all()
    assert (np.asarray(result.distance) > 0.09).mean() > 0.8


def test_an_example_depends_on_itself_and_its_key_alone(examples):
    images, labels = examples
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(NUM))

    @compiled
    def run(keys, images, labels, spoilt):
        def logits_fn(x):
            # sqrt(0 x) is 0 and its derivative NaN.
            return MODELS[0](x) + jnp.sqrt(jnp.where(spoilt, 0.0, 1.0)[:, None] * (1 + x[:, 0, 0, :1]))

        return ensemble_optimisation([logits_fn, MODELS[1]], keys, images, labels, SPEC)

    none = np.zeros(NUM, bool)
    whole = run(keys, images, labels, none)
    order = np.array([3, 0, 5, 1, 4, 2])
    moved = run(keys[order], images[order], labels[order], none)
    chex.assert_trees_all_equal(moved, jax.tree.map(lambda a: a[order], whole))
    spoilt = run(keys, images, labels, np.arange(NUM) == 2)
    rest = np.arange(NUM) != 2
    chex.assert_trees_all_equal(*(jax.tree.map(lambda a: a[rest], r) for r in (spoilt, whole)))
    assert np.isfinite(spoilt.images).all()
    assert (np.asarray(spoilt.distance)[2] < 0.5 * np.asarray(whole.distance)[2]).all(), "drawn back to the clean image"


def test_unrolled_and_rolled_are_one_attack_of_the_passes_it_counts(examples):
    images, labels = examples
    spec = dataclasses.replace(SPEC, num_steps=2, num_adversaries=2, target="least_likely")
    calls = []

    def counted(x):
        jax.debug.callback(lambda _: calls.append(1), x[0, 0, 0, 0])
        return MODELS[0](x)

    found = []
    for unroll in (False, True):
        calls.clear()
        run = compiled(lambda x, s: ensemble_optimisation([counted, MODELS[1]], fast_key(0), x, labels, s))
        found.append(run(images, dataclasses.replace(spec, unroll=unroll)))
        jax.effects_barrier()
        assert len(calls) == spec.passes[0] + 2, "and a judgement of each"
    assert spec.passes == (5, 4)
    chex.assert_trees_all_close(*found, atol=1e-5)
    assert isinstance(found[0], Adversaries)


def test_no_gradient_flows_through_an_adversary(examples):
    images, labels = examples
    spec = dataclasses.replace(SPEC, num_steps=2, unroll=True)
    total = lambda s: ensemble_optimisation(MODELS, fast_key(0), s * images, labels, spec).images.sum()  # noqa: E731
    assert compiled(jax.grad(total))(1.0) == 0


def test_mistakes_are_one_sentence(examples):
    images, labels = examples
    with pytest.raises(ValueError, match=r"Unknown distance 'l22'\. Did you mean 'l2'"):
        EnsembleOptimisation(distance="l22")
    with pytest.raises(ValueError, match=r"Unknown combine 'loss'\. Did you mean 'losses'"):
        EnsembleOptimisation(combine="loss")
    with pytest.raises(ValueError, match=r"Unknown target 'ranom'\. Did you mean 'random'"):
        EnsembleOptimisation(target="ranom")
    with pytest.raises(ValueError, match=r"EnsembleOptimisation.num_adversaries must be at least 1, got 0\.$"):
        EnsembleOptimisation(num_adversaries=0)
    with pytest.raises(ValueError, match=r"targets must be \[B, num_adversaries\], \[6, 3\], got shape \[6\]\."):
        attack(images, labels, SPEC, labels)
    with pytest.raises(ValueError, match=r"An ensemble of 2 models needs as many weights, got shape \(3,\)\."):
        attack(images, labels, dataclasses.replace(SPEC, weights=np.ones(3, np.float32)))
