"""Carlini-Wagner where the closest adversary is known, and what it promises of every example alone."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from robust_saliency import losses
from robust_saliency.attacks.carlini_wagner import CarliniWagner, advance, carlini_wagner, finish, start
from robust_saliency.threat import Threat
from tests.keys import fast_key

SHAPE = (3, 4, 2)
FINE = CarliniWagner(learning_rate=0.002, num_steps=300)


# Code that runs for milliseconds need not be optimised for seconds.
QUICK = {"xla_backend_optimization_level": 0}


def compiled(function):
    return jax.jit(function, compiler_options=QUICK)


def attack(logits_fn, images, labels, spec):
    run = compiled(lambda x, y, s: carlini_wagner(logits_fn, fast_key(0), x, y, s))
    return jax.tree.map(np.asarray, run(images, labels, spec))


def linear(weights):
    return lambda x: jnp.tensordot(x - 0.5, weights, 3)


def hyperplane_distances(weights, images, labels, mask):
    """l2 distance within ``mask`` to where each class is as likely as the label, ``[B, K]``; infinite for the label."""
    flat = np.moveaxis(weights.astype(np.float64), -1, 0).reshape(weights.shape[-1], -1)
    logits = (images.astype(np.float64) - 0.5).reshape(len(images), -1) @ flat.T
    rise = (flat[None] - flat[labels][:, None]) * np.broadcast_to(mask, images.shape[1:]).reshape(-1)
    gap = logits[np.arange(len(labels)), labels][:, None] - logits
    length = np.linalg.norm(rise, axis=-1)
    return np.where(length > 0, gap / np.where(length > 0, length, 1), np.inf)


def setting(rng, num_classes, *, orthogonal):
    """Images that lie 0.02 or more from any other class, and far enough from the box."""
    weights = rng.normal(size=(24, num_classes))
    if orthogonal:
        weights = 5 * np.linalg.qr(weights)[0]
    weights = weights.reshape(*SHAPE, num_classes).astype(np.float32)
    images = rng.uniform(0.35, 0.65, (96, *SHAPE)).astype(np.float32)
    labels = np.argmax(linear(weights)(images), -1).astype(np.int32)
    far = hyperplane_distances(weights, images, labels, 1.0).min(1) > 0.02
    return weights, images[far][:32], labels[far][:32]


@compiled
def attack_linear(weights, images, labels, spec):
    return carlini_wagner(linear(weights), fast_key(0), images, labels, spec)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_the_closest_adversary_of_a_linear_model(num_classes, masked, rng):
    """All classes being equally steep, the likeliest wrong one is the nearest, and the attack must find it."""
    weights, images, labels = setting(rng, num_classes, orthogonal=not masked)
    mask = rng.integers(0, 2, (3, 4, 1)).astype(np.float32) if masked else np.ones((3, 4, 1), np.float32)
    model = Threat(norm="l2", epsilon=np.inf, mask=jnp.asarray(mask[None]))
    result = attack_linear(weights, images, labels, dataclasses.replace(FINE, threat=model))
    distances = hyperplane_distances(weights, images, labels, mask)
    assert result.success.all()
    assert (result.distance >= distances.min(1) * (1 - 1e-4)).all()
    # A masked model is not equally steep: the nearest point of the class that it reached is what can be asked.
    logits = np.array(linear(weights)(result.images))
    logits[np.arange(len(labels)), labels] = -np.inf
    reached = distances[np.arange(len(labels)), np.argmax(logits, -1)]
    assert (result.distance <= 1.05 * (reached if masked and num_classes > 2 else distances.min(1))).all()
    assert np.median(result.distance / distances.min(1)) < 1.01
    fixed = np.broadcast_to(mask == 0, images.shape)
    np.testing.assert_array_equal(result.images[fixed], images[fixed])
    np.testing.assert_array_equal(losses.margin(linear(weights)(result.images), labels) >= -1e-5, result.success)


def test_the_closest_adversary_where_the_box_is_in_the_way(rng):
    weights = rng.normal(size=SHAPE).astype(np.float32)
    images = rng.uniform(0.05, 0.95, (6, *SHAPE)).astype(np.float32)

    def score(x):
        return jnp.tensordot(x - 0.5, weights, 3) - 5.0

    def logits_fn(x):
        return jnp.stack([0 * score(x), score(x)], -1)

    spec = CarliniWagner(learning_rate=0.02, num_steps=400, num_searches=12)
    result = attack(logits_fn, images, np.zeros(6, np.int32), spec)
    assert result.success.all()
    assert (result.images >= 0).all() and (result.images <= 1).all()
    flat = weights.reshape(-1).astype(np.float64)
    at_the_box = 0
    for image, distance in zip(images.reshape(6, -1).astype(np.float64), result.distance, strict=True):
        best = minimize(
            lambda d: d @ d, np.zeros(24), jac=lambda d: 2 * d, method="SLSQP", options={"ftol": 1e-12, "maxiter": 500},
            bounds=list(zip(-image, 1 - image, strict=True)),
            constraints={"type": "ineq", "fun": lambda d, x=image: (x - 0.5 + d) @ flat - 5, "jac": lambda d: flat},
        )  # fmt: skip
        assert best.success
        optimum = np.linalg.norm(best.x)
        assert optimum * (1 - 1e-4) <= distance <= 1.05 * optimum
        at_the_box += np.sum(np.isclose(image + best.x, 0, atol=1e-6) | np.isclose(image + best.x, 1, atol=1e-6))
    assert at_the_box >= 12, "a test whose box is not in the way shows little"


FIRST, SECOND = (np.random.default_rng(3).normal(size=size).astype(np.float32) for size in ((24, 32), (32, 4)))
SHORT = CarliniWagner(
    threat=Threat(norm="l2", epsilon=np.float32(np.inf)), num_steps=40, num_searches=8, learning_rate=0.05
)


def net(x):
    return jax.nn.relu((x.reshape(-1, 24) - 0.5) @ FIRST) @ SECOND


TRACES = []


@compiled
def attack_net(images, labels, spec):
    TRACES.append(spec)
    return carlini_wagner(net, fast_key(0), images, labels, spec)


@pytest.fixture
def examples(rng):
    """Images of which a third of the values stand on a bound, and the labels that the net gives them."""
    images = rng.uniform(0.0, 1.0, (16, *SHAPE))
    images = np.where(rng.random(images.shape) < 0.3, np.round(images), images).astype(np.float32)
    return images, np.argmax(net(images), -1).astype(np.int32)


def test_on_a_net_each_success_is_one_and_lies_in_the_box(examples):
    images, labels = examples
    assert ((images == 0) | (images == 1)).any((1, 2, 3)).all()
    result = attack_net(images, labels, SHORT)
    assert result.success.all()
    assert (np.argmax(net(result.images), -1) != labels).mean() > 0.9, "the rest are ties"
    assert (result.margin >= 0).all()
    np.testing.assert_allclose(losses.margin(net(result.images), labels), result.margin, atol=1e-4)
    assert (result.images >= 0).all() and (result.images <= 1).all()
    np.testing.assert_allclose(result.distance, np.linalg.norm((result.images - images).reshape(16, -1), axis=1), 1e-5)
    assert (result.distance > 0).all() and result.distance.max() < 1
    assert result.forwards.tolist() == result.backwards.tolist() == [320] * 16


def test_the_first_image_is_the_clean_one_bitwise_also_on_the_bounds(examples):
    images, labels = examples
    seen = []

    def logits_fn(x):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), x)
        return net(x)

    attack(logits_fn, images, labels, CarliniWagner(num_steps=3, num_searches=2))
    jax.effects_barrier()
    assert len(seen) == 6 + 3, "two searches of three steps, and what judges"
    assert sum(np.array_equal(x, images) for x in seen) == 2 + 1, "the first step of each search, and what judges"


def test_a_value_on_a_bound_can_leave_it(rng):
    """All values on bounds, so that none would move if those did not."""
    images = rng.integers(0, 2, (8, *SHAPE)).astype(np.float32)
    weights = (rng.normal(size=(*SHAPE, 3)) * 3).astype(np.float32)
    labels = np.argmax(linear(weights)(images), -1).astype(np.int32)
    result = attack(linear(weights), images, labels, CarliniWagner(learning_rate=0.1, num_steps=100))
    assert result.success.all()
    assert (result.images >= 0).all() and (result.images <= 1).all()


def test_an_example_depends_on_itself_alone_bitwise(examples):
    images, labels = examples
    whole = attack_net(images, labels, SHORT)
    order = np.random.default_rng(1).permutation(16)
    chex.assert_trees_all_equal(
        attack_net(images[order], labels[order], SHORT), jax.tree.map(lambda a: a[order], whole)
    )
    others = images.copy()
    others[4:] = 0.5
    chex.assert_trees_all_equal(*(jax.tree.map(lambda a: a[:4], r) for r in (attack_net(others, labels, SHORT), whole)))
    # Another batch size is another program, which may sum in another order.
    few = attack_net(images[:5], labels[:5], SHORT)
    np.testing.assert_array_equal(few.success, whole.success[:5])
    np.testing.assert_allclose(few.distance, whole.distance[:5], rtol=0.02)


def test_each_example_searches_a_constant_of_its_own(rng):
    """Equal images of a linear model whose logits are scaled: the constant that just works goes with 1 / scale."""
    weights = rng.normal(size=SHAPE).astype(np.float32)
    images = np.full((3, *SHAPE), 0.5, np.float32)
    scale = jnp.array([1.0, 10.0, 100.0])

    def logits_fn(x):
        score = scale * (jnp.tensordot(x - 0.5, weights, 3) - 0.5)
        return jnp.stack([0 * score, score], -1)

    spec = dataclasses.replace(FINE, num_searches=14)
    labels = np.zeros(3, np.int32)
    state = compiled(lambda x: advance(logits_fn, start(x, spec), labels, spec, spec.passes[0]))(images)
    # d = c w / 2 (the slope of the hinge against that of the distance) reaches the boundary at |d| = 0.5 / |w|.
    expected = 2 * 0.5 / np.sum(weights**2) / np.asarray(scale)
    assert (np.asarray(state.failed) < np.asarray(state.worked)).all()
    np.testing.assert_allclose(state.worked, expected, rtol=0.05)
    np.testing.assert_allclose(state.best_distance, 0.5 / np.linalg.norm(weights), rtol=0.01)


def test_the_constants_are_those_of_the_published_search():
    """Ten times larger while no adversary is found; from there on the middle."""
    images, labels = jnp.full((2, 1, 1, 1), 0.5), jnp.zeros(2, jnp.int32)
    spec = CarliniWagner(num_steps=1, initial_constant=0.01)

    def constants(found):
        def logits_fn(x):
            return jnp.stack([jnp.zeros(2), jnp.where(jnp.asarray(found), 1.0, -1.0) + 0 * x[:, 0, 0, 0]], -1)

        return advance(logits_fn, state, labels, spec, 1)

    state, tried = start(images, spec), []
    for found in ([False, True], [False, False], [True, True], [False, True]):
        tried.append(np.asarray(state.constant))
        state = constants(found)
    tried.append(np.asarray(state.constant))
    np.testing.assert_allclose(np.array(tried)[:, 0], [0.01, 0.1, 1.0, 0.55, 0.775], rtol=1e-5)
    np.testing.assert_allclose(np.array(tried)[:, 1], [0.01, 0.005, 0.0075, 0.00625, 0.005625], rtol=1e-5)


def test_a_spoilt_example_stays_clean_and_leaves_its_neighbours_bitwise_alone(examples):
    images, labels = examples
    nan_gradient, zero_gradient, nan_logits = 2, 5, 11

    @compiled
    def run(spoilt):
        def marked(row):
            return (spoilt & (jnp.arange(16) == row))[:, None]

        def logits_fn(x):
            logits = net(x)
            logits = jnp.where(marked(zero_gradient), jax.lax.stop_gradient(logits), logits)
            logits = jnp.where(marked(nan_logits), jnp.nan, logits)
            # sqrt(0 x) is 0 and its derivative NaN.
            return logits + jnp.sqrt(jnp.where(marked(nan_gradient), 0.0, 1.0) * (1 + x[:, 0, 0, :1]))

        return carlini_wagner(logits_fn, fast_key(0), images, labels, SHORT)

    healthy, spoilt = run(np.array(False)), run(np.array(True))
    rows = np.array([nan_gradient, zero_gradient, nan_logits])
    rest = np.delete(np.arange(16), rows)
    chex.assert_trees_all_equal(*(jax.tree.map(lambda a: a[rest], r) for r in (spoilt, healthy)))
    np.testing.assert_array_equal(spoilt.images[rows], images[rows])
    assert healthy.success.all()
    np.testing.assert_array_equal(spoilt.success[rows], [False, False, True])  # no answer is no right answer
    np.testing.assert_array_equal(spoilt.distance[rows], 0)


def test_a_nan_gradient_on_the_way_does_not_end_the_search():
    """The value rises from 0.5 to 0.6, where the label changes; between 0.54 and 0.56 the gradient is NaN."""

    def logits_fn(x):
        x = x[:, 0, 0, 0]
        # sqrt(0 x) is 0 and its derivative NaN.
        score = x - 0.6 + jnp.sqrt(jnp.where((x > 0.54) & (x < 0.56), 0.0, 1.0) * x) - jnp.sqrt(x)
        return jnp.stack([0 * x, score], -1)

    images, labels = jnp.full((1, 1, 1, 1), 0.5), jnp.zeros(1, jnp.int32)
    result = attack(logits_fn, images, labels, CarliniWagner(num_steps=50, learning_rate=0.03, num_searches=7))
    assert result.success.all()
    assert 0.1 - 1e-6 <= result.distance[0] < 0.12


def test_epsilon_judges_in_one_trace(examples):
    images, labels = examples

    def run(epsilon):
        return attack_net(images, labels, dataclasses.replace(SHORT, threat=Threat(norm="l2", epsilon=epsilon)))

    free = run(np.float32(np.inf))
    traced = len(TRACES)
    middle = float(np.median(free.distance))
    found = run(np.float32(middle))
    assert (np.asarray(found.distance) <= middle * (1 + 1e-6)).all()
    inside = np.asarray(free.distance) <= middle
    np.testing.assert_array_equal(found.images[inside], free.images[inside])
    assert 4 <= inside.sum() <= 12
    assert found.success[inside].all()
    np.testing.assert_allclose(found.distance[~inside], middle, rtol=1e-5)
    np.testing.assert_array_equal(found.success, losses.margin(net(found.images), labels) >= 0)
    np.testing.assert_array_equal(run(np.float32(0)).images, images)
    assert not run(np.float32(0)).success.any()
    assert len(TRACES) == traced


def test_confidence_is_the_least_margin_and_costs_distance(examples):
    images, labels = examples
    at, above = (attack_net(images, labels, dataclasses.replace(SHORT, confidence=c)) for c in (0.0, 2.0))
    assert (above.margin >= 2 - 1e-4).all()
    assert np.median(at.margin) < 0.5
    assert (above.distance > at.distance).all()


def test_what_is_wrong_before_stays_clean(examples):
    images, right = examples
    labels = np.where(np.arange(16) % 2 == 0, (right + 1) % 4, right).astype(np.int32)
    result = attack_net(images, labels, SHORT)
    assert result.success.all()
    np.testing.assert_array_equal(result.distance == 0, np.arange(16) % 2 == 0)


def test_in_pieces_or_unrolled_it_is_one_attack(examples):
    images, labels = examples
    spec = CarliniWagner(num_steps=2, num_searches=2, learning_rate=0.3, initial_constant=10.0)
    rolled, unrolled = (attack_net(images, labels, dataclasses.replace(spec, unroll=u)) for u in (False, True))
    piece = compiled(lambda s: advance(net, s, labels, spec, 1))
    state = start(images, spec)
    for _ in range(4):
        state = piece(state)
    end = compiled(lambda s: finish(net, s, labels, spec))
    in_pieces = end(state)
    assert rolled.success.any()
    # What the network was seen to take for an adversary is what is returned, to the bit.
    far = np.random.default_rng(2).random(images.shape, np.float32)
    np.testing.assert_array_equal(end(state._replace(best_images=far)).images, far)
    chex.assert_trees_all_close(unrolled, rolled, atol=1e-4)
    chex.assert_trees_all_close(in_pieces, rolled, atol=1e-4)


def test_bad_specs_are_one_sentence():
    with pytest.raises(ValueError, match=r"CarliniWagner needs a threat of norm 'l2', got norm 'linf'\.$"):
        CarliniWagner(threat=Threat())
    with pytest.raises(ValueError, match=r"CarliniWagner.num_steps must be at least 1, got 0\.$"):
        CarliniWagner(num_steps=0)
    with pytest.raises(ValueError, match=r"CarliniWagner.num_searches must be at least 1, got 0\.$"):
        CarliniWagner(num_searches=0)
