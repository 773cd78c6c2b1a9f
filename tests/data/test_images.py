"""Decoding: the short ways to PNG and JPEG agree with Pillow, and resizing, masks and depths are as stated."""

import functools
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robust_saliency.data import images
from tests.data.fabricated import png


@given(
    seed=st.integers(0, 100), height=st.integers(1, 9), width=st.integers(1, 9), channels=st.sampled_from([1, 3]),
    num=st.integers(1, 6), smooth=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_many_pngs_in_one_go_are_what_pillow_reads_one_by_one(seed, height, width, channels, num, smooth):
    pixels = np.random.default_rng(seed).integers(0, 256, (num, height, width, channels), dtype=np.uint8)
    pixels = np.cumsum(pixels // 64, axis=1 + seed % 2, dtype=np.uint8) if smooth else pixels
    data = [png(image.squeeze(-1) if channels == 1 else image) for image in pixels]
    np.testing.assert_array_equal(images.decode_plain_pngs(data, pixels.shape[1:]), pixels)


def png_of_filters(pixels, filters):
    """A grey PNG whose row k is filtered with ``filters[k]``: written from the PNG standard, section 9."""

    def predict(kind, left, up, corner):
        paeth = min((left, up, corner), key=lambda value: abs(left + up - corner - value))
        return (0, left, up, (left + up) // 2, paeth)[kind]

    rows = np.pad(pixels.astype(int), ((1, 0), (1, 0)))
    raw = bytearray()
    for y, kind in enumerate(filters, 1):
        raw.append(kind)
        for x in range(1, rows.shape[1]):
            raw.append((rows[y, x] - predict(kind, rows[y, x - 1], rows[y - 1, x], rows[y - 1, x - 1])) % 256)
    height, width = pixels.shape
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, content) for kind, content in chunks)


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("first", range(5))
def test_every_png_filter_is_undone_also_in_the_first_row_of_a_later_image(rng, first):
    pixels = rng.integers(0, 256, (5, 5, 7), dtype=np.uint8)
    data = [png_of_filters(image, [(first + k + y) % 5 for y in range(5)]) for k, image in enumerate(pixels)]
    np.testing.assert_array_equal(images.decode(data[0], size=None, channels=0)[..., 0], pixels[0])
    np.testing.assert_array_equal(images.decode_plain_pngs(data, (5, 7, 1))[..., 0], pixels)


def test_what_is_no_plain_png_of_the_shape_is_left_to_pillow(rng):
    array = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    good = png(array)
    alpha = png(rng.integers(0, 256, (6, 6, 4), dtype=np.uint8))
    flipped = good[:60] + bytes([good[60] ^ 8]) + good[61:]
    for other in (png(array[:5]), png(array[..., 0]), alpha, good[:-30], flipped, b"", b"no image"):
        assert images.decode_plain_pngs([good, other], (6, 6, 3)) is None


@pytest.mark.parametrize("shape", [(9, 12, 3), (9, 12)])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_short_way_to_a_jpeg_agrees_with_pillow(rng, shape, progressive):
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(file, "JPEG", progressive=progressive)
    expected = np.asarray(Image.open(io.BytesIO(file.getvalue()))).reshape(9, 12, -1)
    np.testing.assert_array_equal(images._decode_plain_jpeg(file.getvalue(), None, 0), expected)
    np.testing.assert_array_equal(images.decode(file.getvalue(), size=None, channels=0), expected)
    np.testing.assert_array_equal(images.decode(file.getvalue(), size=None, channels=0, upright=True), expected)
    assert images._decode_plain_jpeg(file.getvalue()[:200], None, 0) is None
    with pytest.raises(ValueError, match="truncated"):
        images.decode(file.getvalue()[:-60], size=None, channels=0)


def test_resizing_averages_and_does_not_skip_pixels():
    checkerboard = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)
    small = images.decode(png(checkerboard), size=(8, 8), channels=1)
    np.testing.assert_allclose(small[1:-1, 1:-1], 127.5, atol=8)


@pytest.mark.parametrize("high", [1, 255])
def test_masks_are_zero_and_one_and_take_the_nearest_pixel(high):
    mask = np.zeros((4, 4), np.uint8)
    mask[:2, 2:] = high
    expected = np.kron(mask > 0, np.ones((2, 2))).astype(np.uint8)
    np.testing.assert_array_equal(images.to_mask(mask, (8, 8)), expected)


def test_a_map_of_several_values_is_no_mask():
    with pytest.raises(ValueError, match=r"must hold 0 and 1, or 0 and 255; this one goes up to 3"):
        images.to_mask(np.full((4, 4), 3, np.uint8), (4, 4))


def test_sixteen_bit_images_are_refused_not_clipped():
    with pytest.raises(ValueError, match="more than 8 bits"):
        images.decode(png(np.full((4, 4), 40000, np.uint16)), size=None, channels=1)


def test_an_image_over_the_pixel_limit_is_named(tmp_path, monkeypatch):
    path = tmp_path / "vast.png"
    path.write_bytes(png(np.zeros((8, 8, 3), np.uint8)))
    assert images.header(path) == ((8, 8), 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)  # Pillow refuses what has more than twice as many
    for reading in (images.header, functools.partial(images.read, size=(4, 4), channels=3)):
        with pytest.raises(ValueError) as caught:
            reading(path)
        message = str(caught.value)
        assert message.startswith(f"Cannot read the image {path}: Image size (64 pixels) exceeds limit of 32 pixels")
        assert "\n" not in message


def test_an_image_with_damaged_exif_data_is_named(tmp_path):
    path, whole = tmp_path / "turned.png", png(np.zeros((4, 4, 3), np.uint8))
    path.write_bytes(whole[:33] + png_chunk(b"eXIf", b"no TIFF header") + whole[33:])
    for reading in (images.header, functools.partial(images.read, size=None, channels=3)):
        with pytest.raises(ValueError, match=f"^Cannot read the image {path}: not a TIFF file"):
            reading(path)
