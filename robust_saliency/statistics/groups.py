"""Rows put into groups, and the random numbers over groups that the bootstrap and the sign-flip test draw."""

from collections.abc import Iterator
from typing import Any

import numpy as np

Seed = int | np.random.Generator
_WEIGHTS_AT_ONCE = 4_000_000


def rows(values: Any, groups: Any) -> tuple[np.ndarray, np.ndarray]:
    """``values [N]`` or ``[N, M]`` as floats and the group of each row as a code from 0; None: each row its own."""
    values = np.asarray(values, float)
    if values.ndim not in (1, 2):
        raise ValueError(f"values must be [N] or [N, M], got shape {values.shape}.")
    if groups is None:
        return values, np.arange(len(values))
    groups = np.asarray(groups)
    if groups.shape != values.shape[:1]:
        raise ValueError(f"groups must be [{len(values)}], one a row, got shape {groups.shape}.")
    return values, np.unique(groups, return_inverse=True)[1]


def pair(a: Any, b: Any) -> np.ndarray:
    """``a - b`` where both are finite, else NaN."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"Pairs need equal shapes, got {a.shape} and {b.shape}.")
    both = np.isfinite(a) & np.isfinite(b)
    return np.subtract(a, b, out=np.full(a.shape, np.nan), where=both)


def group_sums(column: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and sizes of the groups with finite values, in an order that depends on the values alone."""
    finite = np.isfinite(column)
    column, codes = column[finite], codes[finite]
    order = np.lexsort((column, codes))
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    sums = np.add.reduceat(column[order], starts) if len(starts) else np.zeros(0)
    sizes = np.diff(np.append(starts, len(column)))
    order = np.lexsort((sizes, sums))
    return sums[order], sizes[order]


def resampled_weights(num_groups: int, num_draws: int, seed: Seed) -> Iterator[np.ndarray]:
    """Blocks ``[draws, G]``: how often a draw of G groups with replacement takes each of them."""
    generator = np.random.default_rng(seed)
    for count in _blocks(num_groups, num_draws):
        picks = generator.integers(num_groups, size=(count, num_groups), dtype=np.int32)
        picks = picks + np.arange(count)[:, None] * num_groups
        yield np.bincount(picks.ravel(), minlength=count * num_groups).reshape(count, num_groups).astype(float)


def random_signs(num_groups: int, num_draws: int, seed: Seed) -> Iterator[np.ndarray]:
    """Blocks ``[draws, G]`` of -1 and 1."""
    generator = np.random.default_rng(seed)
    for count in _blocks(num_groups, num_draws):
        signs = generator.integers(2, size=(count, num_groups), dtype=np.int8)
        signs *= 2
        signs -= 1
        yield signs.astype(float)


def all_signs(num_groups: int) -> Iterator[np.ndarray]:
    """Blocks ``[draws, G]`` that together hold each of the ``2^G`` patterns once."""
    for first in range(0, 2**num_groups, _WEIGHTS_AT_ONCE // num_groups):
        patterns = np.arange(first, min(2**num_groups, first + _WEIGHTS_AT_ONCE // num_groups))
        yield (patterns[:, None] >> np.arange(num_groups) & 1) * 2.0 - 1.0


def _blocks(num_groups: int, num_draws: int) -> list[int]:
    block = max(1, _WEIGHTS_AT_ONCE // num_groups)
    return [min(block, num_draws - first) for first in range(0, num_draws, block)]
