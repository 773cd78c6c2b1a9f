"""Decisions on linear models, where it is known who can be fooled; and results that say no more than is true."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import losses
from robust_saliency.attacks import APGD, PGD, decisions
from robust_saliency.attacks.decisions import Targeted, Untargeted
from robust_saliency.threat import Threat
from tests.keys import fast_key

SHAPE = (3, 4, 2)
NUM = 64
SPECS = {
    "apgd_ce": lambda attack: (decisions.untargeted, Untargeted(attack=attack)),
    "apgd_dlr": lambda attack: (decisions.untargeted, Untargeted(attack=attack, loss="dlr")),
    "apgd_t": lambda attack: (decisions.targeted, Targeted(attack=attack, num_targets=4)),
}


def linear(num_classes, seed=0):
    """Logits and the difference of weights between each class and each label."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(*SHAPE, num_classes)).astype(np.float32)
    return weights, lambda x: jnp.tensordot(x - 0.5, weights, 3)


def reachable_margin(weights, images, labels, epsilon, norm, mask):
    """``max_t max_x z_t - z_y`` over the ball within the box (l2: which the images are too far from to meet)."""
    best = np.full(len(images), -np.inf)
    for target in range(weights.shape[-1]):
        w = np.moveaxis(weights, -1, 0)[target][None] - np.moveaxis(weights, -1, 0)[labels]
        w = w * mask
        clean = np.sum((images - 0.5) * np.moveaxis(weights, -1, 0)[target][None], (1, 2, 3)) - np.sum(
            (images - 0.5) * np.moveaxis(weights, -1, 0)[labels], (1, 2, 3)
        )
        if norm == "linf":
            room = np.where(w > 0, np.minimum(epsilon[:, None, None, None], 1 - images),
                            np.minimum(epsilon[:, None, None, None], images))  # fmt: skip
            gain = np.sum(np.abs(w) * room, (1, 2, 3))
        elif norm == "l2":
            gain = epsilon * np.sqrt(np.sum(w**2, (1, 2, 3)))
        else:
            gain = epsilon * np.abs(w).max((1, 2, 3))
        best = np.maximum(best, np.where(labels == target, -np.inf, clean + gain))
    return best


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize(("name", "num_classes"), [("apgd_t", 5), ("apgd_t", 3), ("apgd_ce", 2), ("apgd_dlr", 2)])
def test_an_example_is_fooled_exactly_when_its_closed_form_says_so(name, num_classes, norm, rng):
    weights, logits_fn = linear(num_classes)
    low, high = (0.0, 1.0) if norm == "linf" else (0.4, 0.6)
    images = rng.uniform(low, high, (NUM, *SHAPE)).astype(np.float32)
    labels = np.argmax(logits_fn(images), -1).astype(np.int32)
    epsilon = (rng.uniform(0.05, 1.8, NUM) * {"l1": 0.1, "l2": 0.035, "linf": 0.05}[norm]).astype(np.float32)
    epsilon = np.minimum(epsilon, 0.4)
    mask = rng.integers(0, 2, (1, 3, 4, 1)).astype(np.float32)
    model = Threat(norm=norm, epsilon=jnp.asarray(epsilon), mask=jnp.asarray(mask))
    function, spec = SPECS[name](APGD(threat=model, num_steps=50, unroll=False))
    run = jax.jit(lambda x, y: function(logits_fn, fast_key(0), x, y, spec))
    result = run(images, labels)
    margin = reachable_margin(weights, images, labels, epsilon, norm, mask)
    sure = np.abs(margin) > 0.01 * np.abs(margin).mean()
    assert 0.2 < (margin[sure] > 0).mean() < 0.8
    np.testing.assert_array_equal(np.asarray(result.success)[sure], margin[sure] > 0)
    assert (np.asarray(result.distance) <= epsilon + 1e-5).all()
    np.testing.assert_array_equal(
        np.asarray(result.images)[np.broadcast_to(mask == 0, images.shape)],
        images[np.broadcast_to(mask == 0, images.shape)],
    )
    np.testing.assert_allclose(result.margin, losses.margin(logits_fn(result.images), labels), atol=1e-5)


def test_what_is_wrong_before_stays_clean_and_counts_as_fooled(rng):
    _, logits_fn = linear(4)
    images = rng.uniform(0.3, 0.7, (8, *SHAPE)).astype(np.float32)
    right = np.argmax(logits_fn(images), -1).astype(np.int32)
    labels = np.where(np.arange(8) % 2 == 0, (right + 1) % 4, right).astype(np.int32)
    spec = Untargeted(attack=APGD(threat=Threat(epsilon=1e-4), num_steps=5, unroll=False))
    result = decisions.untargeted(logits_fn, fast_key(0), jnp.asarray(images), jnp.asarray(labels), spec)
    np.testing.assert_array_equal(result.success, np.arange(8) % 2 == 0)
    np.testing.assert_array_equal(result.images[::2], images[::2])
    np.testing.assert_array_equal(result.distance[::2], 0)
    assert (np.asarray(result.images[1::2]) != images[1::2]).any((1, 2, 3)).all(), (
        "the strongest try, not the clean one"
    )


def test_success_after_rounding_to_8_bits_is_asked_of_the_rounded_image():
    """The adversary gains a thousandth of a grey level, which rounding takes back."""

    def logits_fn(x):
        score = x[:, 0, 0, 0] - 100 / 255
        return jnp.stack([0 * score, score], -1)

    images = jnp.full((1, 1, 1, 1), 99.6 / 255)
    labels = jnp.zeros(1, jnp.int32)
    spec = Untargeted(attack=PGD(threat=Threat(epsilon=0.45 / 255), step_size=0.2 / 255, num_steps=5, start="none"))
    result = decisions.untargeted(logits_fn, fast_key(0), images, labels, spec)
    assert (bool(result.success[0]), bool(result.success_8bit[0])) == (True, True)
    out_of_reach = decisions.untargeted(lambda x: logits_fn(x - 0.4 / 255), fast_key(0), images, labels, spec)
    assert (bool(out_of_reach.success[0]), bool(out_of_reach.success_8bit[0])) == (False, False)
    edge = decisions.untargeted(lambda x: logits_fn(x - 0.04 / 255), fast_key(0), images, labels, spec)
    assert (bool(edge.success[0]), bool(edge.success_8bit[0])) == (True, False)


def test_passes_are_counted():
    _, logits_fn = linear(5)
    images, labels = jnp.full((3, *SHAPE), 0.5), jnp.array([0, 1, 2])
    calls = []

    def counted(x):
        # Of a value of its own, so that a target more is a call more.
        jax.debug.callback(lambda _: calls.append(1), x[0, 0, 0, 0])
        return logits_fn(x)

    attack = APGD(threat=Threat(epsilon=0.01), num_steps=7)
    for function, spec, judging in (
        (decisions.untargeted, Untargeted(attack=attack), 3),
        (decisions.targeted, Targeted(attack=attack, num_targets=2), 3),
    ):
        calls.clear()
        result = function(counted, fast_key(0), images, labels, spec)
        jax.effects_barrier()
        assert result.forwards.tolist() == [len(calls) - judging] * 3
    assert result.backwards.tolist() == [14] * 3


def test_bad_specs_are_one_sentence():
    with pytest.raises(ValueError, match=r"Unknown loss 'dlrr'\. Did you mean 'dlr'"):
        Untargeted(loss="dlrr")
    with pytest.raises(ValueError, match=r"Targeted.num_targets must be at least 1, got 0"):
        Targeted(num_targets=0)
