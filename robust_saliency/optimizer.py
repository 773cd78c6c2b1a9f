"""The optimiser and its learning-rate schedule, from optax."""

import dataclasses
from collections.abc import Sequence

import optax

from robust_saliency import checks, trainable

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "one_cycle")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """name: 'adam' and 'sgd' (Nesterov momentum) add ``weight_decay`` times the weights to the gradient (L2); 'adamw'
    takes it off the weights beside the step (Loshchilov, Hutter 2019).

    learning_rate: the peak. schedule: 'constant', 'cosine' (to zero), 'one_cycle' (linear rise over the first
    ``warmup_fraction`` of all steps, then cosine to zero). clip_norm: global norm of the gradient; 0 = no clipping.
    """

    name: str = "adamw"
    learning_rate: float = 3e-3
    schedule: str = "one_cycle"
    warmup_fraction: float = 0.3
    weight_decay: float = 1e-4
    momentum: float = 0.9
    clip_norm: float = 1.0

    def __post_init__(self):
        checks.one_of("optimizer.name", self.name, OPTIMIZERS)
        checks.one_of("optimizer.schedule", self.schedule, SCHEDULES)


def make(
    spec: Optimizer, total_steps: int, trained: Sequence[str] = ()
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The transformation and the schedule that it follows, for a run of ``total_steps`` steps.

    trained: see :func:`robust_saliency.trainable.only`; the norm that is clipped is of these parameters alone.
    """
    schedule = make_schedule(spec, max(total_steps, 1))
    if spec.name == "adamw":
        base = optax.adamw(schedule, weight_decay=spec.weight_decay)
    else:
        sgd = optax.sgd(schedule, momentum=spec.momentum, nesterov=True)
        rule = sgd if spec.name == "sgd" else optax.adam(schedule)
        base = optax.chain(optax.add_decayed_weights(spec.weight_decay), rule)
    clip = optax.clip_by_global_norm(spec.clip_norm) if spec.clip_norm > 0 else optax.identity()
    return trainable.only(optax.chain(clip, base), trained), schedule


def make_schedule(spec: Optimizer, total_steps: int) -> optax.Schedule:
    if spec.schedule == "constant":
        return optax.constant_schedule(spec.learning_rate)
    if spec.schedule == "cosine":
        return optax.cosine_decay_schedule(spec.learning_rate, total_steps)
    warmup = min(max(1, round(spec.warmup_fraction * total_steps)), total_steps)
    # A run of warm-up alone still needs a step to decay in.
    end = max(total_steps, warmup + 1)
    return optax.warmup_cosine_decay_schedule(0.04 * spec.learning_rate, spec.learning_rate, warmup, end)
