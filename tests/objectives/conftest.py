"""Images and weights of the linear classifier."""

import numpy as np
import pytest

from tests.objectives.linear_net import CLASSES, SHAPE


@pytest.fixture
def images(rng):
    return rng.uniform(0.3, 0.7, SHAPE).astype(np.float32)


@pytest.fixture
def w(rng):
    return rng.normal(size=(4, CLASSES)).astype(np.float32)
