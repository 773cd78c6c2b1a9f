"""The picture grid: rows are images; columns are the image, then for each map method every run and a colour bar."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

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
    shared: str
    own: str
    own_limit: str
    flaw: str
    verdict: str
    right: bool
    alt: str


@dataclass(frozen=True)
class Strip:
    """One method in one row: a tile a run and the limit of their shared colour bar."""

    method: str
    kind: str
    limit: str
    tiles: list[Tile]


@dataclass(frozen=True)
class PictureRow:
    name: str
    label: str
    image: str
    alt: str
    width: int
    height: int
    outlines: dict[str, str]
    strips: list[Strip]


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
    """SVG path of the boundary between the inside and the outside of ``mask [H, W]``, in pixels."""
    inside = np.pad(np.asarray(mask) > 0, 1)
    across = [(y, x) for y, x in np.argwhere(inside[1:, 1:-1] != inside[:-1, 1:-1])]
    down = [(y, x) for y, x in np.argwhere(inside[1:-1, 1:] != inside[1:-1, :-1])]
    return "".join([f"M{x} {y}h1" for y, x in across] + [f"M{x} {y}v1" for y, x in down])


def _row(study: Study, runs: list[Run], example: int) -> PictureRow:
    pictures, at = runs[0].pictures, [int(np.flatnonzero(run.pictures["ids"] == example)[0]) for run in runs]
    label = _class_name(study, pictures["label"][at[0]])
    image = pictures["image"][at[0]]
    others = sorted(
        name for name in pictures if name.endswith("_mask") and "/" not in name and name not in _FIRST_MASKS
    )
    masks = {name: pictures[name][at[0]] for name in (*_FIRST_MASKS, *others) if name in pictures}
    outlines = {name.removesuffix("_mask"): outline(mask) for name, mask in masks.items() if mask.any()}
    return PictureRow(
        name=str(example),
        label=label,
        image=image_png(image),
        alt=f"Image {example}, labelled {label}" + (f", outlined: {', '.join(outlines)}" if outlines else ""),
        width=image.shape[1],
        height=image.shape[0],
        outlines=outlines,
        strips=[_strip(study, runs, at, method) for method in picture_methods(study)],
    )


def _strip(study: Study, runs: list[Run], at: list[int], method: str) -> Strip:
    kind = study.methods[method]["kind"]
    maps = [run.pictures[f"map/{method}"][index] for run, index in zip(runs, at, strict=True)]
    limit = colour_limit(maps)
    tiles = [
        _tile(study, run, index, values, limit, method, kind) for run, index, values in zip(runs, at, maps, strict=True)
    ]
    return Strip(method, kind, _limit_text(limit), tiles)


def _tile(study: Study, run: Run, index: int, values: np.ndarray, limit: float, method: str, kind: str) -> Tile:
    predicted = _class_name(study, run.pictures["prediction"][index])
    confidence = float(run.pictures["confidence"][index])
    right = bool(run.pictures["prediction"][index] == run.pictures["label"][index])
    damage, own_limit = flaw(values), colour_limit([values])
    verdict = f"{predicted} {100 * confidence:.0f}\u00a0%"
    state = f"the map is {damage}" if damage else f"colours end at {_limit_text(limit)}"
    return Tile(
        run=run.label,
        shared="" if damage else map_png(values, limit, kind),
        own="" if damage else map_png(values, own_limit, kind),
        own_limit=_limit_text(own_limit),
        flaw=damage,
        verdict=verdict,
        right=right,
        alt=f"{method} map of {run.label}; predicts {verdict}, {'right' if right else 'wrong'}; {state}",
    )


def flaw(values: np.ndarray) -> str:
    if not np.isfinite(values).all():
        return "not finite"
    return "constant" if values.min() == values.max() else ""


def _shrink(values: np.ndarray) -> np.ndarray:
    scale = max(values.shape) / _MOST_PIXELS
    if scale <= 1.0:
        return values
    size = (max(1, round(values.shape[1] / scale)), max(1, round(values.shape[0] / scale)))
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BOX))


def image_png(image: np.ndarray) -> str:
    image = image if image.dtype == np.uint8 else np.round(255 * image.clip(0, 1)).astype(np.uint8)
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.thumbnail((2 * _MOST_PIXELS, 2 * _MOST_PIXELS), Image.Resampling.LANCZOS)
    return _data_uri(picture)


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _class_name(study: Study, label: int) -> str:
    names = study.first.summary["class_names"]
    return str(names[int(label)]) if 0 <= int(label) < len(names) else f"class {int(label)}"


def _limit_text(limit: float) -> str:
    return numbers.plain(limit) if limit < 100 else f"{limit:.3g}"
