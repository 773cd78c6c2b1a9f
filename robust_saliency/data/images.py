"""From encoded image files to 8-bit arrays: decoding, resizing, and a directory of a user's own images."""

import io
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

EXTENSIONS = (".jpg", ".jpeg", ".png")
CHUNK = 256
SMALL = 48 * 48  # pixels; below, decoding is mostly Python, which threads only slow down

_PNG_START = b"\x89PNG\r\n\x1a\n"
_MODES = {1: "L", 3: "RGB"}


def decode(data: bytes, *, size: tuple[int, int] | None, channels: int, upright: bool = False) -> np.ndarray:
    """uint8 ``[H, W, C]`` from a PNG or JPEG file's bytes.

    ``size`` (height, width) resizes bilinearly with antialiasing, without keeping the aspect ratio; None keeps the
    stored size. ``channels``: 1 (luma of a colour image), 3 (transparency is dropped), 0 = 3 for a colour image, else
    1. ``upright`` obeys the orientation that a camera wrote into the file.

    Raises:
      ValueError: data that is no image, an image of more than 8 bits a channel, or over Pillow's limit of pixels.
    """
    from PIL import Image

    plain = None if upright else _decode_plain_jpeg(data, size, channels)
    if plain is not None:
        return plain
    image = _open(data, upright)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"the image has more than 8 bits a channel (Pillow mode {image.mode}); convert it to 8 bits")
    mode = _MODES[channels or stored_channels(image.mode)]
    image = image if image.mode == mode else image.convert(mode)
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return _as_array(image)


def decode_plain_pngs(data: Sequence[bytes], shape: tuple[int, int, int]) -> np.ndarray | None:
    """uint8 ``[n, H, W, C]`` from 8-bit PNGs that all have ``shape``, in one go; None where one has not, or is damaged.

    Of decoding a PNG of 28 x 28 pixels with Pillow, 95 % is not decoding, and small data sets are decoded at every
    start. Here all become one tall PNG: a row of zeros before each is the row above that its first row refers to.
    """
    from PIL import Image

    height, width, channels = shape
    above = bytes(1 + width * channels)
    rows = []
    try:
        for one in data:
            found, scanlines = _png_scanlines(one)
            if found != shape or len(scanlines) != height * len(above):
                return None
            rows += [above, scanlines]
        tall = zlib.compress(b"".join(rows), 0)
        mode = _MODES[channels]
        image = Image.frombytes(mode, (width, (height + 1) * len(data)), tall, "zip", mode)
    except (OSError, ValueError, struct.error, zlib.error):
        return None
    return _as_array(image).reshape(len(data), height + 1, width, channels)[:, 1:]


def to_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """0 and 1 from a map of 0 and 1, or of 0 to 255 (1 from 128 on), resized to the nearest pixel; else ValueError."""
    from PIL import Image

    top = int(mask.max(initial=0))
    if 1 < top < 128:
        raise ValueError(f"a mask must hold 0 and 1, or 0 and 255; this one goes up to {top}")
    mask = mask if top <= 1 else (mask > 127).astype(np.uint8)
    if mask.shape != size:
        mask = np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
    return mask


def read(path: Path, *, size: tuple[int, int] | None, channels: int) -> np.ndarray:
    """:func:`decode` of the file at ``path``, upright; the ValueError names the file."""
    try:
        return decode(path.read_bytes(), size=size, channels=channels, upright=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot read the image {path}: {one_line(error)}.") from error


def header(path: Path) -> tuple[tuple[int, int], int]:
    """Size (height, width) and channels (1 or 3) of an image file, without decoding it."""
    from PIL import ExifTags, Image

    try:
        with Image.open(path) as image:
            lies_on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return image.size if lies_on_its_side else image.size[::-1], stored_channels(image.mode)
    except _unreadable() as error:
        raise ValueError(f"Cannot read the image {path}: {one_line(error)}.") from error


def stored_channels(mode: str) -> int:
    """1 for a grey Pillow mode, 3 for a colour one."""
    return 1 if mode in ("1", "L", "LA", "La") else 3


def load_images(directory: str | Path, image_shape: tuple[int, int, int]) -> tuple[np.ndarray, list[str]]:
    """All PNG and JPEG images in ``directory`` and below it, sorted by path: uint8 ``[N, H, W, C]`` and relative paths.

    Raises:
      ValueError: no such directory, no image in it, or a file that cannot be read (named).
    """
    root = Path(directory).expanduser()
    if not root.is_dir():
        found = f"{root} is a file, not a directory" if root.exists() else f"There is no directory {root}"
        raise ValueError(f"{found} to take images from.")
    paths = image_files(root, recursive=True)
    if not paths:
        raise ValueError(f"No image in {root}: looked for files that end in {', '.join(EXTENSIONS)}.")
    images = read_files(paths, image_shape)
    return images, [path.relative_to(root).as_posix() for path in paths]


def image_files(directory: Path, *, recursive: bool = False) -> list[Path]:
    """The PNG and JPEG files of ``directory`` in a fixed order; hidden ones are left out."""
    found = directory.rglob("*") if recursive else directory.iterdir()
    files = [path for path in found if path.suffix.lower() in EXTENSIONS and path.is_file()]
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(directory).parts))


