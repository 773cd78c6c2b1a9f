"""One adversary from many programs: rolled, in pieces, under vmap, in any batch, on eight devices."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from robust_saliency import attacks, losses, randomness, threat
from robust_saliency.attacks import PGD, pgd
from robust_saliency.threat import Threat
from tests.attacks.linear import attack, linear_loss, unit_step
from tests.keys import fast_key


def test_one_program_for_all_epsilons_and_step_sizes(middle, weights):
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(spec):
        return pgd(linear_loss(weights), fast_key(0), middle, spec)

    for epsilon, step_size in [(0.1, 0.02), (0.2, 0.04), (0.05, 0.5)]:
        result = run(PGD(threat=Threat(epsilon=epsilon), step_size=step_size, num_steps=10, unroll=False))
        np.testing.assert_allclose(result, middle + epsilon * np.sign(weights), atol=1e-6)


@pytest.mark.parametrize("norm", threat.NORMS)
def test_vmap_over_epsilon(middle, weights, norm):
    epsilons = jnp.array([0.0, 0.05, 0.1])

    def at(epsilon):
        model = Threat(norm=norm, epsilon=epsilon)
        spec = PGD(threat=model, step_size=epsilon / 2, num_steps=2, start="none", unroll=False)
        return pgd(linear_loss(weights), fast_key(0), middle, spec)

    expected = middle + np.asarray(epsilons)[:, None, None, None, None] * unit_step(weights, norm)
    np.testing.assert_allclose(jax.jit(jax.vmap(at))(epsilons), expected, atol=1e-6)


def dense(seed=0, inputs=12, classes=4):
    """Logits of a fixed two-layer net."""
    rng = np.random.default_rng(seed)
    first = jnp.asarray(rng.normal(size=(inputs, 16)) / np.sqrt(inputs), jnp.float32)
    second = jnp.asarray(rng.normal(size=(16, classes)) / 4, jnp.float32)
    return lambda x: jax.nn.relu((x - 0.5).reshape(x.shape[0], -1) @ first) @ second


def dense_loss(labels):
    return lambda x: losses.cross_entropy(dense()(x), labels)


@pytest.mark.parametrize("norm", threat.NORMS)
def test_rolled_equals_unrolled(images, norm):
    labels, spec = jnp.arange(4), PGD(threat=Threat(norm=norm, epsilon=0.2), step_size=0.05, num_steps=3)
    unrolled, rolled = (
        attack(dense_loss(labels), images, dataclasses.replace(spec, unroll=unroll)) for unroll in (True, False)
    )
    np.testing.assert_allclose(rolled, unrolled, atol=1e-6)


@pytest.mark.parametrize("norm", threat.NORMS)
def test_advancing_twice_equals_advancing_once_bitwise(images, norm):
    spec = PGD(threat=Threat(norm=norm, epsilon=0.2), step_size=0.05, keep_best=True, unroll=False)
    pieces, loss_fn = attacks.iterated(spec), dense_loss(jnp.arange(4))
    advance = jax.jit(lambda s, n: pieces.advance(loss_fn, s, spec, n), static_argnums=1)
    first = jax.jit(pieces.start)(fast_key(0), images, spec)
    once, twice = advance(first, 10), advance(advance(first, 5), 5)
    chex.assert_trees_all_equal(once, twice)
    ends = [jax.jit(lambda s: pieces.finish(loss_fn, s, spec))(state) for state in (once, twice)]
    np.testing.assert_array_equal(*ends)
    np.testing.assert_allclose(ends[0], attack(loss_fn, images, spec), atol=1e-6)


@jax.jit
def dense_attack(keys, images, labels, spec):
    return pgd(dense_loss(labels), keys, images, spec)


@pytest.fixture
def sixteen(rng):
    return jnp.asarray(rng.uniform(0, 1, (16, 3, 2, 2)), jnp.float32), jnp.asarray(rng.integers(0, 4, 16))


def spec_of(norm):
    return PGD(threat=Threat(norm=norm, epsilon=0.2), step_size=0.05, num_steps=5, keep_best=True, unroll=False)


@pytest.mark.parametrize("norm", threat.NORMS)
def test_the_same_adversary_in_any_batch(key, sixteen, norm, rng):
    images, labels = sixteen

    def attacked(ids):
        ids = jnp.asarray(ids)
        keys = randomness.per_example_keys(key, ids)
        return np.asarray(dense_attack(keys, images[ids], labels[ids], spec_of(norm)))

    whole = attacked(range(16))
    np.testing.assert_array_equal(whole, attacked(range(16)))
    order = rng.permutation(16)
    np.testing.assert_array_equal(attacked(order), whole[order])
    padded = np.array([3, 9, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(attacked(padded)[:3], whole[[3, 9, 4]])
    # For l2 another batch size is another program, which may sum in another order; sign hides that for linf.
    tolerance = 0 if norm == "linf" else 2e-7
    for few in ([7], [2, 5, 11]):
        np.testing.assert_allclose(attacked(few), whole[few], rtol=0, atol=tolerance)
    assert len(np.unique((whole - images).reshape(16, -1).round(2), axis=0)) == 16


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("norm", threat.NORMS)
def test_the_same_adversary_on_eight_devices(key, sixteen, norm, axis_type):
    arguments = (randomness.per_example_keys(key, jnp.arange(16)), *sixteen)
    alone = dense_attack(*arguments, spec_of(norm))
    mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(axis_type,))
    assert mesh.size == 8
    by_example = NamedSharding(mesh, PartitionSpec("data"))
    shared = dense_attack(*jax.device_put(arguments, by_example), spec_of(norm))
    assert shared.sharding.is_equivalent_to(by_example, 4)
    # XLA adds up the squares of a norm in an order that depends on how many there are beside it.
    np.testing.assert_allclose(alone, shared, rtol=0, atol=2e-7 if norm == "l2" else 0)


def test_a_conv_net_on_eight_devices_and_in_smaller_batches_up_to_rounding(key, rng):
    first, second = (jnp.asarray(rng.normal(size=s) / 4, jnp.float32) for s in ((3, 3, 3, 8), (3, 3, 8, 8)))
    head = jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)
    images, labels = jnp.asarray(rng.uniform(0, 1, (16, 8, 8, 3)), jnp.float32), jnp.asarray(rng.integers(0, 3, 16))

    def logits(x):
        for kernel in (first, second):
            numbers = ("NHWC", "HWIO", "NHWC")
            x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=numbers))
        return x.mean((1, 2)) @ head

    @jax.jit
    def run(keys, images, labels):
        adversary = pgd(lambda x: losses.cross_entropy(logits(x), labels), keys, images, PGD(num_steps=2, start="none"))
        return adversary, jnp.argmax(logits(adversary), -1) != labels

    arguments = (randomness.per_example_keys(key, jnp.arange(16)), images, labels)
    adversary, fooled = run(*arguments)
    mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
    shared = run(*jax.device_put(arguments, NamedSharding(mesh, PartitionSpec("data"))))
    halves = [run(*(a[rows] for a in arguments)) for rows in (slice(0, 8), slice(8, 16))]
    small = (np.concatenate([h[0] for h in halves]), np.concatenate([h[1] for h in halves]))
    for other, other_fooled in (shared, small):
        np.testing.assert_array_equal(fooled, other_fooled)
        assert np.mean(np.abs(np.asarray(adversary) - np.asarray(other)) <= 1e-6) >= 0.999
