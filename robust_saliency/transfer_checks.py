"""What a transfer matrix says of hidden gradients (Athalye et al. 2018, 1802.00420; Carlini et al. 2019, 1902.06705).

A network's own gradients must find what those of another network find: an example that withstands the attack on the
network itself, and falls to an adversary made without looking at it, was not robust but badly attacked.
"""

from collections.abc import Sequence

import numpy as np

from robust_saliency.robustness_checks import SLACK, Check

MEANING = "its own gradients do not find what those of another network find, so they are hidden"


def white_box_beats_transfer(correct: np.ndarray, names: Sequence[str]) -> Check:
    """Fails where more than ``SLACK`` of the examples withstand a network's own attack and fall to another's.

    correct: bool ``[R, R, N]``: whether run t is right on the adversaries of run s; names ``[R]``.
    """
    own = np.array([correct[t, t] for t in range(len(names))])
    accuracy, alone = correct.mean(-1), np.mean(own & ~correct, axis=-1)
    added = [_most_added(names, accuracy, alone, target) for target in range(len(names))]
    failed = [words for share, words in added if share > SLACK]
    if failed:
        return Check("white box beats transfer", False, f"{'; '.join(failed)}: {MEANING}.")
    return Check("white box beats transfer", True, f"Where adversaries of another network add most, {max(added)[1]}.")


def _most_added(names: Sequence[str], accuracy: np.ndarray, alone: np.ndarray, target: int) -> tuple[float, str]:
    """The share of examples that fall only to the adversaries of the one source which add most, and the words."""
    source = max((s for s in range(len(names)) if s != target), key=lambda s: alone[s, target])
    words = (
        f"{names[target]} is right on {accuracy[target, target]:.3f} of its own adversaries and on "
        f"{accuracy[source, target]:.3f} of those made on {names[source]}, and {alone[source, target]:.3f} of the "
        "examples fall to these alone"
    )
    return float(alone[source, target]), words
