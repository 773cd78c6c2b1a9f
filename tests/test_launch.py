"""The command line as a user meets it: in processes of its own, killed, and given every kind of bad input."""

import pathlib
import re
import shutil
import time

import chex
import jax
import numpy as np
import PIL.Image
import pytest

from robust_saliency import checkpoint, records
from robust_saliency.config_sections import Neurons
from robust_saliency.workdirs import Workdir
from tests import tiny
from tests.data.fabricated import write_images

CONFIG = "--config=configs/quickstart.py"


def train_words(workdir, *more):
    return [CONFIG, f"--workdir={workdir}", "--mode=train", *tiny.SMALL_FLAGS, *more]


def finished(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("launch") / "run"
    status, _, err = finished(tiny.process(*train_words(workdir)))
    assert status == 0, err
    return workdir


def test_a_run_killed_after_an_epoch_ends_bitwise_equal(tmp_path):
    words = [*tiny.SMALL_FLAGS[:-3], *tiny.flags(train__epochs=24, train__validate_every=1, train__checkpoint_every=1)]
    places = [tmp_path / "whole", tmp_path / "killed"]
    commands = [[CONFIG, f"--workdir={place}", "--mode=train", *words] for place in places]
    whole, killed = (tiny.launch(*command) for command in commands)
    directory = places[1] / "checkpoints"
    deadline = time.monotonic() + 240
    while not (checkpoint.steps(directory) and checkpoint.steps(directory)[-1] >= 8) and time.monotonic() < deadline:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    assert checkpoint.steps(directory)[-1] < 96, "the run ended before it was killed: this test shows nothing"
    status, _, err = finished(tiny.launch(*commands[1]))
    assert status == 0, err
    assert "going on from step" in err
    status, _, err = finished(whole)
    assert status == 0, err
    ends = [checkpoint.load_variables(place / "checkpoints", step=96)[0] for place in places]
    chex.assert_trees_all_equal(jax.tree.leaves(ends[0]), jax.tree.leaves(ends[1]))
    rows = [[row for row in records.MetricsLog(place).read() if row["split"] == "validation"] for place in places]
    assert rows[0] == rows[1]


def test_modes_of_a_trained_run_need_no_config(trained, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 30)), ("b.jpg", (32, 32))):
        PIL.Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(images / name)
    words = tiny.flags(evaluation__batch_size=8, evaluation__maps__smoothgrad__num_samples=2)
    explain = tiny.launch("--mode=explain", f"--workdir={trained}", f"--images={images}", *words)
    status, out, err = finished(explain)
    assert status == 0, err
    rows = records.read_csv(trained / "explanations" / "predictions.csv")
    assert [pathlib.Path(name).name for name in rows["file"]] == ["a.png", "b.jpg"]
    assert set(rows["class"]) <= {"nevus", "melanoma", "keratosis"}
    total = sum(rows[f"probability:{name}"] for name in ("nevus", "melanoma", "keratosis"))
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    maps = records.read_npz(trained / "explanations" / "maps.npz")
    assert maps["gradient"].shape == (2, 32, 32)
    assert pathlib.Path(out.strip()).exists()

    changed = tiny.flags(evaluation__batch_size=8, evaluation__maps__smoothgrad__statistic="squared")
    evaluated = tiny.launch("--mode=evaluate", f"--workdir={trained}", *changed)
    assert finished(evaluated)[0] == 0
    status, out, err = finished(tiny.launch("--mode=report", f"--workdir={trained}"))
    assert status == 0, err
    methods = records.read_json(trained / "evaluation" / "summary.json")["methods"]
    assert "statistic squared" in methods["smoothgrad"]["description"], "a field that was left empty can be set later"
    status, _, err = finished(tiny.launch(f"--workdir={trained}"))
    assert (status, (trained / "study.json").exists()) == (0, False), "a run does not become the study of its config"
    page = (trained / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "Trained with" in page and "--mode=train" in page and ", trained in" in page


MISTAKES = {
    "mode": ([CONFIG, "--workdir={new}", "--mode=trian"], "Unknown mode 'trian'. Did you mean 'train'?"),
    "field": (
        [CONFIG, "--workdir={new}", "--config.train.epoch=3"],
        "config.train: Unknown field 'epoch'. Did you mean 'epochs'?",
    ),
    "type": (
        [CONFIG, "--workdir={new}", "--config.train.epochs", "many"],
        "config.train.epochs must be a whole number, got 'many'.",
    ),
    "config_size": (
        ["--config=configs/ham10000.py:tiny", "--workdir={new}"],
        "Unknown size 'tiny'. Choices: full, small",
    ),
    "attack": (
        [CONFIG, "--workdir={new}", "--mode=train", "--config.objective.name=adversarial",
         "--config.objective.attack.name=pgdd"],
        "Did you mean 'pgd'?",
    ),
    "metric": ([CONFIG, "--workdir={new}", "--config.evaluation.metrics.gini.name=ginni"], "Did you mean 'gini'?"),
    "epsilon": (
        [CONFIG, "--workdir={new}", "--config.evaluation.attacks.linf.epsilon=-0.1"],
        "config.evaluation.attacks.linf.epsilon must be at least 0, got -0.1",
    ),
    "robustness_steps": (
        [CONFIG, "--workdir={new}", "--mode=robustness", "--config.robustness.steps=0"],
        "config.robustness.steps must be at least 1, got 0",
    ),
    "roar_map": (
        [CONFIG, "--workdir={new}", "--mode=roar", "--config.roar.methods=('gradeint',)"],
        "Unknown map in config.roar.methods 'gradeint'. Did you mean 'gradient'?",
    ),
    "section_of_no_version": (["--workdir={new}", "--mode=roar", "--config.raor.epochs=1"], "field 'raor'"),
    "field_of_no_workdir": (["--mode=robustness", "--config.robustness.norm=l2"], "--workdir=DIR is needed"),
    "field_of_no_run": (
        ["--mode=robustness", "--workdir={new}", "--config.robustness.norm=l2"],
        "Workdir {new} does not exist: give --config=FILE",
    ),
    "no_workdir": ([CONFIG], "--workdir=DIR is needed"),
    "unwritable_workdir": ([CONFIG, "--workdir=/dev/null/run"], "cannot be written"),
    "no_config": (["--workdir={new}"], "does not exist: give --config=FILE"),
    "config_file": (["--config=configs/quickstrat.py", "--workdir={new}"], "Did you mean configs/quickstart.py?"),
    "missing_run": (["--mode=report", "--workdir={new}"], "{new}"),
    "unprepared_data": (
        [CONFIG, "--workdir={new}", "--mode=train", "--config.data.name=mnist", "--config.data.data_dir={new}"],
        "download_and_prepare",
    ),
    "coordinator_alone": (
        [CONFIG, "--workdir={new}", "--coordinator=host:1234"],
        "--coordinator say who the processes of a run are: give --multihost too.",
    ),
    "some_of_three": (
        [CONFIG, "--workdir={new}", "--multihost", "--coordinator=host:1234"],
        "--num_processes and --process_id is missing",
    ),
    "process_of_too_few": (
        [CONFIG, "--workdir={new}", "--multihost", "--coordinator=host:1", "--num_processes=2", "--process_id=2"],
        "--process_id must lie in 0 to --num_processes - 1 = 1, got 2.",
    ),
    "nobody_says_who": ([CONFIG, "--workdir={new}", "--multihost"], "the processes did not find each other"),
    "report_of_several": (
        ["--mode=report", "--workdir={new}", "--multihost"],
        "--mode=report is the work of one process: leave --multihost out.",
    ),
    "sharded": (
        [CONFIG, "--workdir={new}", "--config.mesh.parameters=shraded"], "Did you mean 'sharded'?"
    ),
    "argument": ([CONFIG, "--workdir={new}", "train"], "Arguments are given as --name=value, got train"),
}  # fmt: skip
FROM_NOTHING = ("mode", "argument")


def test_every_mistake_is_one_message_and_exit_status_2(tmp_path):
    places = {name: str(tmp_path / name) for name in MISTAKES}
    records.write_json(pathlib.Path(places["section_of_no_version"]) / "config.json", {"seed": 0})
    running = {
        name: (tiny.process if name in FROM_NOTHING else tiny.launch)(
            *(word.replace("{new}", places[name]) for word in words)
        )
        for name, (words, _) in MISTAKES.items()
    }
    for name, (_, message) in MISTAKES.items():
        status, _, err = finished(running[name])
        assert status == 2, f"{name}: {err}"
        assert "Traceback" not in err, f"{name}: {err}"
        assert message.replace("{new}", places[name]) in err, f"{name}: {err}"
        assert len(err.strip().splitlines()) <= 2, f"{name}: {err}"


def test_bad_data_is_one_message_and_exit_status_2(tmp_path):
    write_images(tmp_path / "one_class" / "nevus", 4)
    for name in ("nevus", "melanoma"):
        write_images(tmp_path / "damaged" / name, 4)
    (tmp_path / "damaged" / "nevus" / "002.png").write_bytes(b"no image")
    messages = {"one_class": "at least two classes are needed, found 1", "damaged": "002.png"}
    running = {
        name: tiny.launch(
            *train_words(tmp_path / f"run_{name}"),
            "--config.data.name=folder",
            f"--config.data.data_dir={tmp_path / name}",
        )
        for name in messages
    }
    for name, message in messages.items():
        status, _, err = finished(running[name])
        assert (status, "Traceback" in err) == (2, False), err
        assert message in err
        assert len(err.strip().splitlines()) == 1, err


def test_a_loss_that_is_not_finite_is_one_message_and_the_checkpoints_stay(trained, tmp_path):
    diverging = tiny.flags(optimizer__learning_rate=1e30, optimizer__name="sgd", optimizer__clip_norm=0.0)
    status, _, err = finished(tiny.launch(*train_words(tmp_path / "run"), *diverging))
    assert (status, "Traceback" in err) == (2, False), err
    message = err.strip().splitlines()[-1]
    assert re.search(r"became NaN or infinite in step \d+; no checkpoint had been written yet\. Try a lower", message)


def files_in(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def flip_a_bit(step):
    largest = max((path for path in step.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(bytes(content))


def test_a_run_goes_on_past_a_damaged_last_checkpoint_and_says_so(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    flip_a_bit(run / "checkpoints" / "8" / "variables")
    status, _, err = finished(tiny.launch(*train_words(run)))
    assert status == 0, err
    assert "Warning: Checkpoint 8 in" in err and "is damaged and passed over" in err
    assert "going on from step 4 of 8" in err
    ends = [checkpoint.load_variables(place / "checkpoints", step=8)[0] for place in (run, trained)]
    chex.assert_trees_all_equal(*ends)


def test_where_every_checkpoint_is_damaged_nothing_is_lost(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    for step in (4, 8):
        flip_a_bit(run / "checkpoints" / str(step) / "variables")
    before = files_in(run / "checkpoints")
    status, _, err = finished(tiny.launch(*train_words(run)))
    assert (status, "Traceback" in err) == (2, False), err
    assert "Every checkpoint tried in" in err.strip().splitlines()[-1]
    assert files_in(run / "checkpoints") == before


def test_a_workdir_of_another_config_is_refused_and_loses_nothing(trained):
    before = files_in(trained / "checkpoints")
    status, _, err = finished(tiny.launch(*train_words(trained, "--config.model.width=5")))
    assert (status, "Traceback" in err) == (2, False), err
    assert "model.width: 4 -> 5" in err
    assert files_in(trained / "checkpoints") == before


def test_neurons_of_a_run_from_before_there_was_the_mode_and_a_misspelt_field_of_it(trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    old = {name: section for name, section in records.read_json(workdir / "config.json").items() if name != "neurons"}
    with Workdir(workdir):
        records.write_json(workdir / "config.json", old)
    words = ["--mode=neurons", f"--workdir={workdir}", "--config.neurons.layers=conv3"]
    looked, misspelt = tiny.launch(*words), tiny.launch(*words, "--config.neurons.num_tpo=4")
    status, _, err = finished(misspelt)
    assert (status, err) == (2, "Error: config.neurons: Unknown field 'num_tpo'. Did you mean 'num_top'? Choices: "
                                f"{', '.join(sorted(Neurons.__dataclass_fields__))}.\n")  # fmt: skip
    status, out, err = finished(looked)
    assert status == 0, err
    assert out.strip() == str(workdir / "neurons" / "neurons.html")
    assert "conv3: 16 units" in err and "Layer conv3" in (workdir / "neurons" / "neurons.html").read_text()


def test_help_is_no_error():
    status, out, _ = finished(tiny.process("--help"))
    assert status == 0 and "--workdir" in out
