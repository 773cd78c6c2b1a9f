"""Attacks on random losses, where the gradient of the expectation is known and a single draw misleads."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, randomness
from robust_saliency.attacks import APGD, PGD, AutoAttack, Targeted, Untargeted
from robust_saliency.threat import Threat

SHAPE = (5, 2, 3, 1)
MODEL = Threat(epsilon=0.1)


@pytest.fixture
def images(rng):
    return jnp.asarray(rng.uniform(0.3, 0.7, SHAPE), jnp.float32)


@pytest.fixture
def weights(rng):
    return jnp.asarray(rng.normal(size=SHAPE[1:]), jnp.float32)


def noisy_loss(weights, noise):
    """``<w + noise, x>``: in expectation the loss of a linear model, in a single draw mostly noise."""

    def loss_fn(images, keys):
        shaken = weights[None] + noise * randomness.draw(jax.random.normal, keys, images.shape)
        return jnp.sum(images * shaken, (1, 2, 3))

    return loss_fn


def keys(ids=range(5)):
    return randomness.per_example_keys(jax.random.key(1), jnp.asarray(ids))


@pytest.mark.parametrize("Attack", [PGD, APGD])
def test_the_mean_over_draws_points_where_the_expectation_does(Attack, images, weights):
    def share_right(samples, Attack=Attack):
        fields = {"step_size": 0.1} if Attack is PGD else {}
        spec = Attack(threat=MODEL, num_steps=1, start="none", eot_samples=samples, unroll=False, **fields)
        found = jax.jit(lambda x: attacks.run(noisy_loss(weights, 5.0), keys(), x, spec))(images)
        return float(jnp.mean(jnp.sign(found - images) == jnp.sign(weights)[None]))

    assert share_right(20000) > 0.9
    assert 0.3 < share_right(1) < 0.75


def test_every_step_draws_anew_and_the_key_decides(images, weights):
    """With a step that depends on one draw alone, ten steps of the same draw would all go one way."""
    spec = PGD(threat=Threat(epsilon=0.3), step_size=0.01, num_steps=10, start="none", eot_samples=1, unroll=False)
    run = jax.jit(lambda k, x: attacks.run(noisy_loss(0 * weights, 1.0), k, x, spec))
    found = run(keys(), images)
    assert float(jnp.mean(jnp.abs(found - images) > 0.095)) < 0.1
    np.testing.assert_array_equal(found, run(keys(), images))
    assert (found != run(keys(range(1, 6)), images)).any()
    order = np.array([3, 0, 4])
    np.testing.assert_array_equal(run(keys(order), images[order]), found[order])


def test_a_single_key_gives_each_example_draws_of_its_own(images):
    spec = PGD(threat=MODEL, step_size=0.1, num_steps=1, start="none", eot_samples=1)
    same = jnp.broadcast_to(images[:1], SHAPE)
    found = attacks.pgd(noisy_loss(jnp.zeros(SHAPE[1:]), 1.0), jax.random.key(0), same, spec)
    assert (np.asarray(found[1:]) != np.asarray(found[:1])).any()


def random_sign_network(weights):
    """A defence: each draw flips the sign of the logits of two classes with probability 0.3."""

    def logits_fn(images, keys):
        score = 40 * (jnp.tensordot(images, weights, 3) - jnp.tensordot(jnp.full(SHAPE[1:], 0.5), weights, 3))
        sign = jnp.where(randomness.draw(jax.random.uniform, keys, score.shape) < 0.3, -1.0, 1.0)
        return jnp.stack([0 * score, sign * score], -1)

    return logits_fn


def off_the_boundary(weights, distance):
    """Images of class 1 whose linf distance to the boundary is ``distance``."""
    return jnp.broadcast_to(0.5 + distance * jnp.sign(weights), SHAPE)


def test_a_random_network_is_attacked_and_judged_on_its_average(weights):
    """Images so near the boundary that 0.1 crosses it: a single draw often steps the wrong way, the mean never does."""
    images = off_the_boundary(weights, 0.02)
    labels = jnp.ones(5, jnp.int32)
    spec = AutoAttack(threat=MODEL, version="rand", steps=5, eot_samples=40)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def attacked(images, keys):
        return attacks.autoattack(random_sign_network(weights), keys, images, labels, spec)

    result = attacked(images, keys())
    assert np.asarray(result.success).all()
    # The network is never surer than forty throws of its coin: 0.3 less three deviations of 0.07 is 0.09.
    assert (np.asarray(result.margin) <= np.log(0.91 / 0.09)).all()
    assert (np.asarray(result.backwards) == 2 * 5 * 40).all()
    still = attacked(off_the_boundary(weights, 0.3), keys())
    assert not np.asarray(still.success).any()


def test_a_targeted_attack_takes_a_random_network_too(weights):
    def logits_fn(images, keys):
        two = random_sign_network(weights)(images, keys)
        return jnp.concatenate([two, jnp.full((len(images), 1), -50.0)], -1)

    images, labels = off_the_boundary(weights, 0.02), jnp.ones(5, jnp.int32)
    attack = PGD(threat=MODEL, num_steps=5, step_size=0.03, eot_samples=30, start="none", unroll=False)
    result = attacks.targeted(logits_fn, keys(), images, labels, Targeted(attack=attack, loss="margin"))
    assert np.asarray(result.success).all()


def test_the_trace_is_the_loss_after_each_step(images, weights):
    def logits_fn(x):
        score = jnp.tensordot(x, weights, 3) - jnp.tensordot(images, weights, 3)
        return jnp.stack([0 * score, score], -1)

    labels, step = jnp.zeros(5, jnp.int32), 0.02
    spec = Untargeted(attack=PGD(threat=MODEL, step_size=step, num_steps=6, start="none"), loss="margin", trace=True)
    result = jax.jit(lambda x: attacks.untargeted(logits_fn, keys(), x, labels, spec))(images)
    risen = np.minimum(step * np.arange(1, 7), 0.1) * float(jnp.sum(jnp.abs(weights)))
    np.testing.assert_allclose(result.trace, np.tile(risen, (5, 1)), rtol=1e-3)
    assert (np.asarray(result.forwards) == 12).all()
    assert attacks.untargeted(logits_fn, keys(), images, labels, Untargeted(attack=spec.attack)).trace is None
    with pytest.raises(ValueError, match="trace needs an attack in steps"):
        Untargeted(attack=attacks.FGSM(), trace=True)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (attacks.AutoAttack(version="rand"), "logits_fn"),
        (Untargeted(attack=PGD(eot_samples=2)), "logits_fn"),
        (Targeted(attack=PGD(eot_samples=2)), "logits_fn"),
    ],
)
def test_a_network_that_is_not_random_is_told_what_is_missing(images, spec, name):
    message = rf"for a random network: {name}\(images, keys\) with one key an example, got {name}\(x\)\.$"
    for logits_fn in (lambda x: x, jax.jit(lambda x: x)):
        with pytest.raises(ValueError, match=message):
            attacks.decide(logits_fn, keys(), images, jnp.zeros(5, jnp.int32), spec)


@pytest.mark.parametrize("spec", [PGD(eot_samples=2), attacks.APGD(eot_samples=2)])
def test_a_loss_that_is_not_random_is_told_too(images, spec):
    with pytest.raises(ValueError, match=r"random network: loss_fn\(images, keys\).*got loss_fn\(x\)\."):
        attacks.run(lambda x: x.sum((1, 2, 3)), keys(), images, spec)
