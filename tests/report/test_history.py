"""What training wrote down, over the phases of a run."""

import json

import numpy as np

from robust_saliency.report import history


def write(folder, rows, seconds):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if seconds:
        (folder / "training.json").write_text(json.dumps({"seconds": seconds}))


def row(step, epoch, loss, split="train"):
    return {"step": step, "split": split, "epoch": epoch, "loss": loss}


def test_epochs_and_steps_of_a_later_phase_count_on(tmp_path):
    write(tmp_path / "phases" / "1_head", [row(2, 0.5, 4.0), row(4, 1.0, 3.0), row(4, 1.0, 9.0, "validation")], 5.0)
    write(tmp_path, [row(3, 1.0, 2.0), row(6, 2.0, None), row(6, 2.0, 1.0), row(6, 2.0, 1.5)], None)
    config = {"seed": 0, "phases": [{"label": "head"}, {"label": "whole"}]}
    head, whole = history.read(tmp_path, config)
    assert (head.label, head.training) == ("head", {"seconds": 5.0})
    assert (whole.label, whole.training) == ("whole", {})
    np.testing.assert_array_equal(history.curve(head, "train", "loss"), [[0.5, 1.0], [4.0, 3.0]])
    np.testing.assert_array_equal(history.curve(head, "validation", "loss"), [[1.0], [9.0]])
    np.testing.assert_array_equal(history.curve(whole, "train", "loss"), [[2.0, 3.0], [2.0, 1.25]])
    assert [each["step"] for each in whole.rows] == [7, 10, 10, 10]


def test_a_run_without_phases_is_one_and_without_a_log_it_has_no_rows(tmp_path):
    (one,) = history.read(tmp_path, {})
    assert (one.label, one.rows, one.training) == ("", [], {})
