"""A split of a data set, in memory or read on demand, and the seeded choice of which examples it holds."""

from typing import Protocol

import numpy as np

from robust_saliency import checks


def choose(size: int, wanted: int) -> np.ndarray:
    """Indices of the examples evaluated: all, or a seeded random choice of ``wanted``, in order."""
    if not wanted or wanted >= size:
        return np.arange(size)
    return np.sort(permutation(size, 0)[:wanted])


def permutation(num: int, *seeds: int) -> np.ndarray:
    """A permutation int64 ``[num]`` from ``seeds`` (integers >= 0).

    Made of the raw bits of the generator, whose stream NumPy promises to keep; that of ``Generator.permutation`` it
    does not, and a resumed run may have another NumPy.
    """
    # SeedSequence does not tell (1,) from (1, 0), hence the length
    bits = np.random.PCG64(np.random.SeedSequence((len(seeds), *seeds))).random_raw(num)
    return np.argsort(bits, kind="stable")


class Source(Protocol):
    """All examples of one stored split. Labels are as stored; groups are what must not be torn apart, or None."""

    where: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    has_mask: bool
    labels: np.ndarray
    groups: np.ndarray | None

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """``image`` uint8 ``[n, H, W, C]``, ``label``, and ``lesion_mask`` uint8 ``[n, H, W]`` where there is one."""
        ...


class Split(Protocol):
    """Examples to gather by index. ``groups`` ``[N]`` are strings or integers, or None."""

    in_memory: bool
    labels: np.ndarray
    groups: np.ndarray | None

    def __len__(self) -> int: ...

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``image`` uint8 ``[n, H, W, C]``, ``label`` and ``id`` int32 ``[n]``.

        And where the data have them: ``lesion_mask`` and ``evidence_mask`` uint8 ``[n, H, W]``, ``concepts`` uint8
        ``[n, H, W, 6]``, ``group`` int32 ``[n]``.
        """
        ...


class MemorySplit:
    """A split held as arrays; what :meth:`gather` returns is a copy."""

    in_memory = True

    def __init__(self, arrays: dict[str, np.ndarray], groups: np.ndarray | None = None):
        checks.check_images(arrays["image"], "data")
        self.arrays = arrays
        self.groups = groups

    @property
    def labels(self) -> np.ndarray:
        return self.arrays["label"]

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {name: array[indices] for name, array in self.arrays.items()}


class LazySplit:
    """The ``rows`` of a source, read and decoded when asked for. ``relabel`` maps a stored label to a label."""

    in_memory = False

    def __init__(self, source: Source, rows: np.ndarray, relabel: np.ndarray):
        self._source = source
        self._rows = rows
        self._relabel = relabel
        groups = source.groups
        self.groups = None if groups is None else groups[rows]
        self._codes = None if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int32)

    @property
    def labels(self) -> np.ndarray:
        return self._relabel[self._source.labels[self._rows]]

    def __len__(self) -> int:
        return len(self._rows)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        rows = self._rows[indices]
        example = self._source.read(rows)
        example["label"] = self._relabel[example["label"]]
        example["id"] = rows.astype(np.int32)
        if self._codes is not None:
            example["group"] = self._codes[rows]
        return example

    def in_ram(self) -> MemorySplit:
        """The same split with every example decoded once."""
        return MemorySplit(self.gather(np.arange(len(self))), self.groups)


def hold_out(labels: np.ndarray, groups: np.ndarray | None, fraction: float, *seeds: int) -> np.ndarray:
    """bool ``[N]``: a seeded share of about ``fraction`` of every class, never a part of a group.

    The examples of a group go together, and count for the class of its first example. A class with at least two
    groups (or, without groups, examples) has at least one on either side.
    """
    _, first, unit = np.unique(
        np.arange(len(labels)) if groups is None else groups, return_index=True, return_inverse=True
    )
    sizes = np.bincount(unit)
    held = np.zeros(len(first), bool)
    for label in np.unique(labels[first]):
        units = np.flatnonzero(labels[first] == label)
        units = units[permutation(len(units), *seeds, int(label))]
        before = np.cumsum(sizes[units]) - sizes[units]
        take = before + sizes[units] / 2 <= fraction * sizes[units].sum()
        take[0] = len(units) > 1
        take[-1] = False
        held[units[take]] = True
    return held[unit]


def subset(labels: np.ndarray, num: int, *seeds: int) -> np.ndarray:
    """``num`` indices, sorted, drawn at random with the classes in proportion (largest remainders)."""
    classes, counts = np.unique(labels, return_counts=True)
    exact = num * counts / len(labels)
    quota = np.floor(exact).astype(int)
    quota[np.argsort(quota - exact, kind="stable")[: num - quota.sum()]] += 1
    return _drawn(labels, dict(zip(classes.tolist(), quota.tolist(), strict=True)), seeds)


def equal_subset(labels: np.ndarray, num: int, *seeds: int) -> np.ndarray:
    """Indices, sorted, drawn at random, of each class as many: ``num`` in all; 0 = as many as the rarest class has.

    ValueError where ``num`` is no multiple of the number of classes, or where a class has too few.
    """
    classes, counts = np.unique(labels, return_counts=True)
    each = num // len(classes) if num else int(counts.min())
    if num % len(classes) or each > counts.min():
        raise ValueError(
            f"{num} examples of {len(classes)} classes, each equally often, are not there: the rarest has "
            f"{counts.min()}."
        )
    return _drawn(labels, dict.fromkeys(classes.tolist(), each), seeds)


def _drawn(labels: np.ndarray, quota: dict[int, int], seeds: tuple[int, ...]) -> np.ndarray:
    chosen = []
    for label, share in quota.items():
        members = np.flatnonzero(labels == label)
        chosen.append(members[permutation(len(members), *seeds, label)[:share]])
    return np.sort(np.concatenate(chosen))
