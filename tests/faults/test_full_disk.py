"""A disk that is full, or a limit on the size of a file: one message, nothing lost, and with room the same command goes
on to the same numbers. A disk that is read-only, and a workdir that cannot be."""

import re
import resource

import jax
import numpy as np
import pytest

from robust_saliency import checkpoint, load, records
from tests import tiny
from tests.faults import disks

CONFIG = "--config=tests/faults/small_run.py"
MODES = ("train", "evaluate", "report")
LIMIT = 64 * 2**10  # bytes a file: more than a config, less than the weights of a wide network and than a page


def started(mode, workdir, *more):
    return tiny.launch(f"--mode={mode}", f"--workdir={workdir}", *[CONFIG] * (mode == "train"), *more)


def done(command):
    _, err = command.communicate(timeout=300)
    assert command.returncode == 0, err


def ended(command):
    return command, command.communicate(timeout=300)[1]


def refused(command, err, *parts):
    """Exit status 2 and, but for lines of progress, one message with ``parts`` in it."""
    assert command.returncode == 2, err
    *progress, message = err.splitlines()
    assert message.startswith("Error: ") and all(part in message for part in parts), err
    assert all(re.search("compiled in|images/s|going on from", line) for line in progress), err
    return message


def limited(command, size=LIMIT):
    """No file of the command may become larger; Python ignores the signal, so that a write fails."""
    resource.prlimit(command.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    return command


def trained(workdir):
    """What training ends with, but for times."""
    rows = [{**row, "images_per_second": None} for row in records.MetricsLog(workdir).read()]
    weights = checkpoint.load_variables(workdir / "checkpoints", step="last")[0]["params"]
    return rows, [leaf.tobytes() for leaf in jax.tree.leaves(weights)]


def evaluated(workdir):
    return [(workdir / "evaluation" / f"{table}.csv").read_bytes() for table in ("examples", "maps")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    for mode in MODES:
        done(started(mode, workdir))
    return workdir


@pytest.fixture
def disk(tmp_path):
    place = tmp_path / "disk"
    disks.mount(place)
    yield place
    disks.unmount(place)


def fill_and_go_on(disk, free) -> bool:
    """Whether training failed on a disk with so many bytes free; it then went on to its end with room."""
    workdir = disk / "run"
    disks.leave(disk, free)
    command = started("train", workdir)
    _, err = command.communicate(timeout=300)
    if command.returncode == 0:
        return False
    refused(command, err, "No space left on device", str(workdir))
    kept = checkpoint.steps(workdir / "checkpoints")
    disks.enlarge(disk)
    again = started("train", workdir)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0 and ("going on from step" in err) == bool(kept), err
    return True


@pytest.mark.parametrize("free", [150_000, 350_000])
def test_training_on_a_full_disk_ends_with_one_message_and_goes_on_when_there_is_room(disk, undisturbed, free):
    assert fill_and_go_on(disk, free), "the run had room: this test shows nothing"
    assert trained(disk / "run") == trained(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("free", range(8_192, 600_000, 20_480))
def test_wherever_the_disk_is_full(disk, undisturbed, free):
    fill_and_go_on(disk, free)
    assert trained(disk / "run") == trained(undisturbed)


def test_what_cannot_be_written_of_an_evaluation_or_a_report_is_named_and_written_when_there_is_room(disk, undisturbed):
    workdir = disk / "run"
    done(started("train", workdir))
    for mode, written in (("evaluate", "evaluation/summary.json"), ("report", "report.html")):
        disks.leave(disk, 60_000)
        refused(*ended(started(mode, workdir)), f"{workdir}/", "cannot be written: No space left on device.")
        assert not (workdir / written).exists() and not list(workdir.rglob("*.tmp"))
        disks.enlarge(disk)
        done(started(mode, workdir))
    assert (trained(workdir), evaluated(workdir)) == (trained(undisturbed), evaluated(undisturbed))


def test_a_limit_on_the_size_of_a_file(tmp_path, undisturbed, monkeypatch):
    # JAX would leave half an entry in the cache of the other tests, and warn of it whenever it is read.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    workdir, wide = tmp_path / "run", tmp_path / "wide"
    commands = [limited(started("train", wide, "--config.model.width=32")), limited(started("train", workdir))]
    message = refused(*ended(commands[0]), f"Checkpoint 4 in {wide}/checkpoints cannot be written: File too large.")
    assert message.endswith("Steps that are there: none.")
    done(commands[1])
    for mode in ("evaluate", "report"):
        refused(*ended(limited(started(mode, workdir))), f"{workdir}/", "cannot be written: File too large.")
        done(started(mode, workdir))
    assert (trained(workdir), evaluated(workdir)) == (trained(undisturbed), evaluated(undisturbed))


def test_a_run_on_a_read_only_disk_is_read_by_code_and_refused_by_what_would_write(disk):
    workdir = disk / "run"
    done(started("train", workdir))
    weights = load(str(workdir))[1]["params"]["conv1"]["conv"]["kernel"]
    disks.make_read_only(disk)
    for command in [started(mode, workdir) for mode in MODES]:
        refused(*ended(command), f"Workdir {workdir} cannot be written: Read-only file system.")
    np.testing.assert_array_equal(load(str(workdir))[1]["params"]["conv1"]["conv"]["kernel"], weights)
    disks.make_writable(disk)
    done(started("train", workdir))


def test_a_workdir_below_a_file(tmp_path):
    (tmp_path / "file").write_text("kept")
    workdir = tmp_path / "file" / "run"
    said = {"train": "cannot be written: Not a directory.", "evaluate": "does not exist", "report": "does not exist"}
    commands = {mode: started(mode, workdir) for mode in said}
    for mode, part in said.items():
        refused(*ended(commands[mode]), f"Workdir {workdir} {part}")
    assert (tmp_path / "file").read_text() == "kept"
