import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency.baselines import Baseline, fill
from robust_saliency.saliency import IntegratedGradients, completeness_error, integrated_gradients
from robust_saliency.saliency.integrated_gradients import RULES, rule

SHAPE = (3, 4, 4, 2)
CLASSES = 3
generator = np.random.default_rng(7)
WEIGHTS = generator.normal(size=(*SHAPE[1:], 8)).astype(np.float32)
HEAD = generator.normal(size=(8, CLASSES)).astype(np.float32)
IMAGES = generator.uniform(size=SHAPE).astype(np.float32)
LABELS = np.array([0, 2, 1], np.int32)
SIGNED = {"sign": "signed", "channels": "none"}


def linear(images):
    return jnp.einsum("bhwc,hwck->bk", images, WEIGHTS[..., :CLASSES])


def smooth(images):
    return jax.nn.softplus(jnp.einsum("bhwc,hwck->bk", images, WEIGHTS)) @ jnp.asarray(HEAD)


def power(degree):
    """Logit of class 0: sum of x^degree; of class 1 its negative."""

    def logits_fn(images):
        total = (images**degree).sum((1, 2, 3))
        return jnp.stack([total, -total], 1)

    return logits_fn


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("num_steps", [2, 3, 10, 32, 50, 101])
def test_the_weights_of_every_rule_sum_to_one(name, num_steps):
    """Others let the trapezoid's sum to 1 - 1/n, which shortens every map by as much."""
    nodes, weights = rule(name, num_steps)
    assert abs(math.fsum(weights) - 1) < 1e-14
    assert nodes.shape == weights.shape == (num_steps,)
    assert nodes.min() >= 0 and nodes.max() <= 1 and weights.min() > 0


def test_the_rules_by_hand():
    expected = {
        "riemann_left": ([0, 0.5], [0.5, 0.5]),
        "riemann_middle": ([0.25, 0.75], [0.5, 0.5]),
        "riemann_right": ([0.5, 1], [0.5, 0.5]),
        "trapezoid": ([0, 1], [0.5, 0.5]),
        "gauss_legendre": ([0.5 - 0.5 / math.sqrt(3), 0.5 + 0.5 / math.sqrt(3)], [0.5, 0.5]),
    }
    assert set(expected) == set(RULES)
    for name, (nodes, weights) in expected.items():
        np.testing.assert_allclose(rule(name, 2), (nodes, weights), atol=1e-15)
    np.testing.assert_allclose(rule("trapezoid", 3), ([0, 0.5, 1], [0.25, 0.5, 0.25]), atol=1e-15)


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "black") for name in RULES), ("trapezoid", "blur"), ("riemann_left", "uniform")]
)
def test_a_linear_model_is_attributed_exactly_by_every_rule(key, name, kind):
    spec = IntegratedGradients(rule=name, num_steps=3, baseline=Baseline(kind=kind), **SIGNED)
    maps = jax.jit(lambda spec: integrated_gradients(linear, key, IMAGES, LABELS, spec))(spec)
    weights = np.moveaxis(WEIGHTS[..., :CLASSES], -1, 0)[LABELS]
    np.testing.assert_allclose(maps, (IMAGES - fill(key, IMAGES, spec.baseline)) * weights, atol=1e-6)


@pytest.mark.parametrize(("degree", "num_steps"), [(2, 1), (3, 2), (4, 2), (6, 3)])
def test_gauss_legendre_is_exact_for_polynomials_of_twice_its_steps(key, degree, num_steps):
    """From black, sum x^d is attributed x^d at each pixel."""
    labels = np.zeros(3, np.int32)
    spec = IntegratedGradients(num_steps=num_steps, **SIGNED)
    error = {
        d: np.abs(jax.jit(lambda x, d=d: integrated_gradients(power(d), key, x, labels, spec) - x**d)(IMAGES)).max()
        for d in (degree, 2 * num_steps + 1)
    }
    assert error[degree] < 1e-6
    assert error[2 * num_steps + 1] > 1e-3


