"""The figures drawn with matplotlib: deletion and insertion, training, and robustness over epsilon."""

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robust_saliency import statistics
from robust_saliency.report import history, numbers
from robust_saliency.report.colours import run_colours
from robust_saliency.report.load import Column, Run, Study

_RANDOM = "random"
_GREYS = ("#8a8f96", "#5b636d", "#b0a07a", "#1f2328")  # of maps that never saw the network
_PANELS = {"loss": "Loss", "accuracy": "Accuracy", "robust_accuracy": "Robust accuracy"}


@dataclass(frozen=True)
class Picture:
    """A PNG with the text that says what it shows; ``source``: the same as a data URI."""

    name: str
    png: bytes
    alt: str

    @property
    def source(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def curve_figures(study: Study) -> list[Picture]:
    """One figure a method that explains: mean score of the label against the share of pixels, with 95 % bands."""
    if any(run.curves is None for run in study.runs):
        return []
    shared = [name for name in study.first.curves if all(name in run.curves for run in study.runs)]
    curves = {m: [name for name in shared if name.startswith(f"{m}/")] for m in study.explaining_methods}
    return [_curve_figure(study, method, names) for method, names in curves.items() if names]


def training_figure(study: Study) -> Picture | None:
    """Loss, accuracy and robust accuracy over the epochs; validation solid, training dotted, a line a seed.

    A run in phases has a line a phase, with a bar where the next begins.
    """
    phases = [(run.label, phase) for run in study.runs for phase in run.phases]
    rows = [row for _, phase in phases for row in phase.rows]
    names = [name for name in _PANELS if any(history.is_finite(row, name) for row in rows)]
    if not names:
        return None
    figure, panels = start_figure(len(names))
    colours = run_colours(study.labels)
    for panel, name in zip(panels, names, strict=True):
        for label, phase in phases:
            for split, style in (("train", ":"), ("validation", "-")):
                x, y = history.curve(phase, split, name)
                panel.plot(x, y, style, color=colours[label], linewidth=1.4, marker="." if len(x) == 1 else None)
        if name == "loss":
            panel.set_yscale("symlog", linthresh=0.01)  # a penalty can begin at a hundred
        for label, place in _phase_ends(study):
            panel.axvline(place, color=colours[label], linewidth=0.8, alpha=0.5)
        panel.set_title(_PANELS[name], loc="left", fontsize=10)
        panel.set_xlabel("epoch" if all("epoch" in row for row in rows) else "step")
    roomy = panels[min(1, len(panels) - 1)]  # accuracies leave the corner below free, which losses do not
    roomy.legend(
        handles=[roomy.plot([], [], "-", color=colours[label], label=label)[0] for label in study.labels],
        frameon=False,
    )
    shown = ", ".join(_PANELS[name].lower() for name in names)
    return Picture("training", finished(figure), f"Training curves of {', '.join(study.labels)}: {shown}")


def _phase_ends(study: Study) -> list[tuple[str, float]]:
    """``(label, epoch)`` where a phase of the lowest seed ends and another begins."""
    ends = []
    for label in study.labels:
        for phase in study.of(label)[0].phases[:-1]:
            ends += [(label, max(row["epoch"] for row in phase.rows))] if phase.rows else []
    return ends


def robustness_curves(
    smallest: Mapping[str, Sequence[np.ndarray]],
    epsilon: float,
    norm: str,
    groups: Mapping[str, Sequence[np.ndarray | None]],
) -> Picture:
    """Share of images whose smallest epsilon is larger, against epsilon: by run, a line a seed.

    With the 95 % band of :func:`robust_saliency.statistics.share_interval`, by ``groups [N]`` or None, where every run
    has one seed; else the seeds show the spread.
    """
    values = np.concatenate([seed for seeds in smallest.values() for seed in seeds])
    finite = values[np.isfinite(values)]
    last = max(2 * epsilon, float(np.quantile(finite, 0.98)) if len(finite) else 0.0)
    x = np.linspace(0, last, 200)
    colours = run_colours(list(smallest)) if len(smallest) > 1 else dict.fromkeys(smallest, "#0072b2")
    figure, (panel,) = start_figure(1)
    figure.set_size_inches(6.2, 3.1)
    figure.subplots_adjust(0.1, 0.16, 0.98, 0.95)
    for label, seeds in smallest.items():
        for number, seed in enumerate(seeds):
            left = seed[:, None] > x
            name = label if number == 0 else None
            panel.plot(x, left.mean(0), color=colours[label], linewidth=1.8 if len(seeds) == 1 else 1.2, label=name)
            if all(len(seeds) == 1 for seeds in smallest.values()):
                shares = statistics.bootstrap_mean(left.astype(float), groups[label][number], seed=0)
                band = np.array([statistics.share_interval(shares.column(k)) for k in range(len(x))])
                panel.fill_between(x, band[:, 0], band[:, 1], color=colours[label], alpha=0.18, linewidth=0)
    if len(smallest) > 1:
        panel.legend(frameon=False)
    panel.axvline(epsilon, color="#5b636d", linestyle="--", linewidth=1)
    panel.set_ylim(0, 1)
    panel.set_xlim(0, last)
    panel.set_xlabel(f"epsilon ({norm}); dashed: the threat of this report")
    panel.set_ylabel("robust accuracy")
    names = f" of {', '.join(smallest)}" if len(smallest) > 1 else ""
    alt = f"Robust accuracy{names} over epsilon, {norm}, up to {numbers.plain(last)}"
    return Picture("robustness", finished(figure), alt)


@dataclass(frozen=True)
class Line:
    """A map's accuracy after retraining at each share of a panel, with its limits ``[points, 2]``; kind: of the map."""

    label: str
    kind: str
    means: list[float]
    limits: np.ndarray


def retraining_curve(
    name: str,
    title: str,
    shares: Sequence[float],
    lines: Sequence[Line],
    whole: tuple[float, float] | None,
    chance: float,
) -> Picture:
    """Accuracy of retrained networks over the share of pixels, 95 % bands: methods solid, floors dashed, masks dotted.

    whole: where images are whole, and the accuracy there, at which every line begins or ends; None where there is no
    such. chance: accuracy where nothing is left of an image.
    """
    figure, (panel,) = start_figure(1)
    figure.set_size_inches(5.2, 4.0)
    figure.subplots_adjust(0.11, 0.27, 0.97, 0.93)
    colours = run_colours(["", *(line.label for line in lines if line.kind == "method")])
    greys = dict(zip((line.label for line in lines if line.kind != "method"), _GREYS, strict=False))
    for line, marker in zip(lines, itertools.cycle("os^Dv<>pXhd*")):
        colour = colours.get(line.label) or greys.get(line.label, _GREYS[0])
        panel.fill_between(shares, *line.limits.T, color=colour, alpha=0.14, linewidth=0)
        x, y = list(shares), list(line.means)
        if whole is not None:
            at = 0 if whole[0] < x[0] else len(x)
            x.insert(at, whole[0])
            y.insert(at, whole[1])
        style, width = {"method": ("-", 1.8), "blind": ("--", 1.3), "oracle": (":", 1.6)}[line.kind]
        panel.plot(x, y, style, color=colour, linewidth=width, marker=marker, markersize=4, label=line.label)
    panel.axhline(chance, color="#b2b2b2", linewidth=0.9)
    panel.set_title(title, loc="left", fontsize=10)
    panel.set_xlabel("share of pixels")
    panel.set_ylabel("accuracy after retraining")
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1.02)
    figure.legend(loc="lower left", ncols=3, frameon=False, fontsize=8, handlelength=3)
    ends = ", ".join(f"{line.label} {numbers.plain(line.means[-1])}" for line in lines)
    alt = f"{title}: accuracy after retraining, {name}; at {numbers.percent(shares[-1])} of the pixels {ends}"
    return Picture(f"{name} {title}", finished(figure), alt)


