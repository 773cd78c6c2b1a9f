"""Values and derivatives of any order are those of jax; the order of the axes inside a loop is XLA's fast one."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from robust_saliency import attacks, losses, models
from robust_saliency.models.convolution import AXES, CONVOLUTION, conv_general_dilated

# (height, width), kernel, strides, padding: overlapping, of one pixel, not square, with a rest, uneven, cropping
WINDOWS = [
    ((9, 8), (3, 3), (1, 1), "SAME"),
    ((7, 7), (3, 3), (2, 2), ((1, 1), (1, 1))),
    ((8, 7), (1, 1), (2, 2), "VALID"),
    ((9, 8), (5, 2), (3, 1), "SAME"),
    ((8, 8), (2, 3), (3, 2), ((-1, 0), (2, 4))),
]
LAYOUT = {
    "by example": lambda conv: conv,
    "an image at a time": lambda conv: jax.vmap(lambda x, k: conv(x[None], k)[0], (0, None)),
}


def ours(x, k, *window):
    return conv_general_dilated(x, k, *window, dimension_numbers=AXES)


def theirs(x, k, *window):
    return jax.lax.conv_general_dilated(x, k, *window, dimension_numbers=AXES)


def derivatives(conv, window):
    """Everything that research code takes of a convolution, from the value to mixed second derivatives."""

    def score(x, k):
        return jnp.sum(jnp.sin(conv(x, k, *window)))

    def gradient(x, k):
        return jax.grad(score, (0, 1))(x, k)

    def slope(x, k):
        return sum(jnp.sum(jnp.cos(part)) for part in gradient(x, k))

    @jax.jit
    def all_of(x, k):
        return {
            "value": conv(x, k, *window),
            "gradient": gradient(x, k),
            "second": jax.grad(slope, (0, 1))(x, k),
            "forward over reverse": jax.jvp(gradient, (x, k), (0.3 * x, 0.2 * k)),
            "an image at a time": jax.vmap(lambda x: gradient(x[None], k))(x),
            "gradient of vmap": jax.grad(lambda x: jnp.sum(jax.vmap(lambda x: score(x[None], k))(x)))(x),
            "several kernels": jax.vmap(lambda k: gradient(x, k))(jnp.stack([k, 2 * k])),
            "both": jax.vmap(gradient, (0, 0))(jnp.stack([x, -x]), jnp.stack([k, 2 * k])),
            "second axis": jax.vmap(lambda x: conv(x, k, *window), 1)(jnp.stack([x, -x], 1)),
        }

    return all_of


@pytest.mark.parametrize(("size", "kernel", "strides", "padding"), WINDOWS, ids=str)
def test_values_and_all_derivatives_are_those_of_jax(size, kernel, strides, padding, rng):
    x, k = (rng.normal(size=shape).astype(np.float32) for shape in ((2, *size, 3), (*kernel, 3, 4)))
    found, expected = (derivatives(conv, (strides, padding))(x, k) for conv in (ours, theirs))
    for (path, value), other in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(value, other, atol=2e-5 * np.abs(other).max(), err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (jnp.float32, {"feature_group_count": 2}),
        (jnp.float32, {"rhs_dilation": (2, 2)}),
        (jnp.float32, {"lhs_dilation": (2, 1)}),
        (jnp.bfloat16, {"preferred_element_type": jnp.float32}),
        (jnp.float32, {"dimension_numbers": ("NCHW", "HWIO", "NCHW")}),
        (jnp.float32, {"dimension_numbers": None}),
    ],
    ids=str,
)
def test_what_it_does_not_write_itself_is_left_to_jax(dtype, options, rng):
    """Four channels on either axis, and a kernel that fits all of these."""
    groups = options.get("feature_group_count", 1)
    x, k = (jnp.asarray(rng.normal(size=shape), dtype) for shape in ((2, 4, 4, 4), (4, 4, 4 // groups, 4)))
    options = {"dimension_numbers": AXES} | options
    window = (1, 1), ((3, 3), (3, 3))
    assert CONVOLUTION.name not in str(
        jax.make_jaxpr(lambda x, k: conv_general_dilated(x, k, *window, **options))(x, k)
    )
    found, expected = (conv(x, k, *window, **options) for conv in (conv_general_dilated, jax.lax.conv_general_dilated))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


def test_half_precision_stays_half(rng):
    x, k = jnp.ones((1, 4, 4, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 3), jnp.bfloat16)
    value, back = jax.vjp(lambda x, k: ours(x, k, (1, 1), "SAME"), x, k)
    assert {value.dtype, *(part.dtype for part in back(value))} == {jnp.dtype(jnp.bfloat16)}
    assert value[0, 1, 1, 0] == 18


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize(
    "shapes", [((2, 2, 2, 3), (3, 3, 3, 4)), ((2, 1, 1, 3), (1, 6, 3, 16)), ((2, 4, 4, 0), (3, 3, 0, 4))]
)
def test_an_image_smaller_than_the_kernel_or_without_channels_has_gradients_of_zero(strides, shapes):
    x, k = map(jnp.ones, shapes)
    value, back = jax.jit(lambda x, k: jax.vjp(lambda x, k: ours(x, k, strides, "VALID"), x, k))(x, k)
    assert value.shape == theirs(x, k, strides, "VALID").shape and not value.any()
    for gradient, argument in zip(jax.jit(back)(value), (x, k), strict=True):
        np.testing.assert_array_equal(gradient, np.zeros_like(argument))


def test_the_default_precision_is_that_of_the_context_in_which_it_is_traced():
    """Which ends before the program is lowered."""

    def program(x, k):
        with jax.default_matmul_precision("highest"):
            return jax.grad(lambda x, k: jnp.sum(jnp.sin(ours(x, k, (1, 1), "SAME"))), (0, 1))(x, k)

    text = jax.jit(program).lower(jnp.ones((2, 4, 4, 3)), jnp.ones((3, 3, 3, 4))).as_text()
    found = re.findall(r"precision_config = \[(.*?)\]", text)
    assert len(found) == 3 and set(found) == {"#stablehlo<precision HIGHEST>, #stablehlo<precision HIGHEST>"}


@pytest.mark.parametrize("where", LAYOUT)
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_gradients_of_a_batch_split_by_example_are_those_of_the_whole(axis_type, where, rng):
    """Of Explicit axes, those of ``jax.make_mesh``, the type of a gradient says how it is split."""
    mesh = jax.make_mesh((8,), ("data",), (axis_type,))
    x, k = (rng.normal(size=shape).astype(np.float32) for shape in ((8, 6, 6, 3), (3, 3, 3, 4)))

    def score(conv):
        placed = LAYOUT[where](lambda x, k: conv(x, k, (2, 2), "SAME"))
        return lambda x, k: jnp.sum(jnp.sin(placed(x, k)))

    with jax.set_mesh(mesh):
        split = jax.device_put(x, NamedSharding(mesh, P("data"))), jax.device_put(k, NamedSharding(mesh, P()))
        found = jax.jit(jax.grad(score(ours), (0, 1)))(*split)
    expected = jax.jit(jax.grad(score(theirs), (0, 1)))(x, k)
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, atol=2e-5)


@pytest.mark.parametrize("check_vma", [True, False])
def test_gradients_inside_shard_map_are_those_of_the_whole(check_vma, rng):
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    x, k = (rng.normal(size=shape).astype(np.float32) for shape in ((8, 6, 6, 3), (3, 3, 3, 4)))

    def score(conv):
        return lambda x, k: jnp.sum(jnp.sin(conv(x, k, (2, 2), "SAME")), (1, 2, 3))

    def gradients(of):
        return jax.jit(jax.grad(lambda x, k: jnp.sum(of(x, k)), (0, 1)))(x, k)

    split = jax.shard_map(score(ours), mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"), check_vma=check_vma)
    for value, other in zip(gradients(split), gradients(score(theirs)), strict=True):
        np.testing.assert_allclose(value, other, atol=2e-5)


def layouts(program, *args):
    return set(re.findall(r"dim_labels=(\w+)", jax.jit(program).lower(*args).compile().as_text()))


@pytest.mark.parametrize("name", models.MODELS)
def test_inside_a_loop_every_convolution_of_the_networks_has_the_order_of_the_fast_kernel(name, rng):
    """With jax's own ``01oi`` and ``f01b`` come up there, up to 50 times slower.

    Images of 128 pixels: where fewer than a kernel's are left, XLA takes the kernel for the image and the image for the
    kernel, in either convolution; that little costs nothing.
    """
    Spec, make = models.MODELS[name]
    classifier = make(Spec(**({"width": 8} if hasattr(Spec(), "width") else {})), (128, 128, 3), 4)
    variables = jax.eval_shape(classifier.init, jax.random.key(0))
    images, labels = jax.ShapeDtypeStruct((2, 128, 128, 3), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)

    def attacked_then_trained(variables, images, labels):
        def loss_fn(x):
            return losses.cross_entropy(classifier.logits_fn(variables)(x), labels)

        def step(_, params):
            loss = lambda p: loss_of(variables | {"params": p}, images, labels)  # noqa: E731
            return jax.tree.map(lambda p, g: p - g, params, jax.grad(loss)(params))

        def loss_of(variables, images, labels):
            return losses.cross_entropy(classifier.logits_fn(variables)(images), labels).sum()

        adversaries = attacks.pgd(loss_fn, jax.random.key(1), images, attacks.PGD(num_steps=3))
        return adversaries, jax.lax.fori_loop(0, 3, step, variables["params"])

    assert layouts(attacked_then_trained, variables, images, labels) == {"b01f_01io"}


def test_jax_s_own_still_need_it(rng):
    """When this fails XLA has mended its loops, and the file may go."""
    x, k = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))

    def looped(conv):
        return lambda x, k: jax.lax.fori_loop(
            0, 3, lambda _, x: jax.grad(lambda x: jnp.sum(jnp.sin(conv(x, k, (1, 1), "SAME"))))(x), x
        )

    assert layouts(looped(ours), x, k) == {"b01f_01io"}
    assert "b01f_01oi" in layouts(looped(theirs), x, k)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_on_gpu_and_tpu_the_gradients_are_those_that_jax_derives(platform):
    shapes = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((3, 3, 3, 4), jnp.float32)

    def exported(conv):
        gradients = jax.grad(lambda x, k: jnp.sum(jnp.sin(conv(x, k, (2, 2), "SAME"))), (0, 1))
        text = jax.export.export(jax.jit(gradients), platforms=[platform])(*shapes).mlir_module()
        return sorted(re.findall(r"dim_numbers = \[.*?\]x\[.*?\]->\[.*?\]", text))

    assert len(exported(ours)) == 3
    assert exported(ours) == exported(theirs)


class LinenNet(nn.Module):
    conv: Callable | None = None

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), conv_general_dilated=self.conv)(x))
        return nn.Dense(3)(nn.relu(nn.Conv(4, (3, 3), 2)(x)).mean((1, 2)))


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.Conv(4, 4, (3, 3), 2, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.second(nnx.relu(self.first(x)))).mean((1, 2)))


@pytest.mark.parametrize("adapted", [models.from_linen(LinenNet(), (8, 8, 3)), models.from_nnx(NNXNet, (8, 8, 3))])
def test_a_user_s_own_network_has_it_too(adapted):
    variables = adapted.init(jax.random.key(0))

    def attacked(variables, images):
        logits_fn = adapted.logits_fn(variables)
        return attacks.pgd(lambda x: logits_fn(x).sum(-1), jax.random.key(1), images, attacks.PGD(num_steps=3))

    assert layouts(attacked, variables, jnp.ones((2, 8, 8, 3))) == {"b01f_01io"}


def test_a_convolution_that_a_network_names_itself_is_left_to_it():
    called = []

    def own(*args, **kwargs):
        called.append(args)
        return jax.lax.conv_general_dilated(*args, **kwargs)

    classifier = models.from_linen(LinenNet(own), (8, 8, 3))
    variables = classifier.init(jax.random.key(0))
    called.clear()
    text = str(jax.make_jaxpr(classifier.logits_fn(variables))(jnp.ones((1, 8, 8, 3))))
    assert len(called) == 1 and text.count(CONVOLUTION.name) == 1


# channels in and out: stems, their gradients, narrow layers of one side or both, beside, at and above the limit
WIDTHS = [(1, 1), (1, 5), (3, 8), (3, 16), (3, 32), (3, 40), (16, 3), (16, 16), (12, 7), (17, 4), (20, 33)]


@pytest.mark.parametrize("width", WIDTHS, ids=str)
@pytest.mark.parametrize(("size", "kernel", "strides", "padding"), WINDOWS, ids=str)
def test_layers_of_any_width_are_those_of_jax(size, kernel, strides, padding, width, rng):
    x, k = (rng.normal(size=shape).astype(np.float32) for shape in ((2, *size, width[0]), (*kernel, *width)))

    def passes(conv):
        def run(x, k):
            y, back = jax.vjp(lambda x, k: conv(x, k, strides, padding), x, k)
            return y, back(jnp.cos(y))

        return jax.jit(run)

    for found, expected in zip(*(jax.tree.leaves(passes(conv)(x, k)) for conv in (ours, theirs)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("width", WIDTHS, ids=str)
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_no_convolution_of_few_channels_reaches_xla_on_cpu(strides, width):
    """XLA has a slow kernel for them; forward and in the gradient of the images."""

    def passes(x, k):
        y, back = jax.vjp(lambda x: ours(x, k, strides, "SAME"), x)
        return back(jnp.cos(y))

    x, k = jnp.zeros((2, 8, 8, width[0])), jnp.zeros((3, 3, *width))
    text = jax.jit(passes).lower(x, k).as_text()
    kernels = re.findall(r"stablehlo\.convolution.*, tensor<\d+x\d+x(\d+)x(\d+)xf32>\) ->", text)
    assert len(kernels) == 2
    assert all(max(map(int, kernel)) > 16 for kernel in kernels), kernels
