"""The checklist of a robustness report (Carlini et al. 2019, 1902.06705, section 5): each a sentence, pass or fail.

A failed check does not say that a network is not robust, but that these attacks cannot tell.
"""

from typing import NamedTuple

import numpy as np

SLACK = 0.02  # of accuracy: what an attack may lag behind a weaker one by chance
FEW = 0.01  # of examples
LARGEST_LOGITS = 100.0  # logit units between the largest and the smallest: cross-entropy in float32 is 0 beyond
THROUGH_FLOAT32 = "apgd-ce in float32"  # of a network that computes in a narrower type
STANDARD = {"steps": 100, "num_queries": 5000, "num_targets": 9}  # of AutoAttack, as published
USUAL_CURVE_STEPS = 20  # with which the checks at a large epsilon are known to work


class Budget(NamedTuple):
    """How hard a report attacks, see :class:`robust_saliency.config.Robustness`; num_targets of the wrong_classes."""

    version: str
    steps: int
    num_queries: int
    num_targets: int
    wrong_classes: int
    curve_steps: int
    num_searches: int


class Facts(NamedTuple):
    """What was measured, one entry an example ``[N]``; ``robust``: by attack, 'clean', 'noise' and 'all' among them.

    smallest_epsilon: 0 where wrong before, infinite where no epsilon fooled it; epsilon_width: of the bracket that the
    search left below it, all of it where the search missed what another adversary found. fooled_once, fooled_twice,
    fooled_in_box: by one attack at epsilon, at twice epsilon, and at the least epsilon whose ball holds the whole box.
    margin_after_10, ...: of one long PGD.
    """

    robust: dict[str, np.ndarray]
    smallest_epsilon: np.ndarray
    epsilon_width: np.ndarray
    epsilon: float
    budget: Budget
    fooled_once: np.ndarray
    fooled_twice: np.ndarray
    fooled_in_box: np.ndarray
    output_is_broken: np.ndarray
    gradient_is_zero: np.ndarray
    gradient_is_broken: np.ndarray
    loss_is_zero: np.ndarray
    logit_scale: np.ndarray
    looks_like_probabilities: np.ndarray
    is_random: np.ndarray
    margin_after_10: np.ndarray
    margin_after_40: np.ndarray
    margin_after_50: np.ndarray
    loss_after_50: np.ndarray


class Check(NamedTuple):
    """``sentence`` says what was found, and what it means where it did not pass."""

    name: str
    passed: bool
    sentence: str


def checklist(facts: Facts) -> list[Check]:
    """All checks, in the order in which they are read."""
    return [check(facts) for check in CHECKS]


def accuracy(facts: Facts, name: str) -> float:
    """Share of examples that withstand an attack; 'clean' and 'noise' are names too."""
    return float(facts.robust[name].mean())


def reaches_zero(facts: Facts) -> Check:
    """A small budget may fail for want of steps; one that is not small fails for want of a gradient."""
    steps = facts.budget.curve_steps
    cause = "for want of a gradient"
    if steps < USUAL_CURVE_STEPS or _short_of_standard(facts.budget):
        cause = f"for want of steps (it made {steps}; the budget is below the standard one) or of a gradient"
    left, num = int(np.sum(~facts.fooled_in_box)), len(facts.fooled_in_box)
    return _check(
        "large epsilon fools everybody", left <= FEW * num,
        f"with an epsilon as large as the box {left} of {num} examples withstand the white-box attack",
        f"some image of the box belongs to another class, so the attack fails {cause}",
    )  # fmt: skip


def larger_balls_fool_more(facts: Facts) -> Check:
    lost = float(np.mean(facts.fooled_once & ~facts.fooled_twice))
    return _check(
        "a larger epsilon fools no fewer", lost <= SLACK,
        f"of the examples {float(facts.fooled_once.mean()):.3f} are fooled at epsilon, "
        f"{float(facts.fooled_twice.mean()):.3f} at twice epsilon; {lost:.3f} at the smaller one alone",
        "what fools at epsilon lies in the larger ball too, so the attack loses its way",
    )  # fmt: skip


