"""What became of the claims of a study as plain values: what claims.json, the page and its tables are made of."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from robust_saliency.report import measures, stated, stated_correlations
from robust_saliency.report.load import Study


def described(study: Study) -> dict[str, Any]:
    """The verdicts as plain values, with what they rest on: seeds, images, command, hardware, versions, time."""
    summary = study.first.summary
    return {
        "title": study.title,
        "claims": [_plain(each, study) for each in stated.judged(study)],
        "seeds": study.seeds,
        "runs": {label: study.of(label)[0].description for label in study.labels},
        "attacks": summary["attacks"],
        "changed_after": dict(study.changed_after),
        "failed": [list(pair) for pair in study.failed],
        "images": summary["num_examples"],
        "groups": len(set(study.first.scores.groups.tolist())),
        "data": summary.get("data", ""),
        "command": study.command,
        "seconds": study.seconds,
        "hardware": summary.get("hardware", {}),
        "versions": summary.get("versions", {}),
    }


def _plain(found: stated.Judged, study: Study) -> dict[str, Any]:
    return {
        "label": found.claim.label,
        "sentence": found.claim.sentence,
        "source": found.claim.source,
        "verdict": found.verdict,
        "differences": [_plain_difference(each, study) for each in found.differences],
        "correlations": [_plain_correlation(each, study) for each in found.correlations],
    }


def _plain_difference(found: stated.Difference, study: Study) -> dict[str, Any]:
    limits = {"difference": found.difference.mean, "low": found.difference.low, "high": found.difference.high}
    return {
        **asdict(found.expected),
        "title": measures.title(study, found.expected.metric),
        "than_title": measures.title(study, found.expected.other[0]),
        **_numbers({"mean": found.mean, "other_mean": found.other_mean, **limits, "holm": found.p_value}),
        **_verdict(found),
    }


def _plain_correlation(found: stated_correlations.Correlation, study: Study) -> dict[str, Any]:
    measured = found.measured
    return {
        **asdict(found.expected),
        "title": measures.title(study, found.expected.metric),
        "means": _numbers(found.means),
        **_numbers({"correlation": measured.mean, "low": measured.low, "high": measured.high, "holm": found.p_value}),
        **_verdict(found),
    }


def _verdict(found: stated.Difference | stated_correlations.Correlation) -> dict[str, Any]:
    return {"by_seed": _numbers(found.by_seed), "finding": found.finding, "reason": found.reason}


def _numbers(values: Mapping[Any, float]) -> dict[str, float | None]:
    return {str(name): _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    """Six digits; None for what is not defined, which JSON lacks."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
