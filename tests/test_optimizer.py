"""Learning rates step by step, and each optimiser's first step on a known gradient."""

import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import optimizer
from robust_saliency.optimizer import Optimizer


@pytest.mark.parametrize("total_steps", [1, 2, 3, 10])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.3, 1.0])
def test_one_cycle_rises_to_the_peak_and_falls(total_steps, warmup_fraction):
    schedule = optimizer.make_schedule(Optimizer(learning_rate=0.1, warmup_fraction=warmup_fraction), total_steps)
    rates = np.array([float(schedule(step)) for step in range(total_steps + 1)])
    warmup = min(max(1, round(warmup_fraction * total_steps)), total_steps)
    assert rates[0] == pytest.approx(0.004)
    assert rates[warmup] == pytest.approx(0.1) == rates.max()
    assert (np.diff(rates[warmup:]) < 0).all() and (np.diff(rates[: warmup + 1]) > 0).all()


def test_cosine_and_constant():
    cosine = optimizer.make_schedule(Optimizer(learning_rate=0.1, schedule="cosine"), 4)
    np.testing.assert_allclose([cosine(t) for t in (0, 1, 2, 4)], [0.1, 0.0853553, 0.05, 0.0], atol=1e-6)
    assert optimizer.make_schedule(Optimizer(learning_rate=0.1, schedule="constant"), 4)(3) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sgd", -0.1 * 1.9 * (3 + 0.01)), ("adam", -0.1), ("adamw", -0.1 - 0.1 * 0.01)],
)
def test_the_first_step_by_hand(name, expected):
    """At w = 1 with gradient 3: SGD with Nesterov momentum 0.9 takes (1 + 0.9) (g + decay w)."""
    spec = Optimizer(name=name, learning_rate=0.1, schedule="constant", weight_decay=0.01, clip_norm=0.0)
    transformation, _ = optimizer.make(spec, 1)
    weight = jnp.array(1.0)
    update, _ = transformation.update(jnp.array(3.0), transformation.init(weight), weight)
    assert float(update) == pytest.approx(expected, rel=1e-5)


def test_clipping_is_of_the_whole_gradient():
    spec = Optimizer(name="sgd", learning_rate=1.0, schedule="constant", weight_decay=0.0, momentum=0.0, clip_norm=1.0)
    transformation, _ = optimizer.make(spec, 1)
    weights = {"a": jnp.array(0.0), "b": jnp.array(0.0)}
    update, _ = transformation.update({"a": jnp.array(3.0), "b": jnp.array(4.0)}, transformation.init(weights), weights)
    np.testing.assert_allclose([update["a"], update["b"]], [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize(("name", "expected"), [("sgd", -0.095), ("adam", -0.1), ("adamw", -0.05)])
def test_every_optimiser_decays_a_weight_without_gradient(name, expected):
    """Of 1 with decay 0.5 and learning rate 0.1: SGD 0.1 * 1.9 * 0.5, Adam a whole step, AdamW 0.1 * 0.5."""
    spec = Optimizer(name=name, learning_rate=0.1, schedule="constant", weight_decay=0.5, clip_norm=0.0)
    transformation, _ = optimizer.make(spec, 1)
    weight = jnp.array(1.0)
    update, _ = transformation.update(jnp.array(0.0), transformation.init(weight), weight)
    assert float(update) == pytest.approx(expected, rel=1e-5)
