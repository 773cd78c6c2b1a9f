"""The figure of a paper's page: maps of several networks side by side.

    python docs/draw_maps.py --page=docs/papers/scaat2023.md --study=runs/scaat2023 --map=gradient \\
        --runs="standard=Clean images,scaat=SCAAT" --image

Reads the pictures of the first seed; photographs, whose licence may not be ours, only with --image. Writes a PNG beside
the page.
"""

import argparse
import sys
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from robust_saliency import records
from robust_saliency.report import colours, figures, load
from robust_saliency.report.pictures import colour_limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", required=True, help="a Markdown file: where the picture goes")
    parser.add_argument("--study", required=True, help="folder of a study")
    parser.add_argument("--map", default="gradient")
    parser.add_argument("--runs", required=True, help="label=words,label=words: a row each")
    parser.add_argument("--image", action="store_true", help="show the images too")
    words = parser.parse_args()
    try:
        figure = of_maps(words.study, words.map, _pairs(words.runs), words.image)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    records.write_atomic(Path(words.page).with_suffix(".png"), figures.png(figure))


def of_maps(directory: str, method: str, runs: dict[str, str], with_images: bool) -> Figure:
    """A column an image, a row a run; each map in its own colours. ValueError where the study has no such picture."""
    study = load.read_study(directory)
    shown = {label: _pictures(study, label, method) for label in runs}
    first = next(iter(shown.values()))
    rows = [("Image", first["image"])] if with_images else []
    rows += [(words, _coloured(shown[label][f"map/{method}"])) for label, words in runs.items()]
    count = len(first["image"])
    figure = Figure(figsize=(1.25 * count + 1.3, 1.25 * len(rows) + 0.5), layout="constrained")
    panels = figure.subplots(len(rows), count, squeeze=False)
    for panel, label in zip(panels[0], first["label"], strict=True):
        panel.set_title(textwrap.fill(study.class_name(label), 18), fontsize=8)
    outline = "; the white line: the true outline of the lesion" if "lesion_mask" in first else ""
    figure.supxlabel(f"The brighter a pixel, the more the {method} map says it weighs{outline}.", fontsize=8)
    for line, (words, pictures) in zip(panels, rows, strict=True):
        line[0].set_ylabel(textwrap.fill(words, 16), fontsize=9, rotation=0, ha="right", va="center")
        for at, panel in enumerate(line):
            panel.set(xticks=[], yticks=[])
            # One channel is grey, three are colours; pixels as they are, since smoothed noise is a file of a megabyte.
            panel.imshow(pictures[at].squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if "lesion_mask" in first:
                panel.contour(first["lesion_mask"][at] > 0, [0.5], colors="white", linewidths=0.8)
    return figure


def _coloured(maps: np.ndarray) -> list[np.ndarray]:
    table = colours.colour_table("magnitude")
    return [table[colours.levels(values, colour_limit([values]), "magnitude")] for values in maps]


def _pictures(study: load.Study, label: str, method: str) -> dict[str, np.ndarray]:
    if label not in study.labels:
        raise ValueError(f"The study has no run {label!r}, only {', '.join(study.labels)}.")
    arrays = study.of(label)[0].pictures
    if arrays is None or f"map/{method}" not in arrays:
        raise ValueError(f"{label} has no pictures of the map {method!r}.")
    return arrays


def _pairs(words: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in words.split(",")]
    return {label: title or label for label, _, title in pairs}


if __name__ == "__main__":
    main()
