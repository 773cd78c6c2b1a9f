"""The picture grid as sheets to print: of each map method the images, the maps of every network, and one colour bar a
row, in the colours and limits of the page."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from robust_saliency.report import figures
from robust_saliency.report.colours import colour_table, levels
from robust_saliency.report.pictures import PictureRow, Strip, Tile, boundary, grey_levels

_SIDE = 1.25  # inches of a picture
_LINES = {"signed": "#555555", "magnitude": "#9adbe8"}


def draw(rows: list[PictureRow]) -> list[figures.Picture]:
    """A sheet a method; none where there are no pictures."""
    return [_sheet(rows, number) for number in range(len(rows[0].strips))] if rows else []


def _sheet(rows: list[PictureRow], number: int) -> figures.Picture:
    strips = [row.strips[number] for row in rows]
    across = 1 + len(strips[0].tiles)
    figure, panels = figures.grid(len(rows), across + 1, _SIDE, last=0.35)
    for row, strip, line in zip(rows, strips, panels, strict=True):
        _image(line[0], row)
        for panel, tile in zip(line[1:], strip.tiles, strict=False):
            _map(panel, tile, row)
        _bar(line[-1], strip)
    for panel, title in zip(panels[0], ["image", *(tile.run for tile in strips[0].tiles)], strict=False):
        panel.set_title(title, fontsize=8)
    method = strips[0].method
    runs = ", ".join(tile.run for tile in strips[0].tiles)
    return figures.Picture(method, figures.png(figure), f"{method} maps of {runs}, of {len(rows)} images")


def _image(panel: Axes, row: PictureRow) -> None:
    pixels = grey_levels(row.pixels)
    panel.imshow(pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2), interpolation="nearest")
    for name, mask in row.masks.items():
        _outline(panel, mask, "white", 0.5 if name == "lesion" else 1.0)
    panel.set_xlabel(f"{row.label} #{row.name}", fontsize=7)


def _map(panel: Axes, tile: Tile, row: PictureRow) -> None:
    if tile.flaw:
        panel.text(0.5, 0.5, tile.flaw, ha="center", va="center", fontsize=7, transform=panel.transAxes)
        panel.patch.set_hatch("//")
        panel.patch.set_edgecolor("#d5d9de")
    else:
        shown = colour_table(tile.kind)[levels(tile.values, tile.limit, tile.kind)]
        panel.imshow(shown, interpolation="nearest")
        for mask in list(row.masks.values())[-1:]:
            _outline(panel, mask, _LINES[tile.kind], 0.8)
    mark = "\u2713" if tile.right else "\u2717"
    panel.set_xlabel(f"{mark} {tile.verdict}", fontsize=7)


def _outline(panel: Axes, mask: np.ndarray, colour: str, width: float) -> None:
    across, down = boundary(mask)
    lines = [((x, y), (x + 1, y)) for y, x in across] + [((x, y), (x, y + 1)) for y, x in down]
    panel.add_collection(LineCollection(np.array(lines) - 0.5, colors=colour, linewidths=width))


def _bar(panel: Axes, strip: Strip) -> None:
    """From the limit at the top to zero, or to its opposite for signed maps."""
    low = -1 if strip.kind == "signed" else 0
    panel.imshow(colour_table(strip.kind)[::-1, None], extent=(0, 0.1, low, 1), aspect="auto")
    ticks = {1: strip.limit, 0: "0"} | ({-1: f"\u2212{strip.limit}"} if low else {})
    panel.set_yticks(list(ticks), list(ticks.values()), fontsize=6)
    panel.yaxis.tick_right()
