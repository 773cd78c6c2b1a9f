"""Values that change during training: leaves of a spec, multiplied by a ramp of the training progress."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.types import Scalar, spec


@spec
class Ramp:
    """Multiplies ``fields`` by a factor that is ``start`` up to ``after`` and goes linearly to ``stop`` at ``until``.

    after, until: shares of the training steps, in [0, 1]. ``until`` at or before ``after`` is a jump at ``after``; both
        0 switch the ramp off.
    start, stop: factors, at least 0.
    fields: dotted paths into the objective's spec, such as 'attack.threat.epsilon'. Where wrappers stand around the
    objective the path is the same, and a wrapper's own field is 'awp.gamma'.
    """

    fields: tuple[str, ...] = ()
    start: Scalar = 0.0
    stop: Scalar = 1.0
    after: Scalar = 0.0
    until: Scalar = 0.0

    def __post_init__(self):
        for name in ("after", "until", "start", "stop"):
            value, is_share = getattr(self, name), name in ("after", "until")
            # It may be an array that is being traced: a plain number alone can be compared.
            if isinstance(value, int | float) and not 0 <= value <= (1 if is_share else math.inf):
                expected = "a share of the training steps, in [0, 1]" if is_share else "at least 0"
                raise ValueError(f"Ramp.{name} must be {expected}, got {value}.")

    @property
    def used(self) -> bool:
        """Whether it does anything. Of a ramp of plain numbers."""
        return max(self.after, self.until) > 0


def apply(objective_spec: Any, ramps: Sequence[Ramp], progress: Scalar) -> Any:
    """``objective_spec`` at ``progress`` in [0, 1] of the training steps."""
    for ramp in ramps:
        length = jnp.maximum(ramp.until - ramp.after, 0)
        share = jnp.clip((progress - ramp.after) / jnp.where(length > 0, length, 1), 0, 1)
        share = jnp.where(length > 0, share, jnp.where(progress >= ramp.after, 1.0, 0.0))
        factor = ramp.start + (ramp.stop - ramp.start) * share
        for path in ramp.fields:
            objective_spec = _multiply(objective_spec, path.split("."), factor)
    return objective_spec


def check(objective_spec: Any, ramp: Ramp) -> None:
    """Raises ValueError unless every field of ``ramp`` is there and is a number."""
    for path in ramp.fields:
        _multiply(objective_spec, path.split("."), 1.0)


def _multiply(node: Any, path: list[str], factor: Scalar) -> Any:
    wrapper = getattr(node, "wrapper", None)
    if wrapper is not None and path[0] != wrapper:
        return dataclasses.replace(node, inner=_multiply(node.inner, path, factor))
    if wrapper is not None:
        path = path[1:] or [""]
    choices = [field.name for field in dataclasses.fields(node) if wrapper is None or field.name != "inner"]
    field = checks.one_of(f"field of {type(node).__name__}", path[0], choices)
    value = getattr(node, field)
    if len(path) > 1:
        if not dataclasses.is_dataclass(value):
            raise ValueError(f"{field!r} of {type(node).__name__} has no fields.")
        return dataclasses.replace(node, **{field: _multiply(value, path[1:], factor)})
    if field not in getattr(node, "__data_fields__", choices) or not isinstance(value, int | float | jax.Array):
        raise ValueError(f"{field!r} of {type(node).__name__} is no number that can change during training.")
    return dataclasses.replace(node, **{field: value * factor})
