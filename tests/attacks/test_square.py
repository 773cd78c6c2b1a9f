"""Square against a plain reading of the paper's algorithms, one image at a time, and what it promises."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import losses, randomness, threat
from robust_saliency.attacks import PGD, decisions
from robust_saliency.attacks.decisions import Untargeted
from robust_saliency.attacks.square import Square, advance, finish, halving_steps, side, square, start
from robust_saliency.threat import Threat
from tests.keys import fast_key

NORMS = ["l1", "l2", "linf"]
SHAPE = (7, 5, 2)
# Code that runs once for a millisecond need not be optimised for seconds.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def linear(weights, shift=0.0):
    """Two classes, of which the second one gains ``<weights, x - 0.5> + shift`` on the first."""

    def logits_fn(x):
        score = jnp.tensordot(x - 0.5, weights, 3) + shift
        return jnp.stack([0 * score, score], -1)

    return logits_fn


def keys(ids):
    return randomness.per_example_keys(jax.random.key(3), jnp.asarray(ids))


def zeros(count):
    return jnp.zeros(count, jnp.int32)


# The schedule


def test_the_share_halves_at_the_queries_of_the_paper():
    assert halving_steps(10_000) == [11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    assert halving_steps(5000) == [6, 26, 101, 251, 501, 1001, 2001, 3001, 4001]
    assert halving_steps(1000) == [2, 6, 21, 51, 101, 201, 401, 601, 801]


@pytest.mark.parametrize("num_steps", [5000, 10_000])
def test_sides_of_a_cifar_image(num_steps):
    """Square roots of 819.2 / 2^k: 28.6, 20.2, 14.3, 10.1, 7.2, 5.06, 3.6, 2.5, 1.8, 1.3."""
    points = {10_000: [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000],
              5000: [5, 25, 100, 250, 500, 1000, 2000, 3000, 4000]}[num_steps]  # fmt: skip
    linf = [29, 20, 14, 10, 7, 5, 4, 3, 2, 1]
    odd = [29, 21, 15, 11, 7, 5, 5, 3, 3, 3]
    for norm, sides in (("linf", linf), ("l2", odd), ("l1", odd)):
        spec = Square(threat=Threat(norm=norm), num_steps=num_steps)
        steps = jnp.array([[0, *(p + 1 for p in points)], [*points, num_steps - 1]])
        found = jit(lambda step, spec: side(step, spec, 32, 32))(steps.reshape(-1), spec)
        np.testing.assert_array_equal(found, 2 * sides)


def test_a_side_fits_the_shorter_side_and_follows_the_share():
    l2 = Square(threat=Threat(norm="l2"))

    @jit
    def sides():
        first = zeros(1)
        return (
            [side(first, Square(), *shape)[0] for shape in ((4, 100), (100, 4), (1, 9))],
            [side(first, l2, *shape)[0] for shape in ((4, 100), (100, 4), (2, 9))],
            side(zeros(3), Square(p_init=jnp.array([0.05, 0.2, 1.0])), 10, 20),
        )

    linf, odd, shares = sides()
    assert (linf, odd, shares.tolist()) == ([4, 4, 1], [3, 3, 1], [3, 6, 10])


# The algorithms


def bump_by_the_paper(s, power):
    def pyramid(h, w):
        values = np.zeros((h, w))
        for k in range(max(h // 2, w // 2) + 1):
            rows = slice(max(h // 2 - k, 0), h // 2 + k + 1)
            values[rows, max(w // 2 - k, 0) : w // 2 + k + 1] += 1 / (k + 1) ** 2
        return values / np.sum(np.abs(values) ** power) ** (1 / power)

    both = np.concatenate([pyramid(s // 2, s), -pyramid(s - s // 2, s)])
    return both / np.sum(np.abs(both) ** power) ** (1 / power)


@functools.partial(jit, static_argnums=2)
def uniform(key, streams, shape):
    return jax.vmap(lambda stream: jax.random.uniform(jax.random.fold_in(key, stream), shape, jnp.float32))(streams)


@jit
def projected_one(x, image, model):
    return threat.project(x[None], image[None], model)[0]


def by_the_paper(image, weights, shift, key, model, num_steps):
    """Algorithms 2 and 3 with slices and loops, with the same random numbers; the image, and how often it moved."""
    epsilon, (h, w, c) = model.epsilon, image.shape
    power = {"l1": 1, "l2": 2, "linf": 0}[model.norm]

    def signs(u):
        return np.where(u < 0.5, -1.0, 1.0)

    def norm(d, axes=(0, 1, 2)):
        return np.sum(np.abs(d) ** power, axes) ** (1 / power)

    def projected(x):
        if model.norm == "l1":
            return np.asarray(projected_one(x, image, model))
        return np.clip(x if power else np.clip(x, image - epsilon, image + epsilon), 0, 1)

    def stretched(d):
        return d * (max(epsilon / norm(d), 1) if power == 1 else epsilon / norm(d))

    if power:
        t = min(h, w) // 5
        down, across = h // t, w // t
        delta, bump = np.zeros(image.shape), bump_by_the_paper(t, power)
        u = np.asarray(uniform(key, jnp.arange(1), (down, 1, across, 1, 1 + c)))[0]
        for i in range(down):
            for j in range(across):
                top, left = (h - down * t) // 2 + i * t, (w - across * t) // 2 + j * t
                tile = bump if u[i, 0, j, 0, 0] < 0.5 else bump.T
                delta[top : top + t, left : left + t] = tile[..., None] * signs(u[i, 0, j, 0, 1:])
        x = projected(image + stretched(delta))
    else:
        x = projected(image + epsilon * signs(np.asarray(uniform(key, jnp.arange(1), (1, w, c)))[0]))

    margin = lambda x: float(np.sum((x - 0.5) * weights) + shift)  # noqa: E731
    draws, moved = np.asarray(uniform(key, 1 + jnp.arange(num_steps), ((5 if power else 2) + c,))), 0
    for step in range(num_steps):
        halvings = sum(step * 10_000 // num_steps > q for q in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
        s = round(np.sqrt(0.8 / 2**halvings * h * w))
        s = max(s, 3) + 1 - max(s, 3) % 2 if power else max(s, 1)
        s = min(s, min(h, w))
        u = draws[step]
        corner = [int(a * (n - s + 1)) for a, n in zip(u[:4], (h, w, h, w), strict=False)]
        first = slice(corner[0], corner[0] + s), slice(corner[1], corner[1] + s)
        tried = x.copy()
        if not power:
            tried[first] = projected(image + epsilon * signs(u[2:]))[first]
            if (tried == x).all():
                tried[first] = projected(image - epsilon * signs(u[2:]))[first]
        else:
            second = slice(corner[2], corner[2] + s), slice(corner[3], corner[3] + s)
            delta, windows = x - image, np.zeros(image.shape)
            windows[first] = windows[second] = 1
            bump = bump_by_the_paper(s, power)
            new = (bump.T if u[4] < 0.5 else bump)[..., None] * signs(u[5:])
            old_norm = norm(delta[first], (0, 1))
            new = new + delta[first] / np.where(old_norm > 0, old_norm, 1)
            if power == 2:
                unused = max(epsilon**2 - norm(delta) ** 2, 0)
                available = np.sqrt(norm(delta * windows, (0, 1)) ** 2 + unused / c)
            else:
                available = c * (norm(delta * windows) + max(epsilon - norm(delta), 0) / c)
            delta[second] = 0
            delta[first] = available * new / norm(new, (0, 1))
            tried = projected(image + stretched(delta))
        if margin(x) < 0 and margin(tried) > margin(x):
            x, moved = tried, moved + 1
    return x, moved


@pytest.mark.parametrize("norm", NORMS)
def test_it_is_the_algorithm_of_the_paper(norm, rng):
    shape, num_steps = (13, 11, 2), 100
    epsilon = {"l1": 4.0, "l2": 1.0, "linf": 0.1}[norm]
    with jax.enable_x64(True):
        weights, images = rng.normal(size=shape), rng.choice([0.0, 0.02, 0.4, 0.9, 1.0], (2, *shape))
        shift = -50.0
        spec = Square(threat=Threat(norm=norm, epsilon=epsilon), num_steps=num_steps)
        found = jit(lambda k, x, y: square(linear(weights, shift), k, x, y, spec))(keys([0, 1]), images, zeros(2))
        for row, (image, mine) in enumerate(zip(images, np.asarray(found.images), strict=True)):
            theirs, moved = by_the_paper(image, weights, shift, keys([row])[0], spec.threat, num_steps)
            assert moved >= 10, "a test without changes shows little"
            np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_every_step_stays_inside_and_none_loses_until_the_example_is_fooled(norm, rng):
    """And an example that is fooled, or past its last step, does not move."""
    images = rng.choice([0.0, 0.3, 0.5, 1.0], (5, *SHAPE)).astype(np.float32)
    weights = rng.normal(size=SHAPE).astype(np.float32)
    mask = rng.integers(0, 2, (5, *SHAPE[:2], 1)).astype(np.float32)
    epsilon = np.array([0.0, 0.1, 0.5, 9.0, 1000.0], np.float32)
    model = Threat(norm=norm, epsilon=jnp.asarray(epsilon), mask=jnp.asarray(mask))
    spec = Square(threat=model, num_steps=40)
    reach = np.sum(np.maximum(weights, -weights) * mask, (1, 2, 3))
    clean = np.sum((images - 0.5) * weights, (1, 2, 3))
    logits_fn = linear(weights)
    labels = jnp.asarray(np.where(clean > 0, 1, 0), jnp.int32)
    assert (reach > np.abs(clean))[3:].any()

    @jit
    def run(key, images):
        first = start(logits_fn, key, images, labels, spec)
        return jax.lax.scan(lambda state, _: (advance(logits_fn, state, spec, 1), state), first, length=43)[1]

    history = run(fast_key(0), images)
    history = jax.tree.map(np.asarray, history._replace(key=jax.random.key_data(history.key)))
    states = [type(history)(*(leaf[step] for leaf in history)) for step in range(43)]
    fixed = np.broadcast_to(mask == 0, images.shape)
    for before, after in zip([None, *states], states, strict=False):
        tried = np.asarray(after.images)
        assert tried.min() >= 0 and tried.max() <= 1
        assert (np.asarray(threat.distance(tried, images, model)) <= epsilon * (1 + 1e-5)).all()
        np.testing.assert_array_equal(tried[0], images[0])
        np.testing.assert_array_equal(tried[fixed], images[fixed])
        np.testing.assert_allclose(after.margin, losses.margin(logits_fn(tried), labels), atol=1e-5)
        if before is not None:
            rises = np.asarray(after.margin > before.margin)
            kept = (tried == np.asarray(before.images)).all((1, 2, 3))
            assert (rises | kept).all() and (np.asarray(after.margin >= before.margin)).all()
            assert kept[np.asarray(before.margin >= 0)].all()
    assert [s.step.tolist() for s in states[::20]] == [[0] * 5, [20] * 5, [40] * 5]
    chex.assert_trees_all_equal(states[40], states[42])
    assert any((s.margin >= 0).any() for s in states) and (states[40].margin < 0).any()


def test_on_a_linear_model_it_comes_close_to_the_optimum_and_fools_whom_it_can(rng):
    """Whose margin stays negative is never fooled before the end, so it shows how near the optimum is."""
    images = rng.uniform(0, 1, (40, *SHAPE)).astype(np.float32)
    weights = rng.normal(size=SHAPE).astype(np.float32)
    epsilon = rng.uniform(0.002, 0.12, 40).astype(np.float32)
    labels = np.where(np.sum((images - 0.5) * weights, (1, 2, 3)) > 0, 1, 0).astype(np.int32)
    uphill = weights * (1 - 2 * labels)[:, None, None, None]
    clean = np.sum((images - 0.5) * uphill, (1, 2, 3))
    best_images = np.clip(images + epsilon[:, None, None, None] * np.sign(uphill), 0, 1)
    gain = np.sum((best_images - images) * uphill, (1, 2, 3))
    spec = Square(threat=Threat(epsilon=jnp.asarray(epsilon)), num_steps=1500)
    result = jit(lambda x, y: square(linear(weights), fast_key(0), x, y, spec))(images, labels)
    robust = clean + gain < 0
    assert 0.2 < robust.mean() < 0.8
    assert (np.asarray(result.margin) - clean > 0.95 * gain)[robust].all()
    sure = np.abs(clean + gain) > 0.05 * gain
    assert sure.mean() > 0.7
    np.testing.assert_array_equal(np.asarray(result.success)[sure], ~robust[sure])


def test_it_breaks_a_network_without_gradients(rng):
    images = rng.uniform(0.3, 0.7, (8, *SHAPE)).astype(np.float32)
    stairs = lambda x: linear(weights)(jnp.round(x * 32) / 32)  # noqa: E731
    weights = rng.normal(size=SHAPE).astype(np.float32)
    labels = jnp.argmax(stairs(images), -1).astype(jnp.int32)
    model = Threat(epsilon=0.25)
    pgd = Untargeted(attack=PGD(threat=model, num_steps=3, start="none", unroll=False), loss="margin")
    stands = jit(lambda: decisions.untargeted(stairs, fast_key(0), images, labels, pgd))()
    np.testing.assert_array_equal(stands.images, images)
    assert not stands.success.any()
    moves = jit(lambda: square(stairs, fast_key(0), images, labels, Square(threat=model, num_steps=300)))()
    assert moves.success.all()


def test_squares_lie_anywhere_and_each_example_has_its_own():
    """A model that likes any change, so that tries are kept: 5 x 5 squares in 7 x 6, 3 places by 2."""
    count = 400
    spec = Square(threat=Threat(epsilon=0.1), num_steps=100, p_init=0.6)
    images = jnp.full((count, 7, 6, 3), 0.5)
    first = jit(lambda k, x: start(linear(jnp.zeros((7, 6, 3))), k, x, zeros(count), spec))(fast_key(0), images)

    def logits_fn(x):
        changed = jnp.any(x != first.images, axis=(1, 2, 3))
        return jnp.stack([jnp.zeros(count), changed - 2.0], -1)

    state = jit(lambda s: advance(logits_fn, s, spec, 1))(first._replace(margin=jnp.full(count, -2.0)))
    signs = np.round(np.asarray(first.images - 0.5) * 10)
    assert set(np.unique(signs)) == {-1, 1}
    np.testing.assert_array_equal(signs, np.broadcast_to(signs[:, :1], signs.shape))
    changed = np.asarray(state.images != first.images)
    assert changed.any((1, 2, 3)).all()
    rows = changed.any((2, 3))
    np.testing.assert_array_equal(rows.sum(1), 5)
    tops = np.bincount(rows.argmax(1), minlength=3)
    # 133 of each expected, standard deviation 9.4.
    assert (np.abs(tops - count / 3) < 40).all()
    columns = changed.any((1, 3))
    widths = columns * np.arange(6)
    assert (widths.max(1) - np.where(columns, np.arange(6), 9).min(1)).max() == 4
    # A column of the square keeps its three signs with probability 1/8.
    for edge in (0, 5):
        assert abs(columns[:, edge].mean() - 0.5 * 7 / 8) < 0.1
    colours = np.asarray(state.images[:, 3, 3] > 0.5) @ np.array([1, 2, 4])
    assert (np.bincount(colours, minlength=8) > 20).all()


# Batches


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_neither_the_batch_nor_the_order_nor_the_padding_nor_the_pieces_matter(norm, rng):
    hidden, out = rng.normal(size=(np.prod(SHAPE), 8)), rng.normal(size=(8, 3))
    hidden, out = jnp.asarray(hidden, jnp.float32), jnp.asarray(out, jnp.float32)

    def logits_fn(x):
        return jnp.tanh(x.reshape(len(x), -1) @ hidden) @ out

    images = rng.uniform(0, 1, (6, *SHAPE)).astype(np.float32)
    labels = np.argmax(logits_fn(images), -1).astype(np.int32)
    spec = Square(threat=Threat(norm=norm, epsilon={"l2": 0.2, "linf": 0.03}[norm]), num_steps=12)
    begin = jit(lambda k, x, y: start(logits_fn, k, x, y, spec))
    four = jit(lambda s: advance(logits_fn, s, spec, 4))
    at_once = jit(lambda k, x, y: advance(logits_fn, start(logits_fn, k, x, y, spec), spec, 12))

    def fresh(ids):
        return keys(ids), images[np.array(ids)], labels[np.array(ids)]

    def after(state, pieces):
        return functools.reduce(lambda state, _: four(state), range(pieces), state)

    def rows(state, chosen):
        state = state._replace(key=jax.random.key_data(state.key))
        return jax.tree.map(lambda leaf: np.asarray(leaf)[np.array(chosen)], state)

    def assert_equal(found, expected):
        """But for how XLA rounds a product of so many rows."""
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6 * (a.dtype.kind == "f")), found, expected)

    first = begin(*fresh(range(6)))
    early, whole = after(first, 2), after(first, 3)
    assert (np.asarray(whole.images) != np.asarray(first.images)).any((1, 2, 3)).all()
    for ids in ([5, 3, 1, 0, 2, 4], [2, 1, 1, 1, 1, 1]):
        assert_equal(rows(after(begin(*fresh(ids)), 3), range(6)), rows(whole, ids))
    assert_equal(rows(at_once(*fresh([4, 0])), range(2)), rows(whole, [4, 0]))
    refilled = four(jax.tree.map(lambda a, b: jnp.concatenate([a[:2], b[2:]]), early, first))
    assert refilled.step.tolist() == [12, 12, 4, 4, 4, 4]
    assert_equal(rows(refilled, range(2)), rows(whole, range(2)))
    assert_equal(rows(after(refilled, 2), range(6)), rows(whole, range(6)))


def test_unrolled_it_is_the_same_attack(rng):
    images = rng.uniform(0, 1, (3, *SHAPE)).astype(np.float32)
    logits_fn = linear(rng.normal(size=SHAPE).astype(np.float32), -9.0)
    spec = Square(threat=Threat(epsilon=0.05), num_steps=2)

    @jit
    def both(images):
        state = start(logits_fn, fast_key(1), images, zeros(3), spec)
        return [finish(logits_fn, advance(logits_fn, state, s, 2), s) for s in (spec, unrolled)]

    unrolled = dataclasses.replace(spec, unroll=True)
    chex.assert_trees_all_equal(*both(images))


# Networks


def test_a_nan_is_never_accepted_and_does_not_spread(rng):
    images = rng.uniform(0.2, 0.8, (4, *SHAPE)).astype(np.float32)
    weights = rng.normal(size=SHAPE).astype(np.float32)
    spec = Square(threat=Threat(epsilon=0.05), num_steps=30)

    row = jnp.arange(4)

    @jit
    def run(when, stripes):
        def logits_fn(x):
            rare = jnp.all(x == stripes, axis=(1, 2, 3))
            often = jnp.floor(x[:, 0, 0, 0] * 1e4) % 2 == 0
            spoilt = jnp.stack([row < 0, row == 1, (row == 1) & rare, (row == 1) & often])[when]
            return jnp.where(spoilt[:, None], jnp.nan, linear(weights, -30.0)(x))

        first = start(logits_fn, fast_key(0), images, zeros(4), spec)
        return first.images, advance(logits_fn, first, spec, 30)

    stripes, well = run(0, images)
    always, at_first, often = (run(when, stripes)[1] for when in (1, 2, 3))
    for state in (always, at_first, often):
        for mine, theirs in zip(state, well, strict=True):
            if mine is not state.key:
                np.testing.assert_array_equal(mine[row != 1], theirs[row != 1])
        assert not jnp.isnan(state.margin).any()
    np.testing.assert_array_equal(always.images[1], stripes[1])
    assert always.margin[1] == -jnp.inf
    assert jnp.isfinite(at_first.margin[1]) and (at_first.images[1] != stripes[1]).any()


def test_the_state_is_float32_where_the_network_is_not(rng):
    weights = jnp.asarray(rng.normal(size=SHAPE), jnp.bfloat16)
    images = jnp.asarray(rng.uniform(0, 1, (2, *SHAPE)), jnp.bfloat16)
    spec = Square(threat=Threat(epsilon=1 / 255), num_steps=10)
    logits_fn = lambda x: linear(weights, jnp.bfloat16(-9))(x.astype(jnp.bfloat16))  # noqa: E731
    state = jit(lambda x: advance(logits_fn, start(logits_fn, fast_key(0), x, zeros(2), spec), spec, 10))(images)
    assert (state.images.dtype, state.margin.dtype, state.step.dtype) == (jnp.float32, jnp.float32, jnp.int32)
    inner = (state.origin > 0.01) & (state.origin < 0.99)
    np.testing.assert_allclose(np.abs(state.images - state.origin)[inner], 1 / 255, rtol=1e-3)


def test_passes_are_counted_and_who_is_wrong_before_stays_clean(rng):
    images = jnp.asarray(rng.uniform(0, 1, (3, *SHAPE)), jnp.float32)
    weights = rng.normal(size=SHAPE).astype(np.float32)
    labels = jnp.array([1, 0, 1])
    spec, calls = Square(num_steps=7), []

    def logits_fn(x):
        jax.debug.callback(lambda _: calls.append(1), x[0, 0, 0, 0])
        return linear(weights, -30.0)(x)

    result = jit(lambda x: square(logits_fn, fast_key(0), x, labels, spec))(images)
    jax.effects_barrier()
    judging = 3
    assert result.forwards.tolist() == [len(calls) - judging] * 3 == [8] * 3
    assert result.backwards.tolist() == [0] * 3
    assert spec.passes == (8, 0)
    assert result.success.tolist() == [True, False, True]
    np.testing.assert_array_equal(result.images[::2], images[::2])
    np.testing.assert_allclose(result.distance, [0, 8 / 255, 0], rtol=1e-4)


@pytest.mark.parametrize(("norm", "shape"), [("l1", (2, 9, 1)), ("linf", (1, 1, 1))])
def test_images_of_any_shape(norm, shape):
    images = jnp.full((2, *shape), 0.5)
    spec = Square(threat=Threat(norm=norm, epsilon=0.1), num_steps=5)
    result = jit(lambda x: square(linear(jnp.ones(shape), -9.0), fast_key(0), x, zeros(2), spec))(images)
    np.testing.assert_allclose(result.distance, 0.1, rtol=1e-5)


def test_one_trace_serves_a_sweep_of_epsilon():
    chex.clear_trace_counter()
    images = jnp.full((2, 4, 3, 1), 0.5)

    @jit
    @chex.assert_max_traces(n=1)
    def reach(spec):
        return square(linear(jnp.ones((4, 3, 1)), -30.0), fast_key(0), images, zeros(2), spec).distance

    for epsilon in np.linspace(0, 0.4, 5):
        spec = Square(threat=Threat(epsilon=float(epsilon)), num_steps=5, p_init=0.5 + float(epsilon))
        np.testing.assert_allclose(reach(spec), epsilon, atol=1e-6)


def test_bad_specs_are_one_sentence():
    with pytest.raises(ValueError, match=r"Square.num_steps must be at least 0, got -1\.$"):
        Square(num_steps=-1)
    with pytest.raises(ValueError, match=r"Square.p_init must be above 0 and at most 1, got 80\.$"):
        Square(p_init=80)
