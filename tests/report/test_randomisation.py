"""The section on fresh weights: a table of every run and map, a figure with the numbers in words; or nothing at all."""

import json
import re
import shutil

import numpy as np
import pytest

from robust_saliency.report import report
from tests.report.fabricated_study import write_study
from tests.report.read_page import Page

POINTS = ["trained", "logits", "conv2", "conv1"]
FALLING = {"standard": (1.0, 0.5, 0.3, 0.1), "linf": (1.0, 0.8, 0.6, 0.4)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), seeds=(0,), runs=("standard", "linf"), num_examples=40)


def with_curves(directory, points=POINTS, runs=tuple(FALLING)):
    for run in runs:
        evaluation = directory / "seed0" / run / "evaluation"
        summary = json.loads((evaluation / "summary.json").read_text())
        about = {"title": "Parameter randomisation, cascading, SSIM", "description": "How alike it stays."}
        summary["randomisation"] = {"points": points, "orders": {"cascading": about}}
        (evaluation / "summary.json").write_text(json.dumps(summary))
        curve = np.tile(FALLING[run], (10, 1))
        curve[3] = np.nan  # a constant map
        arrays = {f"cascading/{method}": curve for method in ("gradient", "input_x_gradient")}
        np.savez(evaluation / "randomisation.npz", ids=np.arange(10), **arrays)
    return directory


def rendered(directory):
    return report(directory).read_text()


def test_an_evaluation_without_it_has_no_section(plain):
    html = rendered(plain)
    assert 'id="randomisation"' not in html and "#randomisation" not in html


def test_the_table_holds_the_mean_over_the_points_with_fresh_weights(plain, tmp_path):
    html = rendered(with_curves(_copied(plain, tmp_path)))
    rows = {header[0]: cells for _, header, cells in Page(html).rows("randomisation", "run")}
    assert rows["standard"][0]["value"] == "0.300" and rows["linf"][1]["value"] == "0.600"
    assert "made again for 10 images" in html
    # One of ten images in three points of two runs.
    assert "gradient 6 of 60, input_x_gradient 6 of 60. Points of one curve" in html
    alts = re.findall(r'alt="(Similarity of gradient maps[^"]*)"', html)
    assert (tmp_path / "copy" / "report" / "randomisation_gradient.png").stat().st_size > 5000
    assert len(alts) == 1 and "linf cascading 1.000 0.800 0.600 0.400" in alts[0]


def test_networks_of_other_layers_have_a_table_and_no_common_figure(plain, tmp_path):
    directory = with_curves(_copied(plain, tmp_path))
    with_curves(directory, ["trained", "logits", "stem", "block1_1"], runs=("linf",))
    html = rendered(directory)
    assert "have no axis in common" in html and "Similarity of gradient maps" not in html
    assert "randomisation" in Page(html).tables


def _copied(directory, place):
    return shutil.copytree(directory, place / "copy")
