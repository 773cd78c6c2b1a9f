"""What claims can be of besides the metrics of maps, in words: scores of retrained networks, and of their units."""

from collections.abc import Iterable, Mapping
from typing import Any

from robust_saliency.report.measures import NEURONS, OF_ABLATION, OF_UNITS

_RETRAINED = (
    "The pixels that the map ranks highest are {}, share by share, and a network is trained anew on what is left: by "
    "how much it is {} accurate than one of pixels that were chosen at random, by the trapezoid rule over the shares. "
    "Higher is better; below 0 the map is worse than chance."
)
_CLASSES = "How alike the classes of a unit's top real images are to {} (a reconstruction; {} is better)."
_DISTANCE = "How far an adversarial image is represented from {}, over how far from the mean of the class that it is "
_ABLATED = "Of a layer the units that count most for a prediction are switched off (traced), or as many of those that "
DEFINITIONS = {
    "roar": _RETRAINED.format("removed", "less"),
    "kar": _RETRAINED.format("kept alone", "more"),
    "iou": "A unit's highest agreement with the mask of a concept: intersection over union, 0 to 1.",
    "consistency": "How alike the classes of two top images of a unit are: 1 where all are of one class.",
    "cs1": _CLASSES.format("what its top adversarial images show", "higher"),
    "cs2": _CLASSES.format("what the network takes its top adversarial images for", "lower"),
    "r1": f"{_DISTANCE.format('the mean of the class that it shows')}taken for. Lower is better.",
    "r2": f"{_DISTANCE.format('its own real image')}taken for. Lower is better.",
    "lost": f"{_ABLATED}count at all, at random: what the score of the class loses.",
    "flipped": f"{_ABLATED}count at all, at random: the share of these predictions that is then another class.",
}


def of_claims(claims: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Title and definition of all that ``claims``, as in claims.json, are of and that has one."""
    parts = [each for claim in claims for each in (*claim["differences"], *claim["correlations"])]
    names = {each[field] for each in parts for field in ("metric", "than_metric") if each.get(field)}
    words = {name.split(":")[1].split("_")[0] if name.startswith(f"{NEURONS}:") else name for name in names}
    return [(_title(word), text) for word, text in DEFINITIONS.items() if word in words]


def _title(word: str) -> str:
    titles = {**OF_UNITS, **{name: text.format("") for name, text in OF_ABLATION.items()}}
    return titles.get(word) or f"{word.upper()} score"
