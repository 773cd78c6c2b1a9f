"""Colours mean what the caption says: a signed zero is white, a row shares its limits, flaws are not painted over."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from robust_saliency.report import colours, load, pictures
from tests.report.fabricated_study import write_study


def decode(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load.read_study(write_study(tmp_path_factory.mktemp("study"), seeds=(0,)))


def test_zero_is_white_and_the_signs_are_mirrored_in_a_signed_map():
    values = np.array([[0.0, 1e-9], [2.0, -2.0]])
    shown = decode(pictures.map_png(values, 2.0, "signed"))
    assert shown[0, 0].tolist() == [255, 255, 255] == shown[0, 1].tolist()
    red, blue = shown[1].astype(int)
    assert red[0] > red[2] + 50 and blue[2] > blue[0] + 50
    assert np.array_equal(shown[1, 0], colours.colour_table("signed")[-1])


def test_magnitudes_go_from_black_to_light_and_are_clipped_at_the_limit():
    shown = decode(pictures.map_png(np.array([[0.0, 0.5, 1.0, 7.0]]), 1.0, "magnitude")).astype(int)[0]
    brightness = shown.sum(1)
    assert brightness[0] < 20 and np.all(np.diff(brightness[:3]) > 0)
    assert np.array_equal(shown[2], shown[3])


def test_the_limit_is_the_percentile_of_all_maps_of_the_row_together():
    small, large = np.linspace(0, 1, 1000).reshape(20, 50), np.linspace(-3, 0, 1000).reshape(20, 50)
    expected = np.percentile(np.abs(np.concatenate([small, large])), 99)
    assert pictures.colour_limit([small, large]) == pytest.approx(expected)
    assert pictures.colour_limit([np.full((2, 2), np.nan)]) == 0.0
    lonely = np.zeros((40, 40))
    lonely[3, 4] = 5.0
    assert pictures.colour_limit([lonely]) == 5.0


@pytest.mark.parametrize("kind", ["signed", "magnitude"])
def test_a_map_of_any_scale_is_painted_alike(kind, rng):
    """Elsewhere tiny values are skipped, or a map is divided by a scale that is taken for 0."""
    values = rng.normal(size=(20, 30)).astype(np.float32)
    shown = decode(pictures.map_png(values, pictures.colour_limit([values]), kind))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 50
    for scale in np.float32([1e-30, 1e-8, 1e8]):
        again = decode(pictures.map_png(scale * values, pictures.colour_limit([scale * values]), kind))
        assert np.abs(again.astype(int) - shown).max() <= 6, "one level of 255"


def test_a_map_that_is_negative_nearly_everywhere_has_a_limit():
    """Elsewhere it is the percentile of the signed values, which is then 0."""
    values = -np.ones((20, 20))
    values[:2] = 0
    assert pictures.colour_limit([values]) == 1
    assert decode(pictures.map_png(values, 1.0, "signed"))[0, 0].tolist() == [255, 255, 255]


def test_runs_in_a_row_share_their_limit(study):
    rows = pictures.picture_rows(study)
    strip = rows[0].strips[0]
    maps = [study.of(tile.run)[0].pictures["map/gradient"][0] for tile in strip.tiles]
    limit = np.percentile(np.abs(np.stack(maps)), 99)
    assert strip.limit == f"{limit:.3f}"
    table = colours.colour_table("magnitude")
    for tile, values in zip(strip.tiles, maps, strict=True):
        expected = table[np.round(255 * np.clip(values / limit, 0, 1)).astype(int)]
        np.testing.assert_array_equal(decode(tile.shared), expected)
        own = table[np.round(255 * np.clip(values / np.percentile(values, 99), 0, 1)).astype(int)]
        assert np.abs(decode(tile.own).astype(int) - own).max() <= 4


def test_zero_and_not_finite_maps_are_named_instead_of_painted(study):
    rows = pictures.picture_rows(study)
    l2 = [[strip.tiles[2] for strip in row.strips] for row in rows]
    assert (l2[1][0].flaw, l2[1][0].shared) == ("zero", "")
    assert (l2[2][1].flaw, l2[2][1].shared) == ("not finite", "")
    assert "the map is zero" in l2[1][0].alt
    assert [tile.flaw for tile in l2[0]] == ["", ""]


def test_the_outline_is_the_boundary_of_the_mask():
    mask = np.zeros((4, 5), np.uint8)
    mask[1, 1:3] = 1
    drawn = set(pictures.outline(mask).replace("M", "|M").split("|")[1:])
    assert drawn == {"M1 1h1", "M2 1h1", "M1 2h1", "M2 2h1", "M1 1v1", "M3 1v1"}
    full = pictures.outline(np.ones((2, 3)))
    assert full.count("M") == 2 * (2 + 3)


def test_large_maps_are_averaged_down_for_display():
    checkerboard = np.indices((384, 192)).sum(0) % 2 * 2.0
    shown = decode(pictures.map_png(checkerboard, 2.0, "magnitude"))
    assert shown.shape == (96, 48, 3)
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 1
    np.testing.assert_array_equal(shown[0, 0], colours.colour_table("magnitude")[128])


def test_cells_say_label_prediction_and_confidence(study):
    row = pictures.picture_rows(study)[0]
    arrays = study.of("linf")[0].pictures
    names = study.first.summary["class_names"]
    tile = row.strips[0].tiles[1]
    assert row.label == names[arrays["label"][0]]
    assert tile.verdict == f"{names[arrays['prediction'][0]]} {100 * arrays['confidence'][0]:.0f}\u00a0%"
    assert tile.right == (arrays["prediction"][0] == arrays["label"][0])


def test_a_study_of_twelve_runs_has_as_many_colours():
    labels = [f"run {number}" for number in range(12)]
    assert len(set(colours.run_colours(labels).values())) == 12
