"""Which examples make up which batch, and the batches themselves, in memory or streamed.

The training batch of step t is a pure function of (seed, t): a run that resumes says at which step. On several hosts
each host gathers its own rows of the one global batch.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from robust_saliency import checks
from robust_saliency.data.splits import Split, permutation

NUM_STREAMS = 2  # batches read at a time from a split that is not in memory; each is decoded on all cores
READ_AHEAD = 4
TRAINING_FIELDS = ("image", "label", "id")  # masks and concepts weigh more than the image, and few objectives read them


def epoch_order(seed: int, epoch: int, labels: Sequence[int], class_balanced: bool = False) -> np.ndarray:
    """Indices int64 ``[M]`` of one epoch, in order: a function of the arguments alone, on any machine.

    Plain: a permutation of all N = ``len(labels)`` examples (only the length of ``labels`` is used). Balanced: each
    class that occurs appears as often as the largest class has examples, n: an example of a class of m examples appears
    n // m times, and n mod m of them, drawn anew each epoch, once more; then all are permuted. M = classes * n.
    """
    if not class_balanced:
        return permutation(len(labels), seed, epoch)
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    drawn = []
    for label in classes:
        members = np.flatnonzero(labels == label)
        repeats, rest = divmod(int(counts.max()), len(members))
        extra = members[permutation(len(members), seed, epoch, 1, int(label))[:rest]]
        drawn += [np.tile(members, repeats), extra]
    drawn = np.concatenate(drawn)
    return drawn[permutation(len(drawn), seed, epoch)]


class BatchOrder:
    """The order of a training run: which examples step t sees. The ragged end of an epoch is dropped."""

    def __init__(self, labels: Sequence[int], *, batch_size: int, seed: int, class_balanced: bool = False):
        self.batch_size = batch_size
        self.steps_per_epoch = _steps(labels, batch_size, class_balanced)
        self._epoch = functools.lru_cache(2)(lambda epoch: epoch_order(seed, epoch, labels, class_balanced))

    def indices_at(self, step: int) -> np.ndarray:
        """Indices int64 ``[batch_size]`` of the batch of ``step``."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[place * self.batch_size : (place + 1) * self.batch_size]


def steps_per_epoch(split: Split, batch_size: int, class_balanced: bool = False) -> int:
    """Whole batches in an epoch of ``split``, balanced as in :func:`epoch_order`."""
    return _steps(_labels(split, class_balanced), batch_size, class_balanced)


class TrainBatches(Iterator[dict[str, np.ndarray]]):
    """Endless training batches; ``position()`` is what a checkpoint keeps, ``restore(position)`` continues from it."""

    def __init__(
        self, split: Split, *, batch_size: int, seed: int, start_step: int, class_balanced: bool, shard, fields
    ):
        self._split = split
        self._fields = tuple(fields)
        labels = _labels(split, class_balanced)
        self._order = BatchOrder(labels, batch_size=batch_size, seed=seed, class_balanced=class_balanced)
        self._rows = _shard_rows(batch_size, shard)
        self._identity = {
            "seed": seed,
            "batch_size": batch_size,
            "class_balanced": class_balanced,
            "num_examples": len(split),
        }
        self._start(start_step)

    def __next__(self) -> dict[str, np.ndarray]:
        batch = next(self._stream)
        self._step += 1
        return batch

    def position(self) -> dict[str, Any]:
        """Plain JSON: the step of the next batch, and what the order depends on."""
        return {"step": self._step, **self._identity}

    def restore(self, position: dict[str, Any]) -> None:
        """Continues at ``position``; ValueError where it was kept by a run whose batches were others."""
        changed = [name for name, value in self._identity.items() if position.get(name) != value]
        if changed:
            listed = ", ".join(f"{name} {position.get(name)!r} -> {self._identity[name]!r}" for name in changed)
            raise ValueError(f"The data position belongs to another order of examples: {listed}.")
        self._start(position["step"])

    def _start(self, step: int) -> None:
        self._step = step
        split, order, rows, fields = self._split, self._order, self._rows, self._fields

        # No reference to self: a cycle would keep an abandoned stream's threads until the garbage collector runs.
        def batch_at(step: int) -> dict[str, np.ndarray]:
            found = split.gather(order.indices_at(step)[rows])
            batch = {name: checks.lookup("field of a training batch", name, found) for name in fields}
            return {**batch, "valid": np.ones(len(batch["label"]), bool)}

        self._stream = _stream(split, batch_at, step, None)


