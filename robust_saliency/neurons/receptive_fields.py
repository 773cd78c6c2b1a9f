"""Receptive fields: which pixels can influence a unit, read off the operations of the network.

The network is traced, and each of its operations is asked which entries of its result hang on marked entries of its
input: an elementwise one passes a mark on; a convolution, a matrix product, a pool or a sum is marked where one of the
inputs that it reads is. So the answer does not depend on weights that are zero, on ReLUs that are silent, or on which
pixel is the largest of a pool, as that of a gradient would. (Marks are integers, for floats will not do: NaN put into a
pixel is lost in a maximum, and a convolution with ones can give zeros, by the fusions of XLA on CPU in jax 0.10.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from robust_saliency.neurons.units import activations
from robust_saliency.types import Array, LogitsFn

_ELEMENTWISE = {
    "abs", "add", "add_any", "and", "atan2", "cbrt", "ceil", "clamp", "convert_element_type", "copy", "cos", "cosh",
    "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite",
    "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul", "name", "ne", "neg", "nextafter", "not",
    "or", "pow", "reduce_precision", "rem", "round", "rsqrt", "select_n", "sharding_constraint", "sign", "sin",
    "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
}  # fmt: skip
_REDUCTIONS = {"argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum"}
_WINDOWS = {"reduce_window_max", "reduce_window_min", "reduce_window_sum"}
_REARRANGING = {
    "broadcast_in_dim", "concatenate", "expand_dims", "pad", "reshape", "rev", "slice", "split", "squeeze", "transpose",
}  # fmt: skip
_AT_INDICES = {"dynamic_slice", "gather"}
_LOOPS = {"cond", "scan", "while"}


class _Marks(NamedTuple):
    """In the place of an array that hangs on the image: int32, 1 where an entry hangs on a marked pixel, else 0."""

    array: Array


def receptive_fields(logits_fn: LogitsFn, layer: str, image_shape: tuple[int, int, int]) -> Array:
    """The box of pixels that can influence each unit at each place of ``layer``: int32 ``[h, w, U, 4]``.

    First row, first column, and those after the last; within the image, so boxes at its border are cut. All zeros for a
    unit that no pixel reaches. Exact for convolutions (strides, dilations, groups), pools, sums, matrix products,
    elementwise operations, and what pads, cuts or rearranges. Of any other operation (a loop, a sort) every result
    hangs on every input, so that a box is never too small. Costs one forward pass of an image a row and a column.
    Errors as for :func:`activations`.
    """
    shape = (1, *image_shape)
    network = jax.make_jaxpr(lambda image: activations(logits_fn, image, layer))(jnp.zeros(shape))

    def ends(axis: int) -> tuple[Array, Array]:
        place = jax.lax.broadcasted_iota(jnp.int32, shape, axis)

        def look(line, ends):
            marked = _Marks((place == line).astype(jnp.int32))
            (found,) = _carried(network.jaxpr, network.consts, [marked])
            reached = found.array[0] > 0 if isinstance(found, _Marks) else jnp.zeros(found.shape[1:], bool)
            first, after = ends
            return jnp.where(reached, jnp.minimum(first, line), first), jnp.where(reached, line + 1, after)

        none = jnp.zeros(network.out_avals[0].shape[1:], jnp.int32)
        first, after = jax.lax.fori_loop(0, shape[axis], look, (none + shape[axis], none))
        return jnp.where(after > 0, first, 0), after

    rows, columns = ends(1), ends(2)
    return jnp.stack([rows[0], columns[0], rows[1], columns[1]], axis=-1)


def _carried(jaxpr: Jaxpr, consts, inputs) -> list[Array | _Marks]:
    """The results of ``jaxpr``: marks where they hang on marked inputs, values where they do not."""
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))

    def read(variable):
        return variable.val if isinstance(variable, Literal) else known[variable]

    for equation in jaxpr.eqns:
        results = _results(equation, [read(variable) for variable in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _results(equation: JaxprEqn, operands: list[Array | _Marks]) -> list[Array | _Marks]:
    name, params = equation.primitive.name, equation.params
    inner = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)
    if inner is not None and name not in _LOOPS:
        return _carried(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)
    marked = [place for place, operand in enumerate(operands) if isinstance(operand, _Marks)]
    if not marked:
        return _bound(equation, operands, params)
    shapes = [variable.aval.shape for variable in equation.outvars]
    marks = [operands[place].array for place in marked]
    if name in _ELEMENTWISE:
        return [_any([jnp.broadcast_to(array, shapes[0]) for array in marks])]
    if name in _REDUCTIONS:
        return [_Marks(marks[0].max(params["axes"]))]
    if name in _WINDOWS:
        keys = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
        return [_Marks(_windows(marks[0], *(params[key] for key in keys)))]
    if name == "dot_general":
        sizes = [variable.aval.shape for variable in equation.invars]
        return [_any([_product(operands[place].array, sizes, place, params) for place in marked])]
    if name == "conv_general_dilated" and marked == [0] and params["batch_group_count"] == 1:
        return [_Marks(_convolution(marks[0], equation.invars[1].aval.shape, params))]
    if name == "robust_saliency_convolution" and marked == [0]:  # models/convolution.py
        image, kernel = (variable.aval.shape for variable in equation.invars)
        return [_Marks(_convolution(marks[0], kernel, _as_jax_says_it(params["window"], image, kernel)))]
    if name in _REARRANGING:
        moved = [_marks_of(operand) for operand in operands]
        return [_any([result]) for result in _bound(equation, moved, params)]
    if name in _AT_INDICES and marked == [0]:
        return [_any(_bound(equation, [marks[0], *operands[1:]], params))]
    hit = _any([array.max(initial=0) for array in marks]).array
    return [_Marks(jnp.broadcast_to(hit, shape)) for shape in shapes]


def _convolution(marks: Array, kernel: tuple[int, ...], params: dict) -> Array:
    """A window over the places, and all inputs of a group of channels."""
    (batch, channel, *places), kernel_order, out_order = params["dimension_numbers"]
    groups, features, sides = params["feature_group_count"], kernel[kernel_order[0]], len(places)
    marks = marks.transpose(batch, channel, *places)
    marks = marks.reshape(marks.shape[0], groups, -1, *marks.shape[2:]).max(2)
    window = (1, 1, *(kernel[place] for place in kernel_order[2:]))
    steps, holes, spread = params["window_strides"], params["lhs_dilation"], params["rhs_dilation"]
    padding = ((0, 0), (0, 0), *params["padding"])
    marks = _windows(marks, window, (1, 1, *steps), padding, (1, 1, *holes), (1, 1, *spread))
    marks = jnp.repeat(marks, features // groups, axis=1)
    return jnp.moveaxis(marks, range(sides + 2), out_order)


def _as_jax_says_it(window, image: tuple[int, ...], kernel: tuple[int, ...]) -> dict:
    return {
        "dimension_numbers": jax.lax.conv_dimension_numbers(image, kernel, ("NHWC", "HWIO", "NHWC")),
        "feature_group_count": 1,
        "window_strides": window.strides,
        "padding": window.padding,
        "lhs_dilation": (1, 1),
        "rhs_dilation": (1, 1),
    }


def _product(marks: Array, shapes: list[tuple[int, ...]], place: int, params: dict) -> Array:
    """Of a matrix product by one operand: any of what is summed, at all places of the other operand."""
    summed, kept = params["dimension_numbers"]
    free = [
        [axis for axis in range(len(shape)) if axis not in (*summed[i], *kept[i])] for i, shape in enumerate(shapes)
    ]
    marks = marks.transpose(*kept[place], *free[place], *summed[place])
    marks = marks.max(tuple(range(marks.ndim - len(summed[place]), marks.ndim)))
    sizes = [[shapes[i][axis] for axis in free[i]] for i in (0, 1)]
    batch = [shapes[0][axis] for axis in kept[0]]
    ones = [1] * len(free[1 - place])
    own = (*sizes[0], *ones) if place == 0 else (*ones, *sizes[1])
    return jnp.broadcast_to(marks.reshape(*batch, *own), (*batch, *sizes[0], *sizes[1]))


def _windows(marks: Array, window, strides, padding, holes, spread) -> Array:
    return jax.lax.reduce_window(marks, 0, jax.lax.max, window, strides, tuple(padding), holes, spread)


def _bound(equation: JaxprEqn, operands: list[Array], params: dict) -> list[Array]:
    results = equation.primitive.bind(*operands, **params)
    return results if equation.primitive.multiple_results else [results]


def _any(marks: list[Array]) -> _Marks:
    return _Marks((sum(marks) > 0).astype(jnp.int32))


def _marks_of(operand: Array | _Marks) -> Array:
    """Its marks; of a value, which hangs on no pixel, none."""
    return operand.array if isinstance(operand, _Marks) else jnp.zeros(jnp.shape(operand), jnp.int32)
