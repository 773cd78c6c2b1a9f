"""Two processes of one run on this machine, which talk by Gloo: what they make together, and what becomes of one when
the other dies."""

import os
import signal
import time

import jax
import numpy as np
import pytest

from robust_saliency import checkpoint, preemption, processes, records, workdirs
from tests import tiny
from tests.faults import pair

CONFIG = "--config=tests/faults/pair_study.py"
RUN = "seed0/standard"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("together")
    for status, _, err in pair.finished(pair.started(workdir, CONFIG)):
        assert status == 0, err
    return workdir


def test_they_make_one_report_and_the_first_of_them_says_so(study):
    assert (study / "report.html").is_file()
    assert [run["label"] for run in records.read_json(study / "study.json")["runs"]] == ["standard"]
    rows = records.MetricsLog(study / RUN).read()
    assert [row["step"] for row in rows if row["split"] == "validation"] == [8, 16, 24]


def test_every_example_has_its_rows_once_and_they_are_those_of_one_process(study, tmp_path):
    """Up to rounding, which may turn the sign of a gradient: the images differ by one grey level at most."""
    run = study / RUN
    together = {name: records.read_csv(run / "evaluation" / f"{name}.csv") for name in ("examples", "maps")}
    arrays = {name: records.read_npz(run / "evaluation" / f"{name}.npz") for name in ("curves", "pictures")}
    command = tiny.launch("--mode=evaluate", f"--workdir={run}", "--config.mesh.num_devices=1")
    _, err = command.communicate(timeout=300)
    assert command.returncode == 0, err
    for name, table in together.items():
        alone = records.read_csv(run / "evaluation" / f"{name}.csv")
        assert list(table) == list(alone)
        for column, values in alone.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(table[column], values, rtol=1e-3, atol=1e-4, err_msg=column)
            else:
                np.testing.assert_array_equal(table[column], values)
    assert len(set(together["examples"]["id"])) == len(together["examples"]["id"]) == 24
    for name, held in arrays.items():
        alone = records.read_npz(run / "evaluation" / f"{name}.npz")
        assert {label: value.shape for label, value in held.items()} == {
            label: value.shape for label, value in alone.items()
        }
        np.testing.assert_array_equal(held["ids"], alone["ids"])


def weights(workdir):
    return checkpoint.load_variables(workdirs.checkpoints(workdir), step="last")[0]


def one_step(*words):
    """Of SGD: where a gradient is about 0, the first step of Adam would make its rounding a whole step."""
    fields = {"train__epochs": 1, "objective__name": "adversarial", "optimizer__name": "sgd", "model__width": 16}
    sizes = {"data__num_train": 16, "data__batch_size": 16, "objective__attack__num_steps": 2}
    return ("--config=configs/quickstart.py", "--mode=train", *tiny.flags(**fields, **sizes), *words)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    command = tiny.launch(*one_step(), f"--workdir={workdir}", "--config.mesh.num_devices=1")
    _, err = command.communicate(timeout=300)
    assert command.returncode == 0, err
    return weights(workdir)


@pytest.mark.parametrize("parameters", ["replicated", "sharded"])
def test_a_step_of_theirs_is_the_step_of_one(tmp_path, alone, parameters):
    """Adversarial training: PGD starts at each example's own key."""
    words = one_step("--config.mesh.num_devices=2", f"--config.mesh.parameters={parameters}")
    for status, _, err in pair.finished(pair.started(tmp_path, *words)):
        assert status == 0, err
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), weights(tmp_path), alone)


def test_when_one_ends_the_other_says_so_and_a_restart_goes_on(tmp_path):
    """Killed: the second; then the first, in which JAX's coordination runs. SIGTERM to one: both save the same step."""
    words = (CONFIG, "--mode=train", "--config.train.epochs=30")

    def steps():
        return checkpoint.steps(workdirs.checkpoints(tmp_path))

    def started_and_on_its_way():
        before = steps()
        commands = pair.started(tmp_path, *words)
        while steps() == before:
            assert commands[0].poll() is None
            time.sleep(0.1)
        return commands

    for killed in (1, 0):
        commands = started_and_on_its_way()
        commands[killed].kill()
        began = time.monotonic()
        status, _, err = pair.finished(commands)[1 - killed]
        assert time.monotonic() - began < 60
        assert status == preemption.EXIT_STATUS, err
        assert err.strip().endswith(processes.ANOTHER_DIED)
        assert "Traceback" not in err
    commands = started_and_on_its_way()
    os.kill(commands[1].pid, signal.SIGTERM)
    ends = pair.finished(commands)
    saved = steps()[-1]
    for status, _, err in ends:
        assert status == preemption.EXIT_STATUS, err
        assert f"step {saved} of 120 is saved" in err
    (status, _, err), (other, _, _) = pair.finished(pair.started(tmp_path, *words))
    assert (status, other) == (0, 0), err
    assert f"going on from step {saved} of 120" in err
    assert steps()[-1] == 120
