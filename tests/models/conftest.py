"""Images and weights for the networks of equal_nets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.equal_nets import CLASSES, SHAPE


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (5, *SHAPE))


@pytest.fixture(scope="module")
def weights():
    """The same weights and running statistics for every net."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    params = {
        "conv": {"kernel": normal(3, 3, 3, 4), "bias": normal(4)},
        "norm": {"scale": normal(4), "bias": normal(4)},
        "head": {"kernel": normal(4, CLASSES), "bias": normal(CLASSES)},
    }
    running = {"norm": {"mean": normal(4), "var": jnp.asarray(rng.uniform(0.5, 2.0, 4), jnp.float32)}}
    return params, running
