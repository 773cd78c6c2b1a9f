"""configs/folder.py on a folder of images, cut down to seconds: from the config of the command to the report."""

import numpy as np
import pandas
import pytest
from PIL import Image

from configs import folder
from robust_saliency import config, config_fields, records, study

TINY = {
    "data": {"image_size": 16, "batch_size": 16},
    "model": {"width": 4},
    "mesh": {"num_devices": 1},
    "train": {"epochs": 6},
    "evaluation": {
        "num_examples": 10,
        "batch_size": 8,
        "num_pictures": 4,
        "attacks": {"linf": {"num_steps": 3}, "l2": None},
        "maps": {"integrated_gradients": None, "smoothgrad": None},
        "metrics": {"deletion": {"points": 3}, "insertion": {"points": 3}},
    },
}


def write_class(directory, low, count):
    """Images of several sizes and kinds of file, with pixels of ``low`` to ``low`` + 100."""
    directory.mkdir()
    rng = np.random.default_rng(low)
    for k in range(count):
        pixels = rng.integers(low, low + 100, (20 + k % 3, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"{k:03d}{('.png', '.jpg')[k % 2]}", quality=95)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    images, workdir = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("run")
    write_class(images / "night", 0, 80)
    write_class(images / "noon", 150, 50)
    plain = config_fields.merge(config.to_plain(folder.get_config()), TINY)
    plain["data"]["data_dir"] = str(images)
    assert [run["label"] for run in plain["study"]["runs"]] == ["standard", "linf", "l2"]
    for run in plain["study"]["runs"][1:]:
        run["overrides"]["train"]["epochs"] = 2
        run["overrides"]["objective"]["attack"]["num_steps"] = 2
    plain["study"]["runs"] = plain["study"]["runs"][:2]
    study.study(plain, str(workdir))
    return workdir


def test_a_folder_of_images_is_learnt_and_reported(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "night" in page and "noon" in page
    examples = pandas.read_csv(finished / "seed0" / "standard" / "evaluation" / "examples.csv")
    assert len(examples) == 10 and set(examples["label"]) == {0, 1}
    assert examples["correct"].mean() == 1  # dark against bright
    rows = records.MetricsLog(finished / "seed0" / "linf").read()
    assert "balanced_robust_accuracy" in rows[-1] and rows[-1]["split"] == "validation"


def test_what_needs_a_mask_is_left_out_with_the_reason(finished):
    summary = records.read_json(finished / "seed0" / "linf" / "evaluation" / "summary.json")
    assert set(summary["metrics"]) == {"gini", "entropy", "total_variation", "deletion", "insertion"}
    assert summary["not_measured"] == {
        "pointing_game": "the data has no lesion mask",
        "lesion_mass": "the data has no lesion mask",
        "lesion_rank": "the data has no lesion mask",
        "evidence_mass": "the data has no evidence mask",
        "evidence_given_lesion": "the data has no evidence and no lesion mask",
    }
