"""The neurons of a network whose units are known, through the whole program: tables, page, reasons of a mistake.

Of the layer 'units' (means over 2 x 2 pixels) unit 0 answers to red, 1 to green, 2 to both, 3 to nothing, 4 to blue.
Six images of 8 x 8 pixels hold one square of 4 x 4 pixels each, of a place of its own: two of each colour, one bright,
one darker. The darker red one is labelled blue, so that it is wrong, for unit 0.
"""

import csv
import html.parser
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import (
    config,
    data,
    initialise,
    models,
    neuron_overlaps,
    neuron_report,
    records,
    study_neurons,
    study_runs,
)
from tests import tiny

CLASSES = ("red", "green", "blue")
COLOURS = np.array([[1, 0, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 1]], np.float32)  # [C, U]
HEAD = np.zeros((5, 3), np.float32)
HEAD[0, 0] = HEAD[1, 1] = HEAD[4, 2] = 10
HEAD[2, 0], HEAD[3] = 1, 7
LABELS = np.array([0, 2, 1, 1, 2, 2], np.int32)
IDS = np.array([10, 11, 12, 13, 14, 15], np.int32)
# Of the 96 places of a unit eight are of its squares: the threshold lies halfway from the darker square to black.
QUANTILE = 7.5 / 95
SETTINGS = {
    "layers": ["units"], "quantile": QUANTILE, "num_top": 20, "num_influential": 10, "score": "logit",
    "ascent_steps": 3, "batch_size": 4,
    "attack": {"num_steps": 1, "epsilon": 0.6, "start": "none", "relative_step_size": 1.0},
}  # fmt: skip


def apply(variables, images, *, mode="eval", key=None, capture=(), edit=None):
    edit = edit or {}
    halves = images.reshape(len(images), 4, 2, 4, 2, 3).mean((2, 4))
    units = edit.get("units", lambda a: a)(halves @ variables["params"]["colours"])
    mean = units.mean((1, 2))
    features = {"units": units, "mean": mean}
    return models.Output(mean @ variables["params"]["head"], {}, {name: features[name] for name in capture})


CLASSIFIER = models.Classifier(None, apply, ("units", "mean"), 3, (8, 8, 3))
VARIABLES = {"params": {"colours": jnp.asarray(COLOURS), "head": jnp.asarray(HEAD)}, "state": {}}


def planted(masked=True):
    images, masks = np.zeros((6, 8, 8, 3), np.float32), np.zeros((6, 8, 8, 3), np.uint8)
    corners = [(0, 0), (4, 4), (4, 0), (0, 4), (2, 2), (0, 2)]
    for number, (row, column) in enumerate(corners):
        square = number, slice(row, row + 4), slice(column, column + 4), number // 2
        images[square], masks[square] = (1.0, 0.8)[number % 2], 1
    arrays = {"image": images, "label": LABELS, "id": IDS} | ({"concepts": masks} if masked else {})
    split = data.MemorySplit(arrays)
    return data.Data(split, split, split, CLASSES, (8, 8, 3), CLASSES if masked else (), "planted squares")


@pytest.fixture(scope="module", autouse=True)
def planted_checkpoint():
    """Every workdir holds the planted network."""

    def load_described(workdir, step):
        described = {"config": tiny.plain(), "image_shape": [8, 8, 3], "class_names": list(CLASSES)}
        return CLASSIFIER, VARIABLES, described, 7

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(initialise, "load_described", load_described)
        patch.setattr(initialise, "step_of", lambda workdir, step: 7)
        yield


def report(place, masked=True, **changes):
    place.mkdir(exist_ok=True)
    experiment = tiny.experiment(neurons={**SETTINGS, **changes})
    return pathlib.Path(neuron_report.neuron_report(experiment, str(place), planted(masked)))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return report(tmp_path_factory.mktemp("planted"))


