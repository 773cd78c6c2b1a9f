"""What a training regime is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from robust_saliency.types import Array, Batch


def _nothing(batch: Batch, spec: Any) -> tuple:
    return ()


def _as_it_is(carry: Any, gradient: Any, batch: Batch, spec: Any) -> Any:
    return carry


def _once(spec: Any) -> int:
    return 1


def fits_all(classifier, spec) -> None:
    """The ``check`` of a regime that can train any classifier."""


class Objective(NamedTuple):
    """A training regime in two pure functions.

    perturb(classifier, variables, key, batch, spec) -> batch: outside the gradient; adds adversaries, masks, guides.
    loss(classifier, variables, carry, key, batch, spec) -> (loss, (model_state, metrics)): metrics holds 'loss', which
        the training log shows, and whatever else is worth a row. Differentiated in the parameters and in ``carry``,
        which is empty but for regimes that keep something between steps.
    reads: what a training batch must hold besides image, label, id and valid, such as 'lesion_mask'.
    start(batch, spec) -> carry: before the first step; each leaf has the batch axis first.
    advance(carry, gradient, batch, spec) -> carry: after a step, from the gradient of the loss in the carry.
    replays(spec) -> int: steps in a row on the same augmented batch.
    check(classifier, spec): called before anything is trained; raises ValueError of one sentence where the regime
        cannot train this network, such as for a layer that it does not have.
    """

    perturb: Callable
    loss: Callable
    reads: tuple[str, ...] = ()
    start: Callable = _nothing
    advance: Callable = _as_it_is
    replays: Callable = _once
    check: Callable = fits_all

    @property
    def keeps_something(self) -> bool:
        """Whether there is a carry."""
        return self.start is not _nothing


def mean(values: Array, batch: Batch) -> Array:
    """Mean over the valid examples of the batch; what a padded example holds, NaN too, does not count."""
    valid = batch["valid"]
    return jnp.sum(jnp.where(valid, values, 0)) / jnp.maximum(jnp.sum(valid), 1)


def accuracy(logits: Array, batch: Batch) -> Array:
    """Share of valid examples whose largest logit is the label's."""
    return mean((jnp.argmax(logits, axis=-1) == batch["label"]).astype(logits.dtype), batch)
