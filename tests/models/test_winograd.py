"""Wide convolutions of 3 x 3 on CPU: as exact as jax's own, in fewer multiplications, split by example too."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from robust_saliency.models.convolution import AXES, conv_general_dilated
from robust_saliency.models.winograd import MANY

# (height, width), padding: whole tiles, half a tile over, one tile, wider than asked, cropping
WINDOWS = [
    ((8, 6), "SAME"),
    ((9, 8), "VALID"),
    ((2, 3), "SAME"),
    ((7, 7), ((2, 1), (0, 3))),
    ((8, 5), ((-1, 0), (1, 1))),
]


def ours(x, k, *window):
    return conv_general_dilated(x, k, *window, dimension_numbers=AXES)


def theirs(x, k, *window):
    return jax.lax.conv_general_dilated(x, k, *window, dimension_numbers=AXES)


def passes(conv, padding, strides=(1, 1)):
    def run(x, k):
        y, back = jax.vjp(lambda x, k: conv(x, k, strides, padding), x, k)
        return y, *back(jnp.sin(y))

    return jax.jit(run)


def kernels_of_convolutions(x, k, strides=(1, 1)):
    """Sizes, in and out, of all that XLA on CPU gets as convolutions, of a value and the gradient of its images."""

    def run(x, k):
        y, back = jax.vjp(lambda x: ours(x, k, strides, "SAME"), x)
        return back(jnp.cos(y))

    text = jax.jit(run).lower(x, k).as_text()
    assert "dot_general" in text or "convolution" in text
    return re.findall(r"stablehlo\.convolution.*, tensor<(\d+x\d+x\d+x\d+)x\w+>\) ->", text)


@pytest.mark.parametrize(("size", "padding"), WINDOWS, ids=str)
@pytest.mark.parametrize("channels", [(MANY, MANY), (MANY, 70), (96, MANY)], ids=str)
def test_values_and_gradients_are_about_as_exact_as_jax_s_own(channels, size, padding, rng):
    x, k = rng.normal(size=(3, *size, channels[0])), rng.normal(size=(3, 3, *channels))
    with jax.enable_x64(True):
        exact = jax.tree.map(np.asarray, passes(theirs, padding)(x, k))
        double = passes(ours, padding)(x, k)
    single = [array.astype(np.float32) for array in (x, k)]
    found, plain = (passes(conv, padding)(*single) for conv in (ours, theirs))
    for value, twice, other, truth in zip(found, double, plain, exact, strict=True):
        scale = np.abs(truth).max()
        np.testing.assert_allclose(twice, truth, atol=1e-13 * scale)
        assert np.abs(value - truth).max() <= max(5 * np.abs(other - truth).max(), 1e-6 * scale)


def test_second_derivatives_are_those_of_jax(rng):
    x, k = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 4, 4, MANY), (3, 3, MANY, MANY)))

    def slope(conv):
        gradient = jax.grad(lambda x: jnp.sum(jnp.sin(conv(x, k / 24, (1, 1), "SAME"))))
        return jax.jit(jax.grad(lambda x: jnp.sum(jnp.cos(gradient(x)))))(x)

    expected = slope(theirs)
    np.testing.assert_allclose(slope(ours), expected, atol=2e-5 * np.abs(expected).max())


def test_the_multiplications_are_those_of_sixteen_products():
    """Of 2 x 2 pixels, where 36 were: forward and in the gradient of the images nothing is left of a convolution."""
    x, k = jnp.zeros((2, 8, 8, MANY)), jnp.zeros((3, 3, MANY, MANY))
    assert kernels_of_convolutions(x, k) == []
    compiled = jax.jit(lambda x, k: ours(x, k, (1, 1), "SAME")).lower(x, k).compile()
    tiles = 2 * 4 * 4
    products = re.findall(r"f32\[([\d,]+)\]\{[\d,]+\} dot\(", compiled.as_text())
    assert [np.prod(list(map(int, shape.split(",")))) for shape in products] == [tiles * MANY] * 16


@pytest.mark.parametrize(
    ("image", "kernel", "strides", "dtype"),
    [
        ((8, 8, MANY - 1), (3, 3, MANY - 1, MANY), (1, 1), jnp.float32),
        ((8, 8, MANY), (3, 3, MANY, MANY - 1), (1, 1), jnp.float32),
        ((8, 8, MANY), (3, 3, MANY, MANY), (2, 2), jnp.float32),
        ((8, 8, MANY), (5, 5, MANY, MANY), (1, 1), jnp.float32),
        ((1, 8, MANY), (3, 3, MANY, MANY), (1, 1), jnp.float32),
        ((8, 65, MANY), (3, 3, MANY, MANY), (1, 1), jnp.float32),
        ((8, 8, MANY), (3, 3, MANY, MANY), (1, 1), jnp.bfloat16),
    ],
    ids=str,
)
def test_what_gains_nothing_stays_a_convolution(image, kernel, strides, dtype):
    assert len(kernels_of_convolutions(jnp.zeros((2, *image), dtype), jnp.zeros(kernel, dtype), strides)) == 2


def test_zeros_stay_zeros_where_a_whole_tile_is(rng):
    """Elsewhere they may come out as rounding errors, of which a sign is not 0."""
    x, k = np.zeros((1, 8, 8, MANY), np.float32), rng.normal(size=(3, 3, MANY, MANY)).astype(np.float32)
    x[0, 0, 0] = rng.normal(size=MANY)
    found = np.abs(jax.jit(lambda x: ours(x, k, (1, 1), "SAME"))(x)).max(-1)[0]
    seen = np.zeros((8, 8), bool)
    seen[:2, :2] = True
    assert (found[seen] > 1).all()
    assert found[~seen].max() < 1e-5 * found.max()
    assert not found[4:].any() and not found[:, 4:].any()


@pytest.mark.parametrize("batch", [0, 3])
def test_one_image_at_a_time_in_a_loop_is_the_batch(batch, rng):
    x, k = (rng.normal(size=shape).astype(np.float32) for shape in ((batch, 4, 5, MANY), (3, 3, MANY, MANY)))

    def looped(x):
        step = jax.grad(lambda x: jnp.sum(jnp.sin(ours(x, k / 24, (1, 1), "SAME"))))
        return jax.lax.fori_loop(0, 3, lambda _, x: step(x), x)

    one = jax.jit(jax.vmap(lambda x: looped(x[None])[0]))
    np.testing.assert_allclose(one(x), jax.jit(looped)(x), atol=1e-6)


def test_weights_that_a_function_is_closed_over_are_not_transformed_by_the_compiler(rng):
    """To fold them took 11 s for a ResNet-18."""
    k = jnp.asarray(rng.normal(size=(3, 3, MANY, MANY)), jnp.float32)
    text = jax.jit(lambda x: ours(x, k, (1, 1), "SAME")).lower(jnp.zeros((2, 4, 4, MANY))).compile().as_text()
    constants = re.findall(r"f32\[([\d,]+)\]\{[\d,]+\} constant\(", text)
    assert [shape for shape in constants if shape.count(",") > 0] == [f"3,3,{MANY},{MANY}"]


def test_a_network_is_exported_for_images_of_any_size():
    shape = jax.export.symbolic_shape(f"b, h, w, {MANY}")
    k = jnp.ones((3, 3, MANY, MANY))
    exported = jax.export.export(jax.jit(lambda x: ours(x, k, (1, 1), "SAME")))(
        jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    assert exported.call(jnp.ones((1, 4, 6, MANY)))[0, 1, 1, 0] == 9 * MANY


def test_a_batch_split_by_example_needs_no_word_between_devices(rng):
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    x, k = (rng.normal(size=shape).astype(np.float32) for shape in ((16, 6, 6, MANY), (3, 3, MANY, MANY)))

    def gradient(conv):
        return jax.jit(jax.grad(lambda x, k: jnp.sum(jnp.sin(conv(x, k / 24, (1, 1), "SAME")))))

    split = jax.device_put(x, NamedSharding(mesh, P("data"))), jax.device_put(k, NamedSharding(mesh, P()))
    compiled = gradient(ours).lower(*split).compile()
    assert not re.findall(r"all-\w+|collective-\w+|reduce-scatter", compiled.as_text())
    found = compiled(*split)
    assert found.sharding.spec[0] == "data"
    np.testing.assert_allclose(found, gradient(theirs)(x, k), atol=2e-5)
