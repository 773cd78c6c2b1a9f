"""The main tables of the report as Markdown, for a document that lies beside the code."""

from collections.abc import Sequence

from robust_saliency.report import answer, claims, provenance, tables
from robust_saliency.report.compare import class_comparisons, compare
from robust_saliency.report.load import Study
from robust_saliency.report.numbers import ascii_minus
from robust_saliency.report.tables import Cell, Table


def render(study: Study) -> str:
    """Title, answer, accuracy, one table a map method, and how it was made."""
    comparison = compare(study)
    parts = [f"## {study.title}", study.description, *_answers(study, comparison)]
    parts += ["### Accuracy", _table(tables.accuracy_table(study, comparison))]
    for method in study.explaining_methods:
        parts += [f"### Maps: {method}", study.methods[method].get("description", "")]
        parts.append(_table(tables.method_table(study, comparison, method)))
    parts += ["### How it was made", "\n".join(f"- {name}: {text}" for name, text in provenance.made_with(study))]
    return ascii_minus("\n\n".join(part for part in parts if part)) + "\n"


def _answers(study: Study, comparison) -> list[str]:
    paragraphs = []
    if study.reference is not None and not claims.is_claim(study):
        paragraphs.append(answer.NO_CLAIM)
    for found in answer.answers(study, comparison, class_comparisons(study)):
        lines = [
            f"**{found.run}**. {found.summary} {found.headline}".rstrip(),
            *found.accuracy,
            *(f"{title}: {', '.join(items)}" for _, title, items in found.lists),
        ]
        paragraphs.append("\n".join([lines[0], "", *(f"- {line}" for line in [*lines[1:], *found.remarks])]))
    return paragraphs


def _table(table: Table) -> str:
    heads = [table.corner, *(f"{head.title} {head.arrow}".strip() for head in table.heads)]
    lines = [table_line(heads), table_line(["---"] * len(heads))]
    for row in table.rows:
        header = f"{row.header} ({row.kind})" if row.kind in ("blind", "oracle") else row.header
        lines.append(table_line([header, *map(_cell, row.cells)]))
    return "\n".join(lines)


def table_line(fields: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(field.replace("|", "\\|") for field in fields) + " |"


def _cell(cell: Cell) -> str:
    mark = f"**{cell.mark}**" if cell.counts else cell.mark
    change = " ".join(part for part in (cell.difference, cell.difference_interval, mark) if part)
    by_run = [f"{label} {text}" for label, text in cell.by_run.items()]
    return "<br>".join(part for part in (f"{cell.value} {cell.interval}".strip(), *by_run, change) if part)
