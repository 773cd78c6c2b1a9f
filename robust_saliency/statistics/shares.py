"""Intervals of shares: Wilson's, or the bootstrap's where images come in groups."""

import numpy as np
from scipy.special import ndtri

from robust_saliency.statistics.bootstrap import Estimate


def share_interval(share: Estimate) -> tuple[float, float]:
    """The 95 % interval of a share of images, from its :func:`bootstrap_mean`.

    Wilson's where every image is a group of its own, else the bootstrap over groups: Wilson's takes the images of a
    group for independent. Where all images agree the bootstrap has no width, and Wilson's of the groups is given.
    """
    if not share.n:
        return float("nan"), float("nan")
    if share.num_groups < share.n and 0.0 < share.mean < 1.0:
        return share.low, share.high
    return wilson_interval(round(share.mean * share.num_groups), share.num_groups)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    r"""Interval of a proportion :math:`p` of independent trials.

    :math:`(p + z^2/2n \pm z\sqrt{p(1-p)/n + z^2/4n^2}) / (1 + z^2/n)`, with z the normal quantile of the level.
    NaN when ``n`` is 0. Source: Wilson 1927; Brown, Cai and DasGupta 2001.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0..n, got {successes} of {n}.")
    if n == 0:
        return float("nan"), float("nan")
    z = float(ndtri((1.0 + level) / 2.0))
    share, shrink = successes / n, 1.0 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z * np.sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n)) / shrink
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))
