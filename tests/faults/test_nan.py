"""A loss that becomes NaN: one message with the step and the last good checkpoint; a study goes on without the run."""

from configs import common
from robust_saliency import checkpoint, records
from tests import tiny
from tests.faults import poisoned, small_run

NAN = "--config.objective.name=tests.faults.poisoned:objective"
SAID = f"gradient_norm, loss became NaN or infinite in step {poisoned.STEP}; the last good checkpoint is of step 4"


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_ends_with_one_message_and_the_same_command_loses_nothing(tmp_path):
    words = ["--config=tests/faults/small_run.py", "--mode=train", f"--workdir={tmp_path}", NAN]
    before = None
    for _ in range(2):
        command = tiny.launch(*words)
        _, err = command.communicate(timeout=300)
        assert command.returncode == 2 and "Traceback" not in err, err
        assert err.splitlines()[-1].startswith(f"Error: {tmp_path}: {SAID}."), err
        assert before in (None, files(tmp_path / "checkpoints"))
        before = files(tmp_path / "checkpoints")
    assert checkpoint.load_variables(tmp_path / "checkpoints")[2] == 4


def get_config():
    """Of four runs one becomes NaN, and one would start from it."""
    config = small_run.get_config()
    config.study.runs = (
        common.run("standard", "Trained on clean images."),
        common.run("broken", "NaN.", objective={"name": "tests.faults.poisoned:objective"}),
        common.run("heir", "From the broken one.", init_from={"workdir": "../broken"}),
        common.run("wide", "Trained after that.", model={"width": 6}),
    )
    return config


def test_the_other_runs_of_a_study_are_finished_and_the_report_says_which_failed(tmp_path):
    command = tiny.launch("--config=tests/faults/test_nan.py", f"--workdir={tmp_path}", "--mode=study")
    _, err = command.communicate(timeout=300)
    assert command.returncode == 2 and "Traceback" not in err, err
    *_, message = err.splitlines()
    assert message.startswith(f"Error: {tmp_path}/report.html lacks 2 of 4 runs: "), err
    assert f"broken: {SAID}" in message
    assert "heir starts from ../broken, which failed" in message
    about = records.read_json(tmp_path / "study.json")
    assert [run["label"] for run in about["runs"]] == ["standard", "wide"]
    assert [run["label"] for run in about["failed"]] == ["broken", "heir"]
    page = (tmp_path / "report.html").read_text()
    assert "2 runs failed" in page and "broken, seed 0: failed" in page and "became NaN or infinite" in page
    assert not (tmp_path / "seed0" / "heir" / "checkpoints").exists()
