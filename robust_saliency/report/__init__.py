"""Rows and arrays on disk to one self-contained HTML page; imports neither JAX nor anything that trained the networks.

``report(directory)`` writes ``report.html`` into a study directory or a run's workdir, and beside it a folder
``report`` with its figures as PNG and its rows as Parquet; ``markdown(directory)`` gives its main tables as text. What
writes takes no lock: hold ``workdirs.Workdir(directory)`` where another process may write there too, since both would
write its manifest.
"""

from pathlib import Path

from robust_saliency import records
from robust_saliency.report import (
    explanations,
    exports,
    load,
    markdown_tables,
    neurons,
    page,
    roar,
    robustness,
    study_neurons,
    study_robustness,
)


def report(directory: str | Path) -> Path:
    """Writes ``report.html`` (no other file, no network needed to read it) and returns its path.

    Beside it :func:`robust_saliency.report.exports.write` writes the folder ``report``, whose files nothing here reads.
    Equal files in ``directory`` give equal bytes. Raises ValueError naming a file that is missing or damaged.
    """
    path = Path(directory) / "report.html"
    study = load.read_study(directory)
    shown = page.contents(study)
    exports.write(path.parent / "report", study, page.figures_of(shown), shown["pictures"], shown["stated"])
    records.write_atomic(path, page.render(shown))
    return path


def markdown(directory: str | Path) -> str:
    """The answer, the accuracy table and one table a map method as Markdown."""
    return markdown_tables.render(load.read_study(directory))


def robustness_page(folder: str | Path) -> Path:
    """Writes ``robustness.html`` from the robustness.json and examples.csv of ``folder`` and returns its path."""
    path = Path(folder) / "robustness.html"
    records.write_atomic(path, robustness.render(folder))
    return path


def study_robustness_page(study: str | Path) -> Path:
    """Writes ``robustness/robustness.html`` of a study, from the reports of its runs, and returns its path."""
    path = Path(study) / "robustness" / "robustness.html"
    records.write_atomic(path, study_robustness.render(study))
    return path


def neurons_page(folder: str | Path) -> Path:
    """Writes ``neurons.html`` from the other files of ``folder`` that ``--mode=neurons`` writes; returns its path."""
    path = Path(folder) / "neurons.html"
    records.write_atomic(path, neurons.render(folder))
    return path


def study_neurons_page(study: str | Path) -> Path:
    """Writes ``neurons/neurons.html`` of a study, from the reports of its runs, and returns its path."""
    path = Path(study) / "neurons" / "neurons.html"
    records.write_atomic(path, study_neurons.render(study))
    return path


def roar_page(folder: str | Path) -> Path:
    """Writes ``roar.html`` from the roar.json, roar.csv and retrainings of ``folder`` and returns its path."""
    path = Path(folder) / "roar.html"
    records.write_atomic(path, roar.render(folder))
    return path


def explanations_page(folder: str | Path) -> Path:
    """Writes ``maps.html`` from the predictions.csv and maps.npz of ``folder`` and returns its path."""
    path = Path(folder) / "maps.html"
    records.write_atomic(path, explanations.render(folder))
    return path
