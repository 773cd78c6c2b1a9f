"""The tables of a paper's page, from the study that measured them; and the table of all papers in docs/results.md.

    python docs/fill.py --study=runs/margeloiu2020 --page=docs/papers/margeloiu2020.md
    python docs/fill.py --study=runs/scaat_cifar10 --page=docs/papers/scaat2023.md --part=cifar10
    python docs/fill.py

The first reads the study and writes the page's summary beside it, as JSON: every claim, difference and mean, with the
command, hardware, versions and time; the second a further one, for another part of the page. All then put what the
summaries say between the comments ``<!-- claims -->``, ``<!-- means -->``, of retrainings ``<!-- roar -->`` (of a part
``<!-- claims cifar10 -->``) and ``<!-- papers -->`` of the pages and the next ``<!-- end -->``.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))
from robust_saliency.report import load, numbers, retrained, stated_plain, stated_table  # noqa: E402
from robust_saliency.report.answer import leading_method  # noqa: E402
from robust_saliency.report.compare import compare  # noqa: E402
from robust_saliency.report.markdown_tables import table_line  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", help="folder of a study that states claims")
    parser.add_argument("--page", help="its page, a Markdown file")
    parser.add_argument("--part", help="of the page, where it is not the first study of it: a word")
    words = parser.parse_args()
    if (words.study is None) != (words.page is None):
        parser.error("--study and --page go together.")
    if words.part and not words.study:
        parser.error("--part goes with --study and --page.")
    if words.page and (Path(words.page).resolve().parent != DOCS / "papers" or Path(words.page).suffix != ".md"):
        parser.error(f"--page must be a Markdown file in {DOCS / 'papers'}, got {words.page}.")
    try:
        new = {}
        if words.study:
            path = Path(words.page).with_suffix(f".{words.part}.json" if words.part else ".json").resolve()
            new[path] = json.dumps(summarised(words.study), indent=1) + "\n"
        files = new | pages(new)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for path, text in files.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(path)


def summarised(directory: str | os.PathLike) -> dict:
    """Claims and means of a study. ValueError where it cannot be read, or states no claim."""
    study = load.read_study(directory)
    if not study.claims:
        raise ValueError(f"The study in {directory} states no claim: config.study.claims.")
    columns = [column for column in study.first.scores.columns if column[0] in ("accuracy", leading_method(study))]
    comparison = compare(study)
    means = {
        label: {" ".join(column): [_rounded(each) for each in comparison[label][column].mean[:3]] for column in columns}
        for label in study.labels
    }
    titles = {name: about["title"] for name, about in study.first.summary["metrics"].items()}
    roar = {"roar": found} if (found := retrained.described(study)) else {}
    return stated_plain.described(study) | {"means": means, "metrics": titles} | roar


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if value == value else None


def pages(new: Mapping[Path, str] = MappingProxyType({})) -> dict[Path, str]:
    """Every page that has a summary, and docs/results.md, filled with what summaries say; ``new``: text by file."""
    texts = {path: path.read_text() for path in (DOCS / "papers").glob("*.json")} | dict(new)
    paths = sorted(texts, key=lambda path: path.stem.split("."))  # a page's first study before its others
    summaries = {path.stem: json.loads(texts[path]) for path in paths}
    found: dict[Path, str] = {}
    for name, summary in summaries.items():
        paper, _, part = name.partition(".")
        path = DOCS / "papers" / f"{paper}.md"
        text = found.get(path) or path.read_text()
        text = filled(text, f"claims {part}".strip(), stated_table.markdown(summary))
        text = filled(text, f"means {part}".strip(), f"{runs_list(summary)}\n{means_table(summary)}")
        if "roar" in summary:
            text = filled(text, f"roar {part}".strip(), retrained.markdown(summary["roar"]))
        found[path] = text
    results = DOCS / "results.md"
    found[results] = filled(results.read_text(), "papers", papers_table(summaries))
    return found


def filled(text: str, name: str, table: str) -> str:
    """``text`` with ``table`` between ``<!-- name -->`` and the next ``<!-- end -->``; ValueError where they lack."""
    head, begin, rest = text.partition(f"<!-- {name} -->\n")
    _, end, tail = rest.partition("<!-- end -->")
    if not begin or not end:
        raise ValueError(f"The page of {name!r} lacks the comments <!-- {name} --> and <!-- end -->.")
    return head + begin + table + end + tail


def runs_list(summary: dict) -> str:
    """A line a run, what it is; then the attacks."""
    runs = [f"- `{label}`: {text}" for label, text in summary["runs"].items()]
    attacks = [f"- Under {label}: {text}" for label, text in summary["attacks"].items()]
    return "\n".join(runs + attacks) + "\n"


def means_table(summary: dict) -> str:
    """One row a run: accuracies, and the metrics of the leading map."""
    columns = list(next(iter(summary["means"].values())))
    lines = [["Run", *(_title(column, summary) for column in columns)], ["---"] * (len(columns) + 1)]
    for run, values in summary["means"].items():
        lines.append([run, *(_with_interval(values[column]) for column in columns)])
    return numbers.ascii_minus("".join(f"{table_line(fields)}\n" for fields in lines))


def _title(column: str, summary: dict) -> str:
    method, _, metric = column.partition(" ")
    if method != "accuracy":
        return f"{summary['metrics'][metric]} ({method})"
    return "Clean accuracy" if metric == "correct" else f"Under {metric.removeprefix('robust:')}"


def _with_interval(values: list[float | None]) -> str:
    mean, low, high = (float("nan") if value is None else value for value in values)
    return f"{numbers.plain(mean)} {numbers.interval(low, high)}".strip()


def papers_table(summaries: dict[str, dict]) -> str:
    """One row a claim of every paper: the verdict, its first difference and one against it, what it rests on."""
    heads = (
        "Paper",
        "Data",
        "Claim",
        "Whose",
        "Verdict",
        "Shown, opposite",
        "Difference",
        "Seeds",
        "Hardware, hours",
        "Command",
    )
    lines = [heads, ["---"] * len(heads)]
    for name, summary in summaries.items():
        made = f"{summary['hardware'].get('devices', '')}, {summary['seconds'] / 3600:.1f} h"
        for claim, section in zip(summary["claims"], stated_table.sections(summary), strict=True):
            findings = [each["finding"] for each in (*claim["differences"], *claim["correlations"])]
            told = "; ".join(
                f"{section.rows[at][0]}: {section.rows[at][3]}" + (f" ({findings[at]})" if at else "")
                for at in dict.fromkeys([0, _first_against(findings)])
            )
            lines.append([
                f"[{name}](papers/{name.partition('.')[0]}.md)", _data(summary),
                claim["sentence"], claim["source"], claim["verdict"],
                f"{findings.count('shown')}, {findings.count('opposite')} of {len(findings)}", told,
                str(len(summary["seeds"])), made, f"`{summary['command']}`",
            ])  # fmt: skip
    return numbers.ascii_minus("".join(f"{table_line(fields)}\n" for fields in lines))


def _first_against(findings: list[str]) -> int:
    """The first that is opposite, or else the first that is not shown; 0 where all are."""
    against = [at for at, word in enumerate(findings) if word == "opposite"]
    return next(iter(against + [at for at, word in enumerate(findings) if word != "shown"]), 0)


def _data(summary: dict) -> str:
    """``cifar10``, ``planted lesions``."""
    return summary["data"].partition(":")[0].partition(" (")[0]


if __name__ == "__main__":
    main()
