"""Attacks in the threat model of another: regimes that do not run their attack take that, and what it is made of."""

from typing import Any

from robust_saliency import attacks
from robust_saliency.threat import Threat
from robust_saliency.types import Array


def single_step(attack: Any, threat: Threat, step_size: Array, **start: Any) -> attacks.PGD:
    """One step of PGD in ``threat``, as sparse in l1 as those of ``attack``. start: fields of PGD."""
    return attacks.PGD(threat=threat, step_size=step_size, num_steps=1, **start, **made_like(attack))


def made_like(attack: Any) -> dict:
    """Fields of PGD that a substitute of ``attack`` takes over, where it has them: sparsity, unroll."""
    return {name: getattr(attack, name) for name in ("sparsity", "unroll") if hasattr(attack, name)}


def sparsity_of(attack: Any) -> dict:
    """The field ``sparsity`` of ``attack``, where it has one."""
    return {"sparsity": attack.sparsity} if hasattr(attack, "sparsity") else {}
