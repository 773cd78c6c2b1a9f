"""What became of a thing that a study stated: shown, opposite, less than stated, not shown, or why nothing is said."""

from robust_saliency.statistics import Verdict


def finding(verdict: Verdict, num_seeds: int, limits: tuple[float, float], sign: int) -> str:
    """In a word; ``verdict`` is of what lies beyond what was stated, ``limits`` are of what was measured.

    ``sign`` is -1 where lower was stated.
    """
    if verdict.finding in ("too few", "not measured"):
        return verdict.finding
    if num_seeds == 1:
        return "one seed"
    if not verdict.counts:
        return "not shown"
    if verdict.finding == "higher":
        return "shown"
    return "opposite" if max(sign * each for each in limits) < 0 else "less than stated"
