"""The expensive part that several metrics have in common, described so that it need be made only once."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from robust_saliency.types import Array


class Shared(NamedTuple):
    """A metric as *runs* that others may have too, and what it reads off them.

    runs(spec) -> a tuple of specs, one a run, which hold all that the run depends on and nothing else; make(*needs,
    run): the run itself; read(made, given, spec): from the list of runs and all arguments by name, the values ``[B]``,
    or, where ``fractions`` is not None, a curve ``[B, points]``. fractions(spec, pixels): the shares of the pixels
    ``[points]`` at its points; value(curve, pixels): the values ``[B]`` of that curve.
    """

    needs: tuple[str, ...]
    runs: Callable[[Any], tuple]
    make: Callable[..., Any]
    read: Callable[[list, Mapping[str, Any], Any], Array]
    fractions: Callable[[Any, int], np.ndarray] | None = None
    value: Callable[[Array, int], Array] | None = None
