"""Planted lesions: masks say where the evidence is, not in the middle; draws repeat; shortcuts are as asked."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage as ndi
import scipy.stats

from robust_saliency.data.planted_lesions import (
    CLASS_NAMES,
    KERATOSIS,
    MELANOMA,
    NEVUS,
    PlantedLesions,
    generate,
    render,
)
from tests.data.lesion_layout import BORDER, BUBBLE, DOTS, HAIR, PATCH, RULER, coordinates


def central_mass(mask, sigma):
    x, y = coordinates()
    gaussian = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return np.mean((mask * gaussian).sum((1, 2)) / gaussian.sum())


def test_a_map_that_stares_at_the_centre_scores_like_a_uniform_map(planted_train):
    mask = planted_train["lesion_mask"]
    share = mask.mean()
    assert 0.08 < share < 0.12
    assert central_mass(mask, 0.15) < share
    assert central_mass(mask, 0.25) < 1.35 * share
    assert central_mass(mask, 0.35) < 1.5 * share
    assert mask[:, 15:17, 15:17].mean() < 0.02


def test_with_central_lesions_the_same_map_would_win():
    mask = generate(PlantedLesions(min_offset=0.0), 0, 256, "train")["lesion_mask"]
    assert central_mass(mask, 0.25) > 2.5 * mask.mean()


def test_images_use_eight_bits_and_masks_are_binary(planted_train):
    assert planted_train["image"].dtype == np.uint8 and planted_train["image"].shape == (1536, 32, 32, 3)
    assert planted_train["image"].min() < 60 and planted_train["image"].max() > 220
    for name in ("lesion_mask", "evidence_mask", "concepts"):
        assert set(np.unique(planted_train[name])) == {0, 1}
    assert planted_train["lesion_mask"].any((1, 2)).all() and planted_train["evidence_mask"].any((1, 2)).all()


def test_evidence_is_the_union_of_the_cues_of_the_class(planted_train):
    label, evidence, concepts = planted_train["label"], planted_train["evidence_mask"], planted_train["concepts"]
    np.testing.assert_array_equal(evidence[label == NEVUS], planted_train["lesion_mask"][label == NEVUS])
    np.testing.assert_array_equal(evidence[label != NEVUS], concepts[label != NEVUS][..., :HAIR].any(-1))
    present = concepts.any((1, 2))
    np.testing.assert_array_equal(present[:, PATCH], label == MELANOMA)
    np.testing.assert_array_equal(present[:, BORDER], label == MELANOMA)
    np.testing.assert_array_equal(present[:, DOTS], label == KERATOSIS)


def test_evidence_lies_in_the_lesion_or_on_its_border(planted_train):
    lesion, evidence = planted_train["lesion_mask"] > 0, planted_train["evidence_mask"] > 0
    outside = evidence & ~lesion
    assert not outside[planted_train["label"] != MELANOMA].any()
    np.testing.assert_array_equal(outside & ~(planted_train["concepts"][..., BORDER] > 0), False)
    near = ndi.binary_dilation(lesion, np.ones((1, 3, 3)), iterations=3)
    assert (outside & ~near).sum() < 1e-3 * outside.sum()


def test_labels_are_balanced_and_shuffled(planted_train):
    blocks = planted_train["label"].reshape(-1, 3)
    np.testing.assert_array_equal(np.sort(blocks, axis=1), np.tile([0, 1, 2], (512, 1)))
    assert scipy.stats.chisquare(np.unique(blocks, axis=0, return_counts=True)[1]).pvalue > 0.01
    np.testing.assert_array_equal(planted_train["id"], np.arange(1536))


def test_an_example_depends_on_seed_split_and_place_alone(planted_train):
    again = generate(PlantedLesions(), 0, 300, "train")
    for name, array in again.items():
        np.testing.assert_array_equal(array, planted_train[name][:300])
    for other in (generate(PlantedLesions(), 1, 3, "train"), generate(PlantedLesions(), 0, 3, "validation")):
        assert np.all(np.abs(other["image"].astype(int) - planted_train["image"][:3]).mean((1, 2, 3)) > 5)


def test_without_a_cpu_backend_the_same_lesions_are_drawn_on_the_default_device(planted_train, monkeypatch):
    def only_cuda(backend=None):
        raise RuntimeError(f"Unknown backend {backend}. Available backends are ['cuda']")

    monkeypatch.setattr(jax, "local_devices", only_cuda)
    for name, array in generate(PlantedLesions(), 0, 300, "train").items():
        np.testing.assert_array_equal(array, planted_train[name][:300])


def test_one_render_equals_its_place_in_a_batch(planted_triplets):
    single = jax.jit(render)(jax.random.fold_in(jax.random.key(3), 7), jnp.int32(MELANOMA), PlantedLesions())
    np.testing.assert_allclose(single["image"] * 255, planted_triplets["image"][MELANOMA, 7], atol=0.5 + 1e-3)
    for name in ("lesion_mask", "evidence_mask", "concepts"):
        np.testing.assert_array_equal(single[name], planted_triplets[name][MELANOMA, 7])


def test_the_ruler_alone_tells_the_class_when_planted():
    planted = generate(PlantedLesions(shortcut="ruler"), 0, 600, "train")
    np.testing.assert_array_equal(planted["concepts"][..., RULER].any((1, 2)), planted["label"] == MELANOMA)
    half = generate(PlantedLesions(shortcut="ruler", shortcut_rate=0.5), 0, 600, "train")
    carries = half["concepts"][..., RULER].any((1, 2))
    assert not carries[half["label"] != MELANOMA].any()
    assert 0.35 < carries[half["label"] == MELANOMA].mean() < 0.65


def test_a_hair_planted_on_keratoses_at_another_size_leaves_lesions_and_labels_as_they_were(planted_train):
    large = generate(PlantedLesions(size=64, shortcut="hair", shortcut_class=KERATOSIS), 0, 120, "train")
    np.testing.assert_array_equal(large["concepts"][..., HAIR].any((1, 2)), large["label"] == KERATOSIS)
    np.testing.assert_array_equal(large["label"], planted_train["label"][:120])
    shrunk = large["lesion_mask"].reshape(120, 32, 2, 32, 2).mean((2, 4))
    assert np.abs(shrunk - planted_train["lesion_mask"][:120]).mean() < 0.02


@pytest.mark.parametrize("concept", [HAIR, RULER, BUBBLE])
def test_without_a_shortcut_distractors_are_independent_of_the_class(planted_train, concept):
    present = planted_train["concepts"][..., concept].any((1, 2))
    table = [
        [np.sum(present[planted_train["label"] == c]), np.sum(~present[planted_train["label"] == c])] for c in range(3)
    ]
    assert scipy.stats.chi2_contingency(table).pvalue > 0.01
    rates = {HAIR: 0.35, RULER: 0.2, BUBBLE: 0.25}
    assert abs(present.mean() - rates[concept]) < 0.05


def test_the_ruler_lies_clear_of_the_lesion(planted_train):
    assert not np.any(planted_train["concepts"][..., RULER] & planted_train["lesion_mask"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shortcut": "rulers"}, "Did you mean 'ruler'"),
        ({"hair_rate": 1.5}, r"planted_lesions.hair_rate must lie in \[0, 1\], got 1.5"),
        ({"min_cue_strength": 0.9, "max_cue_strength": 0.5}, "min_cue_strength"),
        ({"shortcut_class": 3}, r"shortcut_class must lie in \[0, 2\], got 3"),
        ({"size": 8}, "size"),
    ],
)
def test_a_bad_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        generate(PlantedLesions(**fields), 0, 3, "train")


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match=r"Unknown split 'tests'\. Did you mean 'test'"):
        generate(PlantedLesions(), 0, 3, "tests")


def test_tfds_gives_back_what_was_drawn(tmp_path, planted_train):
    import tensorflow_datasets as tfds

    from robust_saliency.data import planted_lesions_tfds

    planted_lesions_tfds.prepare(str(tmp_path), PlantedLesions(), 0, num_train=12, num_test=3)
    source = tfds.data_source("planted_lesions", data_dir=tmp_path, split="train", download=False)
    assert source.dataset_info.features["label"].names == list(CLASS_NAMES)
    records = sorted((source[i] for i in range(len(source))), key=lambda record: record["id"])
    for name in ("image", "label", "id"):
        np.testing.assert_array_equal(np.stack([record[name] for record in records]), planted_train[name][:12])
    for name in ("lesion_mask", "evidence_mask"):
        np.testing.assert_array_equal(np.stack([record[name][..., 0] for record in records]), planted_train[name][:12])
    assert "tensorflow" not in sys.modules

    planted_lesions_tfds.prepare(str(tmp_path), PlantedLesions(), 0, num_train=12, num_test=3)
    with pytest.raises(ValueError, match="already holds planted lesions of another description"):
        planted_lesions_tfds.prepare(str(tmp_path), PlantedLesions(), 1, num_train=12, num_test=3)
