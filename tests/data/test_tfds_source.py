"""Data sets of TFDS: what was written comes back, in memory or streamed, split by group, and mistakes are named."""

import socket

import numpy as np
import pytest

from robust_saliency.data import DataSpec, load
from robust_saliency.data.splits import permutation
from tests.data.fabricated import CLASS_NAMES, HEIGHT, TEST, TRAIN, WIDTH, everything, examples


def tiny(directory, **changes):
    return DataSpec(
        **{"name": "tiny", "data_dir": str(directory), "mask_field": "mask", "group_field": "patient", **changes}
    )


def test_tfds_gives_back_what_was_written(tiny_tfds):
    data = load(tiny(tiny_tfds))
    assert data.class_names == CLASS_NAMES
    assert data.image_shape == (HEIGHT, WIDTH, 3)
    assert "in memory" in data.description
    held = examples("test")
    found = everything(data.test)
    # TFDS shuffles on writing, so examples are matched by their content
    place = {image.tobytes(): k for k, image in enumerate(held["image"])}
    order = [place[image.tobytes()] for image in found["image"]]
    assert sorted(order) == list(range(TEST))
    np.testing.assert_array_equal(found["label"], held["label"][order])
    np.testing.assert_array_equal(found["lesion_mask"], held["mask"][order] // 255)
    np.testing.assert_array_equal(data.test.groups, held["patient"][order])
    np.testing.assert_array_equal(found["id"], np.arange(TEST))
    dtypes = {name: array.dtype.name for name, array in found.items()}
    assert dtypes == {"image": "uint8", "label": "int32", "lesion_mask": "uint8", "id": "int32", "group": "int32"}


def test_group_codes_are_equal_where_groups_are(tiny_tfds):
    split = load(tiny(tiny_tfds)).train
    codes = everything(split)["group"]
    same_code = codes[:, None] == codes[None, :]
    same_group = split.groups[:, None] == split.groups[None, :]
    np.testing.assert_array_equal(same_code, same_group)


def test_a_validation_split_tears_no_group_apart_and_loses_nothing(tiny_tfds):
    data = load(tiny(tiny_tfds, validation_fraction=0.3))
    assert not set(data.train.groups) & set(data.validation.groups)
    ids = np.concatenate([everything(split)["id"] for split in (data.train, data.validation)])
    assert sorted(ids) == list(range(TRAIN))
    # 30, 20, 10 examples a class in groups of three: 9, 6 and 3 are the multiples of three nearest to 30 %
    np.testing.assert_allclose(np.bincount(data.validation.labels), [9, 6, 3], atol=2)


@pytest.mark.parametrize(
    "changes", [{}, {"image_size": 5}, {"channels": 1}, {"num_train": 20, "classes": ("fox", "cat")}]
)
def test_a_streamed_split_holds_the_same_bytes_as_one_in_memory(tiny_tfds, changes):
    memory = load(tiny(tiny_tfds, in_memory="yes", **changes))
    lazy = load(tiny(tiny_tfds, in_memory="no", **changes))
    assert memory.train.in_memory and not lazy.train.in_memory
    for a, b in zip(memory[:3], lazy[:3], strict=True):
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.groups, b.groups)
        rows = permutation(len(a), 3)
        one, two = a.gather(rows), b.gather(rows)
        assert one.keys() == two.keys()
        for name in one:
            assert one[name].dtype == two[name].dtype
            np.testing.assert_array_equal(one[name], two[name])


def test_auto_streams_what_is_over_the_limit(tiny_tfds):
    size = (TRAIN + TEST) * HEIGHT * WIDTH * 4 / 2**30
    assert load(tiny(tiny_tfds, memory_limit_gb=size * 1.001)).train.in_memory
    assert not load(tiny(tiny_tfds, memory_limit_gb=size * 0.999)).train.in_memory


def test_classes_are_a_relabelled_subset(tiny_tfds):
    data = load(tiny(tiny_tfds, classes=("fox", "cat")))
    assert data.class_names == ("fox", "cat")
    everyone = load(tiny(tiny_tfds)).test
    expected = everyone.labels[everyone.labels != 1]
    np.testing.assert_array_equal(data.test.labels, np.where(expected == 2, 0, 1))
    np.testing.assert_array_equal(everything(data.test)["id"], np.flatnonzero(everyone.labels != 1))