def read_files(paths: list[Path], image_shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 ``[N, H, W, C]``: every file read and resized to ``image_shape``."""
    images = np.empty((len(paths), *image_shape), np.uint8)

    def fill(start: int, stop: int):
        for row in range(start, stop):
            images[row] = read(paths[row], size=image_shape[:2], channels=image_shape[2])

    in_chunks(fill, len(paths))
    return images


def in_chunks(work: Callable[[int, int], Any], num: int, *, threads: int = 0) -> None:
    """``work(start, stop)`` over ``range(num)`` in pieces, on ``threads`` threads (0 = one a core)."""
    threads = threads or os.cpu_count() or 1
    chunk = max(1, min(CHUNK, -(-num // threads)))
    starts = range(0, num, chunk)
    if threads == 1 or len(starts) < 2:
        for start in starts:
            work(start, min(start + chunk, num))
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda start: work(start, min(start + chunk, num)), starts):
            pass


def one_line(error: BaseException) -> str:
    """What an exception says, as one line without a full stop."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).strip().rstrip(".")


def _open(data: bytes, upright: bool):
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        return ImageOps.exif_transpose(image) if upright else image
    except UnidentifiedImageError as error:
        raise ValueError("it is not an image that Pillow knows") from error
    except _unreadable() as error:
        raise ValueError(one_line(error)) from error


def _unreadable() -> tuple[type[Exception], ...]:
    """What Pillow raises over a file that it cannot or will not read: damaged EXIF data are a SyntaxError."""
    from PIL import Image

    return Image.DecompressionBombError, OSError, SyntaxError, struct.error


def _as_array(image) -> np.ndarray:
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, -1)


def _decode_plain_jpeg(data: bytes, size: tuple[int, int] | None, channels: int) -> np.ndarray | None:
    """A grey or RGB JPEG that needs no change, or None where that is not what it is, or it is damaged.

    It goes straight to Pillow's decoder; ``Image.open`` costs three times as much for 32 x 32 pixels.
    """
    from PIL import Image

    try:
        position, marker = 2, 0xFFD8
        while marker not in (0xFFC0, 0xFFC1, 0xFFC2):
            marker, length = struct.unpack_from(">HH", data, position)
            if marker < 0xFFC0:
                return None
            position += 2 + length
        height, width, stored = struct.unpack_from(">HHB", data, position - length + 3)
        if stored not in _MODES or channels not in (0, stored) or size not in (None, (height, width)):
            return None
        return _as_array(Image.frombytes(_MODES[stored], (width, height), data, "jpeg", _MODES[stored], ""))
    except (OSError, ValueError, struct.error):
        return None


def _png_scanlines(data: bytes) -> tuple[tuple[int, int, int], bytes]:
    """Shape (height, width, channels) and filtered rows of an 8-bit grey or RGB PNG; ValueError for any other data."""
    if not data.startswith(_PNG_START):
        raise ValueError("not a PNG")
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if depth != 8 or colour not in (0, 2) or interlaced:
        raise ValueError("not a plain PNG")
    parts, position, kind = [], 33, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IDAT":
            parts.append(data[position + 8 : position + 8 + length])
        position += 12 + length
    return (height, width, colour + 1), zlib.decompress(b"".join(parts))
