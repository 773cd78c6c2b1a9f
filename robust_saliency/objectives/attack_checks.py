"""What the attack of a regime must be, told when its spec is made."""

from typing import Any

from robust_saliency import attacks, checks


def check_steps(spec: Any) -> None:
    """Raises ValueError for an attack of no steps, against which nothing would be trained."""
    checks.at_least(1, num_steps=getattr(spec.attack, "num_steps", 1), where=f"{type(spec).__name__}.attack")


def check_start(spec: Any, raised: str, instead: str = "") -> None:
    """Raises ValueError for an attack from the clean image: the divergence ``raised`` has no gradient there to follow.

    instead: what helps besides a random start.
    """
    if starts_clean(spec.attack):
        raise ValueError(
            f"{type(spec).__name__}.attack {type(spec.attack).__name__} starts at the clean image, and {raised} has no "
            "gradient there to follow; expected start='gaussian' with a start_scale above 0, 'sphere' or 'uniform', or "
            f"fgsm_rs{instead}."
        )


def starts_clean(attack: Any) -> bool:
    """Whether ``attack`` is known to start at the clean image."""
    if isinstance(attack, attacks.FGSM):
        return True
    if getattr(attack, "init", None) is not None or not hasattr(attack, "start"):
        return False
    # The scale may be an array that is being traced: a plain number alone can be compared.
    scale = attack.start_scale
    return attack.start == "none" or (attack.start == "gaussian" and isinstance(scale, int | float) and scale == 0)
