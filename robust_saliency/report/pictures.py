"""The picture grid: rows are images; columns are the image, then for each map method every run and a colour bar."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from robust_saliency import flaws
from robust_saliency.report import numbers
from robust_saliency.report.colours import colour_table, levels
from robust_saliency.report.load import Run, Study

_PERCENTILE = 99.0
_MOST_IMAGES = 12
_MOST_PIXELS = 96
_FIRST_MASKS = ("lesion_mask", "evidence_mask")


@dataclass(frozen=True)
class Tile:
    """One map, in the limits shared by the row (``shared``) and in its own (``own``); ``flaw`` replaces a picture."""

    run: str
    kind: str
    values: np.ndarray
    limit: float
    flaw: str
    verdict: str
    right: bool
    alt: str

    @property
    def shared(self) -> str:
        return "" if self.flaw else map_png(self.values, self.limit, self.kind)

    @property
    def own(self) -> str:
        return "" if self.flaw else map_png(self.values, colour_limit([self.values]), self.kind)

    @property
    def own_limit(self) -> str:
        return limit_text(colour_limit([self.values]))


@dataclass(frozen=True)
class Strip:
    """One method in one row: a tile a run and the limit of their shared colour bar."""

    method: str
    kind: str
    limit: str
    tiles: list[Tile]


@dataclass(frozen=True)
class PictureRow:
    """One image: ``name`` is its id; its pixels, the masks that are not empty by name, and its maps."""

    name: str
    label: str
    pixels: np.ndarray
    masks: dict[str, np.ndarray]
    strips: list[Strip]

    @property
    def alt(self) -> str:
        outlined = f", outlined: {', '.join(self.masks)}" if self.masks else ""
        return f"Image {self.name}, labelled {self.label}{outlined}"

    @property
    def image(self) -> str:
        return image_png(self.pixels)

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def outlines(self) -> dict[str, str]:
        """By mask the SVG path of its boundary."""
        return {name: outline(mask) for name, mask in self.masks.items()}


def picture_rows(study: Study) -> list[PictureRow]:
    """Rows for the images that every run of the first seed has pictures of; empty where there are none."""
    runs = [study.of(label)[0] for label in study.labels]
    if any(run.pictures is None for run in runs):
        return []
    shared = [i for i in runs[0].pictures["ids"] if all(i in run.pictures["ids"] for run in runs)]
    return [_row(study, runs, example) for example in shared[:_MOST_IMAGES]]


def picture_methods(study: Study) -> list[str]:
    """The explaining methods that every run of the first seed has pictures of."""
    runs = [study.of(label)[0] for label in study.labels]
    return [m for m in study.explaining_methods if all(f"map/{m}" in (run.pictures or {}) for run in runs)]


def colour_limit(maps: list[np.ndarray]) -> float:
    """The 99th percentile of the finite absolute values of all ``maps`` together; 0 where there is none."""
    values = np.concatenate([np.abs(m[np.isfinite(m)]).ravel() for m in maps])
    limit = float(np.percentile(values, _PERCENTILE)) if len(values) else 0.0
    return limit if limit > 0.0 or not len(values) else float(values.max())


def map_png(values: np.ndarray, limit: float, kind: str) -> str:
    """A map ``[H, W]`` as a data URI of an indexed PNG; larger maps are averaged down for display."""
    picture = Image.fromarray(levels(_shrink(values), limit, kind))
    picture.putpalette(colour_table(kind).tobytes())
    return _data_uri(picture)


def colour_bar_png(kind: str) -> str:
    """The colour map from top (the limit) to bottom, one pixel wide."""
    return _data_uri(Image.fromarray(colour_table(kind)[::-1, None, :]))


def outline(mask: np.ndarray) -> str:
    """SVG path of :func:`boundary`."""
    across, down = boundary(mask)
    return "".join([f"M{x} {y}h1" for y, x in across] + [f"M{x} {y}v1" for y, x in down])


def boundary(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the inside of ``mask [H, W]`` meets the outside: ``(y, x)`` of the left end of each edge of a pixel that
    lies across, ``[n, 2]``, and of the upper end of each that stands upright."""
    inside = np.pad(np.asarray(mask) > 0, 1)
    return np.argwhere(inside[1:, 1:-1] != inside[:-1, 1:-1]), np.argwhere(inside[1:-1, 1:] != inside[1:-1, :-1])


def _row(study: Study, runs: list[Run], example: int) -> PictureRow:
    pictures, at = runs[0].pictures, [int(np.flatnonzero(run.pictures["ids"] == example)[0]) for run in runs]
    others = sorted(
        name for name in pictures if name.endswith("_mask") and "/" not in name and name not in _FIRST_MASKS
    )
    masks = {name: pictures[name][at[0]] for name in (*_FIRST_MASKS, *others) if name in pictures}
    return PictureRow(
        name=str(example),
        label=study.class_name(pictures["label"][at[0]]),
        pixels=pictures["image"][at[0]],
        masks={name.removesuffix("_mask"): mask for name, mask in masks.items() if mask.any()},
        strips=[_strip(study, runs, at, method) for method in picture_methods(study)],
    )


def _strip(study: Study, runs: list[Run], at: list[int], method: str) -> Strip:
    kind = study.methods[method]["kind"]
    maps = [run.pictures[f"map/{method}"][index] for run, index in zip(runs, at, strict=True)]
    limit = colour_limit(maps)
    tiles = [
        _tile(study, run, index, values, limit, method, kind) for run, index, values in zip(runs, at, maps, strict=True)
    ]
    return Strip(method, kind, limit_text(limit), tiles)


def _tile(study: Study, run: Run, index: int, values: np.ndarray, limit: float, method: str, kind: str) -> Tile:
    predicted = study.class_name(run.pictures["prediction"][index])
    confidence = float(run.pictures["confidence"][index])
    right = bool(run.pictures["prediction"][index] == run.pictures["label"][index])
    damage = flaw(values)
    verdict = f"{predicted} {numbers.percent(confidence)}"
    state = f"the map is {damage}" if damage else f"colours end at {limit_text(limit)}"
    return Tile(
        run=run.label,
        kind=kind,
        values=values,
        limit=limit,
        flaw=damage,
        verdict=verdict,
        right=right,
        alt=f"{method} map of {run.label}; predicts {verdict}, {'right' if right else 'wrong'}; {state}",
    )


def flaw(values: np.ndarray) -> str:
    """Why a map ``[H, W]`` cannot be drawn; '' where it can."""
    return str(flaws.of_maps(values[None])[0])


def _shrink(values: np.ndarray) -> np.ndarray:
    scale = max(values.shape) / _MOST_PIXELS
    if scale <= 1.0:
        return values
    size = (max(1, round(values.shape[1] / scale)), max(1, round(values.shape[0] / scale)))
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BOX))


def image_png(image: np.ndarray) -> str:
    picture = Image.fromarray(grey_levels(image))
    picture.thumbnail((2 * _MOST_PIXELS, 2 * _MOST_PIXELS), Image.Resampling.LANCZOS)
    return _data_uri(picture)


def grey_levels(image: np.ndarray) -> np.ndarray:
    """``uint8 [H, W, 3]`` or, of one channel, ``[H, W]``."""
    image = image if image.dtype == np.uint8 else np.round(255 * image.clip(0, 1)).astype(np.uint8)
    return image[..., 0] if image.shape[-1] == 1 else image


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def limit_text(limit: float) -> str:
    """The value at which colours end."""
    return numbers.plain(limit) if limit < 100 else f"{limit:.3g}"
