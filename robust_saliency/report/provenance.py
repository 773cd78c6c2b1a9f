"""How the numbers came about: the settings that differ, versions and commands, and what could not be measured."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from robust_saliency import statistics
from robust_saliency.report import history, numbers
from robust_saliency.report.compare import Comparison, in_family, paired, pooled
from robust_saliency.report.load import Run, Study
from robust_saliency.report.tables import Cell, Head, Row, Table, column_title

# Seeds, titles and descriptions are listed elsewhere; the sections of other modes set nothing of a run.
_NOT_SETTINGS = ("seed", "title", "description", "study", "benchmark", "neurons", "roar", "robustness")


def config_table(study: Study) -> Table:
    """The settings in which the runs (lowest seed of each) differ; with one run, all that are set."""
    flat = {label: _settings(study.of(label)[0]) for label in study.labels}
    keys = sorted({key for settings in flat.values() for key in settings})
    rows = []
    for key in keys:
        values = [settings.get(key, numbers.DASH) for settings in flat.values()]
        if len(set(values)) > 1 or len(values) == 1:
            rows.append(Row("plain", key, [Cell(value) for value in values]))
    return Table("config", "Setting", [Head(label) for label in study.labels], rows)


def made_with(study: Study) -> list[tuple[str, str]]:
    """Data, hardware, versions, commands and times, as pairs of a name and a text."""
    summary = study.first.summary
    facts = [("Data", summary.get("data", "")), ("Split", f"{summary['split']}, {summary['num_examples']} examples")]
    evaluated, trained = summary.get("command", ""), study.first.phases[-1].training.get("command", "")
    facts.append(("Command", study.command))
    facts.append(("Trained with", trained if trained != study.command else ""))
    facts.append(("Evaluated with", evaluated if evaluated != study.command else ""))
    facts.append(("Explained class", f"the {summary['explained']} class" if summary.get("explained") else ""))
    facts.append(("Shared work", _shared_work(summary.get("runs", {}))))
    facts.append(("Time", numbers.duration(study.seconds) if study.seconds is not None else ""))
    facts.append(("Hardware", _listed(summary.get("hardware", {}))))
    facts.append(("Versions", _listed(summary.get("versions", {}))))
    for run in study.runs:
        step, seconds = run.summary.get("checkpoint_step"), run.summary.get("seconds")
        text = f"checkpoint of step {step}" if step is not None else ""
        checkpoints = run.folder.parent / "checkpoints"
        if step is not None and checkpoints.is_dir() and not (checkpoints / str(step)).is_dir():
            text += ", which is no longer kept: training went on since, so evaluate again"
        text += "".join(_training_time(phase) for phase in run.phases)
        text += f", evaluated in {numbers.duration(seconds)}" if seconds is not None else ""
        facts.append((f"{run.label}, seed {run.seed}", text.lstrip(", ")))
    facts += [(f"{name}: failed", why) for name, why in study.failed]
    for label in study.labels:
        facts.append((f"{label}, objective", study.of(label)[0].summary.get("objective", "")))
    facts += [(f"Not measured: {metric}", why) for metric, why in summary.get("not_measured", {}).items()]
    return [(name, text) for name, text in facts if text]


def _shared_work(runs: dict[str, int]) -> str:
    """Curves, noisy and attacked images of a map that several metrics read; empty where none is shared."""
    if runs.get("made", 0) == runs.get("read", 0):
        return ""
    return f"of each map the metrics read {runs['read']} runs of changed images, of which {runs['made']} were made"


def _training_time(phase: history.Phase) -> str:
    training = phase.training
    if not training or not training["timed_steps"]:  # written again after the training
        return ""
    timed, steps = training["timed_steps"], training["steps"]
    which = "" if timed == steps else f"the last {timed} of {steps} steps "
    name = f"{phase.label}: " if phase.label else ""
    return f", {name}{which}trained in {numbers.duration(training['seconds'])}"


def undefined_table(study: Study) -> Table:
    """How many values of each metric are not defined (empty mask, zero map), where there are any."""
    rows = []
    for label in study.labels:
        for method in study.methods:
            counts = []
            for metric in study.first.summary["metrics"]:
                at = study.first.scores.columns.index((method, metric))
                counts.append(sum(int(np.isnan(run.scores.values[:, at]).sum()) for run in study.of(label)))
            if any(counts):
                cells = [Cell(str(count) if count else numbers.DASH) for count in counts]
                rows.append(Row("run", f"{label}: {method}", cells, label))
    heads = [Head(about["title"]) for about in study.first.summary["metrics"].values()]
    return Table("undefined", "Run and map", heads, rows)


def tests_table(study: Study, comparison: Comparison) -> Table:
    """Every difference with its interval, p-value (alone; Holm's over the whole table) and effect sizes."""
    found = [
        (label, column, measured)
        for label in study.labels[1:]
        for column, measured in comparison[label].items()
        if in_family(study, column)
    ]
    columns, superiority = study.first.scores.columns, _superiority(study)
    rows = []
    for label, column, measured in found:
        difference = measured.difference
        text, limits = numbers.difference(difference)
        texts = [
            text,
            limits or numbers.DASH,
            str(difference.n),
            str(difference.num_groups),
            str(difference.n_nan),
            numbers.plain(measured.p_value),
            numbers.plain(measured.holm),
            numbers.two_decimals(measured.effect_size),
            numbers.plain(superiority[label][columns.index(column)]),
            difference.note or measured.verdict.reason,
        ]
        rows.append(Row("run", f"{label}: {column_title(study, column)}", [Cell(text) for text in texts], label))
    counts, tests = ("Difference", "95 % interval", "Pairs", "Groups", "Dropped"), ("p", "p (Holm)")
    titles = (*counts, *tests, "Hedges' g", "Superiority", "Reading")
    return Table("tests", "Run and score", [Head(title) for title in titles], rows)


def _superiority(study: Study) -> dict[str, np.ndarray]:
    """By run the probability of superiority of each column, run over reference."""
    found = {}
    for label in study.labels[1:]:
        differences = pooled(paired(study, {run.seed: run.scores for run in study.of(label)}))
        found[label] = statistics.probability_of_superiority(*differences, seed=0).mean
    return found


def _settings(run: Run) -> dict[str, str]:
    """The config by dotted field, with the evaluation section of the last evaluation: config.json keeps the first's.

    Of a run in phases that of the last phase, and what the earlier ones change, as 'head: train.epochs'.
    """
    settings = {key: value for key, value in run.config.items() if key not in (*_NOT_SETTINGS, "phases")}
    evaluation = run.summary.get("evaluation")
    flat = _flat(settings | ({"evaluation": evaluation} if evaluation else {}))
    *earlier, last = run.config.get("phases") or [{}]
    for phase in earlier:
        flat |= {f"{phase['label']}: {key}": value for key, value in _flat(phase.get("overrides") or {}).items()}
    return flat | _flat(last.get("overrides") or {})


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat = {}
    for key, value in config.items():
        if value is None or value == "":
            continue
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
