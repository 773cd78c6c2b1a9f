"""FAB finds the least perturbation of linear models, says no more than is true, and is one attack in any pieces."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import losses, randomness
from robust_saliency.attacks.fab import FAB, advance, fab, finish, restart, start
from robust_saliency.threat import NORMS, Threat
from tests.attacks import test_decisions
from tests.attacks.test_decisions import SHAPE
from tests.attacks.test_hyperplane import least_norm
from tests.attacks.test_hyperplane import run as least_step_of
from tests.keys import fast_key

NUM = 24
INF = float("inf")


linear = functools.cache(test_decisions.linear)


def quick(function):
    """Code that runs once for a millisecond need not be optimised for seconds."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def program(logits_fn, decide):
    return quick(lambda k, x, y, s: decide(logits_fn, k, x, y, s))


def attacked(logits_fn, images, labels, spec, epsilon=INF, key=None, decide=fab):
    """The result in numpy; one program whatever the epsilon."""
    key = fast_key(0) if key is None else key
    model = dataclasses.replace(spec.threat, epsilon=jnp.zeros(len(images)) + epsilon)
    result = program(logits_fn, decide)(key, images, labels, dataclasses.replace(spec, threat=model))
    return jax.tree.map(np.asarray, result)


def optimum(weights, logits_fn, images, labels, norm, mask=1.0):
    """The norm of the nearest tie with any wrong class, box and mask included."""
    weights, logits = np.moveaxis(weights, -1, 0), np.asarray(logits_fn(images), np.float64)
    best = np.full(logits.shape, np.inf)
    for target in range(len(weights)):
        rows = np.flatnonzero(labels != target)
        normal = weights[target][None] - weights[labels[rows]]
        gap = logits[rows, labels[rows]] - logits[rows, target]
        best[rows, target] = least_norm(images[rows], normal, gap, norm, mask)
    return best.min(1)


def examples(rng, logits_fn, low=0.0, high=1.0, num=NUM):
    images = rng.uniform(low, high, (num, *SHAPE)).astype(np.float32)
    return images, np.array(jnp.argmax(logits_fn(images), -1), np.int32)


# On linear models


def linear_spec(norm, mask=1.0, targeted=False):
    """One shape of mask, so that one program serves all."""
    return FAB(threat=Threat(norm=norm, mask=jnp.ones((1, 3, 4, 1)) * mask), num_steps=15, targeted=targeted)


@pytest.mark.parametrize(
    ("num_classes", "norm"), [(2, "l1"), (2, "l2"), (2, "linf"), (3, "l2"), (5, "l1"), (5, "l2"), (5, "linf")]
)
def test_the_least_perturbation_of_a_linear_model(num_classes, norm, rng):
    """The nearest boundary is chosen box aside, as in the paper: with three classes or more, away from the box."""
    weights, logits_fn = linear(num_classes)
    images, labels = examples(rng, logits_fn, *((0, 1) if num_classes == 2 else (0.4, 0.6)))
    best = optimum(weights, logits_fn, images, labels, norm)
    result = attacked(logits_fn, images, labels, linear_spec(norm))
    assert np.isfinite(best).all() and result.success.all()
    assert (result.distance >= best * (1 - 1e-4)).all()
    assert (result.distance <= best * 1.05).all() and np.median(result.distance / best) < 1.01


