"""The page of an image shows the numbers of its rows, of every network, and leads to the pages beside it and back."""

import re

import pandas as pd
import pytest

from robust_saliency.report import load, numbers, page, report
from tests.report.fabricated_study import ATTACKS, CLASSES, METHODS, METRICS, write_study
from tests.report.read_page import Page

SEEDS, RUNS = (0, 1), ("standard", "l2")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), seeds=SEEDS, runs=RUNS, num_examples=40)


@pytest.fixture(scope="module")
def text(study):
    return report(study).read_text()


@pytest.mark.parametrize("image", range(5))
def test_every_score_of_every_map_and_network_is_that_of_its_row(study, text, image):
    rows = Page(text).tables[f"scores {image}"]
    sections = [
        header[0].removesuffix("floor").removesuffix("true mask") for kind, header, _ in rows if kind == "section"
    ]
    assert sections == list(METHODS)
    shown, method = {}, None
    for kind, header, cells in rows[1:]:
        if kind == "section":
            method = header[0].removesuffix("floor").removesuffix("true mask")
        else:
            shown[method, header[0]] = [cell["text"] for cell in cells]
    assert len(shown) == len(METHODS) * len(SEEDS) * len(RUNS)
    for seed in SEEDS:
        for run in RUNS:
            maps = pd.read_csv(study / f"seed{seed}" / run / "evaluation" / "maps.csv").set_index(["method", "id"])
            for method in METHODS:
                values = maps.loc[(method, image), list(METRICS)].astype(float)
                expected = [numbers.ascii_minus(numbers.plain(value)) for value in values]
                got = [text.replace("\u2013", "-") for text in shown[method, f"{run}, seed {seed}"]]
                assert got == expected


@pytest.mark.parametrize("image", range(5))
def test_what_a_network_says_and_which_attacks_fool_it(study, text, image):
    rows = [
        (header[0], [cell["text"] for cell in cells])
        for kind, header, cells in Page(text).rows(f"outcomes {image}", "run")
    ]
    assert [header for header, _ in rows] == [f"{run}, seed {seed}" for run in RUNS for seed in SEEDS]
    for header, (prediction, confidence, *attacked) in rows:
        run, seed = header.split(", seed ")
        row = pd.read_csv(study / f"seed{seed}" / run / "evaluation" / "examples.csv").set_index("id").loc[image]
        assert prediction == f"{'✓' if row['correct'] else '✗'} {CLASSES[row['prediction']]}"
        assert confidence == f"{100 * row['confidence']:.0f}\u00a0%"
        withstood = ["withstood" if row[f"robust:{attack}"] else "fooled" for attack in ATTACKS]
        assert attacked == (withstood if row["correct"] else ["wrong without it"] * len(ATTACKS))


def test_an_image_leads_to_its_page_and_each_page_to_those_beside_it_and_back(text):
    grid, *views = re.split(r'(?=<article class="view")', text[text.index('<section id="pictures">') :])
    assert len(views) == 5
    for image, view in enumerate(views):
        assert f'<a href="#image-{image}"><span class="pic">' in grid and f'<tr id="row-{image}">' in grid
        assert f'id="image-{image}"' in view.split(">")[0]
        between = [n for n in (image - 1, image + 1) if 0 <= n < 5]
        links = re.findall(r'<a href="#([^"]*)">', view)
        expected = [f"row-{image}", *(f"image-{n}" for n in between)]
        assert links == [*expected, "glossary", *expected]


def test_each_picture_stands_in_the_page_once(text):
    drawn = re.findall(r'"(data:image/png[^"]*)"', text)
    # A map alone in its row has the same limits as all together now and then.
    assert len(drawn) - len(set(drawn)) <= 2
    views = text[text.index('<article class="view"') :]
    assert "data:" not in views and views.count("<use ") > 5 * 3


def test_maps_that_cannot_be_drawn_are_named_on_the_page_of_their_image(text):
    views = re.split(r'(?=<article class="view")', text)[1:]
    assert "<b>zero</b>" in views[1] and "<b>not finite</b>" in views[2]
    assert not re.search(r"<b>(zero|not finite|constant)</b>", views[0])


def test_scores_of_the_network_stand_beside_its_prediction_and_an_image_without_rows_has_no_row(tmp_path):
    folder = write_study(tmp_path, seeds=(0,), runs=RUNS, num_examples=20)
    for path in folder.rglob("summary.json"):
        path.write_text(path.read_text().replace('"title": "Entropy"', '"of_map": false, "title": "Entropy"'))
    examples = folder / "seed0" / "l2" / "evaluation"
    for name in ("examples.csv", "maps.csv"):
        kept = [line for line in (examples / name).read_text().splitlines() if not line.startswith("0,")]
        (examples / name).write_text("\n".join(kept) + "\n")
    views = page.contents(load.read_study(folder))["views"]
    assert [row.header for row in views[0].outcomes.rows] == ["standard"]
    assert [head.title for head in views[0].outcomes.heads][-1] == "Entropy"
    assert "Entropy" not in [head.title for head in views[0].scores.heads]
    maps = pd.read_csv(folder / "seed0" / "standard" / "evaluation" / "maps.csv").set_index(["method", "id"])
    assert views[0].outcomes.rows[0].cells[-1].value == f"{maps.loc[('gradient', 0), 'entropy']:.3f}"
