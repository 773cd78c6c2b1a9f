"""An epsilon for each example, as far as the network can be fooled: no more than it takes, at most the budget."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from robust_saliency import attacks, checks, losses
from robust_saliency.objectives.adversarial import Adversarial
from robust_saliency.objectives.single_step import made_like
from robust_saliency.objectives.types import Objective, mean
from robust_saliency.objectives.wrappers.nesting import Inner, innermost, refuse_carry, with_innermost, wrapped
from robust_saliency.types import Array, Scalar, is_spec, spec


@spec
class AdaptiveEpsilon:
    """``epsilon_i = min(max(least_share, factor s_i), 1) epsilon``, epsilon the budget: that of the attack inside.

    s_i is the smallest share of the grid ``0, 1/n, 2/n, ..., 1`` at which a cheap attack fools the present network on
    example i (its margin is not negative), 1 where none does. 0: the clean image is misclassified.

    num_shares: n. Each costs the cheap attack and a forward pass.
    factor: 1 = an adversary at the boundary, more = behind it.
    least_share: no example has less than this share of the budget.
    probe_steps: steps of the cheap attack, PGD without a random start on cross-entropy: 1 = FGSM; more have a
        step size of 2.5 / probe_steps epsilons.

    The step size of the attack inside shrinks with its epsilon. A reconstruction of the idea of DPAAT (2403.06798), of
    which only the abstract is known: an epsilon for each example that follows the network. The rule above is ours.
    """

    inner: Inner = Adversarial()
    num_shares: int = 4
    factor: Scalar = 1.0
    least_share: Scalar = 0.0
    probe_steps: int = 1

    wrapper = "adaptive_epsilon"

    def __post_init__(self):
        checks.at_least(1, num_shares=self.num_shares, probe_steps=self.probe_steps, where="AdaptiveEpsilon")
        objective = innermost(self.inner)
        if is_spec(objective) and not hasattr(getattr(objective, "attack", None), "threat"):
            raise ValueError(
                f"adaptive_epsilon needs an objective with an attack; {type(objective).__name__} has none."
            )


@functools.cache
def adaptive_epsilon(inner: Objective) -> Objective:
    """``inner`` against an epsilon ``[B]``. ValueError for an objective that keeps its adversary between steps."""
    refuse_carry("adaptive_epsilon", inner)

    def perturb(classifier, variables, key, batch, spec):
        """Adds ``epsilon_share [B]``, the share of the budget, to what ``inner`` adds."""
        share = shares(classifier, variables, batch, spec)
        batch = inner.perturb(classifier, variables, key, batch, _within(spec.inner, share))
        return {**batch, "epsilon_share": share}

    def loss(classifier, variables, carry, key, batch, spec):
        share = batch["epsilon_share"]
        given = classifier, variables, carry, key, batch, _within(spec.inner, share)
        value, (state, metrics) = inner.loss(*given)
        return value, (state, {**metrics, "epsilon_share": mean(share, batch)})

    return wrapped(inner, perturb, loss)


def shares(classifier, variables, batch, spec) -> Array:
    """``epsilon_i / epsilon``: ``[B]``, in [0, 1]."""
    objective = innermost(spec.inner)
    logits_fn = classifier.logits_fn(variables, mode=getattr(objective, "attack_mode", "eval"))
    images, labels = batch["image"], batch["label"]

    def loss_fn(images):
        return losses.cross_entropy(logits_fn(images), labels)

    def fooled(images):
        return losses.margin(logits_fn(images), labels) >= 0

    smallest = jnp.ones_like(losses.margin(logits_fn(images), labels))
    for step in range(spec.num_shares - 1, -1, -1):
        share = step / spec.num_shares
        shown = attacks.run(loss_fn, None, images, _probe(objective.attack, share, spec)) if step else images
        smallest = jnp.where(fooled(shown), share, smallest)
    share = jnp.minimum(jnp.maximum(spec.least_share, spec.factor * smallest), 1)
    return jax.lax.stop_gradient(share)


def _probe(attack, share, spec):
    """The cheap attack at a share of the budget."""
    threat = dataclasses.replace(attack.threat, epsilon=share * attack.threat.epsilon)
    step_size = threat.epsilon * (1 if spec.probe_steps == 1 else 2.5 / spec.probe_steps)
    settings = {"step_size": step_size, "num_steps": spec.probe_steps, "start": "none"}
    return attacks.PGD(threat=threat, **settings, **made_like(attack))


def _within(inner, share):
    """``inner`` with the epsilon of its attack, and the step size where it has one, times ``share [B]``."""
    attack = innermost(inner).attack
    changes = {"threat": dataclasses.replace(attack.threat, epsilon=_times(attack.threat.epsilon, share))}
    if hasattr(attack, "step_size"):
        changes["step_size"] = _times(attack.step_size, share)
    return with_innermost(inner, attack=dataclasses.replace(attack, **changes))


def _times(value: Scalar, share: Array) -> Array:
    return value * (share if jnp.ndim(value) < 2 else share[:, None, None, None])
