"""Checks that answer a mistake with one sentence: what, where, got, expected, and the near match or the choices.

Inside a traced program only shapes and dtypes can be seen, so these functions look at shapes, dtypes and static
values. :func:`check_images` and :func:`check_labels` look at the values too: they are for the edges, on host arrays.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ROUNDING = 1e-4  # of a pixel in [0, 1]: half of what an 8-bit level is by far


def one_of(kind: str, name: str, choices: Iterable[str]) -> str:
    """Returns ``name``, or raises ValueError naming the near match and the choices."""
    choices = sorted(choices)
    if name in choices:
        return name
    near = difflib.get_close_matches(str(name), choices, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"Unknown {kind} {name!r}.{hint} Choices: {', '.join(choices)}.")


def lookup(kind: str, name: str, registry: Mapping[str, Any]) -> Any:
    """``registry[name]``, or the error of :func:`one_of`."""
    return registry[one_of(kind, name, registry)]


def at_least(lowest: int, *, where: str, **numbers: int) -> None:
    """Raises ValueError unless all ``numbers`` are at least ``lowest``."""
    for name, number in numbers.items():
        if number < lowest:
            raise ValueError(f"{where}.{name} must be at least {lowest}, got {number}.")


def regular_expression(where: str, pattern: str) -> None:
    """Raises ValueError unless ``pattern`` is one."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{where} {pattern!r} is no regular expression: {error}.") from error


def rank(name: str, array: Any, expected: int) -> None:
    """Raises ValueError unless ``array`` has ``expected`` axes."""
    if jnp.ndim(array) != expected:
        raise ValueError(f"{name} must have {expected} axes, got shape {tuple(jnp.shape(array))}.")


def floating(name: str, array: Any) -> None:
    """Raises ValueError unless ``array`` is of a floating dtype."""
    dtype = jnp.result_type(array)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name} must be floating point in [0, 1], got dtype {dtype}; divide 8-bit images by 255.")


def same_batch(**arrays: Any) -> None:
    """Raises ValueError unless all arrays have the same leading axis."""
    sizes = {name: jnp.shape(array)[0] for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"Batch sizes differ: {listed}.")


def check_images(images: np.ndarray, where: str) -> None:
    """Raises ValueError unless host ``images`` are finite ``[N, H, W, C]`` in [0, 1] (8-bit images pass)."""
    if images.ndim != 4:
        raise ValueError(f"{where}: images must be [N, height, width, channels], got shape {images.shape}.")
    if images.dtype == np.uint8:
        return
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"{where}: images must be 8-bit or floating point, got dtype {images.dtype}.")
    if not images.size:
        return
    low, high = float(np.min(images)), float(np.max(images))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{where}: images hold NaN or infinity.")
    if low < 0.0 or high > 1.0:
        raise ValueError(
            f"{where}: images must lie in [0, 1], found the range [{low:.7g}, {high:.7g}]. "
            "Give pixels divided by 255; normalisation belongs in the model (model.mean, model.std)."
        )


def check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
    """Raises ValueError unless host ``labels`` are integers ``[N]`` in ``[0, num_classes)``."""
    if num_classes < 2:
        raise ValueError(f"{where}: at least two classes are needed, found {num_classes}.")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{where}: labels must be integers [N], got {labels.dtype} of shape {labels.shape}.")
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(
            f"{where}: labels must lie in 0..{num_classes - 1}, found {int(labels.min())}..{int(labels.max())}."
        )


def known_finite(name: str, value: Any) -> None:
    """Raises ValueError for a number or an array that is known not to be finite."""
    known = _known(value)
    if known is not None and not np.isfinite(known).all():
        raise ValueError(f"{name} must be finite, got {value}.")


def known_positive(name: str, value: Any) -> None:
    """Raises ValueError for a number or an array that is known not to be above 0."""
    known = _known(value)
    if known is not None and not (known > 0).all():
        raise ValueError(f"{name} must be above 0, got {value}.")


def known_within(name: str, value: Any, low: float, high: float) -> None:
    """Raises ValueError for a number or an array that is known to leave [low, high]."""
    known = _known(value)
    if known is not None and not ((known >= low) & (known <= high)).all():
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value}.")


def known_binary(name: str, values: Any) -> None:
    """Raises ValueError for an array that is known to hold other values than 0 and 1."""
    known = _known(values)
    if known is None:
        return
    other = known[(known != 0) & (known != 1)]
    if other.size:
        raise ValueError(f"{name} must be 0 or 1 everywhere, found {other.flat[0]:g} among {other.size} other values.")


def several_starts(where: str, spec: Any) -> None:
    """Raises ValueError for restarts that would all be the same run."""
    if spec.num_restarts > 1 and (spec.start == "none" or spec.init is not None) and not spec.eot_samples:
        raise ValueError(
            f"{where}.num_restarts is {spec.num_restarts}, but nothing is random: every run would be the same. Take a "
            "random start, or one run."
        )


def known_labels(name: str, labels: Any, num_classes: int) -> None:
    """Raises ValueError unless ``labels`` are integers and, where their values are known, in ``[0, num_classes)``."""
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise ValueError(f"{name} must be integers, got dtype {jnp.result_type(labels)}.")
    known = _known(labels)
    if known is not None and (known.min() < 0 or known.max() >= num_classes):
        raise ValueError(f"{name} must lie in 0..{num_classes - 1}, found {known.min()}..{known.max()}.")


def known_different(targets: Any, labels: Any) -> None:
    """Raises ValueError where a target is known to be the label itself."""
    goals, own = _known(targets), _known(labels)
    if goals is not None and own is not None and (goals == own).any():
        raise ValueError(f"targets must differ from labels: {np.sum(goals == own)} of {goals.size} are the label.")


def known_in_bounds(images: Any, bounds: tuple[float, float]) -> None:
    """Raises ValueError for images that are known to hold NaN, or to leave ``bounds`` by more than rounding."""
    known = _known(images)
    if known is None:
        return
    if np.isnan(known).any():
        raise ValueError(f"images must be finite, found NaN in {np.isnan(known).any((1, 2, 3)).sum()} of {len(known)}.")
    if known.min() < bounds[0] - _ROUNDING or known.max() > bounds[1] + _ROUNDING:
        raise ValueError(
            f"images must lie in [{bounds[0]:g}, {bounds[1]:g}], found the range [{known.min():.7g}, "
            f"{known.max():.7g}]; normalisation belongs in the model, or give the threat model other bounds."
        )


def _known(array: Any) -> np.ndarray | None:
    """The values of ``array``; None where a trace or another host hides them, and where there are none."""
    hidden = isinstance(array, jax.core.Tracer) or not getattr(array, "is_fully_addressable", True)
    return None if hidden or not np.size(array) else np.asarray(array)
