"""The answer first: for each run, in sentences, what is better and worse than the reference, and whether it counts."""

from dataclasses import dataclass, field

import numpy as np

from robust_saliency.report import claims, numbers
from robust_saliency.report.claims import TITLES, evidence, judged, listed
from robust_saliency.report.compare import Comparison, Measured
from robust_saliency.report.load import Column, Study
from robust_saliency.report.tables import best_blind, direction, no_better

NO_CLAIM = (
    "One seed was trained, so no difference here is a claim about a training method: another seed may reverse it. "
    "The intervals say how sure the difference between these very networks is."
)


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
    """The method that the answer speaks about: the gradient, which 'original' is too, else the first that explains."""
    methods = study.explaining_methods
    return next((name for name in ("gradient", "original") if name in methods), next(iter(methods), None))


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
    answer = Answer(
        label, _accuracy(study, comparison[label], reference), claims.summary(study, comparison[label], method, label)
    )
    floors, beaten_by_blind, moved_when_blind = best_blind(study, comparison, label, method), [], []
    for metric in judged(study):
        title, measured = study.first.summary["metrics"][metric]["title"], comparison[label][method, metric]
        answer.found[claims.word(study, metric, measured)].append(claims.claim(study, metric, measured))
        if no_better(study, metric, measured, floors):
            beaten_by_blind.append(title)
        if _moves_when_blind(study, comparison[label], metric):
            moved_when_blind.append(title)
    if beaten_by_blind:
        answer.remarks.append(
            "A map that has not seen the network, or not the image, scores as well or better on "
            f"{listed(beaten_by_blind)}: a good value there does not show that a map follows the network."
        )
    if moved_when_blind:
        answer.remarks.append(
            f"On {listed(moved_when_blind)} a map that never looks at the network scores differently on the two "
            "networks too: part of the difference is their confidence, not their maps."
        )
    answer.remarks.extend(_classes_that_disagree(study, by_class, label, method))
    answer.remarks.extend(_other_methods(study, comparison, label, method))
    return answer


def _moves_when_blind(study: Study, own: dict[Column, Measured], metric: str) -> bool:
    """Whether a map that never looks at the network differs between the networks all the same."""
    blind = [method for method, about in study.methods.items() if about["kind"] == "blind" and "of" not in about]
    return any(own[method, metric].verdict.finding in ("higher", "lower", "mixed") for method in blind)


def _classes_that_disagree(study: Study, by_class: dict[str, Comparison], label: str, method: str) -> list[str]:
    """Metrics that are better in one class and worse in another, which a mean over all classes hides."""
    sentences = []
    for metric in judged(study):
        words = {
            name: comparison[label][method, metric].verdict.word(direction(study, metric))
            for name, comparison in by_class.items()
        }
        better, worse = ([name for name, word in words.items() if word == side] for side in ("better", "worse"))
        if better and worse:
            title = study.first.summary["metrics"][metric]["title"]
            sentences.append(f"{title} (better: {listed(better)}; worse: {listed(worse)})")
    return [f"The classes disagree on {'; '.join(sentences)}: the mean over all hides it."] if sentences else []


def _other_methods(study: Study, comparison: Comparison, label: str, leading: str) -> list[str]:
    others = [method for method in study.explaining_methods if method != leading]
    if not others:
        return []
    agreeing, total = 0, 0
    for metric in judged(study):
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
            sentence += f" ({study.reference} {base}, difference {evidence(measured)})"
        sentences.append(sentence)
    return sentences
