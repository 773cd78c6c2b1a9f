"""Folders of images: classes and splits from the directories, any kind of image, and bad ones named."""

import numpy as np
import pytest
from PIL import Image

from robust_saliency.data import DataSpec, load, load_images
from tests.data.fabricated import everything, write_images


def test_a_folder_of_classes_is_split_by_class(tmp_path):
    for k, name in enumerate(("ant", "bee")):
        write_images(tmp_path / name, 20, seed=k)
    (tmp_path / "ant" / "notes.txt").write_text("no image")
    write_images(tmp_path / ".cache", 2)
    data = load(DataSpec(name="folder", data_dir=str(tmp_path), validation_fraction=0.2))
    assert data.class_names == ("ant", "bee")
    assert [np.bincount(split.labels).tolist() for split in data[:3]] == [[13, 13], [3, 3], [4, 4]]
    ids = np.concatenate([everything(split)["id"] for split in data[:3]])
    assert sorted(ids) == list(range(40))
    again = load(DataSpec(name="folder", data_dir=str(tmp_path), validation_fraction=0.2, in_memory="no"))
    for a, b in zip(data[:3], again[:3], strict=True):
        np.testing.assert_array_equal(everything(a)["image"], everything(b)["image"])


def test_folders_of_splits_hold_their_own_images(tmp_path):
    written = {}
    for k, split in enumerate(("train", "val", "test")):
        for c, name in enumerate(("ant", "bee")):
            written[split, name] = write_images(tmp_path / split / name, 3 + k, seed=10 * k + c)
    data = load(DataSpec(name="folder", data_dir=str(tmp_path)))
    for split, name in ((data.train, "train"), (data.validation, "val"), (data.test, "test")):
        expected = np.concatenate([written[name, "ant"], written[name, "bee"]])
        np.testing.assert_array_equal(everything(split)["image"], expected)
    write_images(tmp_path / "test" / "cow", 2)
    with pytest.raises(ValueError, match="class folders cow are not among the training classes"):
        load(DataSpec(name="folder", data_dir=str(tmp_path)))


def test_images_of_any_kind_come_out_in_one_shape(tmp_path):
    colour = np.zeros((6, 9, 3), np.uint8)
    colour[..., 0] = 200
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    Image.fromarray(colour).save(tmp_path / "a" / "colour.png")
    Image.fromarray(np.dstack([colour, np.full((6, 9), 128, np.uint8)])).save(tmp_path / "a" / "transparent.png")
    Image.fromarray(colour[..., 0]).save(tmp_path / "b" / "grey.jpg", quality=100)
    Image.fromarray(colour).quantize(4).save(tmp_path / "b" / "palette.png")
    spec = DataSpec(name="folder", data_dir=str(tmp_path), image_size=4, num_train=2, num_test=1, num_validation=1)
    with pytest.raises(ValueError, match=r"asks for|empty"):
        load(spec)
    found, names = load_images(tmp_path, (4, 5, 3))
    assert names == ["a/colour.png", "a/transparent.png", "b/grey.jpg", "b/palette.png"]
    for k, expected in enumerate([(200, 0, 0), (200, 0, 0), (200, 200, 200), (200, 0, 0)]):
        np.testing.assert_allclose(found[k], np.broadcast_to(expected, (4, 5, 3)), atol=2)
    grey, _ = load_images(tmp_path, (6, 9, 1))
    np.testing.assert_allclose(grey[0], 60, atol=1)  # luma 0.299 * 200


def test_images_of_different_sizes_need_an_image_size(tmp_path):
    write_images(tmp_path / "a", 4, shape=(6, 7, 3))
    write_images(tmp_path / "b", 4, shape=(6, 6, 3))
    with pytest.raises(
        ValueError, match=r"image sizes differ \(000.png is 6 x 7, 000.png 6 x 6\); set data.image_size"
    ):
        load(DataSpec(name="folder", data_dir=str(tmp_path)))
    assert load(DataSpec(name="folder", data_dir=str(tmp_path), image_size=6)).image_shape == (6, 6, 3)


@pytest.mark.parametrize("in_memory", ["yes", "no"])
@pytest.mark.parametrize("content", [b"", b"no image at all", "half"])
def test_a_corrupt_image_file_is_named(tmp_path, in_memory, content):
    for name in ("a", "b"):
        write_images(tmp_path / name, 4, shape=(16, 16, 3))
    file = tmp_path / "b" / "002.png"
    file.write_bytes(file.read_bytes()[:400] if content == "half" else content)
    with pytest.raises(ValueError) as caught:
        data = load(DataSpec(name="folder", data_dir=str(tmp_path), in_memory=in_memory, validation_fraction=0.3))
        for split in data[:3]:
            everything(split)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_what_is_needed_says_what(tmp_path):
    def message(**changes):
        with pytest.raises(ValueError) as caught:
            load(DataSpec(**{"name": "folder", "data_dir": str(tmp_path), **changes}))
        return str(caught.value)

    assert "needs data.data_dir" in message(data_dir="")
    assert f"{tmp_path / 'x'} is not a directory" in message(data_dir=str(tmp_path / "x"))
    assert "no class folder" in message()
    write_images(tmp_path / "only", 4)
    assert "at least two classes are needed, found 1" in message()
    (tmp_path / "empty").mkdir()
    assert "no image in the class folder 'empty'" in message()
    assert "mask_field is for TFDS" in message(mask_field="mask")
    with pytest.raises(ValueError, match="There is no directory"):
        load_images(tmp_path / "x", (4, 4, 3))
    with pytest.raises(ValueError, match="No image in"):
        load_images(tmp_path / "empty", (4, 4, 3))


def test_a_photograph_on_its_side_is_set_upright(tmp_path):
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(3):
            Image.fromarray(pixels).save(tmp_path / name / f"{k}.png", exif=exif)
    data = load(DataSpec(name="folder", data_dir=str(tmp_path)))
    assert data.image_shape == (8, 4, 1)
    image = everything(data.train)["image"][0, :, :, 0]
    assert image[:4].min() == 255 and image[4:].max() == 0
