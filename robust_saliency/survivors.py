"""A decision attack on a whole data set: one batch, always full, that an example leaves as soon as it is fooled.

A cascade on a network that is no more robust than most spends nearly all of its passes on examples that were fooled
long before. Here the examples that withstood a stage queue for the next; after every few steps the rows of those that
were fooled, or have done their steps, are given to the next in the queue. So there is one program of one batch size.
"""

import functools
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from robust_saliency import data, losses, records, rows, sharding
from robust_saliency.attacks import stages
from robust_saliency.progress import Progress
from robust_saliency.randomness import per_example_keys
from robust_saliency.types import Array, Images, Key, Labels, LogitsFn

STEPS_AT_ONCE = 10  # at most, between two looks at who is fooled
_SECONDS_BETWEEN_SAVES = 30.0
BEFORE, NEVER = -1, -2
_LOG = logging.getLogger(__name__)


class Found(NamedTuple):
    """What is known of each of N examples.

    stages_done: how many stages it has been through. fooled_by: the number of the stage that fooled it, -1 if it was
    wrong before, -2 if it withstands. images: the adversary, or the strongest try so far; margin: its ``max_{k != y}
    z_k - z_y``, infinite where that is NaN, which fools. forwards, backwards: passes spent on it; a start is counted as
    one forward pass and a look at who is fooled as two, which is what the costliest attacks take.
    """

    stages_done: np.ndarray
    fooled_by: np.ndarray
    images: np.ndarray
    margin: np.ndarray
    forwards: np.ndarray
    backwards: np.ndarray

    @property
    def robust(self) -> np.ndarray:
        return self.fooled_by == NEVER


def attack(
    logits_of: Callable[[Any], LogitsFn],
    variables: Any,
    gather: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    indices: np.ndarray,
    plan: tuple[stages.Stage, ...],
    *,
    key: Key,
    mesh: Mesh,
    batch_size: int,
    title: str,
    path: str = "",
    identity: Any = None,
    network: Any = None,
    spare_the_fooled: bool = True,
) -> Found:
    """Attacks the examples ``indices`` with every stage of ``plan``.

    gather(indices) -> rows with 'image', 'label' and 'id', on the host. path: a file in which what is known is kept
    every half minute, and taken up again by the same ``plan`` and ``key`` on the same ``variables`` and ``indices``,
    where ``identity``, which says what the indices are of, and ``network``, which says what ``logits_of`` computes, are
    the same too; both as JSON holds them. spare_the_fooled: False takes every example, also one that was wrong before,
    through all steps of every stage; ``images`` are then what the last stage ended with.

    Raises ValueError where a spec has an entry an example: a data set has no batch for it to belong to.
    """
    _check_one_for_all(plan)
    about = [identity, network, spare_the_fooled, str(jax.random.key_impl(key)), jax.random.key_data(key).tolist()]
    about += [_digest(variables), [str(stage) for stage in plan], _digest([stage.spec for stage in plan])]
    about = json.dumps([*about, np.asarray(indices).tolist()], sort_keys=True)
    work = _Work(logits_of, variables, gather, indices, mesh, batch_size, key, path, about, spare_the_fooled)
    taken_up = work.taken_up()
    found = taken_up or work.judged_clean()
    for number, stage in enumerate(plan):
        found = work.through(found, number, stage, f"{title}: {stage.name}")
    if taken_up is None or work.num_looks:
        work.save(found)
    return found


def _check_one_for_all(plan: tuple[stages.Stage, ...]) -> None:
    for stage in plan:
        model = stages.threat_of(stage.spec)
        for name, shape in (("epsilon", np.shape(model.epsilon)), ("mask", np.shape(model.mask))):
            if shape and (len(shape) == 1 or shape[0] != 1):
                raise ValueError(
                    f"Threat.{name} of an attack on a data set must be the same for every example, [1, H, W, 1 or C], "
                    f"got shape {shape}."
                )


