"""Values that change during training: leaves of a spec, multiplied by a ramp of the training progress."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from robust_saliency import checks
from robust_saliency.types import Scalar, spec


@spec
class Ramp:
    """Multiplies ``fields`` by a factor that goes linearly from ``start`` to ``stop`` as progress goes 0 to ``until``.

    fields: dotted paths into the objective's spec, such as 'attack.threat.epsilon'. until = 0 switches the ramp off.
    """

    fields: tuple[str, ...] = ()
    start: Scalar = 0.0
    stop: Scalar = 1.0
    until: Scalar = 0.0


def apply(objective_spec: Any, ramps: Sequence[Ramp], progress: Scalar) -> Any:
    """``objective_spec`` at ``progress`` in [0, 1] of the training steps."""
    for ramp in ramps:
        share = jnp.clip(progress / ramp.until, 0, 1)
        factor = ramp.start + (ramp.stop - ramp.start) * share
        for path in ramp.fields:
            objective_spec = _multiply(objective_spec, path.split("."), factor)
    return objective_spec


def check(objective_spec: Any, ramp: Ramp) -> None:
    """Raises ValueError unless every field of ``ramp`` is there."""
    for path in ramp.fields:
        _multiply(objective_spec, path.split("."), 1.0)


def _multiply(node: Any, path: list[str], factor: Scalar) -> Any:
    field = checks.one_of(f"field of {type(node).__name__}", path[0], [f.name for f in dataclasses.fields(node)])
    value = getattr(node, field)
    changed = value * factor if len(path) == 1 else _multiply(value, path[1:], factor)
    return dataclasses.replace(node, **{field: changed})
