"""Images, and the weights of a linear model over them."""

import numpy as np
import pytest

from tests.attacks.linear import SHAPE


@pytest.fixture
def weights(rng):
    return rng.normal(size=SHAPE[1:]).astype(np.float32)


@pytest.fixture
def images(rng):
    """Some pixels at the bounds, some near them."""
    return rng.choice([0.0, 0.01, 0.3, 0.5, 0.98, 1.0], SHAPE).astype(np.float32)


@pytest.fixture
def middle(rng):
    """Images that no small perturbation drives out of the box."""
    return rng.uniform(0.4, 0.6, SHAPE).astype(np.float32)