def test_riemann_rules_on_a_square_by_hand(key):
    """The gradient of x^2 along the line is 2 a x, so that n points give x^2 times 2 * mean(a)."""
    twice_the_mean = {"riemann_left": 0.75, "riemann_middle": 1.0, "riemann_right": 1.25, "trapezoid": 1.0}
    for name, factor in twice_the_mean.items():
        spec = IntegratedGradients(num_steps=4, rule=name, **SIGNED)
        maps = integrated_gradients(power(2), key, IMAGES, np.zeros(3, np.int32), spec)
        np.testing.assert_allclose(maps, factor * IMAGES**2, rtol=1e-5)


@pytest.mark.parametrize("score", ["logit", "log_probability", "probability", "loss"])
def test_complete_to_1e_4_on_a_smooth_net_with_32_nodes(key, score):
    spec = IntegratedGradients(score=score, sign="signed", channels="sum")
    maps = jax.jit(lambda x: integrated_gradients(smooth, key, x, LABELS, spec))(IMAGES)
    black = jnp.zeros_like(IMAGES)
    relative = completeness_error(smooth, IMAGES, LABELS, maps, black, score=score, relative=True)
    absolute = completeness_error(smooth, IMAGES, LABELS, maps, black, score=score)
    assert relative.shape == (3,)
    assert relative.max() < 1e-4
    logits = {"x": smooth(IMAGES), "black": smooth(black)}
    scores = {
        where: {
            "logit": z,
            "log_probability": jax.nn.log_softmax(z),
            "probability": jax.nn.softmax(z),
            "loss": -jax.nn.log_softmax(z),
        }[score][np.arange(3), LABELS]
        for where, z in logits.items()
    }
    np.testing.assert_allclose(relative, absolute / np.abs(scores["x"] - scores["black"]), rtol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_more_steps_do_not_make_it_less_complete(key, name):
    """The weights of many steps are small and their sum is long: elsewhere the error grows with the steps."""
    errors = []
    for num_steps in (20, 600):
        spec = IntegratedGradients(rule=name, num_steps=num_steps, max_images=60, sign="signed", channels="sum")
        maps = jax.jit(lambda x, spec=spec: integrated_gradients(smooth, key, x, LABELS, spec))(IMAGES)
        error = completeness_error(smooth, IMAGES, LABELS, maps, jnp.zeros_like(IMAGES), relative=True)
        errors.append(float(error.max()))
    rounding = 1e-5
    assert errors[1] < max(errors[0] / 10, rounding) and errors[1] < 0.01


def test_completeness_error_of_a_map_that_is_ten_percent_short(key):
    maps = integrated_gradients(linear, key, IMAGES, LABELS, IntegratedGradients(num_steps=2, **SIGNED))
    change = linear(IMAGES)[np.arange(3), LABELS]
    short = completeness_error(linear, IMAGES, LABELS, 0.9 * maps, jnp.zeros_like(IMAGES))
    np.testing.assert_allclose(short, 0.1 * np.abs(change), rtol=1e-4)
    relative = completeness_error(linear, IMAGES, LABELS, 0.9 * maps.sum(-1), jnp.zeros_like(IMAGES), relative=True)
    np.testing.assert_allclose(relative, 0.1, rtol=1e-4)


def test_relative_completeness_error_where_the_score_does_not_change():
    same = jnp.asarray(IMAGES)
    errors = completeness_error(linear, same, LABELS, jnp.zeros_like(same).at[0].set(1), same, relative=True)
    assert np.isposinf(errors[0]) and np.isnan(errors[1:]).all()


@pytest.mark.parametrize(
    ("chunking", "unroll"), [({"chunk_size": 1}, True), ({"chunk_size": 3}, False), ({"max_images": 9}, True)]
)
def test_chunks_change_nothing(key, chunking, unroll):
    whole = IntegratedGradients(num_steps=7, rule="trapezoid", chunk_size=7, **SIGNED)
    chunked = IntegratedGradients(num_steps=7, rule="trapezoid", unroll=unroll, **chunking, **SIGNED)
    maps = jax.jit(lambda spec: integrated_gradients(smooth, key, IMAGES, LABELS, spec))
    np.testing.assert_allclose(maps(chunked), maps(whole), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({"max_images": 9}, [9, 9, 3]),
        ({"max_images": 2}, [3] * 7),
        ({"max_images": 12}, [12, 9]),
        ({"chunk_size": 6}, [12, 9]),
        ({}, [21]),
    ],
)
def test_no_pass_holds_more_images_than_allowed(key, fields, passes):
    seen = []

    def counting(images):
        seen.append(len(images))
        return linear(images)

    integrated_gradients(counting, key, IMAGES, LABELS, IntegratedGradients(num_steps=7, unroll=True, **fields))
    assert seen == passes


