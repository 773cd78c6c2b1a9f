"""Receptive fields against hand-computed ones, whatever the weights are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from robust_saliency import models, neurons
from robust_saliency.models.blocks import MaxPool


def composed(side, layers):
    """First and last of each place along an axis: ``layers`` are (window, stride, padding), hand-computed backwards."""
    sizes = [side]
    for window, stride, padding in layers:
        sizes.append((sizes[-1] + 2 * padding - window) // stride + 1)
    ends = []
    for place in range(sizes[-1]):
        low = high = place
        for (window, stride, padding), size in zip(layers[::-1], sizes[-2::-1], strict=True):
            low, high = low * stride - padding, high * stride - padding + window - 1
            low, high = max(low, 0), min(high, size - 1)
        ends.append((low, high + 1))
    return np.array(ends)


def check(found, rows, columns):
    units = found.shape[2]
    for axis, ends in ((0, rows), (1, columns)):
        expected = np.broadcast_to(np.expand_dims(ends, (1 - axis, 2)), (len(rows), len(columns), units, 2))
        np.testing.assert_array_equal(found[..., axis::2], expected)


CONV1, CONV, POOL = (5, 2, 2), (3, 1, 1), (2, 2, 0)


@pytest.mark.parametrize(
    ("layer", "layers"),
    [
        ("conv1", [CONV1]),
        ("pool1", [CONV1, CONV, POOL]),
        ("conv3/conv", [CONV1, CONV, POOL, CONV]),
        ("conv4", [CONV1, CONV, POOL, CONV, POOL, CONV]),
    ],
)
def test_small_cnn_whose_weights_are_all_zero(key, layer, layers):
    """A gradient would be zero, and so say that nothing is seen."""
    network = models.make(models.SmallCNN(width=2), (36, 28, 3), 3)
    weights = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(network.init, key))
    logits_fn = network.logits_fn(weights)
    found = np.asarray(neurons.receptive_fields(logits_fn, layer, (36, 28, 3)))
    check(found, composed(36, layers), composed(28, layers))
    if layer == "conv4":
        np.testing.assert_array_equal(found[2, 1, 0], [0, 0, 36, 28])  # 39 pixels wide, at either border cut


class Branches(nn.Module):
    """Channels of unlike fields side by side: 1x1, dilated 3x3, grouped 3x3 of stride 1, and a shortcut."""

    @nn.compact
    def __call__(self, images):
        x = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, 1:-1, 1:-1]
        narrow = nn.Conv(2, (1, 1), name="narrow")(x)
        wide = nn.Conv(2, (3, 3), kernel_dilation=2, padding=2, name="wide")(x)
        grouped = nn.Conv(4, (3, 3), feature_group_count=2, padding=1, name="grouped")(jnp.where(x > 2, 0, x))
        joined = MaxPool(3, 1, 1, name="joined")(jnp.concatenate([narrow, wide], -1)[:, ::2])
        both = nn.BatchNorm(use_running_average=True, name="both")(grouped + narrow.repeat(2, axis=-1))
        rows = nn.Dense(3, name="rows")(both.mean(2))
        return nn.Dense(2, name="logits")(jnp.concatenate([rows.reshape(len(x), -1), joined.mean((1, 2))], -1))


@pytest.fixture(scope="module")
def branches():
    network = models.from_linen(Branches(), (10, 9, 2))
    return network.logits_fn(jax.jit(network.init)(jax.random.key(0)))


def test_units_of_one_layer_have_each_its_own_field(branches):
    found = np.asarray(neurons.receptive_fields(branches, "joined", (10, 9, 2)))
    assert found.shape == (5, 9, 4, 4)
    np.testing.assert_array_equal(found[2, 4, 0], [2, 3, 7, 6])  # rows 2, 4 and 6 of every second, columns 3 to 5
    np.testing.assert_array_equal(found[2, 4, 1], found[2, 4, 0])
    np.testing.assert_array_equal(found[2, 4, 2], [0, 1, 9, 8])  # two more on each side
    np.testing.assert_array_equal(found[0, 0, 0], [0, 0, 3, 2])


def test_groups_shortcuts_and_a_condition_on_the_pixels(branches):
    check(np.asarray(neurons.receptive_fields(branches, "both", (10, 9, 2))), composed(10, [CONV]), composed(9, [CONV]))
    whole = np.asarray(neurons.receptive_fields(branches, "logits", (10, 9, 2)))
    np.testing.assert_array_equal(whole, np.broadcast_to([0, 0, 10, 9], (1, 1, 2, 4)))


def layered(function):
    """The logits_fn of a network whose one layer is ``function`` of the images."""

    def apply(variables, images, *, mode="eval", key=None, capture=(), edit=None):
        return models.Output(images.mean((1, 2)), {}, {"layer": function(images)})

    return models.Classifier(init=None, apply=apply, layers=("layer",)).logits_fn({})


def test_a_channel_that_no_pixel_reaches_has_no_field_and_a_product_reads_what_it_sums():
    def function(x):
        product = jnp.einsum("bhwc,wv->bhvc", x, jnp.eye(4))
        return jnp.concatenate([x[..., :1], jnp.ones_like(x[..., :1]), product[..., :1]], -1)

    found = np.asarray(neurons.receptive_fields(layered(function), "layer", (3, 4, 2)))
    np.testing.assert_array_equal(found[1, 2], [[1, 2, 2, 3], [0, 0, 0, 0], [1, 0, 2, 4]])


def test_a_product_of_pixels_with_pixels_reads_both():
    found = neurons.receptive_fields(layered(lambda x: jnp.einsum("bhwc,bvwc->bhvc", x, x)), "layer", (3, 4, 1))
    np.testing.assert_array_equal(found[0, 2, 0], [0, 0, 3, 4])
    np.testing.assert_array_equal(found[1, 1, 0], [1, 0, 2, 4])


def test_of_an_operation_that_is_not_known_everything_reads_everything():
    found = neurons.receptive_fields(layered(lambda x: jnp.sort(x, axis=1)), "layer", (3, 4, 1))
    np.testing.assert_array_equal(found, np.broadcast_to([0, 0, 3, 4], (3, 4, 1, 4)))


def test_a_field_is_never_smaller_than_what_a_gradient_finds(branches):
    image = jax.random.uniform(jax.random.key(3), (1, 10, 9, 2))
    found = np.asarray(neurons.receptive_fields(branches, "joined", (10, 9, 2)))
    slopes = jax.jit(jax.jacobian(lambda x: neurons.activations(branches, x, "joined")[0]))(image)
    seen = np.abs(np.asarray(slopes)[:, :, :, 0]).max(-1) > 0
    rows, columns = np.arange(10)[:, None], np.arange(9)[None]
    boxes = found[..., None, None]
    inside = (rows >= boxes[..., 0, :, :]) & (columns >= boxes[..., 1, :, :])
    inside &= (rows < boxes[..., 2, :, :]) & (columns < boxes[..., 3, :, :])
    assert seen.any() and not (seen & ~inside).any()