def white_box_beats_noise(facts: Facts) -> Check:
    """PGD must fool more than random noise; equally many are no proof of a gradient, for nothing may have been tried.

    Passes where PGD-50 fools more than ``FEW`` of the examples beyond noise, or noise leaves no more than ``FEW``.
    Else, where all adversaries together fool more than ``FEW`` beyond PGD, the gradient is of no use; where they do
    not, nothing fools at this epsilon, and nothing can be told: that fails too.
    """
    noise, pgd, left = (accuracy(facts, name) for name in ("noise", "pgd-50", "all"))
    passed = noise - pgd > FEW or max(noise, pgd) <= FEW
    meaning = "the gradient points nowhere"
    if pgd - left <= FEW and pgd - noise <= FEW:
        meaning = "nothing fools at this epsilon, so nothing can be told of the gradient; report a larger one too"
    return _check(
        "gradients beat noise", passed,
        f"accuracy under PGD-50 {pgd:.3f}, under random noise {noise:.3f}, under all adversaries {left:.3f}", meaning,
    )  # fmt: skip


def white_box_beats_black_box(facts: Facts) -> Check:
    white, black = accuracy(facts, "apgd-ce"), accuracy(facts, "square")
    alone = float(np.mean(facts.robust["apgd-ce"] & ~facts.robust["square"]))
    return _check(
        "gradients beat queries", alone <= SLACK,
        f"accuracy under APGD {white:.3f}, under Square {black:.3f}; {alone:.3f} of the examples fall to Square alone",
        "an attack without gradients finds what gradients hide",
    )  # fmt: skip


def losses_agree(facts: Facts) -> Check:
    entropy, ratio = accuracy(facts, "apgd-ce"), accuracy(facts, "apgd-dlr")
    return _check(
        "the loss does not matter", entropy <= ratio + 2 * SLACK,
        f"accuracy under APGD on cross-entropy {entropy:.3f}, on the scale-free DLR loss {ratio:.3f}",
        "cross-entropy is saturated: its gradient vanishes",
    )  # fmt: skip


def narrow_arithmetic_hides_nothing(facts: Facts) -> Check:
    name = "gradients are precise"
    if THROUGH_FLOAT32 not in facts.robust:
        return Check(name, True, "The network computes in float32.")
    narrow, wide = accuracy(facts, "apgd-ce"), accuracy(facts, THROUGH_FLOAT32)
    return _check(
        name, narrow - wide <= SLACK,
        f"accuracy under APGD with gradients in the network's own arithmetic {narrow:.3f}, with gradients of the same "
        f"weights in float32 {wide:.3f}: strength lost {narrow - wide:.3f}",
        "attacks on this network are weaker for its rounding; trust the smaller number",
    )  # fmt: skip


def more_steps_help(facts: Facts) -> Check:
    few, many = accuracy(facts, "pgd-10"), accuracy(facts, "pgd-50")
    return _check(
        "more steps are no worse", many <= few + SLACK, f"accuracy under PGD-10 {few:.3f}, under PGD-50 {many:.3f}",
        "the steps lead nowhere",
    )  # fmt: skip


def restarts_gain_little(facts: Facts) -> Check:
    once = accuracy(facts, "pgd-50")
    several = min(accuracy(facts, name) for name in facts.robust if name.startswith("pgd-50"))
    return _check(
        "restarts gain little", once - several <= 2.5 * SLACK,
        f"accuracy under PGD-50 {once:.3f}, the worst of several starts {several:.3f}",
        "the loss is so rough that the start decides; take more restarts",
    )  # fmt: skip


def gradients_exist(facts: Facts) -> Check:
    zero, broken = float(facts.gradient_is_zero.mean()), float(facts.gradient_is_broken.mean())
    return _check(
        "gradients are there", zero <= FEW and broken == 0,
        f"the gradient of cross-entropy is zero for {zero:.3f} of the examples, NaN or infinite for {broken:.3f}",
        "attacks on cross-entropy cannot start from there",
    )  # fmt: skip


