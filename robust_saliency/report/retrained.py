"""Accuracies of the retrainings of ``--mode=roar`` over the seeds of a study: plain values, and a Markdown table."""

from typing import Any

from robust_saliency import records
from robust_saliency.report import numbers, roar_scores
from robust_saliency.report.load import Run, Study
from robust_saliency.report.markdown_tables import table_line

PROTOCOLS = {"remove": "without", "keep": "with nothing but", "mask": "told only which are"}


def described(study: Study) -> dict[str, Any]:
    """``whole``: accuracy by seed of networks retrained on whole images; ``rows``: by what took the pixels away.

    A row has the map, the run that it explains (none of a map that never looks at one), the mode, the share of the
    pixels and the accuracy by seed. ``{}`` of a study without retrainings.
    """
    if not study.folder or not records.is_there(study.folder / "roar" / "roar.json"):
        return {}
    found = {each.about["name"]: each for each in roar_scores.read(study.folder / "roar")}
    whole: dict[str, float] = {}
    rows: dict[tuple, dict[str, float]] = {}
    for run in (run for label in study.labels for run in study.of(label)):
        retrained = found.get(study.name_of(run))
        if retrained is None:
            continue
        whole[str(run.seed)] = float(retrained.whole.mean())
        for (method, mode, fraction), correct in retrained.correct.items():
            if fraction:
                place = (method, _explained(retrained.about["maps"][method], run), mode, fraction)
                rows.setdefault(place, {})[str(run.seed)] = float(correct.mean())
    names = ("map", "run", "mode", "fraction")
    return {"whole": whole, "rows": [{**dict(zip(names, place, strict=True)), "accuracy": by_seed}
                                     for place, by_seed in rows.items()]}  # fmt: skip


def _explained(about: dict, run: Run) -> str:
    return run.label if about["kind"] == "method" or "of" in about else ""


def markdown(described: dict[str, Any]) -> str:
    """A line a map and run, a column a share of the pixels; means over seeds."""
    rows = described["rows"]
    columns = list(dict.fromkeys((row["mode"], row["fraction"]) for row in rows))
    means = {(row["map"], row["run"], row["mode"], row["fraction"]): _mean(row["accuracy"]) for row in rows}
    heads = [f"{PROTOCOLS[mode]} {100 * fraction:g} %" for mode, fraction in columns]
    lines = [["Pixels chosen by", *heads], ["---"] * (1 + len(columns))]
    lines.append(["(whole images)", *[numbers.share(_mean(described["whole"]))] * len(columns)])
    chosen = dict.fromkeys((row["map"], row["run"]) for row in rows)
    for method, run in sorted(chosen, key=lambda each: not each[1]):
        values = (means.get((method, run, *column), float("nan")) for column in columns)
        lines.append([f"{method} of {run}" if run else method, *map(numbers.share, values)])
    return "".join(f"{table_line(line)}\n" for line in lines)


def _mean(by_seed: dict[str, float]) -> float:
    return sum(by_seed.values()) / len(by_seed)
