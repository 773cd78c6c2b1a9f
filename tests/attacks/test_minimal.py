"""The smallest epsilon on linear models, where it is known."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency.attacks import PGD, Untargeted, minimal, untargeted
from robust_saliency.threat import Threat
from tests.keys import fast_key

SHAPE, NUM = (3, 4, 2), 16


def problem(norm, rng):
    """A two-class linear model, and the norm of the least perturbation that fools it at each image."""
    weights = rng.normal(size=SHAPE).astype(np.float32)
    images = rng.uniform(0.4, 0.6, (NUM, *SHAPE)).astype(np.float32)
    score = np.sum(images * weights, (1, 2, 3))
    offset = float(np.median(score))
    labels = (score > offset).astype(np.int32)
    dual = {"l1": np.abs(weights).max(), "l2": np.sqrt((weights**2).sum()), "linf": np.abs(weights).sum()}[norm]

    def logits_fn(x):
        difference = jnp.tensordot(x, weights, 3) - offset
        return jnp.stack([0 * difference, difference], -1)

    return logits_fn, images, labels, np.abs(score - offset) / dual


def search(logits_fn, images, labels, norm, highest, num_searches=10):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(highest):
        def attack(epsilon, init):
            model = Threat(norm=norm, epsilon=epsilon)
            spec = PGD(threat=model, step_size=epsilon / 2, num_steps=4, init=init, sparsity=0.0, unroll=False)
            return untargeted(logits_fn, fast_key(0), images, labels, Untargeted(attack=spec, loss="margin"))

        return minimal.minimal_epsilon(attack, highest, jnp.asarray(images), num_searches)

    return run(highest)


@pytest.mark.parametrize(("norm", "highest"), [("l1", 0.5), ("l2", 0.2), ("linf", 0.05)])
def test_brackets_hold_the_closed_form_and_are_as_narrow_as_promised(norm, highest, rng):
    logits_fn, images, labels, best = problem(norm, rng)
    found = search(logits_fn, images, labels, norm, highest)
    low, high = np.asarray(found.low), np.asarray(found.high)
    fooled = best < highest
    assert fooled.sum() > 3 and np.isfinite(high).tolist() == fooled.tolist()
    assert (low[fooled] <= best[fooled] * 1.001 + 1e-6).all() and (high[fooled] >= best[fooled] * 0.999 - 1e-6).all()
    assert (high - low)[fooled].max() <= highest / 2**10 * 1.01 + 1e-6
    assert (high[fooled] <= 1.05 * best[fooled] + highest / 2**10).all()
    assert (low[~fooled] == np.float32(highest)).all()
    margin = np.diff(np.asarray(logits_fn(found.images)), axis=1)[:, 0] * np.where(labels == 0, 1, -1)
    np.testing.assert_array_equal(margin >= 0, fooled)


def test_one_that_is_wrong_needs_no_adversary(rng):
    logits_fn, images, labels, _ = problem("linf", rng)
    found = search(logits_fn, images, 1 - labels, "linf", 0.05)
    np.testing.assert_array_equal(found.high, np.zeros(NUM))
    np.testing.assert_array_equal(found.images, images)


def test_the_curve_counts_who_withstands():
    high = jnp.array([0.0, 0.1, 0.2, jnp.inf])
    np.testing.assert_allclose(minimal.robust_share(high, jnp.array([0.0, 0.1, 0.15, 5.0])), [0.75, 0.5, 0.5, 0.25])


@pytest.mark.parametrize("highest", [0, -0.1, np.array([0.1, 0.0], np.float32), np.nan])
def test_a_highest_epsilon_that_is_not_positive_is_refused(highest):
    with pytest.raises(ValueError, match=r"minimal_epsilon: highest must be above 0, got "):
        minimal.minimal_epsilon(None, highest, jnp.zeros((2, 2, 2, 1)), 3)


def test_less_than_one_search_is_refused():
    with pytest.raises(ValueError, match=r"minimal_epsilon\.num_searches must be at least 1, got 0"):
        minimal.minimal_epsilon(None, 0.1, jnp.zeros((2, 2, 2, 1)), 0)
