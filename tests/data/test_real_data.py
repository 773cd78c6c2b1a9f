"""Real data sets prepared with TFDS: run with ROBUST_SALIENCY_TFDS_DIR set to the directory that holds them."""

import os

import numpy as np
import pytest

from robust_saliency.data import DataSpec, eval_batches, load, train_batches

DIRECTORY = os.environ.get("ROBUST_SALIENCY_TFDS_DIR", "")


def real(name, **changes):
    if not os.path.isdir(os.path.join(DIRECTORY, name)) or not DIRECTORY:
        pytest.skip(f"set ROBUST_SALIENCY_TFDS_DIR to a directory that holds {name}")
    return load(DataSpec(name=name, data_dir=DIRECTORY, **changes))


def test_fashion_mnist():
    data = real("fashion_mnist")
    assert [len(split) for split in data[:3]] == [54_000, 6_000, 10_000]
    assert data.image_shape == (28, 28, 1)
    assert data.class_names[0] == "T-shirt/top" and len(data.class_names) == 10
    assert np.bincount(data.validation.labels).tolist() == [600] * 10
    assert np.bincount(data.test.labels).tolist() == [1_000] * 10
    pixels = np.concatenate([data.train.arrays["image"], data.validation.arrays["image"]])
    # mean and deviation that are known of the training set
    np.testing.assert_allclose([pixels.mean() / 255, pixels.std() / 255], [0.2860, 0.3530], atol=2e-4)


def test_cifar10():
    data = real("cifar10", num_train=3_000, num_validation=500)
    assert [len(split) for split in data[:3]] == [3_000, 500, 10_000]
    assert data.image_shape == (32, 32, 3)
    assert np.bincount(data.train.labels).tolist() == [300] * 10
    assert np.bincount(data.test.labels).tolist() == [1_000] * 10
    means = data.test.arrays["image"].mean((0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.494, 0.485, 0.450], atol=5e-3)


FIELDS = {"mask_field": "mask", "group_field": "lesion_id"}


def test_ham10000_has_masks_and_its_lesions_stay_on_one_side():
    data = real("ham10000", **FIELDS)
    assert data.class_names == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert len(data.train) + len(data.validation) == 6_005 and len(data.test) == 2_051
    for a, b in ((data.train, data.validation), (data.train, data.test), (data.validation, data.test)):
        assert not set(a.groups) & set(b.groups)
    shares = np.bincount(data.validation.labels) / (
        np.bincount(data.train.labels) + np.bincount(data.validation.labels)
    )
    np.testing.assert_allclose(shares, 0.1, atol=0.02)
    masks = data.train.arrays["lesion_mask"]
    assert set(np.unique(masks)) == {0, 1}
    covered = masks.mean((1, 2))
    assert covered.min() > 0 and 0.1 < covered.mean() < 0.5
    image = data.train.arrays["image"].mean(-1)
    inside = np.array([x[m == 1].mean() for x, m in zip(image, masks, strict=True)])
    outside = np.array([x[m == 0].mean() for x, m in zip(image, masks, strict=True) if (m == 0).any()])
    assert inside.mean() < outside.mean() - 20  # lesions are darker than skin


def test_ham10000_streams_what_memory_holds():
    options = {**FIELDS, "image_size": 32, "num_train": 500, "num_validation": 50, "num_test": 70}
    memory, lazy = (real("ham10000", in_memory=mode, **options) for mode in ("yes", "no"))
    runs = []
    for data in (memory, lazy):
        batches = train_batches(data.train, batch_size=32, seed=0, class_balanced=True, start_step=5)
        runs.append([next(batches) for _ in range(3)] + list(eval_batches(data.test, batch_size=32)))
    for one, two in zip(*runs, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])


def test_ham10000_in_balanced_batches_has_all_classes_equally_often():
    data = real("ham10000", num_train=300, num_validation=50, num_test=50)
    largest = np.bincount(data.train.labels).max()
    batches = train_batches(data.train, batch_size=7, seed=0, class_balanced=True)
    labels = np.concatenate([next(batches)["label"] for _ in range(largest)])
    assert np.bincount(labels).tolist() == [largest] * 7
