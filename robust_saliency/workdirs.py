"""The directory of a run: one process at a time, one config for good."""

import contextlib
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robust_saliency import processes, records

CONFIG = "config.json"
_MAX_DIFFERENCES = 20
_LOG = logging.getLogger(__name__)


class Workdir:
    """Context manager that holds the lock of a run's directory and gives its path.

    The lock (``.robust_saliency.lock``, by flock) is the kernel's: it goes when the process dies, however it dies.
    Of the processes of one run the first holds it for all. Raises ValueError if another process holds it, if the
    directory cannot be written, if its manifest is damaged, or, with ``create=False``, if it does not exist.
    """

    def __init__(self, path: str | Path, *, create: bool = True):
        self.path = Path(path)
        self._create = create

    def __enter__(self) -> Path:
        processes.on_first(self._hold)
        return self.path

    def _hold(self) -> None:
        if not self._create and not self.path.is_dir():
            raise ValueError(f"Workdir {self.path} does not exist.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / records.LOCK, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115
        except OSError as error:
            raise ValueError(f"Workdir {self.path} cannot be written: {error.strerror}.") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            self._lock.close()
            raise ValueError(
                f"Workdir {self.path} is in use by process {holder}; wait until it ends or choose another workdir."
            ) from None
        try:
            self._lock.truncate(0)
            self._lock.write(f"{os.getpid()} on {socket.gethostname()}\n")
            self._lock.flush()
        except OSError as error:
            with contextlib.suppress(OSError):  # it tries to write once more
                self._lock.close()
            raise ValueError(f"Workdir {self.path} cannot be written: {error.strerror}.") from None
        try:
            records.check_manifest(self.path)
        except ValueError:
            self._lock.close()
            raise

    def __exit__(self, *exception) -> None:
        if processes.is_first():
            self._lock.close()


def checkpoints(workdir: str | Path) -> Path:
    """Where the checkpoints of a run lie."""
    return Path(workdir) / "checkpoints"


def run_name(workdir: str | os.PathLike, plain: Mapping) -> str:
    """``linf, seed 1``: the folder, and the config's own seed; later phases have others, which are made of it."""
    return f"{os.path.basename(os.path.abspath(workdir))}, seed {plain.get('seed', 0)}"


def phase_folders(labels: Sequence[str]) -> list[str]:
    """Where in a workdir each phase of a run lies, by its labels in order: the last is the run itself, ''."""
    return [*(f"phases/{number}_{label}" for number, label in enumerate(labels[:-1], start=1)), ""]


def has_results(workdir: str | Path) -> bool:
    """Whether anything was trained, evaluated or explained here or in the runs of a study here."""
    path = Path(workdir)
    results = ("study.json", "evaluation", "explanations", "checkpoints/[0-9]*", "*/*/checkpoints/[0-9]*")
    return any(True for pattern in results for _ in path.glob(pattern))


def holds_study(workdir: str | Path) -> bool:
    """Whether ``workdir`` is the folder of a study, finished or not: a run's own config has no runs."""
    path = Path(workdir)
    if (path / "study.json").exists():
        return True
    remembered = records.read_json(path / CONFIG) if (path / CONFIG).exists() else {}
    return bool((remembered.get("study") or {}).get("runs"))


def refuse_study(workdir: str | Path) -> None:
    """Raises ValueError, naming the runs, where ``workdir`` holds a study: training, evaluating and explaining is of
    one run."""
    path = Path(workdir) / "study.json"
    if path.exists():
        runs = [str(Path(workdir) / run["dir"]) for run in records.read_json(path)["runs"]]
        raise ValueError(f"Workdir {workdir} holds a study; give one of its runs: {', '.join(runs)}.")


def claim(workdir: str | Path, config: Mapping[str, Any], ignore: Iterable[str] = ()) -> None:
    """Writes ``config.json`` the first time; later raises ValueError unless ``config`` equals it.

    The error shows the difference, one ``key.subkey: was -> now`` a line. ``ignore``: dotted keys (or the name of a
    section) that may differ; ``config.json`` then keeps the first values. A workdir that has no results yet, because
    its data could not be read or its loss diverged, takes any config.
    """
    processes.on_first(lambda: _claim(workdir, config, ignore))


def _claim(workdir: str | Path, config: Mapping[str, Any], ignore: Iterable[str]) -> None:
    path = Path(workdir) / CONFIG
    was = _remembered(path) if has_results(workdir) else None
    if was is None:
        records.write_json(path, config)
    else:
        check_same(workdir, was, config, ignore)


def _remembered(path: Path) -> dict[str, Any] | None:
    """The config of a run; None where it is not there or damaged: what was trained is compared with its checkpoint."""
    try:
        return records.read_json(path) if records.is_there(path) else None
    except ValueError as error:
        _LOG.warning("%s It is written again from the config that was given.", error)
        return None


def check_same(workdir: str | Path, was: Mapping[str, Any], now: Mapping[str, Any], ignore: Iterable[str] = ()) -> None:
    """Raises ValueError with the differences of two configs; ``ignore`` as for :func:`claim`."""
    lines = differences(was, json.loads(json.dumps(now)), ignore)
    if lines:
        raise ValueError(
            f"Workdir {workdir} holds a run of another config; choose another workdir or undo these changes "
            "(was -> now):\n" + "\n".join(lines)
        )


def differences(was: Mapping[str, Any], now: Mapping[str, Any], ignore: Iterable[str] = ()) -> list[str]:
    """``  key.subkey: was -> now`` for every entry that differs, up to a limit; ``ignore`` as for :func:`claim`."""
    was, now, ignored = _flat(was), _flat(now), tuple(ignore)
    different = [
        key
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key) and not any(f"{key}.".startswith(f"{name}.") for name in ignored)
    ]
    shown = different[:_MAX_DIFFERENCES]
    lines = [f"  {key}: {_short(was.get(key))} -> {_short(now.get(key))}" for key in shown]
    more = len(different) - len(shown)
    return lines + ([f"  ... and {more} more"] if more else [])


def _short(text: str | None) -> str:
    text = "(absent)" if text is None else text
    return text if len(text) <= 100 else f"{text[:100]} ..."


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        return {k: v for name, child in value.items() for k, v in _flat(child, f"{prefix}{name}.").items()}
    return {prefix[:-1]: json.dumps(value)}
