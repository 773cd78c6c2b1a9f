"""What every attack on a map promises, whatever it finds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, map_attacks, metrics, randomness, saliency, threat
from robust_saliency.attacks import APGD, PGD
from robust_saliency.map_attacks import DISTANCES, MapAttack, map_attack
from robust_saliency.threat import Threat
from tests.keys import fast_key
from tests.quadratic_maps import BATCH, CORNER, NETWORK, SCORES, SIDE, SPEC, K, Q, attack, middle

HIDDEN = np.random.default_rng(8).normal(size=(2, SIDE * SIDE, 12)).astype(np.float32)


@pytest.fixture
def images(rng):
    return middle(rng)


def smooth(images):
    """A dense network with tanh."""
    return jnp.tanh((images.reshape(len(images), -1) - 0.5) @ HIDDEN[0]) @ HIDDEN[1, :12, :3]


def goal_of(distance):
    return np.ones((BATCH, SIDE, SIDE), np.float32) * Q if distance in map_attacks.NEED_A_GOAL else None


@pytest.mark.parametrize("norm", threat.NORMS)
@pytest.mark.parametrize("maximiser", [PGD, APGD])
def test_it_stays_in_ball_box_and_mask_and_no_epsilon_is_no_change(norm, maximiser, rng):
    images = rng.choice([0.0, 0.5, 1.0], (BATCH, SIDE, SIDE, 1)).astype(np.float32)
    mask = rng.integers(0, 2, (BATCH, SIDE, SIDE, 1)).astype(np.float32)
    epsilon = np.float32([0, 0.1, 0.5, 9])
    model = Threat(norm=norm, epsilon=jnp.asarray(epsilon), mask=jnp.asarray(mask))
    result = attack(
        smooth, images, dataclasses.replace(SPEC, attack=maximiser(threat=model, num_steps=6, unroll=False))
    )
    found = np.asarray(result.images)
    assert found.min() >= 0 and found.max() <= 1 and (np.asarray(result.distance) <= epsilon + 1e-6).all()
    np.testing.assert_array_equal(found[0], images[0])
    np.testing.assert_array_equal(
        found[np.broadcast_to(mask == 0, found.shape)], images[np.broadcast_to(mask == 0, found.shape)]
    )
    np.testing.assert_array_equal(np.argmax(smooth(found), -1), np.argmax(smooth(jnp.asarray(images)), -1))
    gain = np.asarray(result.gain)
    assert gain[0] == 0 and (gain >= 0).all() and gain.max() > 0


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_result_is_what_it_says(distance, images):
    spec, goal = dataclasses.replace(SPEC, distance=distance), goal_of(distance)
    result = attack(smooth, images, spec, goal=goal)
    labels = jnp.zeros(BATCH, jnp.int32)
    explain = lambda x: saliency.gradient(smooth, None, jnp.asarray(x), labels, spec.saliency)  # noqa: E731
    np.testing.assert_allclose(result.maps_before, explain(images), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.maps_after, explain(result.images), rtol=1e-4, atol=1e-5)
    maps = result.maps_after, result.maps_before
    assert tuple(sorted(result.scores)) == tuple(sorted(SCORES))
    np.testing.assert_allclose(
        result.scores["top_k_intersection"], metrics.top_k_intersection(*maps, metrics.TopK(k=K))
    )
    np.testing.assert_allclose(result.scores["spearman"], metrics.spearman(*maps), rtol=1e-5)
    np.testing.assert_allclose(result.distance, np.abs(np.asarray(result.images) - images).max((1, 2, 3)), rtol=1e-6)
    assert (np.asarray(result.gain) > 0).all()
    if distance == "mass_centre":
        np.testing.assert_allclose(result.gain, result.scores["centre_shift"], rtol=1e-3)


@pytest.mark.parametrize("method", [saliency.SmoothGrad(num_samples=3), saliency.IntegratedGradients(num_steps=3)])
def test_any_map_can_be_attacked_and_an_example_depends_on_itself_and_its_key_alone(images, method):
    def run(order):
        keys = randomness.per_example_keys(jax.random.key(0), jnp.asarray(order))
        return attack(smooth, images[order], dataclasses.replace(SPEC, saliency=method), key=keys)

    whole, order = run(np.arange(BATCH)), np.array([2, 0, 0, 3])
    assert (np.asarray(whole.gain) > 0).all()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[order], atol=1e-6), run(order), whole)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[1:2], atol=1e-6), run(np.array([1])), whole)


def test_a_map_of_ones_own(images):
    def second_power(logits_fn, key, images, labels, power):
        return saliency.gradient(logits_fn, key, images, labels, saliency.Gradient()) ** power

    labels = jnp.zeros(BATCH, jnp.int32)
    spec = dataclasses.replace(SPEC, saliency=2)
    result = map_attack(NETWORK, fast_key(0), jnp.asarray(images), labels, spec, explain=second_power)
    np.testing.assert_allclose(result.maps_before, (Q * images[..., 0]) ** 2, rtol=1e-5)
    assert (np.asarray(result.gain) > 0).all()


def test_one_trace_while_floats_change(images):
    traces = []

    @jax.jit
    def run(images, spec):
        traces.append(spec)
        return map_attack(NETWORK, fast_key(0), images, jnp.zeros(BATCH, jnp.int32), spec)

    def spec(epsilon, weight):
        maximiser = dataclasses.replace(CORNER, threat=Threat(epsilon=epsilon), step_size=epsilon / 4)
        return dataclasses.replace(SPEC, attack=maximiser, prediction_weight=weight)

    gains = [np.mean(run(images, spec(epsilon, 0.1)).gain) for epsilon in (0.01, 0.02, 0.04)]
    assert len(traces) == 1 and gains[0] < gains[1] < gains[2]
    run(images, spec(0.04, 0.2))
    assert len(traces) == 1


def test_a_map_of_zeros_is_left_alone_and_so_are_its_neighbours(images):
    images = images.copy()
    images[1] = 0  # q x is zero
    spec = dataclasses.replace(SPEC, attack=dataclasses.replace(CORNER, start="none"))
    result, alone = attack(NETWORK, images, spec), attack(NETWORK, images[2:], spec)
    np.testing.assert_array_equal(result.images[1], images[1])
    np.testing.assert_array_equal(np.isnan(result.gain), np.arange(BATCH) == 1)
    assert np.isnan(result.scores["top_k_intersection"][1]) and result.kept[1]
    np.testing.assert_allclose(result.images[2:], alone.images, atol=1e-7)


def test_no_gradient_flows_through_the_result(images):
    def total(images):
        result = map_attack(NETWORK, fast_key(0), images, jnp.zeros(BATCH, jnp.int32), SPEC)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(result))

    np.testing.assert_array_equal(jax.grad(total)(jnp.asarray(images)), np.zeros_like(images))


def test_mistakes_are_named(images):
    with pytest.raises(ValueError, match=r"Unknown distance 'topk'. Did you mean 'top_k'"):
        MapAttack(distance="topk")
    with pytest.raises(ValueError, match=r"Unknown score 'simm'. Did you mean 'ssim'"):
        MapAttack(scores=("simm",))
    with pytest.raises(ValueError, match=r"belongs to the distances region, target_map: got none for 'region'"):
        attack(NETWORK, images, dataclasses.replace(SPEC, distance="region"))
    with pytest.raises(ValueError, match=r"got one of shape \(4, 4, 4\) for 'top_k'"):
        attack(NETWORK, images, SPEC, goal=np.ones((BATCH, SIDE, SIDE), np.float32))
    with pytest.raises(ValueError, match="k must be 1 to 16"):
        attack(NETWORK, images, MapAttack(scores=SCORES))
    with pytest.raises(ValueError, match=r"MapAttack\.attack must be PGD or APGD, .* got FGSM"):
        attack(NETWORK, images, dataclasses.replace(SPEC, attack=attacks.FGSM()))
    with pytest.raises(ValueError, match="SSIM needs maps of at least 11x11"):
        attack(NETWORK, images, MapAttack(attack=CORNER, k=K))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.\d, found 9\.\.9"):
        map_attack(
            NETWORK, fast_key(0), images, jnp.full(BATCH, 9), SPEC, explain=lambda f, key, x, labels, spec: x[..., 0]
        )
