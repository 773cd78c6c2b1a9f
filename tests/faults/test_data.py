"""A data file that vanishes in mid-run: one message that names it, the checkpoints stay, and when it is back the same
command goes on to the undisturbed weights. Images are streamed here; what is decoded in memory needs no file."""

import shutil
import time

import jax

from robust_saliency import checkpoint
from tests import tiny
from tests.data.fabricated import write_images

EPOCHS = 40
WORDS = [
    "--config=configs/folder.py",
    "--mode=train",
    *tiny.flags(data__image_size=8, data__batch_size=8, data__in_memory="no", data__class_balanced=False),
    *tiny.flags(model__width=4, train__epochs=EPOCHS, train__validate_every=20, train__checkpoint_every=2),
    *tiny.flags(mesh__num_devices=1, train__log_every=1000),
]


def weights(workdir):
    variables = checkpoint.load_variables(workdir / "checkpoints", step="last")[0]
    return [leaf.tobytes() for leaf in jax.tree.leaves(variables)]


def finished(command):
    _, err = command.communicate(timeout=300)
    return command.returncode, err


def after_a_checkpoint(command, workdir):
    """Waits until a step of the run is saved."""
    deadline = time.monotonic() + 240
    while not checkpoint.steps(workdir / "checkpoints") and time.monotonic() < deadline:
        assert command.poll() is None, command.communicate()
        time.sleep(0.01)


def refused(command, message):
    status, err = finished(command)
    assert status == 2 and "Traceback" not in err, err
    assert err.splitlines()[-1].startswith(f"Error: {message}"), err


def test_an_image_that_vanishes_in_mid_run_is_named_and_training_goes_on_when_it_is_back(tmp_path):
    for number, split in enumerate(("train", "validation", "test")):
        for name in ("cat", "dog"):
            write_images(tmp_path / "images" / split / name, 16, seed=number)
    words = [*WORDS, f"--config.data.data_dir={tmp_path / 'images'}"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = tiny.launch(*words, f"--workdir={broken}")
    after_a_checkpoint(command, broken)
    lost = tmp_path / "images" / "train" / "dog" / "007.png"
    lost.rename(tmp_path / "elsewhere.png")
    refused(command, f"Cannot read the image {lost}: [Errno 2] No such file or directory")
    kept = checkpoint.steps(broken / "checkpoints")
    assert kept and kept[-1] < EPOCHS * 4, "the run had ended: this test shows nothing"
    refused(tiny.launch(*words, f"--workdir={broken}"), "The data position belongs to another order of examples: ")
    (tmp_path / "elsewhere.png").rename(lost)
    status, err = finished(tiny.launch(*words, f"--workdir={broken}"))
    assert status == 0 and f"going on from step {kept[-1]} of" in err, err
    status, err = finished(tiny.launch(*words, f"--workdir={whole}"))
    assert status == 0, err
    assert weights(broken) == weights(whole)


def test_a_file_of_records_is_held_open_so_that_a_run_ends_without_it_and_the_next_start_names_it(tiny_tfds, tmp_path):
    place = shutil.copytree(tiny_tfds, tmp_path / "tfds")
    words = [*WORDS, "--config.data.name=tiny", f"--config.data.data_dir={place}"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = tiny.launch(*words, f"--workdir={broken}")
    after_a_checkpoint(command, broken)
    lost = min(place.rglob("*train*array_record-*"))
    lost.rename(tmp_path / "elsewhere")
    assert checkpoint.steps(broken / "checkpoints")[-1] < EPOCHS * 6, "the run had ended: this test shows nothing"
    status, err = finished(command)
    assert status == 0, err
    said = f"tiny/1.0.0, split 'train': cannot read example 0 from {lost}: open() failed: No such file or directory"
    refused(tiny.launch(*words, f"--workdir={whole}"), said)
    (tmp_path / "elsewhere").rename(lost)
    status, err = finished(tiny.launch(*words, f"--workdir={whole}"))
    assert status == 0, err
    assert weights(broken) == weights(whole)
