"""Damaged checkpoints: training passes over a step that is not whole, what reads weights refuses it; the user is told,
and no file is deleted."""

import logging
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import checkpoint
from tests.checkpoint.fabricated_runs import assert_restores, assert_same, files, largest_file, run_of, save_run

_KILLED = """
import os, signal, sys, time
import jax.numpy as jnp
from robust_saliency import checkpoint
saver = checkpoint.Checkpointer(sys.argv[1])
for step in (1, 2):
    if step == 2:
        saver.wait()
    variables = {"params": {"w": jnp.arange(4e6) * step}, "state": {}}
    saver.save(step, variables=variables, trainer={"step": step}, position={"at": step}, config={}, metrics={})
began = time.monotonic()
while not any("orbax-checkpoint-tmp" in name for name in os.listdir(sys.argv[1])) and time.monotonic() < began + 60:
    pass  # the thread that saves may not have begun
os.kill(os.getpid(), signal.SIGKILL)
"""


def _truncate(step: Path) -> None:
    largest = largest_file(step)
    os.truncate(largest, largest.stat().st_size // 2)


def _cut_json(step: Path, item: str) -> None:
    path = step / item / "metadata"
    path.write_text(path.read_text()[:-2])


def _empty(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


def _edit(step: Path) -> None:
    path = step / "config" / "metadata"
    path.write_text(path.read_text().replace("20", "21"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncate, "item (variables|trainer) is unreadable"),
        (lambda step: largest_file(step).unlink(), "item (variables|trainer) is unreadable"),
        (lambda step: (step / "variables" / "manifest.ocdbt").unlink(), "item variables holds 0 of 4 arrays"),
        (lambda step: (step / "trainer" / "_METADATA").write_text("{"), "item trainer is unreadable"),
        (lambda step: shutil.rmtree(step / "variables"), "item variables is missing"),
        (lambda step: shutil.rmtree(step / "config"), "item config is missing"),
        (lambda step: _cut_json(step, "config"), "item config is unreadable"),
        (lambda step: _cut_json(step, "record"), "item record is unreadable"),
        (_edit, "item config differs from its checksum"),
        (_empty, "item record is missing"),
    ],
    ids=[
        "data file truncated",
        "data file missing",
        "manifest missing",
        "metadata cut",
        "variables missing",
        "config missing",
        "config cut",
        "record cut",
        "config edited",
        "empty directory",
    ],
)
def test_a_damaged_step_is_passed_over_and_the_user_told(directory, caplog, capfd, damage, reason):
    damage(directory / "20")
    before = files(directory)
    assert_restores(directory, 10)
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.getMessage().startswith(f"Checkpoint 20 in {directory} is damaged and passed over: item ")
    assert re.search(reason, warning.getMessage())
    assert "\n" not in warning.getMessage()
    assert capfd.readouterr().err == ""
    assert files(directory) == before


@pytest.mark.parametrize("item", ["variables", "trainer"])
def test_a_flipped_bit_never_gives_wrong_values(directory, item):
    path = largest_file(directory / "20" / item)
    good = path.read_bytes()
    chance = random.Random(0)
    fallen_back = 0
    for _ in range(6):
        data = bytearray(good)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        with checkpoint.Checkpointer(directory) as saver:
            restored = saver.restore(*run_of(0))
        assert_same((restored.variables, restored.trainer), run_of(restored.step))
        fallen_back += restored.step == 10
    assert fallen_back >= 3


@pytest.mark.parametrize("step", ["best", "last", 20])
def test_numbers_of_another_network_are_no_replacement_so_load_refuses(directory, step):
    shutil.rmtree(directory / "20" / "variables")
    before = files(directory)
    with pytest.raises(ValueError) as error:
        checkpoint.load_variables(directory, step=step)
    said = "is damaged (step 20: item variables is missing); no file was deleted."
    advice = " Take another by its number (10), or train again: that makes a damaged last step anew." * (step != 20)
    assert str(error.value) == f"Every checkpoint tried in {directory} {said}{advice}"
    assert files(directory) == before
    variables, _, step = checkpoint.load_variables(directory, step=10)
    assert step == 10
    assert_same(variables, run_of(10)[0])


def test_a_step_whose_score_is_unreadable_is_not_silently_no_candidate(tmp_path, caplog):
    with checkpoint.Checkpointer(tmp_path, best_metric="accuracy") as saver:
        save_run(saver, 1, accuracy=0.9)
        save_run(saver, 2, accuracy=0.5)
    shutil.rmtree(tmp_path / "1" / "record")
    assert checkpoint.best_step(tmp_path) == 2
    assert "Checkpoint 1 in" in caplog.text and "may or may not be the best: item record is missing" in caplog.text
    with pytest.raises(ValueError, match=r"^Checkpoint 1 in \S* may or may not be the best: item record is missing\."):
        checkpoint.load_variables(tmp_path)
    assert checkpoint.load_variables(tmp_path, step=2)[2] == 2


def test_where_all_is_damaged_one_sentence_says_so_and_nothing_is_deleted(directory):
    _truncate(directory / "10")
    shutil.rmtree(directory / "20" / "trainer")
    before = files(directory)
    with checkpoint.Checkpointer(directory) as saver, pytest.raises(ValueError) as error:
        saver.restore(*run_of(0))
    assert "\n" not in str(error.value)
    assert "is damaged (step 20: item trainer is missing; step 10: item" in str(error.value)
    assert files(directory) == before


def test_a_damaged_step_is_set_aside_when_it_is_saved_again(directory):
    _truncate(directory / "20")
    damaged = files(directory / "20")
    with checkpoint.Checkpointer(directory) as saver:
        assert saver.restore(*run_of(0)).step == 10
        assert save_run(saver, 20)
        assert not save_run(saver, 20)
    assert files(directory / "20.damaged") == damaged
    assert checkpoint.steps(directory) == [10, 20]
    assert_restores(directory, 20)
    _truncate(directory / "20")
    with checkpoint.Checkpointer(directory) as saver:
        saver.restore(*run_of(0))
        save_run(saver, 20)
    assert sorted(path.name for path in directory.iterdir()) == ["10", "20", "20.damaged", "20.damaged-2"]


def test_damaged_newer_steps_do_not_push_out_the_whole_ones(directory):
    shutil.copytree(directory / "20", directory / "30")
    for step in ("20", "30"):
        shutil.rmtree(directory / step / "variables")
    with checkpoint.Checkpointer(directory, keep_last=2) as saver:
        assert saver.restore(*run_of(0)).step == 10
        save_run(saver, 15)
        saver.wait()
        assert checkpoint.steps(directory) == [10, 15, 20, 30]
        assert saver.restore(*run_of(0)).step == 15


def test_leftovers_of_a_save_are_no_step(directory):
    shutil.copytree(directory / "20", directory / "30.orbax-checkpoint-tmp")
    assert checkpoint.steps(directory) == [10, 20]
    assert_restores(directory, 20)


def test_a_run_killed_while_it_saves_goes_on_from_the_step_before(tmp_path):
    killed = subprocess.run([sys.executable, "-c", _KILLED, tmp_path], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()
    abstract = {"params": {"w": jax.ShapeDtypeStruct((4_000_000,), jnp.float32)}, "state": {}}
    assert checkpoint.steps(tmp_path) == [1]
    assert any("orbax-checkpoint-tmp" in path.name for path in tmp_path.iterdir())
    with checkpoint.Checkpointer(tmp_path) as saver:
        restored = saver.restore(abstract, {"step": 0})
        assert (restored.step, restored.position) == (1, {"at": 1})
        np.testing.assert_array_equal(restored.variables["params"]["w"], np.arange(4e6, dtype=np.float32))
        doubled = jax.tree.map(lambda array: array * 2, restored.variables)
        saver.save(2, variables=doubled, trainer={"step": 2}, position={}, config={}, metrics={})
        restored = saver.restore(abstract, {"step": 0})
    assert restored.step == 2
    np.testing.assert_array_equal(restored.variables["params"]["w"], 2 * np.arange(4e6, dtype=np.float32))
