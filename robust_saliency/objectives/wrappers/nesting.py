"""What a wrapper is: an objective around another one, whose spec holds the other's.

The spec of a wrapper has the field ``inner``, the spec of what it wraps, and the class attribute ``wrapper``, its name
in WRAPPERS. Dotted paths of schedules go through it: 'attack.threat.epsilon' is the innermost objective's, however
deep it lies, and 'awp.gamma' that of the wrapper named awp.
"""

import dataclasses
from typing import Any

from robust_saliency.objectives.adversarial import Adversarial
from robust_saliency.objectives.standard import Standard
from robust_saliency.objectives.types import Objective, fits_all

# At run time the spec of any objective, a wrapper's too; the annotation makes it data of the wrapper's spec.
Inner = Adversarial | Standard


def wrapped(inner: Objective, perturb=None, loss=None, own_check=fits_all) -> Objective:
    """``inner`` under a spec that holds its own; ``perturb`` and ``loss`` take the place of its functions.

    own_check: what the wrapper itself asks of a network, besides what ``inner`` does.
    """

    def same_perturb(classifier, variables, key, batch, spec):
        return inner.perturb(classifier, variables, key, batch, spec.inner)

    def same_loss(classifier, variables, carry, key, batch, spec):
        return inner.loss(classifier, variables, carry, key, batch, spec.inner)

    def check(classifier, spec):
        own_check(classifier, spec)
        inner.check(classifier, spec.inner)

    def start(batch, spec):
        return inner.start(batch, spec.inner)

    def advance(carry, gradient, batch, spec):
        return inner.advance(carry, gradient, batch, spec.inner)

    def replays(spec):
        return inner.replays(spec.inner)

    kept = {"start": start, "advance": advance} if inner.keeps_something else {}
    functions = {"perturb": perturb or same_perturb, "loss": loss or same_loss}
    return inner._replace(**functions, check=check, replays=replays, **kept)


def refuse_carry(name: str, inner: Objective) -> None:
    """Raises ValueError for an objective that keeps something between steps, which not every wrapper can follow."""
    if inner.keeps_something:
        raise ValueError(f"{name} cannot stand around an objective that keeps something between steps, such as free.")


def innermost(spec: Any) -> Any:
    """The spec of the objective that all wrappers stand around."""
    while hasattr(spec, "wrapper"):
        spec = spec.inner
    return spec


def with_innermost(spec: Any, **changes: Any) -> Any:
    """``spec`` with fields of the innermost objective changed."""
    if hasattr(spec, "wrapper"):
        return dataclasses.replace(spec, inner=with_innermost(spec.inner, **changes))
    return dataclasses.replace(spec, **changes)
