"""Several metrics of one map in one program: what they have in common is made once.

Every score of a deletion curve is read off the same logits, and every metric of noisy images, or of images under one
attack on the explanation, off the same maps.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from robust_saliency.metrics.allegiance import SHARED as ALLEGIANCE
from robust_saliency.metrics.attack_stability import SHARED as ATTACK_STABILITY
from robust_saliency.metrics.complexity import SHARED as COMPLEXITY
from robust_saliency.metrics.faithfulness import SHARED as FAITHFULNESS
from robust_saliency.metrics.registry import run
from robust_saliency.metrics.relative_stability import SHARED as RELATIVE_STABILITY
from robust_saliency.metrics.road import SHARED as ROAD
from robust_saliency.metrics.shared import Shared
from robust_saliency.metrics.stability import SHARED as STABILITY
from robust_saliency.types import Array

SHARED: dict[type, Shared] = (
    FAITHFULNESS | COMPLEXITY | ROAD | ALLEGIANCE | STABILITY | RELATIVE_STABILITY | ATTACK_STABILITY
)


def measure(specs: Mapping[str, Any], **available) -> tuple[dict[str, Array], dict[str, Array]]:
    """``(values, curves)`` by label: ``[B]`` of every metric of ``specs``, and ``[B, points]`` of those with a curve.

    Each value is that of :func:`run`, but a run that several of them read is made once, see :func:`count_runs`.
    """
    done: list[tuple] = []
    values, curves = {}, {}
    for label, spec in specs.items():
        shared = SHARED.get(type(spec))
        if shared is None:
            values[label] = run(spec, **available)
            continue
        values[label] = shared.read([_once(done, shared, one, available) for one in shared.runs(spec)], available, spec)
        if shared.fractions is not None:
            curves[label] = values[label]
            values[label] = shared.value(curves[label], available["maps"][0].size)
    return values, curves


def curve_fractions(spec: Any, pixels: int) -> np.ndarray | None:
    """The shares of the pixels ``[points]`` at the points of the metric's curve; None for a metric without one."""
    shared = SHARED.get(type(spec))
    return shared.fractions(spec, pixels) if shared and shared.fractions else None


def count_runs(specs: Iterable[Any]) -> tuple[int, int]:
    """How many runs the metrics of ``specs`` read in all, and how many :func:`measure` makes for them."""
    read = [
        (SHARED[type(spec)], one) for spec in specs if type(spec) in SHARED for one in SHARED[type(spec)].runs(spec)
    ]
    made: list[tuple] = []
    for shared, one in read:
        if not any(_is_same(shared, one, *other) for other in made):
            made.append((shared, one))
    return len(read), len(made)


def _once(done: list[tuple], shared: Shared, one: Any, available: Mapping[str, Any]) -> Any:
    for *other, made in done:
        if _is_same(shared, one, *other):
            return made
    made = shared.make(*(available[need] for need in shared.needs), one)
    done.append((shared, one, made))
    return made


def _is_same(shared: Shared, one: Any, other_shared: Shared, other: Any) -> bool:
    """Whether two runs are made alike from equal specs; of arrays only the same object counts as equal."""
    if shared.make is not other_shared.make or jax.tree.structure(one) != jax.tree.structure(other):
        return False
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(a is b or (isinstance(a, float) and isinstance(b, float) and a == b) for a, b in pairs)
