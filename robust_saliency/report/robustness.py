"""The page of ``--mode=robustness``: who withstands which adversary, the curve over epsilon, and the checklist."""

from pathlib import Path

import jinja2
import numpy as np

from robust_saliency import records, statistics
from robust_saliency.report import figures, numbers

WORDS = {
    "clean": "no change at all",
    "noise": "ten random points of the ball",
    "pgd-10": "projected gradient descent, 10 steps",
    "pgd-50": "the same, 50 steps",
    "apgd-ce": "Auto-PGD on cross-entropy",
    "apgd-ce in float32": "Auto-PGD with gradients computed in float32, judged on the network as it is",
    "apgd-dlr": "Auto-PGD on the difference of logits ratio",
    "square": "random search, without gradients",
    "autoattack": "APGD on cross-entropy, then towards classes, FAB-T, Square",
    "all": "an image counts only if it withstands every adversary above",
}


def words(name: str) -> str:
    """What an adversary does."""
    return WORDS.get(name, "the same from several random starts; the worst counts")


def render(folder: str | Path) -> str:
    """``robustness.json`` and ``examples.csv`` of ``folder`` as one HTML document."""
    folder = Path(folder)
    about, examples = records.read_json(folder / "robustness.json"), records.read_csv(folder / "examples.csv")
    smallest = examples.pop("smallest_epsilon").astype(float)
    attacks = [name for name in examples if name not in ("id", "label")]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("robustness.html").render(
        about=about,
        rows=[_row(name, examples[name], about["passes"].get(name)) for name in attacks],
        answer=_row("all", examples["all"], None),
        epsilon=numbers.epsilon(about["epsilon"]),
        curve=figures.robustness_curves({"": [smallest]}, about["epsilon"], about["norm"]),
        median=numbers.plain(float(np.median(smallest))) if np.isfinite(np.median(smallest)) else "none",
        duration=numbers.duration(about["seconds"]),
        num=len(smallest),
    )


def _row(name: str, robust: np.ndarray, passes: list[float] | None) -> dict:
    robust = robust.astype(int)
    low, high = statistics.wilson_interval(int(robust.sum()), len(robust))
    return {
        "name": name,
        "words": words(name),
        "share": numbers.plain(float(robust.mean())),
        "interval": numbers.interval(low, high),
        "count": f"{robust.sum()} of {len(robust)}",
        "passes": "" if passes is None else f"{passes[0]:.0f} + {passes[1]:.0f}",
    }
