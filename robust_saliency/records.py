"""Files that a later mode reads: written whole or not at all, and listed with their SHA-256.

Every file written by :func:`write_atomic` (JSON, CSV and npz go through it) below a directory that a ``Workdir`` has
locked is listed in that directory's ``manifest.json``; whatever is read here is compared with its entry, so that a
truncated or changed file is named and not believed. ``metrics.jsonl`` grows line by line and is listed when training
has ended; until then every checkpoint remembers its rows.
"""

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robust_saliency import csv_columns

MANIFEST = "manifest.json"
# Not just .lock: other programs (pytest is one) put such a file into folders above ours.
LOCK = ".robust_saliency.lock"
_WRITING = threading.RLock()
_LOG = logging.getLogger(__name__)


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Writes ``data`` under a temporary name, syncs, renames, and lists the file in the manifest of its workdir.

    The workdir is the nearest directory above that a ``Workdir`` has locked, now or earlier; where there is none the
    file is not listed. Missing directories are made. Raises ValueError if the file cannot be written; an older one is
    then kept.
    """
    path = Path(path)
    data = data.encode() if isinstance(data, str) else data
    with _WRITING:
        # A kill between two writes must not leave a new file with the entry of the old one: better none.
        _replace(path, data, before_rename=lambda: _list(path, None))
        _list(path, _description(data))


def remove(path: str | Path) -> None:
    """Deletes a file, if it is there, and its entry in the manifest; ValueError where it cannot be deleted."""
    path = Path(path)
    with _WRITING:
        _list(path, None)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(f"{path} cannot be deleted: {error.strerror}.") from None


def write_json(path: str | Path, value: Any) -> None:
    """Writes ``value`` (NumPy scalars and arrays become numbers and lists) as indented JSON."""
    write_atomic(path, _dumps(value) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads JSON; raises ValueError naming the file and the position if it is missing or damaged."""
    try:
        return json.loads(_text(Path(path)))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from None


