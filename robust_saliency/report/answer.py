"""The answer first: for each run, in sentences, what is better and worse than the reference, and whether it counts."""

from dataclasses import dataclass, field

import numpy as np

from robust_saliency.report import numbers
from robust_saliency.report.compare import Comparison, Measured
from robust_saliency.report.load import Column, Study
from robust_saliency.report.tables import best_blind, direction, no_better

NO_CLAIM = (
    "One seed was trained, so no difference here is a claim about a training method: another seed may reverse it. "
    "The intervals say how sure the difference between these very networks is."
)


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
    "pointing_game": ("better aimed", "worse aimed"),
    "relevance_mass": ("more within the mask", "less within the mask"),
    "rank_accuracy": ("better placed", "worse placed"),
    "evidence_given_lesion": ("truer", "less true"),
    "deletion_auc": ("more faithful by deletion", "less faithful by deletion"),
    "insertion_auc": ("more faithful by insertion", "less faithful by insertion"),
    "noise_stability": ("steadier", "less steady"),
}


@dataclass(frozen=True)
class Answer:
    """One run: its accuracy in sentences and, for the leading map method, its metrics under the words of ``TITLES``.

    ``summary`` says what the claims come to: 'scaat maps are sparser than those of standard; not clearly truer.'
    """

    run: str
    accuracy: list[str]
    summary: str = ""
    found: dict[str, list[str]] = field(default_factory=lambda: {word: [] for word in TITLES})
    remarks: list[str] = field(default_factory=list)

    @property
    def lists(self) -> list[tuple[str, str, list[str]]]:
        """Word, title and metrics of the lists that are not empty."""
        return [(word, TITLES[word], items) for word, items in self.found.items() if items]

    @property
    def headline(self) -> str:
        """How many metrics of the leading method are better, worse or undecided."""
        parts = [f"{TITLES[word].lower()} on {len(items)}" for word, items in self.found.items() if items]
        return f"Of {sum(map(len, self.found.values()))} map metrics: {', '.join(parts)}." if parts else ""


def leading_method(study: Study) -> str | None:
    """The method that the answer speaks about: the gradient if there is one, else the first that explains."""
    methods = study.explaining_methods
    return "gradient" if "gradient" in methods else next(iter(methods), None)


def is_claim(study: Study) -> bool:
    """A study of one seed makes no claim about training methods."""
    return study.reference is not None and len(study.seeds) > 1


def answers(study: Study, comparison: Comparison, by_class: dict[str, Comparison]) -> list[Answer]:
    """One answer a run, the reference (which has no differences) left out unless it is alone."""
    if study.reference is None:
        return [Answer(study.labels[0], _accuracy(study, comparison[study.labels[0]], None))]
    return [_answer(study, comparison, by_class, label) for label in study.labels[1:]]


def not_learnt(study: Study, comparison: Comparison) -> list[str]:
    """A sentence for each run that is clearly better neither than naming the most frequent class nor than guessing.

    The second is judged by the balanced accuracy, the mean over classes: a network trained on balanced classes may
    name the most frequent one too rarely and still tell all apart.
    """
    counts = np.bincount(study.first.scores.labels)
    frequent, guess = counts.max() / counts.sum(), 1 / np.count_nonzero(counts)
    sentences = []
    for label in study.labels:
        clean = comparison[label]["accuracy", "correct"].mean
        balanced, error = _balanced_accuracy(study, label)
        if clean.low <= frequent and balanced - 1.96 * error <= guess:
            sentences.append(
                f"{label} has not learnt to tell the classes apart: its clean accuracy {numbers.plain(clean.mean)} is "
                f"not clearly above {numbers.plain(frequent)}, that of always naming the most frequent class, nor its "
                f"balanced accuracy {numbers.plain(balanced)} above {numbers.plain(guess)}. Its maps explain guesses."
            )
    return sentences


