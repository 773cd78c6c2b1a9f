"""A claim in words: what a difference of a metric says of the maps, and what it rests on."""

import numpy as np

from robust_saliency.report import numbers
from robust_saliency.report.compare import Measured
from robust_saliency.report.load import Column, Study
from robust_saliency.report.tables import direction

# Verdict.word, or "uncorrected", -> how the lists are headed, in their order
TITLES = {
    "better": "Better",
    "worse": "Worse",
    "uncorrected": "Lost to the correction for many tests",
    "mixed": "The seeds disagree",
    "unclear": "No clear difference",
    "too few": "Too few images to say",
    "not measured": "Not measured with every seed",
}

# registered metric -> what its maps are when the metric is better, and when it is worse
ADJECTIVES = {
    "gini": ("sparser", "less sparse"),
    "entropy": ("more concentrated", "less concentrated"),
    "total_variation": ("smoother", "rougher"),
    "smoothness": ("smoother by neighbours", "rougher by neighbours"),
    "colour_agreement": ("closer to the colours", "farther from the colours"),
    "pointing_game": ("better aimed", "worse aimed"),
    "relevance_mass": ("more within the mask", "less within the mask"),
    "rank_accuracy": ("better placed", "worse placed"),
    "evidence_given_lesion": ("truer", "less true"),
    "deletion_auc": ("more faithful by deletion", "less faithful by deletion"),
    "insertion_auc": ("more faithful by insertion", "less faithful by insertion"),
    "noise_stability": ("steadier", "less steady"),
    "attack_stability": ("steadier under attack", "less steady under attack"),
    "road": ("more faithful by ROAD", "less faithful by ROAD"),
    "allegiance_auc": ("more faithful by allegiance", "less faithful by allegiance"),
    "effective_complexity": ("content with fewer pixels", "in need of more pixels"),
    "infidelity": ("closer to the changes of the score", "farther from the changes of the score"),
    "faithfulness_correlation": ("better correlated with the score", "worse correlated with the score"),
    "monotonicity": ("more monotone", "less monotone"),
    "completeness": ("more complete", "less complete"),
    "mask_auc": ("better at telling the mask", "worse at telling the mask"),
    "best_iou": ("better outlined", "worse outlined"),
}


def is_claim(study: Study) -> bool:
    """A study of one seed makes no claim about training methods."""
    return study.reference is not None and len(study.seeds) > 1


def judged(study: Study) -> list[str]:
    """The metrics of maps of which more, or less, is better."""
    return [metric for metric in study.map_metrics if direction(study, metric) != "none"]


def word(study: Study, metric: str, measured: Measured) -> str:
    """The word of ``TITLES`` for one metric; of one seed nothing counts, so Holm's correction takes nothing away."""
    found, verdict = measured.verdict.word(direction(study, metric)), measured.verdict
    several = len(measured.difference_by_seed) > 1
    return "uncorrected" if found in ("better", "worse") and several and not verdict.counts else found


def claim(study: Study, metric: str, measured: Measured) -> str:
    """``sparser: Gini +0.160 [+0.150, +0.165], 3 of 3 seeds, Holm p < 0.001``; one's own metric without adjective."""
    adjectives, found = ADJECTIVES.get(_registered(study, metric)), word(study, metric, measured)
    text = f"{study.first.summary['metrics'][metric]['title']} {evidence(measured)}"
    if adjectives is None:
        return text
    better, worse = adjectives
    said = {"better": better, "worse": worse}.get(found, f"not clearly {better}")
    return f"{said}: {text}"


def _registered(study: Study, metric: str) -> str:
    """The name in the registry of metrics, where the evaluation tells it; else the label."""
    return study.first.summary.get("evaluation", {}).get("metrics", {}).get(metric, {}).get("name", metric)


def summary(study: Study, own: dict[Column, Measured], method: str, label: str) -> str:
    """One sentence of the adjectives of all claims: 'scaat maps are sparser than those of standard, but rougher.'"""
    said = {"better": [], "worse": [], "undecided": []}
    names = [_registered(study, metric) for metric in judged(study)]
    for metric in judged(study):
        found, title = word(study, metric, own[method, metric]), study.first.summary["metrics"][metric]["title"]
        by_title, name = (f"better in {title}", f"worse in {title}"), _registered(study, metric)
        adjectives = by_title if names.count(name) > 1 else ADJECTIVES.get(name, by_title)
        if found != "not measured":
            said[found if found in said else "undecided"].append(adjectives[found == "worse"])
    better, worse, undecided = (list(dict.fromkeys(adjectives)) for adjectives in said.values())
    if not better and not worse:
        return f"{label} maps do not clearly differ from those of {study.reference}."
    sentence = f"{label} maps are {listed(better or worse)} than those of {study.reference}"
    sentence += f", but {listed(worse)}" if better and worse else ""
    return sentence + (f"; not clearly {listed(undecided, 'or')}." if undecided else ".")


def evidence(measured: Measured) -> str:
    """``+0.160 [+0.150, +0.165], 3 of 3 seeds, Holm p < 0.001``; the seeds are those with the sign of the mean."""
    difference = "\u00a0".join(part for part in numbers.difference(measured.difference) if part)
    by_seed = [each.mean for each in measured.difference_by_seed.values()]
    agreeing = sum(np.sign(each) == np.sign(measured.difference.mean) for each in by_seed)
    seeds = f"{agreeing} of {len(by_seed)} seeds" if len(by_seed) > 1 else ""
    texts = [difference, seeds, f"Holm {numbers.p_value(measured.holm)}"]
    return ", ".join(text.replace(" ", "\u00a0") for text in texts if text)


def listed(names: list[str], last: str = "and") -> str:
    """'a, b and c'."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
