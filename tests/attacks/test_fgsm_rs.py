"""FGSM from a random start: by hand from the start that the key gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, threat
from robust_saliency.attacks import FGSMRS
from robust_saliency.threat import Threat

SHAPE = (3, 2, 4, 2)


def squares(images):
    """A loss whose gradient ``2 (x - 0.5)`` depends on where the start lies."""
    return jnp.sum((images - 0.5) ** 2, (1, 2, 3))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_is_the_step_from_the_start_and_the_way_back(norm, rng):
    images = jnp.asarray(rng.uniform(0.4, 0.6, SHAPE), jnp.float32)
    model, key = Threat(norm=norm, epsilon=0.1), jax.random.key(5)
    found = np.asarray(jax.jit(lambda x: attacks.run(squares, key, x, FGSMRS(threat=model)))(images))
    first = np.asarray(threat.start(key, images, model, "uniform"))
    gradient = 2 * (first - 0.5)
    if norm == "linf":
        expected = np.clip(first + 0.125 * np.sign(gradient), images - 0.1, images + 0.1)
    else:
        length = lambda d: np.sqrt((d**2).sum((1, 2, 3), keepdims=True))  # noqa: E731
        moved = first + 0.125 * gradient / length(gradient) - images
        expected = images + moved * np.minimum(1, 0.1 / length(moved))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_step_may_differ_from_example_to_example(rng):
    images = jnp.asarray(rng.uniform(0.4, 0.6, SHAPE), jnp.float32)
    key, model = jax.random.key(5), Threat(epsilon=0.1)
    found = attacks.fgsm_rs(squares, key, images, FGSMRS(threat=model, relative_step=jnp.array([0.0, 0.5, 2.0])))
    first = threat.start(key, images, model, "uniform")
    np.testing.assert_allclose(found[0], first[0], atol=1e-7)
    np.testing.assert_allclose(jnp.abs(found - first)[1].max(), 0.05, atol=1e-6)
    np.testing.assert_allclose(jnp.abs(found - images)[2], 0.1, atol=1e-6)
