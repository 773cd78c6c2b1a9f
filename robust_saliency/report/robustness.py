"""The page of ``--mode=robustness``: who withstands which adversary, the curve over epsilon, and the checklist."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from robust_saliency import records, statistics
from robust_saliency.report import figures, numbers

NOT_ADVERSARIES = ("id", "label", "group", "smallest_epsilon", "epsilon_width")  # columns of examples.csv


def words(name: str, budget: Mapping[str, Any]) -> str:
    """What an adversary does, as hard as ``budget`` says: the fields of ``robustness_checks.Budget``."""
    steps, classes = f"{budget['steps']} steps", f"{budget['num_targets']} of {budget['wrong_classes']} wrong classes"
    cascade = f"the {budget['version']} version: APGD on cross-entropy, then towards {classes}, {steps} each"
    if budget["version"] != "fast":
        cascade += f"; FAB-T towards as many; Square, {budget['num_queries']} queries"
    return {
        "clean": "no change at all",
        "noise": "ten random points of the ball",
        "pgd-10": "projected gradient descent, 10 steps",
        "pgd-50": "the same, 50 steps",
        "apgd-ce": f"Auto-PGD on cross-entropy, {steps}",
        "apgd-ce in float32": f"Auto-PGD with gradients in float32, judged on the network as it is, {steps}",
        "apgd-dlr": f"Auto-PGD on the difference of logits ratio, {steps}",
        "square": f"random search, without gradients, {budget['num_queries']} queries",
        "autoattack": cascade,
        "search": f"Auto-PGD on the difference of logits ratio in the search for the smallest epsilon, "
        f"{budget['curve_steps']} steps",
        "all": "an image counts only if it withstands every adversary above",
    }.get(name, "the same from several random starts; the worst counts")


def render(folder: str | Path) -> str:
    """``robustness.json`` and ``examples.csv`` of ``folder`` as one HTML document."""
    folder = Path(folder)
    about, examples = records.read_json(folder / "robustness.json"), records.read_csv(folder / "examples.csv")
    smallest, width = (examples[name].astype(float) for name in ("smallest_epsilon", "epsilon_width"))
    found = width[np.isfinite(width) & (smallest > 0)]
    attacks = [name for name in examples if name not in NOT_ADVERSARIES]
    groups = examples.get("group")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("robustness.html").render(
        about=about,
        run=about.get("run", ""),  # none in reports of earlier versions
        rows=[_row(name, examples[name], groups, about) for name in attacks],
        answer=_row("all", examples["all"], groups, about),
        num_groups=0 if groups is None else len(np.unique(groups)),
        widths=[numbers.plain(float(np.quantile(found, share))) for share in (0.5, 1)] if len(found) else [],
        epsilon=numbers.epsilon(about["epsilon"]),
        curve=figures.robustness_curves({"": [smallest]}, about["epsilon"], about["norm"], {"": [groups]}),
        median=numbers.plain(float(np.median(smallest))) if np.isfinite(np.median(smallest)) else "none",
        duration=numbers.duration(about["seconds"]),
        num=len(smallest),
    )


def interval(robust: np.ndarray, groups: np.ndarray | None) -> tuple[float, float]:
    """Of the share of images that withstand, see :func:`robust_saliency.statistics.share_interval`."""
    return statistics.share_interval(statistics.bootstrap_mean(robust.astype(float), groups, seed=0))


def _row(name: str, robust: np.ndarray, groups: np.ndarray | None, about: Mapping[str, Any]) -> dict:
    robust, passes = robust.astype(int), about["passes"].get(name)
    return {
        "name": name,
        "words": words(name, about["budget"]),
        "share": numbers.share(float(robust.mean())),
        "interval": numbers.interval(*interval(robust, groups)),
        "count": f"{robust.sum()} of {len(robust)}",
        "passes": "" if passes is None else f"{passes[0]:.0f} + {passes[1]:.0f}",
    }
