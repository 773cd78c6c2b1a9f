"""Restarts and starts of the user's own: the best of several hills, hand-computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, randomness, threat
from robust_saliency.attacks import APGD, PGD
from robust_saliency.threat import Threat

SHAPE = (6, 1, 2, 1)
HALF = np.full(SHAPE, 0.5, np.float32)
MODEL = Threat(epsilon=0.4)
SPECS = {
    "apgd": APGD(threat=MODEL, num_steps=20, start="uniform", unroll=False),
    "pgd": PGD(threat=MODEL, num_steps=20, step_size=0.05, unroll=False),
}


def two_hills(images):
    """A low hill of height 1 at 0.2, a high one of height 2 at 0.8, flat between; by the first pixel alone."""
    x = images[:, 0, 0, 0]
    return jnp.maximum(jnp.maximum(1 - 5 * jnp.abs(x - 0.2), 2 - 10 * jnp.abs(x - 0.8)), 0)


def keys(ids):
    return randomness.per_example_keys(jax.random.key(3), jnp.asarray(ids))


def attack(spec, ids=range(6), loss_fn=two_hills):
    return np.asarray(jax.jit(lambda k, x: attacks.run(loss_fn, k, x, spec))(keys(ids), HALF[: len(ids)]))


@pytest.mark.parametrize("name", SPECS)
def test_the_highest_of_all_hills_that_are_reached_counts(name):
    """PGD climbs the hill that its start is on: of eight starts, one is on the high one. APGD leaps between them."""
    once, many = (np.asarray(two_hills(attack(jax_replace(SPECS[name], num_restarts=n)))) for n in (1, 8))
    assert (many > 1.4).all()
    if name == "pgd":
        assert once.min() < 1.1


def jax_replace(spec, **changes):
    return type(spec)(**{**{f: getattr(spec, f) for f in spec.__dataclass_fields__}, **changes})


@pytest.mark.parametrize("name", SPECS)
def test_restarts_are_single_runs_from_the_keys_they_are_given(name):
    """What counts is the best of the runs that the split keys give one by one; an example does not see the others."""
    several = jax_replace(SPECS[name], num_restarts=3)
    together = attack(several)
    runs = [
        np.asarray(jax.jit(lambda x, k=k: attacks.run(two_hills, k, x, SPECS[name]))(HALF))
        for k in randomness.split(keys(range(6)), 3)
    ]
    losses = np.stack([np.asarray(two_hills(run)) for run in runs])
    expected = np.stack(runs)[losses.argmax(0), np.arange(6)]
    np.testing.assert_allclose(two_hills(together), losses.max(0), atol=1e-6)
    np.testing.assert_allclose(together[:, 0, 0, 0], expected[:, 0, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(attack(several, ids=[4, 2]), together[[4, 2]])


def test_a_restart_whose_loss_is_nan_never_counts():
    def loss_fn(images):
        x = images[:, 0, 0, 0]
        return two_hills(images) + jnp.where(x > 0.6, jnp.nan, 0)

    found = attack(jax_replace(SPECS["pgd"], num_restarts=8, num_steps=1), loss_fn=loss_fn)
    assert (found[:, 0, 0, 0] <= 0.6).all()


@pytest.mark.parametrize("name", SPECS)
def test_passes_count_the_restarts_and_the_choice_between_them(name):
    forwards, backwards = jax_replace(SPECS[name], num_restarts=3).passes
    assert backwards == 60
    assert forwards == 3 * (20 + (name == "apgd") + 1)


@pytest.mark.parametrize("name", SPECS)
def test_init_is_where_it_starts_brought_into_the_ball(name):
    spec = jax_replace(SPECS[name], init=jnp.full(SHAPE, 0.95), threat=Threat(epsilon=0.3))
    pieces = attacks.iterated(spec)
    state = pieces.start(jax.random.key(0), jnp.asarray(HALF), spec)
    np.testing.assert_allclose(state.images, 0.8, atol=1e-7)
    np.testing.assert_allclose(two_hills(jnp.asarray(attack(spec))), 2.0, atol=0.3)
    with pytest.raises(ValueError, match=r"GD\.init must have the shape of the images, \(6, 1, 2, 1\), got \(3, 1, 2"):
        pieces.start(jax.random.key(0), jnp.asarray(HALF), jax_replace(spec, init=jnp.zeros((3, 1, 2, 1))))


def test_every_start_of_the_threat_model_is_inside_it_with_restarts():
    model = Threat(norm="l1", epsilon=0.3)
    spec = APGD(threat=model, num_steps=3, num_restarts=4, shrink_epsilon=True)
    found = jnp.asarray(attack(spec))
    assert (np.asarray(threat.distance(found, HALF, model)) <= 0.3 + 1e-6).all()
