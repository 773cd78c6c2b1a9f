r"""Intervals, tests and effect sizes for scores measured on the same images: how sure a mean or a difference is.

Images of one lesion, or one image seen by several networks, are not independent, so everything here works with
*groups*: the bootstrap resamples them, the test flips their signs, the effect size is over their means. NumPy and SciPy
only; the randomness is the ``seed`` argument, an int or a ``numpy.random.Generator``.

``values`` may be ``[N]``, or ``[N, M]`` for M scores at once (each column is treated on its own, with the same draws);
results are then floats, or arrays ``[M]``. Values that are not finite are dropped and counted, and no result depends
on the order of the rows.
"""

from robust_saliency.statistics.bootstrap import Estimate, bootstrap_mean, paired_difference
from robust_saliency.statistics.correlation import Correlation, correlation_of_means
from robust_saliency.statistics.effect_size import probability_of_superiority, standardised_difference
from robust_saliency.statistics.margin import margin_test
from robust_saliency.statistics.matching import CALIPER, Matched, all_correct, confidence_matched
from robust_saliency.statistics.permutation import holm, sign_flip_test
from robust_saliency.statistics.shares import share_interval, wilson_interval
from robust_saliency.statistics.variance_components import Components, variance_components
from robust_saliency.statistics.verdicts import Verdict, difference_counts

__all__ = [
    "CALIPER",
    "Components",
    "Correlation",
    "Estimate",
    "Matched",
    "Verdict",
    "all_correct",
    "bootstrap_mean",
    "confidence_matched",
    "correlation_of_means",
    "difference_counts",
    "holm",
    "margin_test",
    "paired_difference",
    "probability_of_superiority",
    "share_interval",
    "sign_flip_test",
    "standardised_difference",
    "variance_components",
    "wilson_interval",
]