def _read(path: str, about: str) -> Found | None:
    try:
        arrays = records.read_npz(path)
        if set(arrays) != {*Found._fields, "identity"}:
            raise ValueError(f"{path} is damaged: it holds {', '.join(arrays)}.")
    except ValueError as error:
        _LOG.warning("%s The attack begins anew.", error)
        return None
    same = str(arrays.pop("identity")) == about
    return Found(**arrays) if same else None


class _Work:
    def __init__(self, logits_of, variables, gather, indices, mesh, batch_size, key, path, identity, spare_the_fooled):
        self.logits_of, self.variables, self.gather, self.indices = logits_of, variables, gather, np.asarray(indices)
        self.mesh, self.batch_size, self.key = mesh, batch_size, key
        self.path, self.identity, self.spare_the_fooled = path, identity, spare_the_fooled
        self.num_looks = 0
        self.saved = time.monotonic()

    def taken_up(self) -> Found | None:
        """What an earlier call left, if it was about the same."""
        if not self.path or not os.path.exists(self.path):
            return None
        return _read(self.path, self.identity)

    def save(self, found: Found) -> None:
        self.saved = time.monotonic()
        if self.path:
            records.write_npz(self.path, {**found._asdict(), "identity": np.array(self.identity)})

    def judged_clean(self) -> Found:
        """Before any attack: who is wrong already."""
        program = _programs(self.logits_of, None)
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        for first in range(0, len(self.indices), self.batch_size):
            places = np.arange(first, min(first + self.batch_size, len(self.indices)))
            batch = self._put(places, np.arange(len(places)))
            images, margin = jax.device_get(program.clean(self.variables, batch["image"], batch["label"]))
            parts.append((images[: len(places)], margin[: len(places)]))
        images, margin = (np.concatenate(column) for column in zip(*parts, strict=True))
        ones = np.ones(len(margin), np.int32)
        return Found(
            stages_done=0 * ones,
            fooled_by=np.where(margin >= 0, BEFORE, NEVER).astype(np.int32),
            images=images,
            margin=margin,
            forwards=ones,
            backwards=0 * ones,
        )

    def through(self, found: Found, number: int, stage: stages.Stage, title: str) -> Found:
        """``found`` after the examples that withstood all so far have been through the stage ``number``."""
        due = (found.robust | (not self.spare_the_fooled)) & (found.stages_done == number)
        queue = [int(i) for i in np.flatnonzero(due)]
        if not queue:
            return found
        program = _programs(self.logits_of, stage.spec)
        steps = stages.steps_at_once(stage.num_steps, STEPS_AT_ONCE)
        row_of = np.full(self.batch_size, -1)
        done = np.zeros(self.batch_size, int)
        state = None
        with Progress(title, len(queue), 0, 1) as progress:
            while queue or (row_of >= 0).any():
                free = np.flatnonzero(row_of < 0)[: len(queue)]
                if len(free):
                    row_of[free], queue = queue[: len(free)], queue[len(free) :]
                    done[free] = 0
                    key = jax.random.fold_in(self.key, number)
                    state = self._refilled(program, state, stage, key, row_of, free)
                    found.forwards[row_of[free]] += 1
                state = sharding.waited(program.advance(self.variables, state, steps), self.mesh)
                images, margin = program.look(self.variables, state)
                busy = np.flatnonzero(row_of >= 0)
                done[busy] += steps
                found.forwards[row_of[busy]] += steps * stage.forwards + 2
                found.backwards[row_of[busy]] += steps * stage.backwards
                margin = np.asarray(margin)
                is_done = self.spare_the_fooled & (margin[busy] >= 0) | (done[busy] >= stage.num_steps)
                leaving = busy[is_done]
                self.num_looks += 1
                if len(leaving):
                    self._leave(found, number, row_of[leaving], np.asarray(images)[leaving], margin[leaving])
                    row_of[leaving] = -1
                    progress.update(len(leaving), robust=float(found.robust.mean()))
                if time.monotonic() - self.saved > _SECONDS_BETWEEN_SAVES:
                    self.save(found)
        return found

    def _leave(self, found: Found, number: int, rows: np.ndarray, images: np.ndarray, margin: np.ndarray) -> None:
        better = (margin > found.margin[rows]) | (not self.spare_the_fooled)
        found.images[rows[better]] = images[better]
        found.margin[rows[better]] = margin[better]
        fooled = rows[margin >= 0]
        found.fooled_by[fooled[found.fooled_by[fooled] == NEVER]] = number
        found.stages_done[rows] = number + 1

    def _refilled(self, program, state, stage: stages.Stage, key: Key, row_of: np.ndarray, free: np.ndarray):
        """``state`` with the examples ``row_of[free]`` at their start in the rows ``free``."""
        batch = self._put(row_of[free], free)
        fresh = np.zeros(self.batch_size, bool)
        fresh[free] = True
        keys = per_example_keys(key, batch["id"])
        new = program.start(self.variables, keys, batch["image"], batch["label"], np.int32(stage.rank))
        # What begins as a constant XLA copies to each device, and the first steps would be a program of their own.
        new = jax.device_put(sharding.waited(new, self.mesh), sharding.by_example(self.mesh))
        if state is None:
            return new
        return program.merge(sharding.put_batch({"fresh": fresh}, self.mesh)["fresh"], new, state)

    def _put(self, places: np.ndarray, rows: np.ndarray) -> dict[str, Array]:
        """The examples at ``places`` of the indices in the given ``rows`` of a batch; elsewhere the first of them."""
        held = self.gather(self.indices[places])
        filled = np.zeros(self.batch_size, int)
        filled[rows] = np.arange(len(places))
        return sharding.put_batch({name: held[name][filled] for name in ("image", "label", "id")}, self.mesh)


