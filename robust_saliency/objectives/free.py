"""Free adversarial training (Shafahi et al. 2019, 1904.12843, algorithm 1): one backward pass trains and attacks."""

import dataclasses

from robust_saliency import attacks, checks, losses, threat
from robust_saliency.objectives.attack_checks import check_steps
from robust_saliency.objectives.single_step import sparsity_of
from robust_saliency.objectives.types import Objective, accuracy, mean
from robust_saliency.types import Scalar, spec


@spec
class Free:
    """``CE(f(clip(x + d)), y)``; after every step ``d <- project(d + relative_step epsilon steepest(gradient in d))``.

    d is kept from step to step, and from batch to batch: the example in row i begins where its predecessor ended.
    A batch is seen ``replays`` times in a row, so that an epoch has as many times the steps of another regime: train
    for fewer epochs.

    attack: its threat model bounds d, and in l1 its sparsity is that of the step; the attack itself is only what
        validation tests with.
    relative_step: times epsilon; 1 as in the paper, where the norm is linf. The other norms are a reconstruction.
    """

    attack: attacks.PGD | attacks.FGSM = attacks.PGD()
    replays: int = 8
    relative_step: Scalar = 1.0

    def __post_init__(self):
        check_steps(self)
        checks.at_least(1, replays=self.replays, where="Free")


def perturb(classifier, variables, key, batch, spec):
    return batch


def loss(classifier, variables, carry, key, batch, spec):
    """As the authors' code: the perturbation is clipped to the box inside of what is differentiated."""
    low, high = spec.attack.threat.bounds
    output = classifier.apply(variables, (batch["image"] + carry).clip(low, high), mode="train", key=key)
    value = mean(losses.cross_entropy(output.logits, batch["label"]), batch)
    return value, (output.state, {"loss": value, "robust_accuracy": accuracy(output.logits, batch)})


def start(batch, spec):
    return 0 * batch["image"]


def advance(carry, gradient, batch, spec):
    """Into the ball alone: the box of these images does not bind d, since the next batch has others."""
    model = spec.attack.threat
    step = threat.steepest(gradient, model, **sparsity_of(spec.attack))
    moved = carry + spec.relative_step * threat.radius(model, carry) * step
    width = model.bounds[1] - model.bounds[0]
    ball = dataclasses.replace(model, bounds=(-width, width), projection="scale_then_clip")
    return threat.project(moved, 0 * carry, ball)


def replays(spec):
    return spec.replays


free = Objective(perturb, loss, start=start, advance=advance, replays=replays)
