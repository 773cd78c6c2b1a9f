"""APGD against a plain reading of the paper's algorithm, one image at a time, and what it promises."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import attacks, losses, threat
from robust_saliency.attacks import APGD, PGD
from robust_saliency.attacks.apgd_checks import check_points
from robust_saliency.threat import Threat
from tests.keys import fast_key


def test_check_points_of_the_paper():
    """p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06) from p_1 = 0.22, in steps rounded as the authors' code does."""
    assert check_points(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert check_points(50) == [11, 21, 30, 38, 45]
    assert check_points(20) == [4, 7, *range(9, 21)]
    assert check_points(1) == [1]
    assert check_points(100, "l1") == list(range(4, 101, 4))


def wavy(images):
    """A loss with many hills, so that steps of any size overshoot."""
    flat = images.reshape(images.shape[0], -1)
    frequency = np.linspace(4.0, 20.0, flat.shape[1])
    return (jnp.sin(flat * frequency[None]) + 0.3 * jnp.sin(flat.sum(1, keepdims=True) * 7)).sum(1)


def by_the_paper(image, epsilon, norm, num_steps, rho=0.75):
    """Algorithm 1 for one image with lists and ifs; the projection is clip, or scale then clip."""
    origin, x = image, image
    value, slope = (jax.jit(f) for f in (wavy, jax.grad(lambda x: wavy(x).sum())))
    loss_of = lambda x: float(value(x[None])[0])  # noqa: E731
    gradient_of = lambda x: np.asarray(slope(x[None])[0])  # noqa: E731

    def project(x):
        delta = x - origin
        if norm == "linf":
            return np.clip(np.clip(x, origin - epsilon, origin + epsilon), 0, 1)
        return np.clip(origin + delta * min(1, epsilon / max(np.linalg.norm(delta), 1e-300)), 0, 1)

    def direction(g):
        return np.sign(g) if norm == "linf" else g / np.linalg.norm(g)

    step, before, gradient = 2 * epsilon, x, gradient_of(x)
    best, best_loss, best_gradient = x, loss_of(x), gradient
    values, last, halved_before, best_before, halvings = [loss_of(x)], 0, True, loss_of(x), 0
    for k in range(1, num_steps + 1):
        momentum = 1.0 if k == 1 else 0.75
        z = project(x + step * direction(gradient))
        x, before = project(x + momentum * (z - x) + (1 - momentum) * (x - before)), x
        values.append(loss_of(x))
        gradient = gradient_of(x)
        if values[-1] > best_loss:
            best, best_loss, best_gradient = x, values[-1], gradient
        if k in check_points(num_steps) and k < num_steps:
            rises = sum(values[i] > values[i - 1] for i in range(last + 1, k + 1))
            halve = rises <= rho * (k - last) or (not halved_before and best_before >= best_loss)
            if halve:
                step, x, gradient, halvings = step / 2, best, best_gradient, halvings + 1
            last, halved_before, best_before = k, halve, best_loss
    return best, best_loss, halvings


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("num_steps", [20, 50])
def test_it_is_the_algorithm_of_the_paper(norm, num_steps, rng):
    with jax.enable_x64(True):
        images = rng.uniform(0.2, 0.8, (3, 2, 3, 1))
        epsilon = 0.4 if norm == "l2" else 0.2
        model = Threat(norm=norm, epsilon=epsilon, projection="scale_then_clip")
        spec = APGD(threat=model, num_steps=num_steps, start="none", unroll=False)
        found = np.asarray(jax.jit(lambda x: attacks.apgd(wavy, fast_key(0), x, spec))(images))
        halvings = []
        for image, mine in zip(images, found, strict=True):
            best, best_loss, halved = by_the_paper(image, epsilon, norm, num_steps)
            np.testing.assert_allclose(float(wavy(mine[None])[0]), best_loss, rtol=1e-9)
            np.testing.assert_allclose(mine, best, atol=1e-8)
            halvings.append(halved)
        assert min(halvings) >= 2, "a test without halvings shows little"


def hills(images):
    return wavy(images).astype(jnp.float32)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_in_pieces_unrolled_or_rolled_it_is_one_attack(norm, rng):
    images = jnp.asarray(rng.uniform(0.2, 0.8, (4, 2, 3, 2)), jnp.float32)
    spec = APGD(threat=Threat(norm=norm, epsilon=0.3), num_steps=12, unroll=False)
    pieces = attacks.iterated(spec)
    advance = jax.jit(lambda s: pieces.advance(hills, s, spec, 4))
    state = pieces.start(fast_key(1), images, spec)
    for _ in range(3):
        state = advance(state)
    in_pieces = pieces.finish(hills, state, spec)
    rolled, unrolled = (
        jax.jit(lambda x, s=s: attacks.apgd(hills, fast_key(1), x, s))(images)
        for s in (spec, dataclasses.replace(spec, unroll=True))
    )
    np.testing.assert_allclose(in_pieces, rolled, atol=1e-5)
    np.testing.assert_allclose(unrolled, rolled, atol=1e-5)


def test_the_best_iterate_is_kept_where_plain_steps_overshoot(rng):
    images = jnp.asarray(rng.uniform(0.2, 0.8, (32, 2, 3, 2)), jnp.float32)
    model = Threat(epsilon=0.3)
    pgd = PGD(threat=model, step_size=0.075, num_steps=40, unroll=False)
    reached = {
        name: np.asarray(hills(jax.jit(lambda x, s=s: attacks.run(hills, fast_key(2), x, s))(images)))
        for name, s in {"pgd": pgd, "apgd": APGD(threat=model, num_steps=40, unroll=False)}.items()
    }
    assert (reached["apgd"] > reached["pgd"]).mean() > 0.9


def test_a_nan_at_the_start_or_on_the_way_does_not_freeze_or_spread(rng):
    images = jnp.asarray(rng.uniform(0.4, 0.6, (3, 2, 2, 1)), jnp.float32)

    def loss_fn(x):
        rising = x.sum((1, 2, 3))
        spoilt = jnp.where(jnp.arange(3) == 1, jnp.where(rising < images.sum((1, 2, 3)) + 0.1, jnp.nan, 1.0), 1.0)
        return rising * jax.lax.stop_gradient(spoilt)

    spec = APGD(threat=Threat(epsilon=0.1), num_steps=10, start="none", unroll=False)
    found = attacks.apgd(loss_fn, fast_key(0), images, spec)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], images[0] + 0.1, atol=1e-6)
    np.testing.assert_allclose(found[2], images[2] + 0.1, atol=1e-6)


