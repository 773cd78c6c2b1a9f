"""The study configs of real data, cut down to seconds, from the command's config to the report."""

import dataclasses
import os
import pathlib

import numpy as np
import pandas
import pytest

from configs import fashion_mnist, ham10000
from robust_saliency import config, config_fields, data, records, statistics, study
from robust_saliency.report import numbers

DATA_DIR = os.environ.get("ROBUST_SALIENCY_TFDS_DIR", "")
pytestmark = pytest.mark.skipif(not DATA_DIR, reason="ROBUST_SALIENCY_TFDS_DIR names no folder of prepared data")

TINY = {
    "data": {"data_dir": DATA_DIR, "num_train": 256, "num_validation": 64, "num_test": 64, "batch_size": 32},
    "model": {"width": 4},
    "mesh": {"num_devices": 2},
    "train": {"epochs": 1},
    "evaluation": {
        "batch_size": 32,
        "num_pictures": 4,
        "attacks": {"linf": {"num_steps": 3}, "l2": {"num_steps": 3}},
        "maps": {"integrated_gradients": {"num_steps": 4}, "smoothgrad": {"num_samples": 3}},
        "metrics": {"deletion": {"points": 3}, "insertion": {"points": 3}},
    },
}


def tiny_plain(module, **sizes):
    plain = config_fields.merge(
        config.to_plain(module.get_config("small")), {**TINY, "data": {**TINY["data"], **sizes}}
    )
    for run in plain["study"]["runs"][1:]:
        run["overrides"]["train"]["epochs"] = 1
    plain["study"]["runs"] = plain["study"]["runs"][:2]
    plain["evaluation"]["maps"] = {"gradient": plain["evaluation"]["maps"]["gradient"]}
    return plain


def run_study(plain, workdir):
    return pathlib.Path(study.study(plain, str(workdir))).read_text(encoding="utf-8")


def lesions_by_id(split):
    return dict(zip(split.gather(np.arange(len(split)))["id"].tolist(), split.groups.tolist(), strict=True))


def test_fashion_mnist_has_no_masks_and_says_so(tmp_path):
    page = run_study(tiny_plain(fashion_mnist), tmp_path)
    assert "Ankle boot" in page
    summary = records.read_json(tmp_path / "seed0" / "linf" / "evaluation" / "summary.json")
    assert summary["not_measured"]["lesion_mass"] == "the data has no lesion mask"
    assert set(summary["metrics"]) == {"gini", "entropy", "total_variation", "deletion", "insertion"}


# So many that some lesions are there in several images, and that a validation split made of images tears some apart.
LESIONS = {"num_validation": 256, "num_test": 256}


def test_ham10000_is_validated_on_lesions_that_training_never_saw():
    spec = config.parse(tiny_plain(ham10000, **LESIONS)).data
    loaded = data.load(spec)
    train, validation = set(loaded.train.groups), set(loaded.validation.groups)
    assert len(train) < len(loaded.train) and len(validation) < len(loaded.validation)
    assert not train & validation
    everything = data.load(dataclasses.replace(spec, num_train=0, num_validation=0))
    lesions = lesions_by_id(everything.train) | lesions_by_id(everything.validation)
    torn = data.load(dataclasses.replace(spec, group_field=""))
    ids = [split.gather(np.arange(len(split)))["id"].tolist() for split in (torn.train, torn.validation)]
    assert {lesions[i] for i in ids[0]} & {lesions[i] for i in ids[1]}, "without groups the same split tears no lesion"


def test_ham10000_is_grouped_by_lesion_and_has_its_mask(tmp_path):
    plain = tiny_plain(ham10000, **LESIONS)
    page = run_study(plain, tmp_path)
    folder = tmp_path / "seed0" / "standard" / "evaluation"
    examples, maps = (pandas.read_csv(folder / name) for name in ("examples.csv", "maps.csv"))
    assert set(examples["label"]) <= set(range(7))
    lesion = examples["id"].map(lesions_by_id(data.load(config.parse(plain).data).test))
    pairs = set(zip(examples["group"], lesion, strict=True))
    assert len(pairs) == lesion.nunique() == examples["group"].nunique() < len(examples) == 256
    assert f"256 test images in {lesion.nunique()} groups" in page
    for groups, shown in ((lesion, True), (examples["id"], False)):
        clean = statistics.bootstrap_mean(examples["correct"], groups, seed=0)
        assert (numbers.interval(clean.low, clean.high) in page) == shown
    masses = maps[maps["method"] == "lesion_mask"]["lesion_mass"].dropna()
    np.testing.assert_allclose(masses, 1, rtol=1e-5)
    rows = records.MetricsLog(tmp_path / "seed0" / "linf").read()
    validation = [row for row in rows if row["split"] == "validation"]
    assert {"balanced_accuracy", "balanced_robust_accuracy"} <= set(validation[-1])
