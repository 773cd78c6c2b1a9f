"""What a study is expected to show: claims stated in its config, which its report then puts to the test."""

import dataclasses
from collections.abc import Iterable, Mapping

DIRECTIONS = ("higher", "lower")
SOURCES = ("paper", "ours")
FLOORS = "floors"  # in than_map: each of the maps that never look at the network, and the method's own average
# Columns of --mode=neurons by what they are of: neurons:<column>:<layer>.
OF_NEURONS = {
    "units": ("by_chance", "class_share", "consistency", "cs1", "cs2", "iou", "mean", "threshold"),
    "images": ("r1", "r2"),
    "predictions": ("flipped", "lost", "flipped_right", "lost_right", "flipped_wrong", "lost_wrong"),
}


@dataclasses.dataclass(frozen=True)
class Expected:
    """``metric`` of ``map`` in ``run`` is higher, or lower, than that of ``than_map`` in ``than_run``.

    map: a label of evaluation.maps, or a floor or true mask of the report; '' for a metric of the network: accuracy (of
    clean images), robust:<attack>, confidence. than_run, than_map, than_metric: '' = the same. by: the least
    difference; below 0 it says how much worse it may be: higher by -0.02 is "not lower by more than 0.02".
    """

    metric: str
    run: str
    direction: str = "higher"
    map: str = ""
    than_run: str = ""
    than_map: str = ""
    than_metric: str = ""
    by: float = 0.0

    def __post_init__(self):
        _check_direction(self.direction)
        if self.other == (self.metric, self.run, self.map):
            raise ValueError(
                f"{self.metric} of {self.run} is compared with itself: give than_run, than_map or than_metric."
            )

    @property
    def other(self) -> tuple[str, str, str]:
        """Metric, run and map that are compared with."""
        return self.than_metric or self.metric, self.than_run or self.run, self.than_map or self.map


@dataclasses.dataclass(frozen=True)
class Correlated:
    """Over ``runs``, the mean of ``metric`` of ``map`` rises, or falls, with ``numbers``, one a run, called ``along``.

    direction: higher: their correlation (Pearson's) is above ``beyond``; lower: it is below ``-beyond``. The runs
    should differ in that number alone: the p-value is of networks that are all of one kind (see
    :func:`robust_saliency.statistics.correlation_of_means`), and never below 2 / R!^S, of R runs and S seeds.
    """

    metric: str
    runs: tuple[str, ...]
    numbers: tuple[float, ...]
    along: str
    direction: str = "higher"
    map: str = ""
    beyond: float = 0.0

    def __post_init__(self):
        _check_direction(self.direction)
        if len(self.runs) != len(self.numbers) or len(set(self.runs)) < max(len(self.runs), 3):
            raise ValueError(
                f"a correlation is of three different runs or more with a number each, got {len(self.numbers)} numbers "
                f"for the runs {', '.join(self.runs)}."
            )
        if not self.along:
            raise ValueError("along must say what the numbers are, such as 'epsilon', got ''.")
        if max(map(abs, self.numbers)) > 1e9:
            raise ValueError(f"numbers must lie within 1e9, got {max(self.numbers, key=abs):g}.")
        if len(set(self.numbers)) == 1:
            raise ValueError(f"nothing goes along with numbers that are all {self.numbers[0]:g}.")
        if not 0.0 <= self.beyond < 1.0:
            raise ValueError(f"beyond must lie in [0, 1), got {self.beyond:g}.")


@dataclasses.dataclass(frozen=True)
class Claim:
    """``sentence`` in words, and all that must be so for it to hold: differences and correlations.

    source: whose claim it is: the paper's, or ours, who ask further. What is claimed is the same with either.
    """

    label: str
    sentence: str
    expected: tuple[Expected, ...] = ()
    correlated: tuple[Correlated, ...] = ()
    source: str = dataclasses.field(default="paper", compare=False)

    def __post_init__(self):
        if self.source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {self.source!r}.")
        if not self.label or not (self.expected or self.correlated):
            raise ValueError("a claim needs a label, and at least one difference or correlation that is expected.")


def _check_direction(direction: str) -> None:
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}.")


def read(listed: Iterable[Mapping]) -> tuple[Claim, ...]:
    """The claims that study.json holds."""
    return tuple(
        Claim(
            each["label"],
            each["sentence"],
            tuple(Expected(**part) for part in each["expected"]),
            # A study that was made before there were correlations and sources has none.
            tuple(Correlated(**_with_tuples(part)) for part in each.get("correlated", ())),
            each.get("source", "paper"),
        )
        for each in listed
    )


def changed_after(about: Mapping) -> dict[str, int]:
    """By claim how many networks had been evaluated when it was added, changed or taken away last, as study.json says.

    An earlier study.json has one number for all claims.
    """
    found = about.get("claims_changed_after") or {}
    return dict(found) if isinstance(found, Mapping) else {each["label"]: found for each in about.get("claims") or ()}


def _with_tuples(part: Mapping) -> dict:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in part.items()}