def _balanced_accuracy(study: Study, run: str) -> tuple[float, float]:
    """The mean over classes of their accuracies, all seeds together, and its binomial standard error."""
    scores = [one.scores for one in study.of(run)]
    labels = np.concatenate([each.labels for each in scores])
    correct = np.concatenate([each.values[:, each.columns.index(("accuracy", "correct"))] for each in scores])
    shares = [correct[labels == label] for label in np.unique(labels)]
    variance = [share.mean() * (1 - share.mean()) / len(share) for share in shares]
    return float(np.mean([share.mean() for share in shares])), float(np.sqrt(np.sum(variance)) / len(shares))


def _answer(study: Study, comparison: Comparison, by_class: dict[str, Comparison], label: str) -> Answer:
    method = leading_method(study)
    reference = comparison[study.reference]
    if method is None:
        return Answer(label, _accuracy(study, comparison[label], reference))
    summary = _summary(study, comparison[label], method, label)
    answer = Answer(label, _accuracy(study, comparison[label], reference), summary)
    floors, beaten_by_blind, moved_when_blind = best_blind(study, comparison, label), [], []
    for metric in _judged(study):
        title, measured = study.first.summary["metrics"][metric]["title"], comparison[label][method, metric]
        word = _word(study, metric, measured)
        answer.found[word].append(f"{_adjective(study, metric, word)}: {title} {_evidence(measured)}")
        if no_better(study, metric, measured, floors):
            beaten_by_blind.append(title)
        if _moves_when_blind(study, comparison[label], metric):
            moved_when_blind.append(title)
    if beaten_by_blind:
        answer.remarks.append(
            f"A map that never looks at the network scores as well or better on {_listed(beaten_by_blind)}: "
            "a good value there does not show that a map follows the network."
        )
    if moved_when_blind:
        answer.remarks.append(
            f"On {_listed(moved_when_blind)} a map that never looks at the network scores differently on the two "
            "networks too: part of the difference is their confidence, not their maps."
        )
    answer.remarks.extend(_classes_that_disagree(study, by_class, label, method))
    answer.remarks.extend(_other_methods(study, comparison, label, method))
    return answer


def _word(study: Study, metric: str, measured: Measured) -> str:
    """The word of ``TITLES`` for one metric; of one seed nothing counts, so Holm's correction takes nothing away."""
    word = measured.verdict.word(direction(study, metric))
    if word in ("better", "worse") and is_claim(study) and not measured.verdict.counts:
        return "uncorrected"
    return word


def _adjectives(study: Study, words: dict[str, str]) -> list[str]:
    return list(dict.fromkeys(_adjective(study, metric, word) for metric, word in words.items()))


def _adjective(study: Study, metric: str, word: str) -> str:
    name = study.first.summary.get("evaluation", {}).get("metrics", {}).get(metric, {}).get("name", metric)
    title = study.first.summary["metrics"][metric]["title"]
    better, worse = ADJECTIVES.get(name, (f"better in {title}", f"worse in {title}"))
    return {"better": better, "worse": worse}.get(word, f"not clearly {better}")


def _summary(study: Study, own: dict[Column, Measured], method: str, label: str) -> str:
    """One sentence of the adjectives of all claims."""
    words = {metric: _word(study, metric, own[method, metric]) for metric in _judged(study)}
    better, worse = (_adjectives(study, {m: w for m, w in words.items() if w == side}) for side in ("better", "worse"))
    decided = ("better", "worse", "not measured")
    undecided = _adjectives(study, {metric: "better" for metric, word in words.items() if word not in decided})
    if not better and not worse:
        return f"{label} maps do not clearly differ from those of {study.reference}."
    sentence = f"{label} maps are {_listed(better or worse)} than those of {study.reference}"
    sentence += f", but {_listed(worse)}" if better and worse else ""
    return sentence + (f"; not clearly {_listed(undecided, 'or')}." if undecided else ".")


def _adjectives(study: Study, words: dict[str, str]) -> list[str]:
    return list(dict.fromkeys(_adjective(study, metric, word) for metric, word in words.items()))


