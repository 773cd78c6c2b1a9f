"""The verdicts on stated claims as a table: plain text of each cell, which the page and Markdown share."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from robust_saliency.report import numbers
from robust_saliency.statistics import Estimate

HEADS = ("What was expected", "It", "Other", "Difference", "Seeds", "Holm p", "Found")


class Section(NamedTuple):
    """A claim: its sentence, the verdict, and a row of texts for each difference, under ``HEADS``."""

    label: str
    sentence: str
    verdict: str
    rows: list[tuple[str, ...]]


def sections(described: Mapping[str, Any]) -> list[Section]:
    """Of what :func:`robust_saliency.report.stated.described` found."""
    return [
        Section(claim["label"], claim["sentence"], claim["verdict"], [_row(each) for each in claim["differences"]])
        for claim in described["claims"]
    ]


def markdown(described: Mapping[str, Any]) -> str:
    """One table: a bold row a claim with its verdict, and below it its differences."""
    lines = [_line(HEADS), _line(["---"] * len(HEADS))]
    for section in sections(described):
        lines.append(_line([f"**{section.label}: {section.verdict}.** {section.sentence}", *[""] * (len(HEADS) - 1)]))
        lines += [_line(row) for row in section.rows]
    return numbers.ascii_minus("\n".join(lines)) + "\n"


def _line(fields) -> str:
    return "| " + " | ".join(field.replace("|", "\\|") for field in fields) + " |"


def _row(found: Mapping[str, Any]) -> tuple[str, ...]:
    by_seed = [value for value in found["by_seed"].values() if value is not None]
    sign = 1 if found["direction"] == "higher" else -1
    agreeing = sum(sign * value > found["by"] for value in by_seed)
    mean, limits = numbers.difference(
        Estimate(*map(_float, (found["difference"], found["low"], found["high"])), 0, 0, 0)
    )
    return (
        _words(found),
        numbers.plain(_float(found["mean"])),
        numbers.plain(_float(found["other_mean"])),
        f"{mean} {limits}".strip(),
        f"{agreeing} of {len(found['by_seed'])}",
        numbers.p_value(_float(found["holm"])).removeprefix("p "),
        found["finding"],
    )


def _words(found: Mapping[str, Any]) -> str:
    """``total variation of gradient: robust below standard``, and by how much where that is claimed."""
    run, method = found["run"], found["map"]
    title = found["title"] + (f" of {method}" if method else "")
    other_run, other_map = found["than_run"] or run, found["than_map"] or method
    one, other = (run, other_run) if run != other_run else (run, f"that of {other_map}")
    if run != other_run and method != other_map:
        other = f"{other_map} of {other_run}"
    by = found["by"]
    if by < 0:
        wording = "not lower than" if found["direction"] == "higher" else "not higher than"
        return f"{title}: {one} {wording} {other} by more than {numbers.plain(-by)}"
    wording = "above" if found["direction"] == "higher" else "below"
    return f"{title}: {one} {wording} {other}" + (f" by at least {numbers.plain(by)}" if by else "")


def _float(value: float | None) -> float:
    return float("nan") if value is None else value