def _curve_figure(study: Study, method: str, names: list[str]) -> Picture:
    figure, panels = start_figure(len(names))
    colours, values = run_colours(study.labels), []
    for panel, name in zip(panels, names, strict=True):
        metric = name.removeprefix(f"{method}/")
        title = study.first.summary["metrics"][metric]["title"]
        for label in study.labels:
            runs = study.of(label)
            x, curve = runs[0].curves[f"fractions/{metric}"], _mean_curve(runs, name)
            value = numbers.plain(_mean_value(runs, (method, metric)))
            panel.plot(x, curve.mean, color=colours[label], linewidth=1.8, label=f"{label} ({value})")
            panel.fill_between(x, curve.low, curve.high, color=colours[label], alpha=0.18, linewidth=0)
            values.append(f"{label} {title} {value}")
            if all(f"{_RANDOM}/{metric}" in run.curves for run in runs):
                blind = _mean_curve(runs, f"{_RANDOM}/{metric}")
                panel.plot(x, blind.mean, "--", color=colours[label], linewidth=1.0, alpha=0.8)
        panel.set_title(title, loc="left", fontsize=10)
        panel.set_xlabel("share of pixels")
        panel.legend(frameon=False, title="run (value)")
    panels[0].set_ylabel("mean score")
    return Picture(method, finished(figure), f"Curves of {method} maps: {', '.join(values)}")