def test_memory_does_not_grow_with_the_steps(key):
    """XLA would otherwise start the passes of the unrolled loop together: 16 steps took 13 times the memory of one."""
    kernel = jnp.ones((3, 3, 3, 8)) / 27

    def convolutional(images):
        hidden = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.softplus(hidden).mean((1, 2))

    def memory(num_steps):
        spec = IntegratedGradients(num_steps=num_steps, chunk_size=1, unroll=True)
        program = jax.jit(lambda x: integrated_gradients(convolutional, key, x, jnp.zeros(16, jnp.int32), spec))
        return program.lower(jnp.zeros((16, 16, 16, 3))).compile().memory_analysis().temp_size_in_bytes

    assert memory(8) < 1.5 * memory(2)


@pytest.mark.parametrize("axis_type", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
@pytest.mark.parametrize("chunk_size", [1, 4])
def test_a_batch_sharded_by_example_stays_where_it_is(key, axis_type, chunk_size):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(axis_type,))
    by_example = jax.NamedSharding(mesh, jax.P("batch"))
    images = np.random.default_rng(4).uniform(size=(16, *SHAPE[1:])).astype(np.float32)
    labels = np.arange(16, dtype=np.int32) % CLASSES
    spec = IntegratedGradients(num_steps=4, chunk_size=chunk_size, **SIGNED)
    program = jax.jit(lambda x, y: integrated_gradients(smooth, key, x, y, spec))
    with jax.set_mesh(mesh):
        compiled = program.lower(jax.device_put(images, by_example), jax.device_put(labels, by_example)).compile()
        maps = compiled(jax.device_put(images, by_example), jax.device_put(labels, by_example))
    assert not any(name in compiled.as_text() for name in ("all-gather", "all-reduce", "all-to-all", "permute"))
    np.testing.assert_allclose(np.asarray(maps), program(images, labels), rtol=1e-5, atol=1e-6)


def test_a_new_baseline_value_does_not_recompile(key):
    @jax.jit
    @chex.assert_max_traces(n=1)
    def maps(spec):
        return integrated_gradients(linear, key, IMAGES, LABELS, spec)

    def grey(value):
        return IntegratedGradients(num_steps=2, baseline=Baseline(kind="constant", value=value), **SIGNED)

    chex.clear_trace_counter()
    weights = np.moveaxis(WEIGHTS[..., :CLASSES], -1, 0)[LABELS]
    for value in (0.2, 0.7):
        np.testing.assert_allclose(maps(grey(value)), (IMAGES - np.float32(value)) * weights, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rule": "gauss"}, "Unknown rule 'gauss'"),
        ({"num_steps": 0}, "IntegratedGradients.num_steps must be at least 1, got 0"),
        ({"num_steps": 1, "rule": "trapezoid"}, "IntegratedGradients.num_steps must be at least 2, got 1"),
        ({"chunk_size": -1}, "chunk_size must be at least 0, got -1"),
        ({"max_images": 0}, "max_images must be at least 1, got 0"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(fields, message):
    with pytest.raises(ValueError, match=message):
        IntegratedGradients(**fields)