def _adjective(study: Study, metric: str, word: str) -> str:
    name = study.first.summary.get("evaluation", {}).get("metrics", {}).get(metric, {}).get("name", metric)
    title = study.first.summary["metrics"][metric]["title"]
    better, worse = ADJECTIVES.get(name, (f"better in {title}", f"worse in {title}"))
    return {"better": better, "worse": worse}.get(word, f"not clearly {better}")


def _summary(study: Study, own: dict[Column, Measured], method: str, label: str) -> str:
    """One sentence of the adjectives of all claims."""
    words = {metric: _word(study, metric, own[method, metric]) for metric in _judged(study)}
    found = _adjectives(study, {metric: word for metric, word in words.items() if word in ("better", "worse")})
    undecided = _adjectives(
        study, {m: "better" for m, word in words.items() if word not in ("better", "worse", "not measured")}
    )
    start = (
        f"{label} maps are {_listed(found)} than those" if found else f"{label} maps do not clearly differ from those"
    )
    rest = f"; not clearly {_listed(undecided, 'or')}" if found and undecided else ""
    return f"{start} of {study.reference}{rest}."


def _judged(study: Study) -> list[str]:
    """The metrics of which more, or less, is better."""
    return [metric for metric in study.first.summary["metrics"] if direction(study, metric) != "none"]


def _moves_when_blind(study: Study, own: dict[Column, Measured], metric: str) -> bool:
    """Whether a map that never looks at the network differs between the networks all the same."""
    blind = [method for method, about in study.methods.items() if about["kind"] == "blind"]
    return any(own[method, metric].verdict.finding in ("higher", "lower", "mixed") for method in blind)


def _classes_that_disagree(study: Study, by_class: dict[str, Comparison], label: str, method: str) -> list[str]:
    """Metrics that are better in one class and worse in another, which a mean over all classes hides."""
    sentences = []
    for metric in _judged(study):
        words = {
            name: comparison[label][method, metric].verdict.word(direction(study, metric))
            for name, comparison in by_class.items()
        }
        better, worse = ([name for name, word in words.items() if word == side] for side in ("better", "worse"))
        if better and worse:
            title = study.first.summary["metrics"][metric]["title"]
            sentences.append(f"{title} (better: {_listed(better)}; worse: {_listed(worse)})")
    return [f"The classes disagree on {'; '.join(sentences)}: the mean over all hides it."] if sentences else []


def _other_methods(study: Study, comparison: Comparison, label: str, leading: str) -> list[str]:
    others = [method for method in study.explaining_methods if method != leading]
    if not others:
        return []
    agreeing, total = 0, 0
    for metric in _judged(study):
        finding = comparison[label][leading, metric].verdict.finding
        if finding not in ("higher", "lower"):
            continue
        total += len(others)
        agreeing += sum(comparison[label][method, metric].verdict.finding == finding for method in others)
    return [f"The other map methods show the same in {agreeing} of {total} comparisons."] if total else []


def _accuracy(study: Study, own: dict, reference: dict | None) -> list[str]:
    sentences = []
    for (group, name), measured in own.items():
        if group != "accuracy":
            continue
        subject = "Clean accuracy" if name == "correct" else f"Accuracy under {name.removeprefix('robust:')}"
        sentence = f"{subject}: {numbers.plain(measured.mean.mean)}"
        if reference is not None and measured.difference is not None:
            base = numbers.plain(reference[group, name].mean.mean)
            sentence += f" ({study.reference} {base}, difference {_evidence(measured)})"
        sentences.append(sentence)
    return sentences


def _evidence(measured: Measured) -> str:
    """``+0.160 [+0.150, +0.165], 3 of 3 seeds, Holm p < 0.001``; the seeds are those with the sign of the mean."""
    difference = "\u00a0".join(part for part in numbers.difference(measured.difference) if part)
    by_seed = [each.mean for each in measured.difference_by_seed.values()]
    agreeing = sum(np.sign(each) == np.sign(measured.difference.mean) for each in by_seed)
    texts = [difference, f"{agreeing} of {len(by_seed)} seeds", f"Holm {numbers.p_value(measured.holm)}"]
    return ", ".join(text.replace(" ", "\u00a0") for text in texts)


def _listed(names: list[str], last: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