@pytest.mark.parametrize("norm", NORMS)
def test_towards_every_class_the_box_and_the_mask_are_seen_too(norm, rng):
    weights, logits_fn = linear(5)
    images, labels = examples(rng, logits_fn)
    mask = rng.integers(0, 2, (1, 3, 4, 1)).astype(np.float32)
    best = optimum(weights, logits_fn, images, labels, norm, mask)
    epsilon = np.where(np.isfinite(best), best, 1.0) * rng.uniform(0.5, 1.5, NUM)
    towards_all = linear_spec(norm, mask, targeted=True)
    nearest, judged = (attacked(logits_fn, images, labels, towards_all, e) for e in (INF, epsilon))
    untargeted = attacked(logits_fn, images, labels, linear_spec(norm, mask))
    in_reach = np.isfinite(best)
    assert in_reach.mean() > 0.5
    np.testing.assert_array_equal(nearest.success, in_reach)
    assert (nearest.distance >= best * (1 - 1e-4))[in_reach].all()
    assert (nearest.distance <= best * 1.05)[in_reach].all()
    both = in_reach & untargeted.success
    assert both.mean() > 0.5 and (nearest.distance <= untargeted.distance * 1.003)[both].all()

    sure = ~in_reach | (np.abs(epsilon / best - 1) > 0.01)
    assert sure.mean() > 0.8 and 0.2 < judged.success.mean() < 0.8
    np.testing.assert_array_equal(judged.success[sure], (epsilon > best)[sure])
    assert (judged.distance <= epsilon + 1e-5).all()
    assert (judged.distance > 0.5 * epsilon)[in_reach & ~judged.success].all(), "the strongest try, not the clean image"
    for result in (nearest, judged, untargeted):
        assert result.images.min() >= 0 and result.images.max() <= 1
        fixed = np.broadcast_to(mask == 0, images.shape)
        np.testing.assert_array_equal(result.images[fixed], images[fixed])
        np.testing.assert_allclose(result.margin, losses.margin(logits_fn(result.images), labels), atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_wrong_before_stays_clean_and_epsilon_zero_changes_nothing(norm, rng):
    _, logits_fn = linear(5)
    images, right = examples(rng, logits_fn)
    labels = np.where(np.arange(NUM) % 2 == 0, (right + 1) % 5, right).astype(np.int32)
    epsilon = np.where(np.arange(NUM) < NUM - 4, 9.0, 0.0)
    result = attacked(logits_fn, images, labels, linear_spec(norm), epsilon)
    np.testing.assert_array_equal(result.success, [*[True] * (NUM - 3), False, True, False])
    np.testing.assert_array_equal(result.images[::2], images[::2])
    np.testing.assert_array_equal(result.images[-4:], images[-4:])
    assert (result.distance[1:-4:2] > 0).all()


def test_one_trace_serves_a_sweep_of_epsilon(rng):
    chex.clear_trace_counter()
    weights, logits_fn = linear(2)
    images, labels = examples(rng, logits_fn)
    best = optimum(weights, logits_fn, images, labels, "linf")

    @quick
    @chex.assert_max_traces(n=1)
    def share(epsilon):
        spec = FAB(threat=Threat(epsilon=epsilon), num_steps=10)
        return fab(logits_fn, fast_key(0), images, labels, spec).success.mean()

    for epsilon in (*np.quantile(best, [0.25, 0.5, 0.75]).astype(np.float32), np.float32(np.inf)):
        assert abs(float(share(epsilon)) - (best <= epsilon).mean()) <= 0.05


# On a small net


@functools.cache
def tanh_net(num_classes=4, scale=3):
    rng = np.random.default_rng(5)
    inputs = int(np.prod(SHAPE))
    first = rng.normal(size=(inputs, 16)) * scale / np.sqrt(inputs)
    second = rng.normal(size=(16, num_classes))
    return lambda x: jnp.tanh((x - 0.5).reshape(x.shape[0], -1) @ first.astype(x.dtype)) @ second.astype(x.dtype)


@functools.cache
def with_jacobian(net):
    """Logits ``[K]`` of one image and their gradients ``[K, H, W, C]``."""
    logits = lambda x: net(x[None])[0]  # noqa: E731
    return quick(lambda x: (logits(x), jax.jacrev(logits)(x)))


def by_the_paper(net, image, label, norm, num_steps):
    """The algorithm for one image with ifs and all gradients; least steps are the library's, which have solvers."""
    order = {"l1": 1, "l2": 2, "linf": np.inf}[norm]
    size = lambda d, order=order: np.linalg.norm(d.ravel(), order)  # noqa: E731
    step_onto = lambda x, w, c: np.asarray(least_step_of(x[None], w[None], c[None], Threat(norm=norm)))[0]  # noqa: E731
    x, best, best_size, misses = image, None, np.inf, 0
    for _ in range(num_steps):
        rivals = [k for k in range(4) if k != label]
        z, jacobian = (np.asarray(a) for a in with_jacobian(net)(x))
        normals = [jacobian[k] - jacobian[label] for k in rivals]
        gaps = [z[label] - z[k] for k in rivals]
        dual = {1: np.inf, 2: 2, np.inf: 1}[order]
        i = int(np.argmin([abs(c) / size(w, dual) for w, c in zip(normals, gaps, strict=True)]))
        d = step_onto(x, normals[i], gaps[i])
        e = step_onto(image, normals[i], gaps[i] + np.sum(normals[i] * (x - image)))
        a = min(size(d) / (size(d) + size(e)), 0.1)
        x = np.clip((1 - a) * (x + 1.05 * d) + a * (image + 1.05 * e), 0, 1)
        if np.argmax(with_jacobian(net)(x)[0]) != label:
            if size(x - image) < best_size:
                best, best_size = x, size(x - image)
            x = image + 0.9 * (x - image)
        else:
            misses += 1
    return best, best_size, misses


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_it_is_the_algorithm_of_the_paper(norm, rng):
    with jax.enable_x64(True):
        net = tanh_net(scale=12)
        images = rng.uniform(0, 1, (4, *SHAPE))
        labels = np.argmax(net(images), -1).astype(np.int32)
        result = attacked(net, images, labels, FAB(threat=Threat(norm=norm), num_steps=10))
        misses = 0
        for image, label, mine, distance in zip(images, labels, result.images, result.distance, strict=True):
            best, best_size, missed = by_the_paper(net, image, label, norm, 10)
            np.testing.assert_allclose(distance, best_size, rtol=1e-8)
            np.testing.assert_allclose(mine, best, atol=1e-8)
            misses += missed
        assert misses > 0, "a test without a step that falls short shows little"


@pytest.fixture(scope="module")
def pieces():
    """A net, a spec, its program, and some examples."""
    rng, net = np.random.default_rng(1), tanh_net()
    spec = FAB(threat=Threat(norm="l2", epsilon=0.1), num_steps=12)
    steps = jax.jit(lambda state, n: advance(net, state, spec, n), static_argnums=1)
    images, labels = examples(rng, net, num=8)
    return net, spec, steps, start(net, fast_key(0), images, labels, spec)


def test_in_chunks_it_is_one_run_bitwise_and_past_the_end_nothing_changes(pieces):
    net, spec, steps, first = pieces
    once, chunks = steps(first, 12), first
    for _ in range(3):
        chunks = steps(chunks, 4)
    chex.assert_trees_all_equal(once, chunks)
    chex.assert_trees_all_equal(steps(chunks, 4), chunks)
    assert chunks.step.tolist() == [12] * 8 and np.isfinite(chunks.best_distance).all()
    assert all(leaf.shape[0] == 8 for leaf in jax.tree.leaves(chunks))
    last = np.asarray(quick(lambda state: finish(net, state, spec))(chunks))
    within = np.asarray(chunks.best_distance) <= 0.1
    assert 0 < within.sum() < 8
    np.testing.assert_array_equal(last[within], chunks.best_images[within])
    np.testing.assert_allclose(np.linalg.norm((last - first.origin).reshape(8, -1), axis=1)[~within], 0.1, rtol=1e-4)


def test_rows_that_are_dropped_and_refilled_go_their_own_way(pieces):
    _, _, steps, first = pieces
    alone = steps(first, 12)
    half = jax.tree.map(lambda leaf: jnp.concatenate([leaf[:4]] * 2), first)
    half = steps(half, 4)
    mixed = jax.tree.map(lambda old, new: jnp.concatenate([old[:4], new[4:]]), half, first)
    mixed = steps(mixed, 4)
    assert mixed.step.tolist() == [8] * 4 + [4] * 4
    for _ in range(2):
        mixed = steps(mixed, 4)
    chex.assert_trees_all_equal(mixed, alone)


def test_unrolled_it_is_the_same_attack_and_a_targeted_state_knows_its_target(pieces):
    net, _, _, first = pieces
    ends = []
    for unroll in (False, True):
        spec = FAB(threat=Threat(norm="l2"), num_steps=2, targeted=True, unroll=unroll)

        def run(images, labels, spec=spec):
            state = start(net, fast_key(0), images, labels, spec)
            return advance(net, state, spec, 2)

        ends.append(quick(run)(first.origin, first.labels))
    for rolled, unrolled in zip(*ends, strict=True):
        np.testing.assert_allclose(rolled, unrolled, atol=1e-5)
    logits = np.array(net(first.origin))
    logits[np.arange(8), first.labels] = -np.inf
    np.testing.assert_array_equal(ends[0].targets, logits.argmax(-1))
    assert first.targets.tolist() == [-1] * 8


def test_the_same_adversary_in_any_order_batch_and_padding(rng):
    net = tanh_net()
    images, labels = examples(rng, net, num=8)
    spec = FAB(num_steps=6, num_restarts=2)

    def on(ids):
        ids = np.asarray(ids)
        keys = randomness.per_example_keys(jax.random.key(3), ids)
        return attacked(net, images[ids], labels[ids], spec, 0.05, keys)

    whole = on(range(8))
    order = rng.permutation(8)
    chex.assert_trees_all_equal(on(order), jax.tree.map(lambda leaf: leaf[order], whole))
    padded = on([3, 6, 1, 0, 0, 0, 0, 0])
    chex.assert_trees_all_equal(
        *(jax.tree.map(lambda a, r=r: a[r], t) for t, r in ((padded, [0, 1, 2]), (whole, [3, 6, 1])))
    )
    np.testing.assert_allclose(on([2, 5]).images, whole.images[[2, 5]], atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_restarts_begin_at_half_the_radius_and_keep_the_nearest(norm, pieces):
    _, _, _, first = pieces
    mask = jnp.ones((1, *SHAPE)).at[:, 0].set(0)
    found = jnp.where(jnp.arange(8) < 4, 0.1, jnp.inf)
    middle = first._replace(origin=jnp.full_like(first.origin, 0.5), best_distance=found, step=first.step + 7)
    run = quick(lambda epsilon: restart(fast_key(1), middle, FAB(threat=Threat(norm=norm, epsilon=epsilon, mask=mask))))
    again = run(0.2)
    delta = np.asarray(again.images - again.origin, np.float64)
    flat = np.abs(delta).reshape(8, -1)
    length = {"l1": flat.sum(1), "l2": np.linalg.norm(flat, axis=1), "linf": flat.max(1)}[norm]
    np.testing.assert_allclose(length, [0.05] * 4 + [0.1] * 4, rtol=1e-3)
    assert (delta[:, 0] == 0).all() and again.step.tolist() == [0] * 8
    np.testing.assert_array_equal(again.best_distance, found)
    assert np.isfinite(run(INF).images).all()


# Where something is missing


@jax.custom_vjp
def with_gradient_times(logits, factor):
    return logits


with_gradient_times.defvjp(lambda z, factor: (z, factor), lambda factor, g: (g * factor, jnp.zeros_like(factor)))


def test_without_a_gradient_an_example_stays_and_its_neighbours_do_not_notice(rng):
    """A gradient of 0, one of NaN, logits of NaN, and a class at minus infinity."""
    _, plain = linear(3)
    images, labels = examples(rng, plain, num=6)
    labels[4] = (labels[4] + (labels[4] == 2)) % 3
    spec = FAB(threat=Threat(norm="l2", epsilon=INF), num_steps=8)

    @quick
    def run(factor, added):
        return fab(lambda x: with_gradient_times(plain(x), factor) + added, fast_key(0), images, labels, spec)

    factor, added = np.ones((6, 1), np.float32), np.zeros((6, 3), np.float32)
    good = run(factor.copy(), added.copy())
    factor[1:3, 0], added[3], added[4, 2] = [0, np.nan], np.nan, -np.inf
    result = run(factor, added)
    np.testing.assert_array_equal(result.images[1:4], images[1:4])
    assert good.success.all() and result.success.tolist() == [True, False, False, True, True, True]
    assert np.isfinite(result.images).all()
    np.testing.assert_array_equal(result.images[::5], good.images[::5])


# Accounts


@pytest.mark.parametrize(("targeted", "restarts"), [(False, 1), (True, 2)])
def test_passes_are_counted(targeted, restarts):
    _, plain = linear(4)
    images, labels = jnp.full((3, *SHAPE), 0.5), jnp.array([0, 1, 2])
    calls = {"forward": 0, "backward": 0}

    def count(name, x):
        def add(_):
            calls[name] += 1

        # Of a value of its own, so that a target more is a call more.
        jax.debug.callback(add, x[0, 0])
        return x

    @jax.custom_vjp
    def counted(z):
        return count("forward", z)

    counted.defvjp(lambda z: (counted(z), None), lambda _, g: (count("backward", g),))
    spec = FAB(num_steps=3, targeted=targeted, num_targets=2, num_restarts=restarts)
    result = quick(lambda x, y: fab(lambda x: counted(plain(x)), fast_key(0), x, y, spec))(images, labels)
    jax.effects_barrier()
    judging = 3
    assert result.forwards.tolist() == [calls["forward"] - judging] * 3
    assert result.backwards.tolist() == [calls["backward"]] * 3


def test_bad_specs_are_one_sentence():
    for name in ("num_steps", "num_targets", "num_restarts"):
        with pytest.raises(ValueError, match=rf"FAB\.{name} must be at least 1, got 0\.$"):
            FAB(**{name: 0})
