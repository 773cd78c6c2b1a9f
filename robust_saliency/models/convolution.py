"""Convolution that XLA on CPU runs with its fast kernel, with few channels and its gradients inside a loop too.

Those that jax derives are there many times as slow (see :mod:`convolution_on_cpu`). So a compiled loop over gradients
is as fast as a Python loop, and compiles one pass.

A convolution ``y = x * k`` and its two gradients are the derivatives of one trilinear form, ``<y, x * k>``, by y, x and
k. Each is a primitive, linear in both arguments, whose transposes are the other two, so all orders of derivatives,
forward and backward, stay among them. On GPU and TPU they are what jax derives.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType

from robust_saliency.models import convolution_on_cpu
from robust_saliency.models.windows import AXES, Window, convolved
from robust_saliency.types import Array


def conv_general_dilated(
    lhs: Array, rhs: Array, window_strides: Sequence[int], padding: str | Sequence[tuple[int, int]], **options: Any
) -> Array:
    """:func:`jax.lax.conv_general_dilated`, of images ``[B, H, W, C]`` and a kernel ``[h, w, C, D]`` as said above.

    They are told by ``dimension_numbers=("NHWC", "HWIO", "NHWC")``; without, jax has another order. What else it may be
    given (groups, dilation, another order of the axes, one axis or three, two dtypes, arrays inside ``shard_map`` or
    sharded by Explicit axes) it hands to jax as it is. ``from_linen`` and ``from_nnx`` put it into every ``Conv`` that
    names no other.
    """
    if not _is_plain(lhs, rhs, options):
        return jax.lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
    image, kernel, strides = lhs.shape[1:3], rhs.shape[:2], tuple(window_strides)
    pairs = jax.lax.padtype_to_pads(image, kernel, strides, padding) if isinstance(padding, str) else padding
    # As jax reads it: when traced, for a context of jax.default_matmul_precision may end before this is lowered.
    precision = options.get("precision") or jax.config.jax_default_matmul_precision
    window = Window(image, kernel, strides, tuple(tuple(pair) for pair in pairs), precision)
    return CONVOLUTION.bind(lhs, rhs, window=window)


def _is_plain(lhs: Array, rhs: Array, options: dict[str, Any]) -> bool:
    if lhs.ndim != 4 or lhs.dtype != rhs.dtype or not jnp.issubdtype(lhs.dtype, jnp.floating):
        return False
    if _is_placed(lhs) or _is_placed(rhs):
        return False
    others = [value for name, value in options.items() if name not in ("dimension_numbers", "precision")]
    axes = options.get("dimension_numbers")
    return all(value is None or value == 1 or value == (1, 1) for value in others) and (
        jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, axes)
        == jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, AXES)
    )


def _is_placed(array: Array) -> bool:
    """Whether its type says which device holds which part: that of a gradient would have to, and no Window knows it."""
    manual = AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types
    return manual or any(axis is not None for axis in jax.typeof(array).sharding.spec)


def _convolution(x: Array, k: Array, *, window: Window) -> Array:
    return convolved(x, k, window.padding, window, window_strides=window.strides)


def _image_gradient(y: Array, k: Array, *, window: Window) -> Array:
    x = jax.ShapeDtypeStruct((y.shape[0], *window.image, k.shape[2]), y.dtype)
    return jax.linear_transpose(lambda x: _convolution(x, k, window=window), x)(y)[0]


def _kernel_gradient(x: Array, y: Array, *, window: Window) -> Array:
    k = jax.ShapeDtypeStruct((*window.kernel, x.shape[3], y.shape[3]), x.dtype)
    return jax.linear_transpose(lambda k: _convolution(x, k, window=window), k)(y)[0]


def _primitive(name: str, function: Callable, on_cpu: Callable) -> Primitive:
    made = Primitive(f"robust_saliency_{name}")

    def abstract(a, b, *, window):
        return jax.make_jaxpr(lambda a, b: function(a, b, window=window))(a, b).out_avals[0]

    def batched(arrays, axes, *, window):
        """Several images of one kernel make one batch. All else is as in jax, which puts kernels side by side."""
        first, second = arrays
        if function is _kernel_gradient or axes[1] is not None:
            return jax.vmap(lambda a, b: function(a, b, window=window), axes)(first, second), 0
        first = jnp.moveaxis(first, axes[0], 0)
        joined = first.reshape(-1, *first.shape[2:])
        found = (function if _is_placed(joined) else made.bind)(joined, second, window=window)
        return found.reshape(*first.shape[:2], *found.shape[1:]), 0

    made.def_impl(function)
    made.def_abstract_eval(abstract)
    batching.primitive_batchers[made] = batched
    mlir.register_lowering(made, mlir.lower_fun(function, multiple_results=False))
    mlir.register_lowering(made, mlir.lower_fun(on_cpu, multiple_results=False), platform="cpu")
    return made


CONVOLUTION = _primitive("convolution", _convolution, convolution_on_cpu.convolution)
IMAGE_GRADIENT = _primitive("convolution_image_gradient", _image_gradient, convolution_on_cpu.image_gradient)
KERNEL_GRADIENT = _primitive("convolution_kernel_gradient", _kernel_gradient, convolution_on_cpu.kernel_gradient)

# The transposes by the first and by the second argument: (cotangent, first, second), of which one is not known.
ad.defbilinear(
    CONVOLUTION,
    lambda y, _, k, **w: IMAGE_GRADIENT.bind(y, k, **w),
    lambda y, x, _, **w: KERNEL_GRADIENT.bind(x, y, **w),
)
ad.defbilinear(
    IMAGE_GRADIENT,
    lambda x, _, k, **w: CONVOLUTION.bind(x, k, **w),
    lambda x, y, _, **w: KERNEL_GRADIENT.bind(x, y, **w),
)
ad.defbilinear(
    KERNEL_GRADIENT,
    lambda k, _, y, **w: IMAGE_GRADIENT.bind(y, k, **w),
    lambda k, x, _, **w: CONVOLUTION.bind(x, k, **w),
)