def test_a_subset_keeps_the_proportions_and_depends_on_the_seed(tiny_tfds):
    spec = tiny(tiny_tfds, num_test=6)
    np.testing.assert_array_equal(np.bincount(load(spec).test.labels), [3, 2, 1])
    assert len(load(tiny(tiny_tfds, num_test=6, seed=1)).test) == 6
    ids = [tuple(everything(load(tiny(tiny_tfds, num_test=6, seed=s)).test)["id"]) for s in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


def test_classes_are_equally_often_where_that_is_asked_for_and_nowhere_else(tiny_tfds):
    plain, equal = load(tiny(tiny_tfds)), load(tiny(tiny_tfds, equal_classes=("train", "test")))
    for split in ("train", "test"):
        counts = np.bincount(getattr(plain, split).labels)
        assert np.bincount(getattr(equal, split).labels).tolist() == [counts.min()] * 3 and counts.max() > counts.min()
        ids = [set(everything(getattr(each, split))["id"].tolist()) for each in (equal, plain)]
        assert ids[0] < ids[1]
    np.testing.assert_array_equal(equal.validation.labels, plain.validation.labels)
    assert np.bincount(load(tiny(tiny_tfds, equal_classes=("test",), num_test=3)).test.labels).tolist() == [1, 1, 1]
    with pytest.raises(
        ValueError, match=r"data\.num_test, tiny.*: 4 examples of 3 classes, each equally often, are not"
    ):
        load(tiny(tiny_tfds, equal_classes=("test",), num_test=4))


def test_labels_and_fields_may_be_nested_and_nameless(tiny_tfds):
    data = load(tiny(tiny_tfds, label_field="about/is_cat", group_field=""))
    assert data.class_names == ("0", "1")
    assert np.bincount(data.test.labels).tolist() == [TEST // 2, TEST // 2]
    assert data.test.groups is None and "group" not in everything(data.test)
    numbers = {"label_field": "about/count", "group_field": "about/count"}
    counted = load(tiny(tiny_tfds, validation_split="test", **numbers))
    assert counted.class_names == tuple(map(str, range(7)))
    assert set(counted.test.groups) == {4, 5, 6}
    with pytest.raises(ValueError, match="validation split is empty"):  # each class is one group, and stays in train
        load(tiny(tiny_tfds, **numbers))


def test_numbers_for_labels_are_classes_of_training_in_every_split(tiny_tfds):
    data = load(tiny(tiny_tfds, label_field="about/visit"))
    assert data.class_names == ("0", "1", "2") and set(data.test.labels) == {0, 1}
    (first, *_) = np.flatnonzero(data.test.labels == 0)
    one = load(tiny(tiny_tfds, label_field="about/visit", test_split=f"test[{first}:{first + 1}]"))
    assert one.test.labels.tolist() == [0] and one.class_names == ("0", "1", "2")
    expected = r"^tiny/1.0.0, split 'train' \(training has 2 classes\): labels must lie in 0..1, found 0..2.$"
    swapped = {"label_field": "about/visit", "train_split": "test", "validation_fraction": 0.3}
    for field in ("test_split", "validation_split"):
        for in_memory in ("yes", "no"):
            with pytest.raises(ValueError, match=expected):
                load(tiny(tiny_tfds, **{**swapped, field: "train", "in_memory": in_memory}))


def test_balanced_batches_need_every_class(tiny_tfds):
    few = {"validation_split": "test", "num_train": 1}
    assert len(load(tiny(tiny_tfds, **few)).train) == 1
    with pytest.raises(
        ValueError, match=r"class_balanced needs training examples of every class, .* none of '(cat|dog)'"
    ):
        load(tiny(tiny_tfds, **few, class_balanced=True))
    kept = load(tiny(tiny_tfds, class_balanced=True, classes=("fox", "dog")))
    assert set(kept.train.labels) == {0, 1}


def test_named_splits_and_slices(tiny_tfds):
    data = load(tiny(tiny_tfds, train_split="train[:40]", validation_split="train[40:]", test_split="test[:5]"))
    assert [len(split) for split in data[:3]] == [40, 20, 5]
    held = load(tiny(tiny_tfds, test_split="", validation_fraction=0.2, group_field=""))
    assert [len(split) for split in held[:3]] == [38, 10, 12]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_field": "imag"}, "image_field 'imag'. Did you mean 'image'? Choices: about/count, about/is_cat"),
        ({"mask_field": "patient"}, "mask_field 'patient' must be an 8-bit image"),
        ({"label_field": "patient"}, "must be one integer an example"),
        ({"group_field": "lesion"}, "Unknown data.group_field 'lesion'"),
        ({"train_split": "trian"}, "has no split 'trian'. Choices: test, train"),
        ({"classes": ("cat", "dug")}, "'dug'. Did you mean 'dog'?"),
        ({"test_split": "test[:0]"}, "split 'test[:0]' cannot be opened: it holds no example"),
        ({"train_split": "train[:1]"}, "The validation split is empty: tiny/1.0.0, split 'train[:1]' gives"),
        ({"train_split": ""}, "data.train_split must not be empty"),
        ({"classes": ("cat",)}, "at least two classes are needed, found 1"),
        ({"num_test": 13}, "num_test asks for 13 examples, but tiny/1.0.0, split 'test' gives 12"),
        ({"name": "tinny"}, "Unknown data set 'tinny'"),
        ({"name": "tinny"}, "Near: tiny"),
        ({"name": "tiny:7.0.0"}, "Unknown data set 'tiny:7.0.0'"),
    ],
)
def test_a_mistake_is_answered_in_one_sentence(tiny_tfds, changes, message):
    with pytest.raises(ValueError) as caught:
        load(tiny(tiny_tfds, **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_data_not_prepared_name_the_directory_and_the_command_without_asking_the_network(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError) as caught:
        load(DataSpec(name="fashion_mnist"))
    message = str(caught.value)
    assert f"is not prepared in {tmp_path / 'nowhere'}" in message
    assert "download_and_prepare()" in message and "file_format='array_record'" in message
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("in_memory", ["yes", "no"])
@pytest.mark.parametrize("damage", ["truncated", "vanished"])
def test_a_damaged_record_file_is_named(tiny_tfds, tmp_path, in_memory, damage):
    import shutil

    directory = tmp_path / "copy"
    shutil.copytree(tiny_tfds, directory)
    file = sorted(directory.rglob("*train.array_record*"))[-1]
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.unlink()
    with pytest.raises(ValueError) as caught:
        data = load(tiny(directory, in_memory=in_memory))
        everything(data.train)
    assert file.name in str(caught.value)
    assert "\n" not in str(caught.value)
