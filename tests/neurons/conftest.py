"""A bundled network with drawn weights."""

import jax
import numpy as np
import pytest

from robust_saliency import models


@pytest.fixture(scope="session")
def small_cnn():
    """The logits_fn of a SmallCNN for 16 x 16 pixels and three classes; drawn by NumPy, which compiles nothing."""
    network = models.make(models.SmallCNN(width=2), (16, 16, 3), 3)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return network.logits_fn(
        jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.3).astype(np.float32), shapes)
    )