class Frozen:
    """A spec that can be hashed, also where it holds arrays; equal to one of equal entries."""

    def __init__(self, spec: Any):
        self.spec = spec
        self._about = jax.tree.structure(spec), _digest(spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and self._about == other._about

    def __hash__(self) -> int:
        return hash(self._about)


def _digest(tree: Any) -> str:
    """SHA-256 of the types, shapes and bytes of all leaves."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(tree)):
        leaf = np.asarray(leaf)
        sha.update(f"{leaf.dtype} {leaf.shape}".encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


class _Programs(NamedTuple):
    clean: Callable
    start: Callable
    advance: Callable
    look: Callable
    merge: Callable


def _programs(logits_of: Callable[[Any], LogitsFn], spec: Any) -> _Programs:
    """Compiled once for a network and an attack: all its targets share the programs."""
    return _compiled(logits_of, Frozen(spec))


@functools.lru_cache(maxsize=16)
def _compiled(logits_of: Callable[[Any], LogitsFn], frozen: "Frozen") -> _Programs:
    spec = frozen.spec

    def as_float(images: Images) -> Images:
        return data.to_float({"image": images})["image"]

    def clean(variables, images: Images, labels: Labels) -> tuple[Images, Array]:
        images = as_float(images)
        margin = losses.margin(logits_of(variables)(images), labels)
        return images, jnp.where(jnp.isnan(margin), jnp.inf, margin)

    def start(variables, keys: Key, images: Images, labels: Labels, rank: Array):
        return stages.start(logits_of(variables), keys, as_float(images), labels, spec, rank), labels

    def advance(variables, state, num_steps: int):
        inner, labels = state
        return stages.advance(logits_of(variables), inner, spec, num_steps), labels

    def look(variables, state) -> tuple[Images, Array]:
        inner, labels = state
        logits_fn = logits_of(variables)
        images = stages.finish(logits_fn, inner, spec)
        margin = losses.margin(logits_fn(images), labels)
        return images, jnp.where(jnp.isnan(margin), jnp.inf, margin)

    return _Programs(
        jax.jit(clean), jax.jit(start), jax.jit(advance, static_argnums=2), jax.jit(look), jax.jit(rows.choose)
    )