def write_npz(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Writes named arrays as an uncompressed npz; equal arrays give equal bytes. Object arrays are refused."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            array = np.asarray(array)
            if array.dtype.hasobject:
                raise ValueError(f"{path}: array {name!r} holds Python objects; give numbers or strings.")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Reads named arrays; raises ValueError if the file is missing or damaged (each array has a CRC-32)."""
    data = _read(Path(path))
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, OSError, AttributeError) as error:
        raise ValueError(f"{path} is a damaged npz file: {' '.join(str(error).split())}.") from None


def write_csv(path: str | Path, columns: Mapping[str, Sequence]) -> None:
    """Writes equally long columns, see :func:`robust_saliency.csv_columns.to_text`.

    ``pandas.read_csv`` reads the file; give it ``dtype`` for strings that look like numbers.
    """
    write_atomic(path, csv_columns.to_text(str(path), columns))


def read_csv(path: str | Path) -> dict[str, np.ndarray]:
    """Reads columns, see :func:`robust_saliency.csv_columns.from_text`."""
    return csv_columns.from_text(str(path), _text(Path(path)))


def is_there(path: str | Path) -> bool:
    """Whether the file exists. ValueError where the manifest lists it and it does not: somebody took it away."""
    path = Path(path)
    if path.is_file():
        return True
    if _entry(path)[1]:
        raise ValueError(f"{path} is missing, though it was written once: {MANIFEST} lists it; write it again.")
    return False


def is_whole(folder: str | Path) -> bool:
    """Whether all files that the manifest lists in ``folder`` are as they were written; warns of the first that is not.

    ValueError where the manifest is damaged.
    """
    folder = Path(folder).absolute()
    workdir = _workdir_of((folder, *folder.parents))
    for name in _listed(workdir) if workdir else ():
        path = workdir / name
        if folder not in path.parents:
            continue
        try:
            if is_there(path):
                _read(path)
        except ValueError as error:
            _LOG.warning("%s What %s holds is made again.", error, folder.name)
            return False
    return True


def check_manifest(workdir: str | Path) -> None:
    """Raises ValueError, saying what to do, where the manifest of ``workdir`` is damaged."""
    _listed(Path(workdir))


class MetricsLog:
    """``metrics.jsonl`` of a workdir: one JSON object a line, with the step first."""

    def __init__(self, workdir: str | Path):
        self.path = Path(workdir) / "metrics.jsonl"

    def write(self, step: int, **scalars: Any) -> None:
        """Appends a line; NaN and infinity, which JSON lacks, become null. ValueError where it cannot be written."""
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_metrics_line({"step": step} | scalars))
        except OSError as error:
            raise ValueError(f"{self.path} cannot be written: {error.strerror}.") from None

    def read(self) -> list[dict[str, Any]]:
        """All rows, null as NaN; ``[]`` without a file. A last line cut off by a kill is ignored.

        Raises ValueError naming a damaged line, and where the log of a training that has ended was changed since.
        """
        return [{name: math.nan if value is None else value for name, value in row.items()} for row in self._rows()]

    def rows(self) -> list[dict[str, Any]]:
        """All rows as JSON holds them, for a checkpoint to remember."""
        return [json.loads(_metrics_line(row)) for row in self._rows()]

    def mend(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Puts back ``rows``, which a checkpoint remembers, where the file is damaged or does not begin with them."""
        past = "".join(map(_metrics_line, rows)).encode()
        try:
            self._rows()
            if not past or self.path.read_bytes().startswith(past):
                return
            damage = f"{self.path} is damaged: it does not begin with the rows that the last checkpoint remembers."
        except ValueError as error:
            damage = str(error)
        except FileNotFoundError:
            damage = f"{self.path} is missing."
        _LOG.warning("%s Its rows up to the last checkpoint are put back.", damage)
        self._write_anew(past)

    def cut_back(self, step: int) -> None:
        """Keeps the rows up to and including ``step``; call it before a resumed run writes again."""
        self._write_anew("".join(_metrics_line(row) for row in self._rows() if row["step"] <= step).encode())

    def seal(self) -> None:
        """Lists the file in the manifest, now that no line will follow: it is compared whenever it is read."""
        if self.path.exists():
            _list(self.path, _description(self.path.read_bytes()))

    def _rows(self) -> list[dict[str, Any]]:
        rows = []
        for number, line in enumerate(_read(self.path).split(b"\n")[:-1] if is_there(self.path) else [], start=1):
            try:
                rows.append(json.loads(line))
            except ValueError:
                rows.append(None)
            if not isinstance(rows[-1], dict):
                raise ValueError(f"{self.path} is damaged: line {number} is no JSON object.")
            if not isinstance(rows[-1].get("step"), int):
                raise ValueError(f"{self.path} is damaged: line {number} says of no step what it is of.")
        return rows

    def _write_anew(self, data: bytes) -> None:
        _replace(self.path, data, before_rename=lambda: _list(self.path, None))


def _replace(path: Path, data: bytes, before_rename: Callable[[], None] = lambda: None) -> None:
    temporary = path.parent / f".{path.name}.tmp"
    with _WRITING:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            before_rename()
            os.replace(temporary, path)
            directory = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            if isinstance(error, ValueError):  # of the manifest
                raise
            raise ValueError(f"{path} cannot be written: {error.strerror}.") from None


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    _, listed = _entry(path)
    if listed and len(data) < listed["bytes"]:
        raise ValueError(f"{path} is truncated: {len(data)} of {listed['bytes']} bytes; write it again.")
    if listed and listed != _description(data):
        raise ValueError(f"{path} has changed since it was written: its SHA-256 differs from {MANIFEST}'s.")
    return data


def _text(path: Path) -> str:
    try:
        return _read(path).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: no UTF-8 text at byte {error.start}.") from None


def _description(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _entry(path: Path) -> tuple[Path | None, dict[str, Any] | None]:
    """The manifest that ``path`` belongs to, and what it says of it; None where there is none."""
    workdir = _workdir_of(path.absolute().parents)
    if workdir is None or path.name == MANIFEST:
        return None, None
    return workdir / MANIFEST, _listed(workdir).get(path.absolute().relative_to(workdir).as_posix())


def _workdir_of(folders: Iterable[Path]) -> Path | None:
    """The first of the folders that a ``Workdir`` has locked, now or earlier."""
    return next((folder for folder in folders if (folder / LOCK).is_file()), None)


def _listed(workdir: Path) -> dict[str, dict[str, Any]]:
    path = workdir / MANIFEST
    try:
        listed = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError:
        listed = None
    if not isinstance(listed, dict) or not all(map(_is_description, listed.values())):
        raise ValueError(
            f"{path} is damaged, so that no other file can be compared with its checksum; delete it to go on without: "
            "files are then read as they are, and listed again as they are written."
        )
    return listed


def _is_description(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)


def _list(path: Path, description: dict[str, Any] | None) -> None:
    manifest, listed = _entry(path)
    if manifest is None or listed == description:
        return
    files = _listed(manifest.parent) | {path.absolute().relative_to(manifest.parent).as_posix(): description}
    files = {name: about for name, about in files.items() if about is not None}
    _replace(manifest, (json.dumps(files, indent=1, sort_keys=True) + "\n").encode())


def _dumps(value: Any) -> str:
    return json.dumps(value, indent=2, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise ValueError(f"JSON cannot hold {value!r} of type {type(value).__name__}.")


def _metrics_line(row: Mapping[str, Any]) -> str:
    plain = {name: value if isinstance(value, str) else np.asarray(value).item() for name, value in row.items()}
    finite = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in plain.items()}
    return json.dumps(finite) + "\n"