def _mean_value(runs: list[Run], column: Column) -> float:
    """Of the metric that is read off a curve, over all images and seeds: its area, or for ROAD its mean."""
    values = np.concatenate([run.scores.values[:, run.scores.columns.index(column)] for run in runs])
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _mean_curve(runs: list[Run], name: str) -> statistics.Estimate:
    groups = [dict(zip(run.scores.ids.tolist(), run.scores.groups.tolist(), strict=True)) for run in runs]
    known = [[by.get(i, i) for i in run.curves["ids"].tolist()] for by, run in zip(groups, runs, strict=True)]
    values = np.concatenate([run.curves[name] for run in runs])
    return statistics.bootstrap_mean(values, np.concatenate(known), seed=0)


def start_figure(num_panels: int) -> tuple[Figure, list]:
    width, height = 4.2 * num_panels, 3.1
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(0.55 / width, 0.5 / height, 1 - 0.1 / width, 1 - 0.3 / height, wspace=0.16)
    panels = list(figure.subplots(1, num_panels, squeeze=False)[0])
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#e6e6e6", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8)
    return figure, panels


def finished(figure: Figure) -> bytes:
    for panel in figure.axes:
        panel.xaxis.label.set_fontsize(9)
        panel.yaxis.label.set_fontsize(9)
        if panel.get_legend():
            for text in [*panel.get_legend().get_texts(), panel.get_legend().get_title()]:
                text.set_fontsize(8)
    return png(figure)


def grid(down: int, across: int, side: float, last: float) -> tuple[Figure, np.ndarray]:
    """``(figure, panels [down, across])`` of square panels without ticks, the last of a row ``last`` as wide."""
    figure = Figure(figsize=(side * (across - 1 + last) + 0.6, 1.22 * side * down + 0.3))
    FigureCanvasAgg(figure)
    width, height = figure.get_size_inches()
    figure.subplots_adjust(0.1 / width, 0.25 / height, 1 - 0.5 / width, 1 - 0.25 / height, wspace=0.08, hspace=0.22)
    panels = figure.subplots(down, across, squeeze=False, width_ratios=[1] * (across - 1) + [last / 4])
    for panel in panels.flat:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
    return figure, panels


def png(figure: Figure) -> bytes:
    """The figure at 130 pixels an inch; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()