def rows_of(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_each_unit_is_what_it_was_planted_as(page):
    found = records.read_csv(page.parent / "units.csv")
    assert list(found["kind"]) == ["detector", "detector", "mixed", "dead", "detector"]
    assert [str(name) for name in found["concept"][[0, 1, 4]]] == ["red", "green", "blue"]
    np.testing.assert_allclose(found["threshold"], [0.4, 0.4, 0.9, np.nan, 0.4], rtol=1e-6)
    np.testing.assert_allclose(found["iou"][[0, 1, 4]], 1.0)
    # Above 0.9 are nine pixels of the bright red square, in a corner, and nine of the green one, of 32 each.
    np.testing.assert_allclose([found["iou:red"][2], found["iou:green"][2], found["iou:blue"][2]], [9 / 41, 9 / 41, 0])
    np.testing.assert_allclose(found["mean"], np.array([1.8, 1.8, 3.6, 0, 1.8]) / 24, rtol=1e-6)
    assert np.isnan(found["iou"][3]) and str(found["concept"][3]) == ""


def test_classes_of_top_images_count_those_that_raise_the_unit_alone(page):
    """20 were asked for, six are there, two or four raise a unit above its rest. One of the red is labelled blue."""
    found = records.read_csv(page.parent / "units.csv")
    np.testing.assert_allclose(found["consistency"], [0.5, 1.0, 0.375, np.nan, 1.0], rtol=1e-6)
    assert list(found["class"]) == ["red", "green", "green", "", "blue"]
    about = records.read_json(page.parent / "neurons.json")
    assert about["consistency"] == pytest.approx((1 + 4 + 9) / 36) and about["layers"][0]["consistency"] == 0.75
    np.testing.assert_allclose(found["class_share"], [0.5, 1.0, 0.5, np.nan, 1.0])
    ids = records.read_npz(page.parent / "neurons.npz")["ids/units"]
    assert ids.shape == (5, 20) and (ids[:, 6:] == -1).all()
    np.testing.assert_array_equal(ids[[0, 1, 4], :2], [[10, 11], [12, 13], [14, 15]])


def test_chance_is_the_masks_of_other_images_never_its_own(page):
    """Counted by hand: each unit is active where its square is, the mixed one on nine pixels of the bright ones."""
    about = records.read_json(page.parent / "neurons.json")
    (layer,) = about["layers"]
    assert about["num_shuffles"] == 5 and layer["detectors"] == 4 and layer["unique"] == 3 and layer["mixed"] == 1
    masks = planted().test.arrays["concepts"].astype(bool)
    mixed = np.zeros((6, 8, 8), bool)
    mixed[0, :3, :3] = mixed[2, 5:, :3] = True
    active = np.stack([masks[..., 0], masks[..., 1], mixed, np.zeros_like(mixed), masks[..., 2]], -1)[..., :, None]
    turns = list(neuron_overlaps.others(np.arange(6), 9))
    seen = np.sort(np.stack(turns), axis=0).T
    np.testing.assert_array_equal(seen, [sorted({*range(6)} - {i}) for i in range(6)], "every other image once")
    ious = []
    for turn in turns:
        other = masks[turn][..., None, :]
        ious.append((active & other).sum((0, 1, 2)) / (active | other).sum((0, 1, 2)))
    expected = np.max(ious, axis=0)
    assert expected[[0, 1, 4], [0, 1, 2]].max() < 0.2
    for place, concept in enumerate(layer["concepts"]):
        assert concept["by_chance"] == pytest.approx(expected[:, place].max(), rel=1e-6)
        assert concept["ceiling"] == 1 and concept["share"] == 32 / 384 and concept["iou"] == 1
    units = records.read_csv(page.parent / "units.csv")
    alive = [0, 1, 2, 4]
    np.testing.assert_allclose(units["by_chance"][alive], expected.max(1)[alive], rtol=1e-6)
    assert np.isnan(units["by_chance"][3])
    assert layer["chance_detectors"] == pytest.approx(np.mean([(iou > 0.04).any(1).sum() for iou in ious]))


def test_a_prediction_loses_more_without_the_unit_it_is_traced_to_than_without_a_random_one(tmp_path):
    """Of image 11, a red one, unit 0 is worth 2 and unit 2 a tenth of it; no other unit matters, and none is drawn."""
    page = report(tmp_path / "one", num_influential=1)
    rows = {row["id"]: row for row in rows_of(page.parent / "ablation.csv")}
    assert {name: rows["11"][name] for name in ("role", "layer", "units")} == {
        "role": "wrong",
        "layer": "units",
        "units": "1",
    }
    assert float(rows["11"]["lost_traced"]) == pytest.approx(2.0)
    drawn = float(rows["11"]["lost_random"])
    ten = [(0.2 * few + 2.0 * (10 - few)) / 10 for few in range(11)]
    assert min(abs(drawn - each) for each in ten) < 1e-6 and 0.2 < drawn < 2.0
    assert "a difference of" in page.read_text()


def test_all_units_that_matter_are_as_many_random_ones(page):
    for row in rows_of(page.parent / "ablation.csv"):
        assert float(row["lost_traced"]) == pytest.approx(float(row["lost_random"]))
        assert float(row["flipped_traced"]) == float(row["flipped_random"])


def test_a_wrong_prediction_is_traced_to_the_unit_that_made_it(page):
    rows = rows_of(page.parent / "influences.csv")
    wrong = [row for row in rows if row["role"] == "wrong"]
    assert {row["id"] for row in wrong} == {"11"} and {row["prediction"] for row in wrong} == {"0"}
    assert [(row["side"], row["unit"]) for row in wrong] == [("for", "0"), ("for", "2")], "no more units count"
    np.testing.assert_allclose([float(row["difference"]) for row in wrong], [10 * 0.8 / 4, 0.8 / 4], rtol=1e-6)
    beside = [row for row in rows if row["role"] == "right"]
    assert {row["id"] for row in beside} == {"10"}, "the right prediction of the same class"
    text = page.read_text()
    assert "a blue taken for <b>red</b>" in text and "<b>unit 0</b> +2.000" in text
    assert tables(text)["reasons"][1:] == [["red", "1", "1"]]


def test_a_unit_can_be_set_to_its_mean_and_score_in_log_odds(tmp_path):
    found = rows_of(
        report(tmp_path / "run", removed="mean", score="log_odds", num_influential=1).parent / "influences.csv"
    )
    (row,) = [row for row in found if row["role"] == "wrong" and row["side"] == "for"]

    def log_odds(mean):
        logits = np.array([10 * mean + 0.2, 0, 0])
        return logits[0] - np.log(np.exp(logits[1:]).sum())

    assert float(row["difference"]) == pytest.approx(log_odds(0.2) - log_odds(1.8 / 24), rel=1e-5)


def test_adversarial_images_count_where_they_fool_what_was_right(page):
    found = records.read_csv(page.parent / "examples.csv")
    right = found["prediction"] == found["label"]
    assert not right[1] and right.sum() == 5
    np.testing.assert_array_equal(found["fooled"] == 1, right & (found["adversarial_prediction"] != found["label"]))
    fooled = found["fooled"] == 1
    assert fooled.any()
    np.testing.assert_array_equal(np.isfinite(found["r1:units"]), fooled)
    units = records.read_csv(page.parent / "units.csv")
    assert np.isnan(units["cs1"][3]) and np.isfinite(units["cs1"]).any()


def contents(page):
    arrays = records.read_npz(page.parent / "neurons.npz")
    return [(page.parent / name).read_text() for name in ("units.csv", "influences.csv")], arrays


@pytest.mark.parametrize("size", [2, 6])
def test_the_batch_size_does_not_matter(page, tmp_path, size):
    (units, influences), arrays = contents(page)
    (other_units, other_influences), others = contents(report(tmp_path / "run", batch_size=size))
    assert other_units == units and other_influences == influences
    assert others.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_allclose(others[name], values, rtol=1e-6, err_msg=name)


def test_receptive_fields_and_patches(page):
    arrays = records.read_npz(page.parent / "neurons.npz")
    box = arrays["boxes/units"][0, 0]
    np.testing.assert_array_equal(box, [0, 0, 2, 2])
    assert arrays["patches/units"].shape == (5, 5, 2, 2, 3)
    np.testing.assert_array_equal(arrays["patches/units"][0, 0], np.ones((2, 2, 1)) * [1, 0, 0])
    place = np.flatnonzero((arrays["seen/units"] == (10, 0)).all(1))
    assert arrays["active/units"][place[0]].sum() == 16


def test_what_a_unit_would_like_to_see_raises_it(page):
    arrays = records.read_npz(page.parent / "neurons.npz")
    assert list(arrays["wish_units/units"]) == [0, 2, 1, 4], "by concept; the mixed one is red first"
    assert (arrays["wish_after/units"] > arrays["wish_before/units"]).all()
    noise = arrays["wishes/units"][0, 0].astype(int).mean((0, 1))
    assert noise[0] > noise[1] + 10 and noise[0] > noise[2] + 10, "unit 0 wants red"


class Parser(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tables, self.images, self.links, self.row = {}, [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "table":
            self.table = self.tables.setdefault(attributes["data-name"], [])
        elif tag == "tr":
            self.table.append([])
        elif tag in ("td", "th"):
            self.table[-1].append("")
            self.row = self.table[-1]
        elif tag == "img":
            self.images.append(attributes)
        self.links += [attributes[name] for name in ("src", "href") if name in attributes]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.row = None

    def handle_data(self, text):
        if self.row is not None:
            self.row[-1] += text.strip()


def tables(text):
    return Parser(text).tables


def test_the_page_is_one_file_with_a_row_a_unit_and_words_for_every_picture(page):
    text = page.read_text()
    found = Parser(text)
    assert found.images and all(link.startswith("data:image/png;base64,") for link in found.links)
    assert all(image["alt"] for image in found.images) and "<script" not in text and "@import" not in text
    assert "http" not in text
    for name in ("concepts", "units", "reasons"):
        head, *rows = found.tables[name]
        assert rows and {len(row) for row in rows} == {len(head)}
    assert [row[0] for row in found.tables["units"][1:]] == ["0", "1", "4", "2", "3"], "by IoU, the dead last"
    assert [row[1] for row in found.tables["units"][1:]] == ["detector", "detector", "detector", "mixed", "dead"]
    assert [row[:3] for row in found.tables["concepts"][1:]] == [
        ["red", "8.3%", "2"],
        ["green", "8.3%", "1"],
        ["blue", "8.3%", "1"],
    ]
    assert "Image 10: unit 0 is active on 25" in text and "red in it" in text
    assert "To detect says little here: with the masks of other images 2.4 units" in text
    assert "5 units, 1 dead." in text and "mixed: red 0.220, green 0.220" in text


def test_a_coarse_unit_cannot_detect_a_large_mask_and_the_page_says_so(tmp_path):
    text = report(tmp_path / "run", quantile=0.001, least_iou=0.3, num_shuffles=0).read_text()
    assert "No unit can detect red, green, blue here" in text and "By chance: the highest" not in text


def test_without_masks_the_page_says_why_and_has_the_rest(tmp_path):
    page = report(tmp_path / "run", masked=False)
    text, found = page.read_text(), records.read_csv(page.parent / "units.csv")
    assert "No dissection: the data has no masks" in text and "concepts" not in tables(text)
    assert "iou" not in found and list(found["kind"]) == ["alive"] * 3 + ["dead", "alive"]
    assert tables(text)["reasons"][1:] == [["top images mostly red", "1", "1"]]
    assert "The strongest units of each class" in text and "To detect says little here" not in text


def test_a_hierarchy_makes_classes_alike(tmp_path):
    tree = tmp_path / "tree.json"
    tree.write_text(json.dumps({"red": "warm", "green": "cold", "blue": "cold", "warm": "colour", "cold": "colour"}))
    found = records.read_csv(report(tmp_path / "run", hierarchy=str(tree), sigma=2.0).parent / "units.csv")
    assert found["consistency"][0] == pytest.approx(0.5 + 0.5 * np.exp(-(4**2) / (2 * 2**2)), rel=1e-5)


def test_no_mistake_no_trace_no_steps(tmp_path):
    text = report(tmp_path / "run", num_mistakes=0, ascent_steps=0, num_shown=1).read_text()
    assert "No prediction was traced." in text and "would like to see" not in text


MISTAKES = [
    (
        {"layers": ["unit"]},
        r"^Unknown layer of the network in config.neurons.layers 'unit'. Did you mean 'units'",
    ),
    ({"layers": ["units", "units"]}, r"^config.neurons: neurons.layers names a layer twice: units, units\.$"),
    ({"split": "tset"}, r"Did you mean 'test'\?"),
    ({"removed": "noise"}, "Unknown neurons.removed 'noise'. Choices: mean, zero"),
    ({"quantile": 1.5}, r"^config.neurons.quantile must be in \[0, 1\], got 1.5\.$"),
    ({"sigma": 0.0}, "sigma must be above 0"),
    ({"num_top": 0}, r"^config.neurons.num_top must be at least 1, got 0\.$"),
    ({"hierarchy": "nowhere.json"}, r"^nowhere.json does not exist\.$"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=[next(iter(changes)) for changes, _ in MISTAKES])
def test_a_mistake_is_one_sentence(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        report(tmp_path / "run", **changes)


@pytest.mark.parametrize("tree", ['["red"]', '{"red": 1}', '{"red": "colour", "green": "colour"}'])
def test_a_hierarchy_that_is_none_is_named(tmp_path, tree):
    (tmp_path / "tree.json").write_text(tree)
    with pytest.raises(ValueError, match=r"tree.json"):
        report(tmp_path / "run", hierarchy=str(tmp_path / "tree.json"))


def test_of_a_study_every_run_once_and_one_table_of_all(tmp_path, monkeypatch, capfd):
    runs = []
    for label in ("standard", "linf"):
        place = tmp_path / "seed0" / label
        place.mkdir(parents=True)
        experiment = tiny.experiment(neurons=SETTINGS)
        about = {"label": label, "seed": 0, "dir": f"seed0/{label}"}
        runs.append(study_runs.Run(label, about, experiment, str(place), planted()))
    records.write_json(tmp_path / "study.json", {"runs": [run.about for run in runs]})
    monkeypatch.setattr(study_neurons.study_runs, "finished", lambda plain, workdir: runs)
    page = pathlib.Path(study_neurons.study_neurons({"title": "Two"}, str(tmp_path)))
    found = Parser(page.read_text())
    head, *rows = found.tables["units"]
    assert [row[0] for row in rows] == ["standard", "linf"] and {len(row) for row in rows} == {len(head)}
    assert found.links == [f"../seed0/{label}/neurons/neurons.html" for label in ("standard", "linf")]
    assert rows[0][6] == "red 2, green 1, blue 1" and rows[0][5].startswith("3")
    capfd.readouterr()
    study_neurons.study_neurons({"title": "Two"}, str(tmp_path))
    assert "run 2 of 2: linf: its report is there" in capfd.readouterr().err
    runs[1] = runs[1]._replace(experiment=tiny.experiment(neurons={**SETTINGS, "num_top": 3}))
    with pytest.raises(ValueError, match=r"neurons must be the same for every run of a study \(standard -> linf\):\n"):
        study_neurons.study_neurons({"title": "Two"}, str(tmp_path))
    runs[0] = runs[0]._replace(experiment=runs[1].experiment)
    study_neurons.study_neurons({"title": "Two"}, str(tmp_path))
    said = capfd.readouterr().err
    assert "run 1 of 2: standard\n" in said and "run 2 of 2: linf\n" in said


def test_the_config_says_each_setting_once():
    assert tiny.experiment().neurons.attack.threat.epsilon == pytest.approx(4 / 255)
    assert {*config.to_plain(tiny.plain())["neurons"]} == set(config.Neurons.__dataclass_fields__)
