"""Momentum and step-size schedules against a plain reading of their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, threat
from robust_saliency.attacks import PGD
from robust_saliency.threat import Threat
from tests.attacks.linear import attack, linear_loss
from tests.keys import fast_key


def curved_loss(centre):
    """Gradient ``-4 (x - c)^3``, which changes its direction on the way."""
    return lambda images: -jnp.sum((images - centre) ** 4, (1, 2, 3))


def plain(images, centre, epsilon, step_sizes, momentum, norm):
    x, velocity = images.astype(np.float64), np.zeros_like(images, np.float64)
    for step_size in step_sizes:
        gradient = -4 * (x - centre) ** 3
        velocity = momentum * velocity + gradient / np.abs(gradient).sum((1, 2, 3), keepdims=True)
        if norm == "linf":
            x = np.clip(x + step_size * np.sign(velocity), images - epsilon, images + epsilon)
        else:
            x = x + step_size * velocity / np.sqrt((velocity**2).sum((1, 2, 3), keepdims=True))
            size = np.sqrt(((x - images) ** 2).sum((1, 2, 3), keepdims=True))
            x = images + (x - images) * np.minimum(1, epsilon / size)
        x = np.clip(x, 0, 1)
    return x


SHARES = {
    "constant": np.ones(6),
    "linear": np.array([6, 5, 4, 3, 2, 1]) / 6,
    "cosine": (1 + np.cos(np.pi * np.arange(6) / 6)) / 2,
}


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("momentum", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("schedule", SHARES)
def test_equals_the_formula(middle, rng, norm, momentum, schedule):
    centre = rng.uniform(0.4, 0.6, middle.shape).astype(np.float32)
    spec = PGD(
        threat=Threat(norm=norm, epsilon=0.2), step_size=0.07, num_steps=6, start="none", unroll=False,
        momentum=momentum, schedule=schedule,
    )  # fmt: skip
    expected = plain(middle, centre, 0.2, 0.07 * SHARES[schedule], momentum, norm)
    np.testing.assert_allclose(attack(curved_loss(centre), middle, spec), expected, atol=2e-6)
    if momentum == 0.0:
        without = PGD(threat=spec.threat, step_size=0.07, num_steps=6, start="none", unroll=False, schedule=schedule)
        np.testing.assert_allclose(attack(curved_loss(centre), middle, without), expected, atol=2e-6)


@pytest.mark.parametrize("norm", threat.NORMS)
def test_momentum_carries_over_a_step_without_gradient_and_past_a_nan(middle, weights, norm):
    """The gradient is that of a linear model in the first step and zero, or NaN, in all that follow."""
    linear = linear_loss(weights)

    def run(later):
        def loss_fn(images):
            later_loss = lambda x: jnp.sum(x, (1, 2, 3)) * later  # noqa: E731
            return jax.lax.cond(jnp.all(images == middle), linear, later_loss, images)

        spec = PGD(threat=Threat(norm=norm, epsilon=1.0), step_size=0.02, num_steps=3, start="none", momentum=1.0)
        return attack(loss_fn, middle, spec) - middle

    one_step = attack(linear, middle, PGD(threat=Threat(norm=norm, epsilon=1.0), step_size=0.02, num_steps=1,
                                          start="none")) - middle  # fmt: skip
    np.testing.assert_allclose(run(0.0), 3 * one_step, atol=1e-6)
    np.testing.assert_allclose(run(jnp.nan), 3 * one_step, atol=1e-6)


def test_momentum_is_data_and_may_differ_from_example_to_example(middle, rng):
    centre = rng.uniform(0.4, 0.6, middle.shape).astype(np.float32)
    values = jnp.array([0.0, 0.5, 0.9, 1.0])
    spec = PGD(threat=Threat(epsilon=0.2), step_size=0.07, num_steps=6, start="none", unroll=False, momentum=values)
    together = attack(curved_loss(centre), middle, spec)
    for i, value in enumerate(values):
        alone = plain(middle, centre, 0.2, np.full(6, 0.07), float(value), "linf")
        np.testing.assert_allclose(together[i], alone[i], atol=2e-6)


def test_pieces_go_on_with_the_schedule(middle, rng):
    centre = rng.uniform(0.4, 0.6, middle.shape).astype(np.float32)
    spec = PGD(threat=Threat(epsilon=0.2), step_size=0.07, num_steps=6, start="none", momentum=0.5, schedule="linear")
    pieces, loss_fn = attacks.iterated(spec), curved_loss(centre)
    state = pieces.start(fast_key(0), jnp.asarray(middle), spec)
    for _ in range(3):
        state = jax.jit(lambda s: pieces.advance(loss_fn, s, spec, 2))(state)
    np.testing.assert_allclose(state.images, attack(loss_fn, middle, spec), atol=1e-6)
    np.testing.assert_array_equal(state.step, np.full(4, 6))
