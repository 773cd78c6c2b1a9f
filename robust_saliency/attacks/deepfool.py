"""DeepFool (Moosavi-Dezfooli, Fawzi and Frossard 2016, 1511.04599): straight to the nearest linearised boundary."""

import jax
import jax.numpy as jnp

from robust_saliency import checks, losses, threat
from robust_saliency.attacks import hyperplane
from robust_saliency.attacks.fab import into
from robust_saliency.attacks.pgd import clean
from robust_saliency.attacks.result import AttackResult, judge
from robust_saliency.attacks.targets import likeliest_wrong
from robust_saliency.threat import Threat
from robust_saliency.types import Images, Key, Labels, LogitsFn, Scalar, spec


@spec
class DeepFool:
    """``x <- clip(x + (1 + overshoot) d)`` until fooled, d the least step onto the nearest linearised boundary.

    threat: its epsilon only bounds what is returned.
    num_steps: at most; all are computed, and counted, for every example: a forward pass and ``num_candidates`` backward
        passes each.
    num_candidates: the wrong classes of largest clean logit whose boundaries are looked at.

    Source: the paper, and the authors' code for testing and linearising at the overshot image. Unlike there d is the
    least step inside the box and among the pixels that may change; where neither binds, it is the same.
    """

    threat: Threat = Threat(norm="l2", epsilon=float("inf"))
    num_steps: int = 50
    overshoot: Scalar = 0.02
    num_candidates: int = 10

    def __post_init__(self):
        checks.at_least(1, num_steps=self.num_steps, num_candidates=self.num_candidates, where="DeepFool")

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Forward and backward passes of an image."""
        return 1 + self.num_steps, self.num_steps * min(self.num_candidates, num_classes - 1)


def deepfool(logits_fn: LogitsFn, key: Key, images: Images, labels: Labels, spec: DeepFool) -> AttackResult:
    """The attack away from ``labels``; ``key`` has no use here. With epsilon = inf ``distance`` is the norm found.

    An adversary beyond epsilon is projected into the threat model.
    """
    origin = clean(images, spec.threat)
    logits = logits_fn(origin)
    classes = logits.shape[-1]
    candidates = likeliest_wrong(logits, labels, min(spec.num_candidates, classes - 1))

    def step(_, images):
        plane, logits = hyperplane.nearest(logits_fn, images, labels, candidates, spec.threat, unroll=False)
        stride = 1 + threat.expand("DeepFool.overshoot", spec.overshoot, images)
        moved = images + stride * hyperplane.least_step(images, plane, spec.threat)
        fooled = losses.margin(logits, labels) >= 0
        return jnp.where(fooled[:, None, None, None], images, jnp.clip(moved, *spec.threat.bounds))

    found = jax.lax.fori_loop(0, spec.num_steps, step, origin)
    tries = into(found, origin, spec.threat)
    return judge(logits_fn, tries, origin, labels, spec.threat, *spec.passes(classes))
