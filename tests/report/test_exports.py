"""The files beside the page: figures that can be looked at, and the rows of the CSV files without a change."""

import base64
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from robust_saliency import records
from robust_saliency.report import report
from robust_saliency.workdirs import Workdir
from tests.report.fabricated_study import write_study

SEEDS, RUNS = (0, 1), ("standard", "l2")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = write_study(tmp_path_factory.mktemp("study"), seeds=SEEDS, runs=RUNS, num_examples=40)
    report(folder)
    return folder


def evaluations(study):
    runs = json.loads((study / "study.json").read_text())["runs"]
    return [(run["seed"], run["label"], study / run["dir"] / "evaluation") for run in runs]


@pytest.mark.parametrize("name", ["examples", "maps"])
def test_rows_are_those_of_the_csv_files_after_seed_and_run(study, name):
    parts = []
    for seed, run, folder in evaluations(study):
        rows = pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values={"pointing": [""]})
        rows.insert(0, "run", run)
        rows.insert(0, "seed", seed)
        parts.append(rows)
    found = pd.read_parquet(study / "report" / f"{name}.parquet")
    pd.testing.assert_frame_equal(found, pd.concat(parts, ignore_index=True), check_dtype=False, rtol=1e-15)
    if name == "maps":
        assert found["pointing"].isna().sum() == len(found[found["id"] == 3])


def test_curves_are_the_arrays_a_row_a_point(study):
    found = pd.read_parquet(study / "report" / "curves.parquet")
    assert list(found) == ["seed", "run", "method", "metric", "id", "point", "fraction", "value"]
    indexed = found.set_index(["seed", "run", "method", "metric"]).sort_index()
    count = 0
    for seed, run, folder in evaluations(study):
        curves = np.load(folder / "curves.npz")
        for method in ("gradient", "input_x_gradient", "random"):
            rows = indexed.loc[(seed, run, method, "deletion_auc")]
            table = rows.pivot(index="id", columns="point", values="value")
            np.testing.assert_array_equal(table.loc[curves["ids"]], curves[f"{method}/deletion_auc"])
            fractions = rows.drop_duplicates("point").sort_values("point")["fraction"]
            np.testing.assert_array_equal(fractions, curves["fractions/deletion_auc"])
            count += len(rows)
    assert count == len(found)


def test_figures_can_be_looked_at(study):
    names = {path.stem for path in (study / "report").glob("*.png")}
    methods = ("gradient", "input_x_gradient")
    assert names == {"training", *(f"{kind}_{method}" for kind in ("curves", "pictures") for method in methods)}
    page = (study / "report.html").read_text()
    for path in (study / "report").glob("*.png"):
        picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert min(picture.shape[:2]) > 300 and len(np.unique(picture @ [65536, 256, 1])) > 100
        assert (base64.b64encode(path.read_bytes()).decode() in page) == (not path.stem.startswith("pictures"))


def test_a_sheet_of_pictures_has_the_colours_of_the_maps_and_names_what_cannot_be_drawn(study):
    sheet = np.asarray(Image.open(study / "report" / "pictures_input_x_gradient.png").convert("RGB")).astype(int)
    red = (sheet[..., 0] > sheet[..., 2] + 60).mean()
    blue = (sheet[..., 2] > sheet[..., 0] + 60).mean()
    assert red > 0.02 and blue > 0.02
    gradient = np.asarray(Image.open(study / "report" / "pictures_gradient.png").convert("RGB")).astype(int)
    assert (gradient.sum(-1) < 60).mean() > 0.2 > (sheet.sum(-1) < 60).mean()


def test_equal_files_in_give_equal_bytes_out_and_what_is_measured_no_more_goes(study):
    before = {path.name: path.read_bytes() for path in (study / "report").iterdir()}
    for name in ("curves_smoothgrad.png", "pictures_smoothgrad.png", "notes.txt"):
        (study / "report" / name).write_bytes(b"old")
    report(study)
    after = {path.name: path.read_bytes() for path in (study / "report").iterdir()}
    assert after == before | {"notes.txt": b"old"}
    (study / "report" / "notes.txt").unlink()


def test_files_are_listed_in_the_manifest_of_the_workdir(tmp_path):
    folder = write_study(tmp_path / "study", seeds=(0,), runs=("standard",), num_examples=10)
    with Workdir(folder):
        report(folder)
    listed = records.read_json(folder / "manifest.json")
    assert {name for name in listed if name.startswith("report/")} == {
        f"report/{path.name}" for path in (folder / "report").iterdir()
    }


def test_without_pictures_curves_and_training_there_are_rows_alone_and_a_group_may_be_a_text_in_one_run(tmp_path):
    folder = write_study(tmp_path, seeds=(0,), runs=RUNS, num_examples=10)
    for path in folder.rglob("metrics.jsonl"):
        path.unlink()
    for path in folder.rglob("curves.npz"):
        path.unlink()
    for path in folder.rglob("pictures.npz"):
        np.savez(path)
    for path in (folder / "seed0" / "l2").rglob("*.csv"):
        pd.read_csv(path).assign(group=7).to_csv(path, index=False)
    report(folder)
    assert {path.name for path in (folder / "report").iterdir()} == {"examples.parquet", "maps.parquet"}
    groups = pd.read_parquet(folder / "report" / "examples.parquet").groupby("run")["group"].unique()
    assert groups["l2"].tolist() == ["7"] and groups["standard"].tolist() == [f"lesion_{i}" for i in range(5)]