def train_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    class_balanced: bool = False,
    shard: tuple[int, int] = (0, 1),
    fields: Sequence[str] = TRAINING_FIELDS,
) -> TrainBatches:
    """Endless batches of ``split`` from ``start_step`` on: the ``fields`` of ``Split.gather``, and ``valid``, all True.

    An objective that reads masks or concepts names them in ``fields``; one that the data lack is a ValueError.
    ``batch_size`` is global; with ``shard`` = (host, number of hosts) only that host's rows come back, so that the
    hosts' batches, in order, are the global batch. Streamed splits give the same bytes as splits in memory.
    """
    return TrainBatches(
        split,
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        class_balanced=class_balanced,
        shard=shard,
        fields=fields,
    )


def eval_batches(
    split: Split, *, batch_size: int, indices: np.ndarray | None = None, shard: tuple[int, int] = (0, 1)
) -> Iterator[dict[str, np.ndarray]]:
    """Each of ``indices`` (default: all of ``split``) once, in order; all batches have ``batch_size`` rows.

    The last one repeats its last example to fill up; ``valid`` bool ``[B]`` is False for the repetitions. ``shard`` as
    in :func:`train_batches`.
    """
    indices = np.arange(len(split)) if indices is None else np.asarray(indices)
    rows = _shard_rows(batch_size, shard)

    def batch_at(step: int) -> dict[str, np.ndarray]:
        places = np.arange(step * batch_size, (step + 1) * batch_size)[rows]
        batch = split.gather(indices[np.minimum(places, len(indices) - 1)])
        return {**batch, "valid": places < len(indices)}

    return _stream(split, batch_at, 0, -(-len(indices) // batch_size))


def _labels(split: Split, class_balanced: bool) -> Sequence[int]:
    """The labels where the order needs them: to read those of a streamed split is a pass over all its records."""
    return split.labels if class_balanced else range(len(split))


def _steps(labels: Sequence[int], batch_size: int, class_balanced: bool) -> int:
    _check_batch_size(batch_size)
    num = len(labels)
    if class_balanced:
        counts = np.unique(np.asarray(labels), return_counts=True)[1]
        num = len(counts) * int(counts.max(initial=0))
    if num < batch_size:
        raise ValueError(f"data.batch_size {batch_size} is larger than an epoch of {num} training examples.")
    return num // batch_size


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"data.batch_size must be at least 1, got {batch_size}.")


def _shard_rows(batch_size: int, shard: tuple[int, int]) -> slice:
    _check_batch_size(batch_size)
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard must be (host, number of hosts) with 0 <= host < number, got {shard}.")
    if batch_size % count:
        raise ValueError(f"data.batch_size {batch_size} cannot be shared equally by {count} hosts.")
    share = batch_size // count
    return slice(index * share, (index + 1) * share)


def _stream(split: Split, batch_at, start: int, stop: int | None) -> Iterator[dict[str, np.ndarray]]:
    """``batch_at(start)``, ``batch_at(start + 1)``, ...; read ahead with Grain where the split is not in memory."""
    stop = np.iinfo(np.int64).max if stop is None else stop
    if split.in_memory or stop <= start:
        yield from map(batch_at, range(start, stop))
        return
    import grain

    steps = grain.MapDataset.range(start, int(stop)).map(lambda step: batch_at(int(step)))
    options = grain.ReadOptions(num_threads=NUM_STREAMS, prefetch_buffer_size=READ_AHEAD)
    with contextlib.closing(iter(steps.to_iter_dataset(options))) as stream:
        yield from stream