def test_one_trace_serves_a_sweep_of_epsilon():
    chex.clear_trace_counter()
    images = jnp.full((2, 2, 2, 1), 0.5)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def reach(epsilon):
        spec = APGD(threat=Threat(epsilon=epsilon), num_steps=5, unroll=False)
        return jnp.abs(attacks.apgd(lambda x: x.sum((1, 2, 3)), fast_key(0), images, spec) - images).max()

    for epsilon in np.linspace(0, 0.4, 8, dtype=np.float32):
        assert float(reach(epsilon)) == pytest.approx(float(epsilon), abs=1e-6)


def test_bad_specs_are_one_sentence():
    with pytest.raises(ValueError, match=r"APGD.num_steps must be at least 1, got 0\.$"):
        APGD(num_steps=0)
    with pytest.raises(ValueError, match=r"Unknown start .unifrom.\. Did you mean .uniform."):
        APGD(start="unifrom")


def test_it_goes_on_where_cross_entropy_has_no_gradient_left(rng):
    """A confident model: softmax is 1 in float32, so cross-entropy has gradient 0 and the margin has not."""
    weights = jnp.asarray(rng.normal(size=(2, 2, 1)), jnp.float32) * 1e4
    images = jnp.full((1, 2, 2, 1), 0.5) - 0.05 * jnp.sign(weights)[None]
    labels = jnp.zeros(1, jnp.int32)

    def logits_fn(x):
        score = jnp.tensordot(x - 0.5, weights, 3)
        return jnp.stack([0 * score, score], -1)

    spec = APGD(threat=Threat(epsilon=0.06), num_steps=5, start="none", unroll=False)
    for loss, fooled in ((losses.cross_entropy, False), (losses.margin, True)):
        found = attacks.apgd(lambda x, loss=loss: loss(logits_fn(x), labels), fast_key(0), images, spec)
        assert bool(losses.margin(logits_fn(found), labels)[0] > 0) == fooled


def test_epsilon_shrinks_from_three_times_its_value_and_every_part_begins_anew(rng):
    """The parts one by one by hand: each an attack of its own, in its own ball, from the best image before."""
    images = jnp.asarray(rng.uniform(0.2, 0.8, (4, 2, 3, 2)), jnp.float32)
    whole = APGD(threat=Threat(norm="l1", epsilon=0.4), num_steps=20, start="none", shrink_epsilon=True, unroll=False)
    found = jax.jit(lambda x: attacks.apgd(hills, fast_key(1), x, whole))(images)
    best = images
    for factor, steps in ((3, 6), (2, 6), (1, 8)):
        model = Threat(norm="l1", epsilon=0.4 * factor)
        part = APGD(threat=model, num_steps=steps, init=threat.project(best, images, model), unroll=False)
        pieces = attacks.iterated(part)
        state = pieces.advance(hills, pieces.start(fast_key(1), images, part), part, steps)
        # The last iterate of a part but the last one is never looked at: its loss would cost a pass.
        best = state.best_images if factor > 1 else pieces.finish(hills, state, part)
    np.testing.assert_allclose(found, best, atol=1e-5)
    assert (np.abs(found - images).sum((1, 2, 3)) <= 0.4 + 1e-5).all()


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 17])
def test_a_shrinking_epsilon_fits_any_number_of_steps_and_stays_in_the_ball_at_any_of_them(steps, rng):
    images = jnp.asarray(rng.uniform(0.2, 0.8, (2, 2, 3, 2)), jnp.float32)
    spec = APGD(threat=Threat(norm="l1", epsilon=0.2), num_steps=steps, shrink_epsilon=True, unroll=False)
    pieces = attacks.iterated(spec)
    state = pieces.start(fast_key(0), images, spec)
    advance = jax.jit(lambda s: pieces.advance(hills, s, spec, 1))
    for _ in range(steps):
        state = advance(state)
        seen = np.asarray(pieces.finish(hills, state, spec))
        assert (np.abs(seen - images).sum((1, 2, 3)) <= 0.2 + 1e-5).all()
    np.testing.assert_array_equal(state.step, steps)