def loss_is_not_saturated(facts: Facts) -> Check:
    """A loss of 0 on a clean image is mere confidence; the attack must leave it behind."""
    zero, still = float(facts.loss_is_zero.mean()), float(np.mean(facts.loss_after_50 == 0))
    scale = float(np.median(facts.logit_scale))
    return _check(
        "logits are of a usual size", still <= FEW and scale <= LARGEST_LOGITS,
        f"the logits of an example spread over {scale:.3g} (median); cross-entropy is exactly 0 for {zero:.3f}, and "
        f"still after 50 steps for {still:.3f}",
        "float32 rounds the loss, and with it its gradient, to 0; scale the logits or attack the margin",
    )  # fmt: skip


def attack_has_converged(facts: Facts) -> Check:
    """Judged on who is not fooled yet: the loss of a fooled example has no bound, and rises on.

    The last fifth of the steps may fool no more than ``SLACK`` of the examples, and no more may be so near that as many
    steps again, with the margin rising as it did in these, would fool them.
    """
    margins = facts.margin_after_10, facts.margin_after_40, facts.margin_after_50
    early, late, last = (~(margin < 0) for margin in margins)
    lately = float(np.mean(last & ~early & ~late))
    rising = facts.margin_after_50 - facts.margin_after_40
    soon = float(np.mean(~early & ~late & ~last & (facts.margin_after_50 + rising >= 0)))
    return _check(
        "the attack has converged", max(lately, soon) <= SLACK,
        f"PGD has fooled {float(early.mean()):.3f} of the examples after 10 steps, {float(late.mean()):.3f} after 40, "
        f"{float(last.mean()):.3f} after 50; {soon:.3f} would follow after 60 if their margins rose as before",
        "more steps would find more",
    )  # fmt: skip


def outputs_are_finite(facts: Facts) -> Check:
    broken, num = int(facts.output_is_broken.sum()), len(facts.output_is_broken)
    return _check(
        "outputs are finite", broken == 0,
        f"for {broken} of {num} examples an output is NaN or infinite, on the image or a random point near it",
        "such an output counts as fooled, and no gradient leads there",
    )  # fmt: skip


def budget_is_standard(facts: Facts) -> Check:
    """At least what AutoAttack is published with: a smaller budget can leave a network standing that is not robust."""
    budget, least = facts.budget, _standard(facts.budget)
    return _check(
        "the budget is the standard one", not _short_of_standard(budget),
        f"AutoAttack in its {budget.version} version: {budget.steps} steps, {budget.num_queries} queries, "
        f"{budget.num_targets} of {budget.wrong_classes} wrong classes",
        f"below the standard of {least['steps']} steps, {least['num_queries']} queries, {least['num_targets']} classes "
        "and the standard version, so a full attack may find more",
    )  # fmt: skip


def outputs_are_logits(facts: Facts) -> Check:
    share = float(facts.looks_like_probabilities.mean())
    return _check(
        "outputs are logits", share <= FEW,
        f"{share:.3f} of the outputs are not negative and sum to 1",
        "they look like probabilities: losses take a softmax of their own",
    )  # fmt: skip


def network_is_deterministic(facts: Facts) -> Check:
    share = float(facts.is_random.mean())
    return _check(
        "the network is deterministic", share == 0, f"{share:.3f} of the outputs differ when computed twice",
        "attack the expectation over its randomness",
    )  # fmt: skip


CHECKS = (
    reaches_zero,
    larger_balls_fool_more,
    white_box_beats_noise,
    white_box_beats_black_box,
    losses_agree,
    more_steps_help,
    restarts_gain_little,
    gradients_exist,
    narrow_arithmetic_hides_nothing,
    loss_is_not_saturated,
    attack_has_converged,
    outputs_are_finite,
    outputs_are_logits,
    network_is_deterministic,
    budget_is_standard,
)


def _check(name: str, passed: bool, found: str, meaning: str) -> Check:
    sentence = f"{found[0].upper()}{found[1:]}."
    return Check(name, bool(passed), sentence if passed else f"{sentence[:-1]}: {meaning}.")


def _standard(budget: Budget) -> dict[str, int]:
    return STANDARD | {"num_targets": min(STANDARD["num_targets"], budget.wrong_classes)}


def _short_of_standard(budget: Budget) -> bool:
    below = any(getattr(budget, name) < least for name, least in _standard(budget).items())
    return below or budget.version != "standard"
