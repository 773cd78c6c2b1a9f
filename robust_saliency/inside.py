"""For methods that look inside a network: what is behind a logits_fn."""

from robust_saliency.types import LogitsFn


def network_of(logits_fn: LogitsFn, method: str, attribute: str):
    """``logits_fn``; raises ValueError where it is a plain function, of which only the logits are known."""
    if not hasattr(logits_fn, attribute):
        raise ValueError(
            f"{method} looks inside the network: give it Classifier.logits_fn(variables) itself, not another function "
            f"of images, got {type(logits_fn).__name__}."
        )
    return logits_fn
