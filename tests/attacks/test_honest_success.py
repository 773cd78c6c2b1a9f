"""An attack that saw an adversary returns it, and a network that does not answer is not robust."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, losses, models
from robust_saliency.threat import Threat

SHAPE = (8, 1, 1, 1)
HALF = jnp.full(SHAPE, 0.5)
LABELS = jnp.zeros(8, jnp.int32)


def higher_loss_without_success(images):
    """Four classes. Up, the second class wins at a low cross-entropy; down, all come close at a higher one."""
    x = (images - 0.5).reshape(-1)
    up, down = jnp.maximum(x, 0), jnp.maximum(-x, 0)
    near = 40 * down - 4.0
    return jnp.stack([0 * x, jnp.maximum(43 * up - 4.0, near), near, near], -1)


def test_there_is_such_a_point():
    logits = higher_loss_without_success(jnp.array([0.6, 0.401]).reshape(2, 1, 1, 1))
    entropy, margin = losses.cross_entropy(logits, LABELS[:2]), losses.margin(logits, LABELS[:2])
    assert margin[0] > 0 > margin[1] and entropy[1] > entropy[0]


@pytest.mark.parametrize("attack", ["pgd", "apgd"])
def test_restarts_never_trade_an_adversary_for_a_higher_loss(attack):
    threat = Threat(epsilon=0.0999)
    spec = {
        "pgd": attacks.PGD(threat=threat, step_size=0.05, num_steps=5, num_restarts=10, unroll=False),
        "apgd": attacks.APGD(threat=threat, num_steps=8, num_restarts=10, unroll=False),
    }[attack]
    decide = attacks.Untargeted(attack=spec)
    result = jax.jit(lambda x: attacks.decide(higher_loss_without_success, jax.random.key(0), x, LABELS, decide))(HALF)
    assert result.success.all(), "an adversary that one start found was given up"


@pytest.mark.parametrize("spec", [attacks.Untargeted(), attacks.Targeted(), attacks.Targeted(loss="margin")])
def test_an_adversary_has_a_higher_loss_than_any_right_answer_and_the_same_gradient(spec, rng):
    from robust_saliency.attacks.decisions import loss_of, plain_loss_of

    logits = jnp.asarray(3 * rng.normal(size=(2000, 5)), jnp.float32)
    labels, targets = jnp.zeros(2000, jnp.int32), jnp.ones(2000, jnp.int32)
    lifted, plain = (make(spec, 5) for make in (loss_of, plain_loss_of))
    values, is_adversary = lifted(logits, labels, targets), losses.margin(logits, labels) >= 0
    assert 100 < is_adversary.sum() < 1990
    assert values[is_adversary].min() >= values[~is_adversary].max()
    slopes = [jax.grad(lambda z, f=f: f(z, labels, targets).sum())(logits) for f in (lifted, plain)]
    np.testing.assert_array_equal(*slopes)


def broken(images):
    """NaN wherever an image is no 8-bit image."""
    level = 255 * images
    honest = jnp.tensordot(images - 0.5, jnp.ones((1, 1, 1)), 3)
    honest = jnp.stack([honest + 1, -honest], -1)
    return jnp.where((jnp.abs(level - jnp.round(level)) < 1e-3).all((1, 2, 3))[:, None], honest, jnp.nan)


@pytest.mark.parametrize("name", ["untargeted", "targeted", "autoattack"])
def test_a_network_that_answers_nan_is_fooled(name):
    threat = Threat(epsilon=0.01)
    spec = {
        "untargeted": attacks.Untargeted(attack=attacks.PGD(threat=threat, num_steps=2)),
        "targeted": attacks.Targeted(attack=attacks.PGD(threat=threat, num_steps=2)),
        "autoattack": attacks.AutoAttack(threat=threat, steps=2, num_queries=3, version="fast"),
    }[name]
    images = jnp.full(SHAPE, 128 / 255)
    assert not (losses.margin(broken(images), LABELS) >= 0).any()
    result = jax.jit(lambda x: attacks.decide(broken, jax.random.key(0), x, LABELS, spec))(images)
    assert result.success.all()


def test_a_later_success_counts_after_a_nan():
    from robust_saliency.attacks.autoattack import _stronger

    def result(success, margin):
        zero = jnp.zeros(1, jnp.int32)
        image = jnp.full((1, 1, 1, 1), margin)
        return attacks.AttackResult(
            image, jnp.array([success]), jnp.array([success]), jnp.array([margin]), zero, zero, zero
        )

    assert _stronger(result(False, jnp.nan), result(True, 0.5)).success.all()
    assert float(_stronger(result(True, 0.1), result(True, 0.5)).margin[0]) == pytest.approx(0.1)


def test_images_with_nan_are_refused():
    images = HALF.at[2].set(jnp.nan).at[3].set(5.0)
    with pytest.raises(ValueError, match=r"images must be finite, found NaN in 1 of 8\."):
        attacks.decide(higher_loss_without_success, jax.random.key(0), images, LABELS, attacks.Untargeted())


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("kind", [attacks.PGD, attacks.APGD, attacks.FGSMRS])
def test_an_infinite_epsilon_of_a_maximiser_is_refused(kind, norm):
    with pytest.raises(ValueError, match=r"Threat\.epsilon of an attack in steps must be finite, got inf"):
        attacks.run(
            lambda x: x.sum((1, 2, 3)), jax.random.key(0), HALF, kind(threat=Threat(norm=norm, epsilon=jnp.inf))
        )


@pytest.mark.parametrize("kind", [attacks.PGD, attacks.APGD])
def test_restarts_that_would_all_be_the_same_are_refused(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__}\.num_restarts is 5, but nothing is random"):
        kind(num_restarts=5, start="none")
    with pytest.raises(ValueError, match="every run would be the same"):
        kind(num_restarts=2, init=HALF)
    kind(num_restarts=2, start="none", eot_samples=3)


def test_decide_names_the_choices():
    with pytest.raises(ValueError, match=r"takes a spec of type AutoAttack, .*Untargeted, got PGD; see attacks\.run"):
        attacks.decide(broken, jax.random.key(0), HALF, LABELS, attacks.PGD())


def test_squares_of_the_cascade_follow_the_schedule_of_the_authors():
    from robust_saliency.attacks.autoattack import cascade
    from robust_saliency.attacks.square import side

    *_, square = cascade(attacks.AutoAttack(num_queries=5000))
    steps = jnp.array([0, 11, 51, 201, 501, 1001, 2001, 4001, 4999])
    sides = [int(side(jnp.array([step]), square, 32, 32)[0]) for step in steps]
    assert sides == [round((0.8 / 2**k) ** 0.5 * 32) for k in range(8)] + [3]
    assert int(side(jnp.array([4999]), attacks.Square(), 32, 32)[0]) == 1


def test_the_gradient_of_a_network_that_overflows_does_not_spoil_the_value():
    through = models.backward_through(
        lambda x: jnp.array([[1.0, 2.0]]) + 0 * x.sum(), lambda x: jnp.array([[jnp.inf, 1.0]])
    )
    np.testing.assert_array_equal(through(jnp.ones((1, 1, 1, 1))), [[1.0, 2.0]])
