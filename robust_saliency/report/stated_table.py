"""The verdicts on stated claims as a table: plain text of each cell, which the page and Markdown share."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from robust_saliency.report import numbers
from robust_saliency.report.markdown_tables import table_line
from robust_saliency.statistics import Estimate

HEADS = ("What was expected", "It", "Other", "Difference", "Seeds: each", "Holm p", "Found")


class Section(NamedTuple):
    """A claim: its sentence, the verdict, whose it is and since when, and a row of texts a difference, under ``HEADS``.

    origin: empty for a claim of the paper that was stated before anything was measured.
    """

    label: str
    sentence: str
    verdict: str
    origin: str
    rows: list[tuple[str, ...]]


def sections(described: Mapping[str, Any]) -> list[Section]:
    """Of what :func:`robust_saliency.report.stated_plain.described` found."""
    return [
        Section(
            claim["label"],
            claim["sentence"],
            claim["verdict"],
            _origin(claim, described["changed_after"]),
            [*map(_row, claim["differences"]), *map(_row_of_correlation, claim["correlations"])],
        )
        for claim in described["claims"]
    ]


def markdown(described: Mapping[str, Any]) -> str:
    """One table: a bold row a claim with its verdict, and below it its differences."""
    lines = [*withdrawn(described), table_line(HEADS), table_line(["---"] * len(HEADS))]
    for section in sections(described):
        lines.append(
            table_line([f"**{_head(section)}: {section.verdict}.** {section.sentence}", *[""] * (len(HEADS) - 1)])
        )
        lines += [table_line(row) for row in section.rows]
    return numbers.ascii_minus("\n".join(lines)) + "\n"


def withdrawn(described: Mapping[str, Any]) -> list[str]:
    """A sentence for each claim that was taken away after networks had been measured."""
    labels = {claim["label"] for claim in described["claims"]}
    taken_away = {label: count for label, count in described["changed_after"].items() if label not in labels}
    said = [
        f"A claim {label} was taken away when {count} networks had been measured."
        for label, count in taken_away.items()
    ]
    return [*said, ""] if said else []


def _head(section: Section) -> str:
    return f"{section.label} ({section.origin})" if section.origin else section.label


def _origin(claim: Mapping[str, Any], changed_after: Mapping[str, int]) -> str:
    since = changed_after.get(claim["label"])
    parts = ["ours"] if claim["source"] == "ours" else []
    return ", ".join(parts + ([f"since {since} networks were measured"] if since else []))


def _row(found: Mapping[str, Any]) -> tuple[str, ...]:
    mean, limits = numbers.difference(
        Estimate(*map(_float, (found["difference"], found["low"], found["high"])), 0, 0, 0)
    )
    it, other = (numbers.plain(_float(found[name])) for name in ("mean", "other_mean"))
    return (_words(found), it, other, f"{mean} {limits}".strip(), *_verdict(found, found["by"]))


def _row_of_correlation(found: Mapping[str, Any]) -> tuple[str, ...]:
    """The correlation stands in the column of differences."""
    of = f" of {found['map']}" if found["map"] else ""
    said = f"above {found['beyond']:g}" if found["direction"] == "higher" else f"below {-found['beyond'] or 0:g}"
    words = f"{found['title']}{of}: correlation with {found['along']} over {len(found['runs'])} networks {said}"
    mean, low, high = (_float(found[name]) for name in ("correlation", "low", "high"))
    measured = f"r {numbers.plain(mean)} {numbers.interval(low, high)}".strip()
    return (words, "", "", measured, *_verdict(found, found["beyond"]))


def _verdict(found: Mapping[str, Any], least: float) -> tuple[str, str, str]:
    """How many seeds agree and what each found, the p-value, and the finding; of one that is not shown also why."""
    by_seed = [value for value in found["by_seed"].values() if value is not None]
    sign = 1 if found["direction"] == "higher" else -1
    agreeing = sum(sign * value > least for value in by_seed)
    p_value = numbers.p_value(_float(found["holm"])).removeprefix("p ")
    seeds = f"{agreeing} of {len(found['by_seed'])}: {', '.join(map(_signed, found['by_seed'].values()))}"
    why = f": {found['reason']}" if found["finding"] == "not shown" else ""
    return seeds, p_value, f"{found['finding']}{why}"


def _signed(value: float | None) -> str:
    return numbers.signed(_float(value))


def _words(found: Mapping[str, Any]) -> str:
    """``Total variation of gradient: robust below standard``, and by how much where that is claimed."""
    run, method, by = found["run"], found["map"], found["by"]
    other_run, other_map = found["than_run"] or run, found["than_map"] or method
    other = [found["than_title"]] if found["than_title"] != found["title"] else []
    other += [f"of {other_map}" if other else f"that of {other_map}"] if other_map != method else []
    other += [f"in {other_run}" if other else other_run] if other_run != run else []
    higher = found["direction"] == "higher"
    said = ("not lower than" if higher else "not higher than") if by < 0 else "above" if higher else "below"
    least = f" by more than {-by:g}" if by < 0 else f" by at least {by:g}" if by else ""
    return f"{found['title']}{f' of {method}' if method else ''}: {run} {said} {' '.join(other)}{least}"


def _float(value: float | None) -> float:
    return float("nan") if value is None else value
