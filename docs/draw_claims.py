"""The figure of a paper's page: the differences of some claims.

    python docs/draw_claims.py --page=docs/papers/kim2019.md --claims=score_follows_gradient,accuracy_falls

Reads the summary beside the page. Writes a PNG beside the page.
"""

import argparse
import json
import sys
import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from robust_saliency import checks, records
from robust_saliency.report import figures, stated_table

GREY = "#8a8f96"
FOUND = {"shown": "#0072b2", "opposite": "#d55e00", "less than stated": "#009e73"}
FOUND |= dict.fromkeys(("not shown", "too few", "one seed", "not measured"), GREY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", required=True, help="a Markdown file: where the picture goes")
    parser.add_argument("--claims", required=True, help="labels of claims")
    parser.add_argument("--one-axis", action="store_true", help="all claims on one axis, where they are of one measure")
    words = parser.parse_args()
    page = Path(words.page)
    try:
        figure = of_claims(_summary(page.with_suffix(".json")), words.claims.split(","), words.one_axis)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    records.write_atomic(page.with_suffix(".png"), figures.png(figure))


def _summary(path: Path) -> dict:
    if not path.is_file():
        raise ValueError(f"There is no {path}: docs/fill.py --study=... --page=... writes it.")
    return json.loads(path.read_text())


def of_claims(summary: dict, labels: list[str], one_axis: bool = False) -> Figure:
    """A panel a claim: of each difference what was measured (filled), and from where on the claim holds (hollow).

    That is the mean that it is compared with, or lies beside it by what was claimed at least. The bar is the interval,
    the small marks the seeds, of the difference, which begins at that mean.
    """
    claims = {claim["label"]: claim for claim in summary["claims"]}
    for label in labels:
        checks.one_of("claim", label, claims)
    sections = stated_table.sections(summary)
    lines = {each.label: _lines(claims[each.label], each.rows) for each in sections}
    bare = [label for label in labels if not lines[label]]
    if bare:
        raise ValueError(f"The claim {bare[0]!r} has no difference to draw.")
    heads = {
        label: textwrap.wrap(f"{claims[label]['sentence']} {claims[label]['verdict'].capitalize()}.", 68)
        for label in labels
    }
    heights = [2 * len(lines[label]) + len(heads[label]) + 3 for label in labels]
    figure = Figure(figsize=(10, 0.16 * sum(heights) + 0.5), layout="constrained")
    panels = figure.subplots(len(labels), 1, squeeze=False, sharex=one_axis, height_ratios=heights)[:, 0]
    for label, panel in zip(labels, panels, strict=True):
        panel.set_title("\n".join(heads[label]), loc="left", fontsize=9)
        for at, each in enumerate(claims[label]["differences"]):
            if each["mean"] is not None and each["other_mean"] is not None:
                _draw(panel, at, each)
        panel.set_yticks(range(len(lines[label])), [textwrap.fill(line, 76) for line in lines[label]], fontsize=7)
        panel.set_ylim(len(lines[label]) - 0.5, -0.5)
        panel.set_xlabel(_measured(claims[label]["differences"]), fontsize=7.5)
        panel.tick_params(axis="x", labelsize=7.5, labelbottom=True)
        panel.spines[["top", "right"]].set_visible(False)
    found = {each["finding"] for label in labels for each in claims[label]["differences"]}
    named = {colour: [name for name in FOUND if name in found and FOUND[name] == colour] for colour in FOUND.values()}
    marks = {", ".join(names): {"marker": "o", "color": colour} for colour, names in named.items() if names}
    marks |= {
        "from here on the claim holds": {"marker": "o", "color": "black", "markerfacecolor": "white", "linestyle": ""},
        "each seed": {"marker": "|", "color": "black", "linestyle": ""},
        "95 % interval": {"color": "black", "linewidth": 6, "alpha": 0.25},
    }
    handles = [panels[0].plot([], [], label=name, **style)[0] for name, style in marks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _draw(panel: Axes, at: int, each: dict) -> None:
    colour, other = FOUND[each["finding"]], each["other_mean"]
    least = other + (each["by"] if each["direction"] == "higher" else -each["by"])
    if each["low"] is not None:
        panel.plot([other + each["low"], other + each["high"]], [at, at], color=colour, linewidth=7, alpha=0.25)
    panel.plot([least, each["mean"]], [at, at], color=colour, linewidth=2)
    seeds = [other + value for value in each["by_seed"].values() if value is not None]
    panel.plot(seeds, [at] * len(seeds), "|", color=colour, markersize=9)
    panel.plot(least, at, "o", color=colour, markerfacecolor="white", markersize=6)
    panel.plot(each["mean"], at, "o", color=colour, markersize=6)


def _lines(claim: dict, rows: list[tuple[str, ...]]) -> list[str]:
    """What was expected of each difference, without the measure where the axis names it."""
    texts = [row[0] for row in rows[: len(claim["differences"])]]
    titles = {each["title"] for each in claim["differences"]}
    if len(titles) > 1:
        return texts
    return [text.removeprefix(each["title"]).removeprefix(" of ").removeprefix(": ")
            for text, each in zip(texts, claim["differences"], strict=True)]  # fmt: skip


def _measured(differences: list[dict]) -> str:
    """Under the axis: what it is of, and to which side the claim expects a filled mark to lie of its hollow one."""
    titles, directions = ({each[name] for each in differences} for name in ("title", "direction"))
    sides = {"higher": "claimed: filled to the right of hollow", "lower": "claimed: filled to the left of hollow"}
    both = "above: filled to the right of hollow; below: to the left"
    side = sides[min(directions)] if len(directions) == 1 else both
    return "; ".join([*(titles if len(titles) == 1 else ()), side])


if __name__ == "__main__":
    main()
