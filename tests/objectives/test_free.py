"""Free adversarial training: one backward pass gives the gradient of weights and perturbation, which is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from robust_saliency import attacks
from robust_saliency.objectives import Free, free
from robust_saliency.threat import Threat
from tests.objectives.test_objectives import CLASSES, LABELS, MODEL, batch_of, cross_entropy, gradient, variables

EPSILON = 0.1


@pytest.fixture
def images(rng):
    return rng.choice([0.01, 0.3, 0.6, 0.99], (6, 2, 2, 1)).astype(np.float32)


@pytest.fixture
def w(rng):
    return rng.normal(size=(4, CLASSES)).astype(np.float32)


def spec(norm="linf", **fields):
    return Free(attack=attacks.PGD(threat=Threat(norm=norm, epsilon=EPSILON)), **fields)


@jax.jit
def step(params, carry, batch, spec):
    def loss(params, carry):
        given = {"params": params, "state": {"seen": jnp.array(-1.0)}}
        return free.loss(MODEL, given, carry, jax.random.key(0), batch, spec)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, carry)


def test_loss_and_both_gradients_by_hand(images, w, rng):
    batch, carry = batch_of(images), rng.uniform(-EPSILON, EPSILON, images.shape).astype(np.float32)
    (value, (_, metrics)), (slope, along) = step(variables(w)["params"], jnp.asarray(carry), batch, spec())
    seen = np.clip(images + carry, 0, 1)
    assert (seen != images + carry).any(), "no value is clipped: the test shows less than it says"
    np.testing.assert_allclose(value, cross_entropy(seen, w).mean(), rtol=1e-5)
    np.testing.assert_allclose(slope["w"], gradient(seen, w), atol=1e-6)
    by_image = (special.softmax(seen.reshape(6, -1) @ w, -1) - np.eye(CLASSES)[LABELS]) @ w.T / 6
    inside = (images + carry > 0) & (images + carry < 1)
    np.testing.assert_allclose(along, by_image.reshape(images.shape) * inside, atol=1e-6)
    assert metrics["loss"] == value


def test_the_perturbation_is_kept_within_the_ball_and_not_the_box(images):
    batch = batch_of(images)
    carry = free.start(batch, spec())
    np.testing.assert_array_equal(carry, np.zeros(images.shape))
    rise = jnp.asarray(np.where(np.arange(4).reshape(2, 2, 1) % 2, 1.0, -2.0) * np.ones(images.shape), jnp.float32)
    carry = free.advance(carry, rise, batch, spec(relative_step=0.75))
    np.testing.assert_allclose(carry, 0.075 * np.sign(rise), rtol=1e-6)
    carry = free.advance(carry, rise, batch, spec(relative_step=0.75))
    np.testing.assert_allclose(carry, 0.1 * np.sign(rise), rtol=1e-6)
    carry = free.advance(carry, -rise, batch, spec(relative_step=0.75))
    np.testing.assert_allclose(carry, 0.025 * np.sign(rise), rtol=1e-5)
    carry = free.advance(carry, 0 * rise, batch, spec())
    np.testing.assert_allclose(carry, 0.025 * np.sign(rise), rtol=1e-5)


def test_in_l2_the_step_is_along_the_gradient(images):
    rise = jnp.asarray(np.random.default_rng(1).normal(size=images.shape), jnp.float32)
    carry = free.advance(free.start(batch_of(images), spec("l2")), rise, batch_of(images), spec("l2"))
    length = np.sqrt(np.sum(np.square(rise), (1, 2, 3), keepdims=True))
    np.testing.assert_allclose(carry, EPSILON * rise / length, rtol=1e-5)


@pytest.mark.parametrize(("sparsity", "count"), [(0.01, 1), (0.75, 3)])
def test_in_l1_the_step_is_as_sparse_as_those_of_the_attack(images, sparsity, count):
    rise = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)
    attack = attacks.PGD(threat=Threat(norm="l1", epsilon=EPSILON), sparsity=sparsity)
    batch, spec = batch_of(images), Free(attack=attack)
    carry = jax.jit(free.advance)(free.start(batch, spec), jnp.asarray(rise), batch, spec)
    chosen = (np.argsort(np.argsort(-np.abs(rise.reshape(6, 4)))) < count).reshape(rise.shape)
    np.testing.assert_allclose(carry, EPSILON / count * np.sign(rise) * chosen, rtol=1e-5)


def test_a_step_makes_one_forward_and_one_backward_pass(images, w):
    """Counted in the program, with a marker on the way of the images into the network."""

    @jax.custom_vjp
    def marked(x):
        return x

    marked.defvjp(lambda x: (jnp.cos(x), None), lambda _, g: (jnp.sin(g),))

    class Marked(type(MODEL)):
        def apply(self, variables, images, **options):
            return MODEL.apply(variables, marked(images), **options)

    def whole(params, carry, batch, spec):
        def loss(params, carry):
            given = {"params": params, "state": {"seen": jnp.array(-1.0)}}
            return free.loss(Marked(), given, carry, jax.random.key(0), batch, spec)

        perturbed = free.perturb(Marked(), variables(w), jax.random.key(0), batch, spec)
        _, (slope, along) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, carry)
        return slope, free.advance(carry, along, perturbed, spec)

    batch = batch_of(images)
    program = str(jax.make_jaxpr(whole)(variables(w)["params"], free.start(batch, spec()), batch, spec()))
    assert (program.count(" cos "), program.count(" sin ")) == (1, 1)


def test_replays():
    assert free.replays(spec()) == 8
    assert free.replays(spec(replays=3)) == 3
    with pytest.raises(ValueError, match=r"Free\.replays must be at least 1, got 0"):
        spec(replays=0)
