"""Steps of a run as they lie on disk: what is read is compared with the step's own record, leaf by leaf.

Orbax does not notice a flipped bit and takes an empty directory for a step. The item ``record`` of a step therefore
lists name, dtype, shape and CRC-32 of every leaf, and a step that differs is passed over for the next candidate.
"""

import contextlib
import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from jax.experimental import multihost_utils

_LOG = logging.getLogger(__name__)


class Damaged(Exception):
    """Says in a clause what is wrong with a step on disk."""


def steps(directory: str | Path) -> list[int]:
    """The steps on disk in ascending order, damaged ones too; ``[]`` without a directory."""
    directory = Path(directory)
    names = [path.name for path in directory.iterdir() if path.is_dir()] if directory.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def first_whole(
    directory: Path, candidates: Sequence[int], targets: dict[str, Any], json_items: Sequence[str], advice: str = ""
) -> tuple[int, dict[str, Any], set[int]]:
    """The first of ``candidates`` that is whole: (step, its items, the damaged steps passed over with a warning).

    ``targets``: the tree items to restore, each with its abstract tree, or None for NumPy arrays. ValueError where no
    candidate is whole, which ends with ``advice``, and where a step and a target differ in a name, a shape or a dtype.
    """
    damaged = {}
    for step in candidates:
        try:
            record = _record(directory / str(step))
            items = {name: _restore_json(directory / str(step), name, record[name]) for name in json_items}
            for name, target in targets.items():
                items[name] = _restore_tree(directory / str(step), name, record[name], target)
            for other, reason in damaged.items():
                _LOG.warning("Checkpoint %d in %s is damaged and passed over: %s.", other, directory, reason)
            return step, items, set(damaged)
        except Damaged as reason:
            damaged[step] = reason
    reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
    raise ValueError(f"Every checkpoint tried in {directory} is damaged ({reasons}); no file was deleted.{advice}")


def contents(directory: Path) -> tuple[dict[int, dict], dict[int, Damaged]]:
    """The records of all steps whose record is whole, and what is wrong with the others."""
    whole, damaged = {}, {}
    for step in steps(directory):
        try:
            whole[step] = _record(directory / str(step))
        except Damaged as reason:
            damaged[step] = reason
    return whole, damaged


def _record(path: Path) -> dict[str, Any]:
    record = _read_json(path, "record")
    if not isinstance(record, dict) or json_crc(record.get("content")) != record.get("crc32"):
        raise Damaged("item record differs from its checksum")
    return record["content"]


def _restore_json(path: Path, name: str, crc: int) -> dict[str, Any]:
    value = _read_json(path, name)
    if json_crc(value) != crc:
        raise Damaged(f"item {name} differs from its checksum")
    return value


def _read_json(path: Path, name: str) -> Any:
    try:
        with quiet():
            return ocp.JsonCheckpointHandler().restore(path / name, ocp.args.JsonRestore())
    except FileNotFoundError:
        raise Damaged(f"item {name} is missing") from None
    except (OSError, ValueError) as error:
        raise Damaged(f"item {name} is unreadable ({clause(error)})") from None


def _restore_tree(path: Path, name: str, described: list, target: Any) -> Any:
    item = path / name
    if target is not None:
        _check_fits(path, name, described, target)
    if not item.is_dir():
        raise Damaged(f"item {name} is missing")
    try:
        with quiet():
            _read_through(item, len(described))
            target = _numpy_target(item, described) if target is None else jax.tree.map(_placed, target)
            arguments = ocp.args.PyTreeRestore(target, restore_args=ocp.checkpoint_utils.construct_restore_args(target))
            with ocp.Checkpointer(tree_handler()) as checkpointer:
                tree = checkpointer.restore(item, args=arguments)
    except (Damaged, MemoryError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:  # Orbax raises bare Exceptions too.
        raise Damaged(f"item {name} is unreadable ({clause(error)})") from None
    now = describe(tree)
    differing = sum(leaf not in now for leaf in described)
    if differing:
        raise Damaged(f"{differing} of {len(described)} leaves of {name} differ from their checksum")
    return tree


def _read_through(item: Path, num_leaves: int) -> None:
    """Reads every file once, one after the other, and keeps nothing.

    Orbax reads them at the same time and leaves at the first failure; the others then print tracebacks from threads.
    """
    for metadata in (item / "_METADATA", *item.glob("array_metadatas/*")):
        json.loads(metadata.read_text())
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{item}/"}}
    names = [key.decode() for key in tensorstore.KvStore.open(store).result().list().result()]
    arrays = [name.removesuffix(".zarray") for name in names if name.endswith("/.zarray")]
    if len(arrays) != num_leaves:
        raise Damaged(f"item {item.name} holds {len(arrays)} of {num_leaves} arrays")
    for array in arrays:
        spec = {"driver": "zarr", "kvstore": store | {"path": array}, "fill_missing_data_reads": False}
        tensorstore.open(spec).result().read().result()


def _check_fits(path: Path, name: str, described: list, target: Any) -> None:
    there = {leaf: f"{dtype}{shape}" for leaf, dtype, shape, _ in described}
    wanted = {leaf: f"{_dtype(value)}{list(np.shape(value))}" for leaf, value in named_leaves(target)}
    differing = [leaf for leaf in {**there, **wanted} if there.get(leaf) != wanted.get(leaf)]
    if differing:
        leaf, more = differing[0], len(differing) - 1
        raise ValueError(
            f"Checkpoint {path} does not fit: {name} {leaf} is {there.get(leaf, 'absent')} in it and "
            f"{wanted.get(leaf, 'absent')} in this run{f', and {more} more leaves differ' if more else ''}."
        )


def tree_handler() -> ocp.PyTreeCheckpointHandler:
    """Orbax's reader and writer of one tree."""
    # The file format is given because _read_through reads it.
    return ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=False)


def _dtype(value: Any) -> str:
    return str(value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype)


def _placed(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is None:
        return leaf.update(sharding=jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))
    return leaf


def _numpy_target(item: Path, described: list) -> dict[str, Any]:
    """The tree of dicts to restore as NumPy arrays. Not from Orbax, which would read too where each leaf once lay."""
    arrays = {leaf: np.broadcast_to(np.zeros((), dtype), shape) for leaf, dtype, shape, _ in described}
    tree: dict[str, Any] = {}
    for entry in json.loads((item / "_METADATA").read_text())["tree_metadata"].values():
        *path, name = (key["key"] for key in entry["key_metadata"])
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[name] = arrays.get("/".join((*path, name)), {})  # a dict without leaves is listed as well
    return tree


def describe(tree: Any) -> list[list]:
    """[name, dtype, shape, CRC-32] of every leaf."""
    return [
        [name, str(array.dtype), list(array.shape), zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))]
        for name, array in ((name, _on_host(leaf)) for name, leaf in named_leaves(tree))
    ]


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """The leaves with their paths, ``params/conv1/kernel``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _on_host(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def json_crc(value: Any) -> int:
    """CRC-32 of ``value`` as JSON with sorted keys."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def clause(error: Exception) -> str:
    """The beginning of the message, on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:150].rstrip(".")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Orbax's remarks from the user: what matters of them is raised or warned of here."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
