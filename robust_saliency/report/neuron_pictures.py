"""The pictures of the page of neurons: images with what a unit sees and where it is active drawn around."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from robust_saliency.report import numbers
from robust_saliency.report.pictures import image_png, outline


class Tile(NamedTuple):
    """An image as a data URI, and SVG paths in its pixels: where the unit is active, its receptive field, a mask."""

    image: str
    alt: str
    width: int
    height: int
    active: str = ""
    box: str = ""
    mask: str = ""
    caption: str = ""


class Pictures:
    """The arrays of neurons.npz as tiles; equal images are encoded once."""

    def __init__(self, arrays: Mapping[str, np.ndarray], concepts: Sequence[str]):
        self._arrays, self._concepts = arrays, list(concepts)
        self._places = {int(id): place for place, id in enumerate(arrays["picture_ids"])}
        self._encoded: dict[int, str] = {}

    def plain(self, example: int, alt: str) -> Tile:
        return self._tile(example, alt)

    def top(self, layer: str, unit: int, concept: str) -> list[Tile]:
        """The top examples of a unit that are kept, the most active first, with the mask of ``concept``."""
        ids, values = (self._arrays[f"{name}/{layer}"][unit] for name in ("ids", "values"))
        kept = self._arrays[f"boxes/{layer}"].shape[1]
        return [
            self._of_unit(layer, unit, int(example), concept)._replace(caption=f"{float(value):.3g}")
            for example, value in zip(ids[:kept], values[:kept], strict=True)
            if example >= 0
        ]

    def here(self, layer: str, unit: int, example: int) -> Tile:
        """Where the unit is active in an image, with its receptive field there."""
        return self._of_unit(layer, unit, example, "")

    def wishes(self, layer: str, unit: int) -> list[Tile]:
        """What the unit would like to see: begun with noise, and with its top example."""
        units = self._arrays.get(f"wish_units/{layer}", np.zeros(0, int))
        found = []
        for place in np.flatnonzero(units == unit):
            images, before, after = (self._arrays[f"{name}/{layer}"][place] for name in _WISHES)
            for start, image, low, high in zip(("noise", "its top image"), images, before, after, strict=True):
                said = f"from {start}: silent" if low == high else f"from {start}: {low:.3g} to {high:.3g}"
                height, width = image.shape[:2]
                found.append(Tile(image_png(image), f"What unit {unit} would like to see, {said}", width, height,
                                  caption=said))  # fmt: skip
        return found

    def pixels(self, layer: str) -> str:
        """The size of the largest receptive field: '21 x 21'."""
        height, width = self._arrays[f"patches/{layer}"].shape[2:4]
        return f"{height} x {width}"

    def _of_unit(self, layer: str, unit: int, example: int, concept: str) -> Tile:
        seen = self._arrays[f"seen/{layer}"]
        (place,) = np.flatnonzero((seen == (example, unit)).all(1))
        active, box = (self._arrays[f"{name}/{layer}"][place] for name in ("active", "box"))
        large = (box[2] - box[0]) * (box[3] - box[1]) > active.size / 2
        caption = f"active on {numbers.percent(active.mean())}" if active.any() else "below its threshold"
        tile = self._tile(example, f"Image {example}: unit {unit} is {caption}", concept)
        return tile._replace(active=outline(active), box="" if large else _rectangle(box), caption=caption)

    def _tile(self, example: int, alt: str, concept: str = "") -> Tile:
        place = self._places[example]
        image = self._arrays["pictures"][place]
        if example not in self._encoded:
            self._encoded[example] = image_png(image)
        mask = ""
        if concept in self._concepts:
            mask = outline(self._arrays["picture_masks"][place][..., self._concepts.index(concept)])
            alt = f"{alt}, {concept if mask else f'no {concept}'} in it"
        return Tile(self._encoded[example], alt, image.shape[1], image.shape[0], mask=mask)


_WISHES = ("wishes", "wish_before", "wish_after")


def _rectangle(box: np.ndarray) -> str:
    top, left, bottom, right = (int(side) for side in box)
    return f"M{left} {top}H{right}V{bottom}H{left}Z"
