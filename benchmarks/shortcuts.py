"""Which maps reveal that a network has learnt a shortcut: what they put on it, over maps that never saw the network.

    python launch.py --config=configs/study_shortcut.py --workdir=runs/shortcut
    python benchmarks/shortcuts.py --study=runs/shortcut --picture=docs/shortcuts.png

Prints Markdown: of each run how much it relies on the ruler ('reliance', the probability of the label that is lost when
the ruler is filled in from the skin around it), then of each map method the share of the map on the ruler, and by how
much that is over the best blind floor of the same run on the same images, with 95 % intervals over images, seeds
pooled.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robust_saliency import records, statistics
from robust_saliency.report.load import Run, Study, read_study

RELIANCE, MASS, POINTING = "reliance", "ruler_mass", "ruler_pointing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", required=True)
    parser.add_argument("--picture", default="", help="a PNG to be written")
    words = parser.parse_args()
    try:
        study = read_study(words.study)
        lacking = [name for name in (RELIANCE, MASS, POINTING) if name not in study.first.summary["metrics"]]
        if lacking:
            raise ValueError(f"{words.study} was not measured for {', '.join(lacking)}; see configs/study_shortcut.py.")
    except ValueError as error:
        parser.error(str(error))
    print("\n".join([*networks(study), "", *maps(study, MASS), "", *maps(study, POINTING)]))
    if words.picture:
        draw(study, Path(words.picture))


def networks(study: Study) -> list[str]:
    """Of each run: clean accuracy, and reliance on the ruler, seeds together and one by one."""
    rows = ["| run | accuracy | reliance | by seed |", "|---|---|---|---|"]
    for label in study.labels:
        runs = study.of(label)
        accuracy, reliance = (estimate(runs, column) for column in (("accuracy", "correct"), reliance_of(study)))
        seeds = " / ".join(f"{estimate([run], reliance_of(study)).mean:.3f}" for run in runs)
        low, high = statistics.share_interval(accuracy)
        shown = f"{accuracy.mean:.3f} [{low:.3f}, {high:.3f}]"
        rows.append(f"| {label} | {shown} | {worded(reliance)} | {seeds} |")
    return rows


def maps(study: Study, metric: str) -> list[str]:
    """Of each method and run: the mean, the best floor, and the excess over it."""
    rows = [f"| {study.first.summary['metrics'][metric]['title']}, {metric} | " + " | ".join(study.labels) + " |"]
    rows.append("|---" * (1 + len(study.labels)) + "|")
    for method in study.explaining_methods:
        cells = [worded_excess(study, study.of(label), method, metric) for label in study.labels]
        rows.append(f"| {method} | " + " | ".join(cells) + " |")
    return rows


def worded_excess(study: Study, runs: list[Run], method: str, metric: str) -> str:
    floors = {floor: estimate(runs, (floor, metric)).mean for floor in study.floors(method)}
    best = max(floors, key=floors.get)
    excess = estimate(runs, (method, metric), (best, metric))
    own = estimate(runs, (method, metric)).mean
    return f"{own:.3f}, {excess.mean:+.3f} [{excess.low:+.3f}, {excess.high:+.3f}]"


def reliance_of(study: Study) -> tuple[str, str]:
    """The column: reliance is of the network, the same whatever the map."""
    return study.explaining_methods[0], RELIANCE


def estimate(runs: list[Run], column: tuple[str, str], less: tuple[str, str] | None = None) -> statistics.Estimate:
    """The mean of a column, or of its difference to another, over the images of all seeds."""
    values = np.concatenate([of(run, column) - (of(run, less) if less else 0.0) for run in runs])
    return statistics.bootstrap_mean(values, np.concatenate([run.scores.groups for run in runs]), seed=0)


def of(run: Run, column: tuple[str, str]) -> np.ndarray:
    return run.scores.values[:, run.scores.columns.index(column)]


def worded(found: statistics.Estimate) -> str:
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def draw(study: Study, path: Path) -> None:
    """The first pictured image with a ruler: a row a run, a column a method, each map in its own colours."""
    pictures = {label: study.of(label)[0].pictures for label in study.labels}
    shown = next(iter(pictures.values()))
    at = int(np.flatnonzero(shown["ruler_mask"].any((1, 2)))[0])
    methods = study.explaining_methods
    figure = Figure(figsize=(1.35 * (1 + len(methods)), 1.5 * len(pictures)))
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(pictures), 1 + len(methods), squeeze=False)
    for row, (label, arrays) in zip(panels, pictures.items(), strict=True):
        row[0].imshow(arrays["image"][at])
        row[0].set_ylabel(label)
        for panel, method in zip(row[1:], methods, strict=True):
            values = np.abs(arrays[f"map/{method}"][at])
            panel.imshow(values, cmap="inferno", vmin=0, vmax=np.quantile(values, 0.99))
            panel.contour(arrays["ruler_mask"][at] > 0, [0.5], colors="white", linewidths=0.6)
    for panel, title in zip(panels[0], ["image", *methods], strict=True):
        panel.set_title(title.replace("_", " ").replace("integrated gradients", "integr. gradients"), fontsize=8)
    for panel in panels.flat:
        panel.set_xticks([])
        panel.set_yticks([])
    figure.tight_layout(pad=0.4)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    records.write_atomic(path, buffer.getvalue())


if __name__ == "__main__":
    main()
