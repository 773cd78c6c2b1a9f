"""When training ends early and when its learning rate falls, from the validation metric alone.

Both are functions of the values so far, in order, so that a resumed run decides as if it had not been killed.
"""

import math
from collections.abc import Sequence


def without_improvement(values: Sequence[float], mode: str) -> int:
    """How many values, counted from the end, are no better than the best before them. ``mode``: 'max' or 'min'.

    NaN is no improvement.
    """
    best, since = math.nan, 0
    for value in values:
        improved = not math.isnan(value) and (math.isnan(best) or (value > best if mode == "max" else value < best))
        best, since = (value, 0) if improved else (best, since + 1)
    return since


def plateau_scale(values: Sequence[float], mode: str, patience: int, factor: float) -> float:
    """Factor on the learning rate: times ``factor`` each time that ``patience`` values in a row bring no improvement.

    The count begins anew after each fall. patience = 0: always 1. As ReduceLROnPlateau, whose patience is one less.
    """
    scale, best, since = 1.0, math.nan, 0
    for value in values if patience else ():
        improved = without_improvement((best, value), mode) == 0
        best, since = (value, 0) if improved else (best, since + 1)
        if since == patience:
            scale, since = scale * factor, 0
    return scale


def has_collapsed(values: Sequence[float], drop: float) -> bool:
    """Whether the last value lies more than ``drop`` below the best before it: catastrophic overfitting.

    Source: Wong et al. 2020 (2001.03994), section 5.2: an accuracy under PGD that falls from one epoch to the next.
    """
    return len(values) > 1 and values[-1] < max(values[:-1]) - drop
