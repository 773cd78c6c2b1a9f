"""The page of ``--mode=roar``: what is still classified when the pixels that a map chose are gone, or alone stay."""

from pathlib import Path

import jinja2
import numpy as np

from robust_saliency import records, statistics
from robust_saliency.report import figures, numbers, roar_scores
from robust_saliency.report.roar_scores import RANDOM, Retrained

TITLES = {
    "remove": "The most relevant pixels removed (ROAR)",
    "keep": "The most relevant pixels kept alone (KAR)",
    "mask": "What the shape of the removed region tells alone",
}


def render(folder: str | Path) -> str:
    """``roar.json``, ``roar.csv`` and the retrainings of ``folder`` as one HTML document."""
    folder = Path(folder)
    about, runs = records.read_json(folder / "roar.json"), roar_scores.read(folder)
    verdicts = roar_scores.claims(runs)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("roar.html").render(
        about=about,
        runs=[_run(run, verdicts) for run in runs],
        num_claims=len(verdicts),
        removed=_removed(about["settings"]["baseline"]),
        duration=numbers.duration(sum(dict(pair for run in runs for pair in run.seconds.items()).values())),
    )


def _run(run: Retrained, verdicts: dict) -> dict:
    whole = run.whole
    return {
        "about": run.about,
        "whole": _accuracy(run, whole),
        "whole_seeds": [numbers.share(float(seed.mean())) for seed in whole],
        "chance": numbers.share(run.about["chance"]),
        "num": whole.shape[1],
        "is_grouped": len(np.unique(run.groups)) < whole.shape[1],
        "seeds": run.seeds,
        "claims": _claims(run, verdicts),
        "pictures": [_picture(run, mode) for mode in run.modes],
        "tables": [_table(run, mode) for mode in run.modes],
        "quality": _quality(run),
        "empty": [(label, counts) for label, counts in run.empty.items() if any(counts)],
    }


def _removed(baseline: dict | None) -> str:
    """What removed pixels became."""
    if baseline is None:
        return "the mean of the training images by channel"
    return {"constant": f"the value {baseline['value']}", "mean": "the mean of each image"}.get(
        baseline["kind"], baseline["kind"]
    )


def _picture(run: Retrained, mode: str) -> figures.Picture:
    lines = []
    for label in run.maps:
        found = [run.correct[label, mode, fraction] for fraction in run.fractions(mode)]
        means = [float(values.mean()) for values in found]
        limits = np.array([run.interval(values) for values in found])
        lines.append(figures.Line(label, run.about["maps"][label]["kind"], means, limits))
    whole = {"remove": (0.0, float(run.whole.mean())), "keep": (1.0, float(run.whole.mean()))}.get(mode)
    name, title = run.about["name"], TITLES[mode].split(" (")[0]
    return figures.retraining_curve(name, title, run.fractions(mode), lines, whole, run.about["chance"])


def _claims(run: Retrained, verdicts: dict) -> list[dict]:
    """A sentence's parts for each method and mode: its score, whether that counts, and the best floor's."""
    claims = []
    for (name, label, mode), verdict in verdicts.items():
        if name != run.about["name"]:
            continue
        floors = [other for other in run.maps if run.about["maps"][other]["kind"] == "blind" and other != RANDOM]
        best = max(floors, key=lambda other: run.score(other, mode).mean())
        estimate = run.estimate(run.score(label, mode))
        over = run.estimate(run.score(label, mode) - run.score(best, mode))
        claims.append({
            "label": label,
            "protocol": {"remove": "ROAR", "keep": "KAR"}[mode],
            "score": numbers.difference(estimate),
            "verdict": _verdict(verdict),
            "floor": best,
            "over": numbers.difference(over),
            "leak": _leak(run, label),
        })  # fmt: skip
    return claims


def _leak(run: Retrained, label: str) -> str:
    """The most that networks get right which saw only which pixels went; '' where none was trained."""
    found = [float(run.correct[label, "mask", fraction].mean()) for fraction in run.fractions("mask")]
    return numbers.share(max(found)) if found else ""


def _verdict(verdict: statistics.Verdict) -> str:
    word = verdict.word("higher")
    if word not in ("better", "worse"):
        return f"no difference to random pixels that counts ({verdict.reason})"
    return f"{word} than random pixels{'' if verdict.counts else ', which is no claim'} ({verdict.reason})"


def _table(run: Retrained, mode: str) -> dict:
    fractions, rows = run.fractions(mode), []
    for label in run.maps:
        kind = run.about["maps"][label]["kind"]
        rows.append({"kind": kind, "name": label, **_cells(run, label, mode, slice(None))})
        if run.seeds > 1:
            rows += [
                {"kind": "seed", "name": f"seed {seed}", **_cells(run, label, mode, slice(seed, seed + 1))}
                for seed in range(run.seeds)
            ]
    return {"mode": mode, "title": TITLES[mode], "heads": [numbers.percent(share) for share in fractions], "rows": rows}


def _cells(run: Retrained, label: str, mode: str, seeds: slice) -> dict:
    cells = []
    for fraction in run.fractions(mode):
        gain = run.estimate(run.gain(label, mode, fraction)[seeds])
        cells.append({**_accuracy(run, run.correct[label, mode, fraction][seeds]), "gain": _gain(label, gain)})
    score = run.estimate(run.score(label, mode)[seeds])
    return {"cells": cells, "score": None if mode == "mask" else _gain(label, score)}


def _accuracy(run: Retrained, correct: np.ndarray) -> dict:
    return {"share": numbers.share(float(correct.mean())), "interval": numbers.interval(*run.interval(correct))}


def _gain(label: str, estimate) -> tuple[str, str]:
    return (numbers.DASH, "") if label == RANDOM else numbers.difference(estimate)


def _quality(run: Retrained) -> dict | None:
    """DiffROAR's attribution quality of every map; None where not both protocols ran, or no shares match."""
    if {"remove", "keep"} - set(run.modes) or not run.attribution_quality(RANDOM):
        return None
    rows = []
    for label in run.maps:
        found = run.attribution_quality(label)
        rows.append({
            "kind": run.about["maps"][label]["kind"],
            "name": label,
            "cells": [numbers.difference(run.estimate(values)) for values in found.values()],
        })  # fmt: skip
        if run.seeds > 1:
            rows += [
                {"kind": "seed", "name": f"seed {seed}",
                 "cells": [numbers.difference(run.estimate(values[seed : seed + 1])) for values in found.values()]}
                for seed in range(run.seeds)
            ]  # fmt: skip
    return {"heads": [numbers.percent(k) for k in run.attribution_quality(RANDOM)], "rows": rows}
