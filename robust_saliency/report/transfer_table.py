"""A transfer matrix as a table: a row a network that adversaries were made on, a column a network that meets them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from robust_saliency.report import numbers

LARGEST = 6  # networks: beyond that several seeds are averaged
_DARKEST = 0.62  # of the colour, so that dark text on it can be read
_COLOUR = np.array([163, 50, 31])


class Cell(NamedTuple):
    """text: an accuracy; small: its range, or more; colour: darker the more are fooled; own: attacked on itself."""

    text: str
    small: str
    colour: str
    own: bool


class Heat(NamedTuple):
    """heads: of the columns; clean: on unchanged images; rows: a name and the cells of each source."""

    heads: list[str]
    clean: list[Cell]
    rows: list[tuple[str, list[Cell]]]
    is_mean: bool


def tables(names: Sequence[tuple[str, int]], accuracy: np.ndarray, clean: np.ndarray) -> list[Heat]:
    """What a reader needs first, then the rest: every network, or where that is large the mean over seeds before it.

    names: label and seed of the R networks; accuracy ``[R, R]`` of target t (column) on the adversaries of source s
    (row); clean ``[R]``.
    """
    labels = list(dict.fromkeys(label for label, _ in names))
    if len(labels) == len(names) or len(names) <= LARGEST:
        return [_of_all(names, accuracy, clean)]
    return [_of_labels(labels, names, accuracy, clean), _of_all(names, accuracy, clean)]


def title(names: Sequence[tuple[str, int]], label: str, seed: int) -> str:
    """The label, and the seed where there are several."""
    return label if sum(other == label for other, _ in names) == 1 else f"{label}, seed {seed}"


def _of_all(names: Sequence[tuple[str, int]], accuracy: np.ndarray, clean: np.ndarray) -> Heat:
    heads = [title(names, *name) for name in names]
    rows = [(head, [_cell([value], own=t == s) for t, value in enumerate(accuracy[s])]) for s, head in enumerate(heads)]
    return Heat(heads, [_cell([value]) for value in clean], rows, is_mean=False)


def _of_labels(labels: list[str], names: Sequence[tuple[str, int]], accuracy: np.ndarray, clean: np.ndarray) -> Heat:
    members = [[place for place, (other, _) in enumerate(names) if other == label] for label in labels]

    def cell(sources: list[int], targets: list[int]) -> Cell:
        others = [accuracy[s, t] for s in sources for t in targets if s != t]
        if sources != targets:
            return _cell(others)
        found = _cell([accuracy[t, t] for t in targets], own=True)
        more = f"{found.small}; other seeds {numbers.share(float(np.mean(others)))}" if others else found.small
        return found._replace(small=more)

    rows = [(label, [cell(s, t) for t in members]) for label, s in zip(labels, members, strict=True)]
    return Heat(labels, [_cell(list(clean[t])) for t in members], rows, is_mean=True)


def _cell(values: list[float], own: bool = False) -> Cell:
    mean = float(np.mean(values))
    small = f"{numbers.share(min(values))}{numbers.DASH}{numbers.share(max(values))}" if len(values) > 1 else ""
    shade = np.round(255 - (1 - mean) * _DARKEST * (255 - _COLOUR)).astype(int)
    return Cell(numbers.share(mean), small, f"rgb({', '.join(map(str, shade))})", own)
