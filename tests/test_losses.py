import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special

from robust_saliency import losses

cross_entropy, margin, kl = (jax.jit(f) for f in (losses.cross_entropy, losses.margin, losses.kl))
smoothed, boosted = jax.jit(losses.smoothed_cross_entropy), jax.jit(losses.boosted_cross_entropy)
gradient_of_smoothed = jax.jit(jax.grad(lambda z, labels, s: losses.smoothed_cross_entropy(z, labels, s).sum()))
gradient_of_cross_entropy = jax.jit(jax.grad(lambda z, labels: losses.cross_entropy(z, labels).sum()))
gradients_of_kl = jax.jit(jax.grad(lambda a, b: losses.kl(a, b).sum(), argnums=(0, 1)))
# Eighths: XLA flushes subnormal numbers to zero on CPU, differences of two small ones too.
logits_of = arrays(np.float32, (3, 4), elements=st.integers(-80_000, 80_000).map(lambda eighths: eighths / 8))
LABELS = jnp.array([0, 3, 1])


def rows(*values):
    return jnp.array(values, jnp.float32)


def test_cross_entropy_by_hand():
    value = cross_entropy(jnp.log(rows([0.2, 0.3, 0.5], [0.2, 0.3, 0.5])), jnp.array([2, 0]))
    np.testing.assert_allclose(value, [np.log(2), np.log(5)], rtol=1e-6)


def test_equal_logits_cost_log_k():
    np.testing.assert_allclose(cross_entropy(jnp.full((3, 10), 77.0), LABELS), np.full(3, np.log(10)), rtol=1e-5)


@settings(deadline=None, max_examples=60)
@given(logits_of)
def test_cross_entropy_against_float64(logits):
    wide = logits.astype(np.float64)
    expected = special.logsumexp(wide, axis=-1) - wide[np.arange(3), LABELS]
    value = cross_entropy(logits, LABELS)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=2e-3 * np.abs(logits).max() / 1e4 + 1e-6)
    assert (np.asarray(value) >= 0).all()


def test_huge_logits_stay_finite():
    logits = rows([1e4, -1e4], [-1e4, 1e4])
    np.testing.assert_array_equal(cross_entropy(logits, jnp.array([0, 0])), [0.0, 2e4])
    np.testing.assert_array_equal(margin(logits, jnp.array([0, 0])), [-2e4, 2e4])
    np.testing.assert_array_equal(gradient_of_cross_entropy(logits, jnp.array([0, 0])), [[0.0, 0.0], [-1.0, 1.0]])


@settings(deadline=None, max_examples=30)
@given(arrays(np.float32, (3, 4), elements=st.floats(-30, 30, width=32, allow_subnormal=False)))
def test_gradient_of_cross_entropy_is_softmax_minus_one_hot(logits):
    gradient = gradient_of_cross_entropy(logits, LABELS)
    np.testing.assert_allclose(gradient, special.softmax(logits, axis=-1) - np.eye(4)[LABELS], atol=3e-6)


@pytest.mark.parametrize("gap", [8.0, 12.0, 16.0, 20.0, 40.0])
def test_the_gradient_of_a_sure_example_keeps_its_direction(gap):
    """To rounding, entry by entry; that of the difference ``logsumexp(z) - z_y`` loses the label's entry on the way."""
    logits = np.array([[gap, 0.5, -0.25, 0.0]], np.float32)
    others = np.exp(logits[0, 1:].astype(np.float64))
    share = others / (np.exp(np.float64(gap)) + others.sum())
    expected = np.array([-share.sum(), *share])
    np.testing.assert_allclose(gradient_of_cross_entropy(logits, jnp.array([0]))[0], expected, rtol=1e-5)

    def as_difference(z):
        return jax.nn.logsumexp(z, axis=-1)[0] - z[0, 0]

    lost = abs(jax.grad(as_difference)(jnp.asarray(logits))[0, 0] - expected[0]) / abs(expected[0])
    assert lost > (1e-5 if gap < 16 else 0.02)


def test_on_a_confident_model_cross_entropy_has_no_gradient_in_float32_and_the_margin_has():
    logits, labels = rows([200.0, 0.0, 1.0]), jnp.array([0])
    steep = [jax.grad(lambda z, f=f: f(z, labels).sum())(logits)[0] for f in (cross_entropy, margin)]
    np.testing.assert_array_equal(steep[0], [0.0, 0.0, 0.0])
    np.testing.assert_array_equal(steep[1], [-1.0, 0.0, 1.0])


def test_smoothed_cross_entropy_by_hand():
    probabilities = np.array([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]])
    value = smoothed(jnp.log(rows(*probabilities)), jnp.array([2, 0]), 0.3)
    target = np.array([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]])
    np.testing.assert_allclose(value, -np.sum(target * np.log(probabilities), 1), rtol=1e-6)
    everywhere = smoothed(jnp.log(rows(*probabilities)), jnp.array([2, 0]), 1.0)
    np.testing.assert_allclose(everywhere, np.full(2, -np.log(probabilities[0]).mean()), rtol=1e-6)


@settings(deadline=None, max_examples=30)
@given(logits_of)
def test_without_smoothing_it_is_cross_entropy_to_the_bit(logits):
    np.testing.assert_array_equal(smoothed(logits, LABELS, 0.0), cross_entropy(logits, LABELS))


@settings(deadline=None, max_examples=30)
@given(arrays(np.float32, (3, 4), elements=st.floats(-30, 30, width=32, allow_subnormal=False)), st.floats(0, 1))
def test_gradient_of_smoothed_cross_entropy_is_softmax_minus_target(logits, smoothing):
    gradient = gradient_of_smoothed(logits, LABELS, smoothing)
    target = (1 - smoothing) * np.eye(4)[LABELS] + smoothing / 4
    np.testing.assert_allclose(gradient, special.softmax(logits, axis=-1) - target, atol=3e-6)


@settings(deadline=None, max_examples=30)
@given(arrays(np.float32, (3, 4), elements=st.floats(-8, 8, width=32, allow_subnormal=False)))
def test_boosted_cross_entropy_against_float64(logits):
    p = special.softmax(logits.astype(np.float64), axis=-1)
    strongest = [np.delete(row, label).max() for row, label in zip(p, LABELS, strict=True)]
    expected = -np.log(p[np.arange(3), LABELS]) - np.log(1.0001 - np.array(strongest) + 1e-12)
    # 1.0001 - p loses about 1e-7 of at least 1e-4.
    np.testing.assert_allclose(boosted(logits, LABELS), expected, rtol=1e-5, atol=2e-3)


def test_boosted_cross_entropy_of_huge_logits_is_finite():
    logits = rows([1e4, -1e4, 0.0], [-1e4, 1e4, 0.0])
    value, gradient = jax.value_and_grad(lambda z: boosted(z, jnp.array([0, 0])).sum())(logits)
    np.testing.assert_allclose(value, 2e4 - np.log(1e-4) - np.log(1.0001), rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_margin_by_hand():
    logits = rows([1.0, 4.0, 2.5], [1.0, 4.0, 2.5], [1.0, 4.0, 2.5])
    np.testing.assert_array_equal(margin(logits, jnp.array([0, 1, 2])), [3.0, -1.5, 1.5])


def test_a_tie_with_the_label_is_exactly_zero():
    np.testing.assert_array_equal(margin(rows([2.0, 2.0, 1.0], [0.1, 0.1, 0.1]), jnp.array([1, 2])), [0.0, 0.0])


@settings(deadline=None, max_examples=60)
@given(logits_of)
def test_margin_is_positive_exactly_where_another_class_is_higher(logits):
    value = np.asarray(margin(logits, LABELS))
    others = np.array([np.delete(row, label).max() for row, label in zip(logits, LABELS, strict=True)])
    np.testing.assert_array_equal(value, others - logits[np.arange(3), LABELS])
    assert ((value > 0) <= (logits.argmax(-1) != np.asarray(LABELS))).all()


def test_kl_of_two_coins():
    p, q = 0.25, 0.6
    value = kl(jnp.log(rows([p, 1 - p])), jnp.log(rows([q, 1 - q])))
    np.testing.assert_allclose(value, [p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))], rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.float32, (3, 4), elements=st.floats(-80, 80, width=32)),
    arrays(np.float32, (3, 4), elements=st.floats(-80, 80, width=32)),
)
def test_kl_against_float64(logits, other):
    p = special.softmax(logits.astype(np.float64), axis=-1)
    log_p, log_q = (special.log_softmax(z.astype(np.float64), axis=-1) for z in (logits, other))
    np.testing.assert_allclose(kl(logits, other), np.sum(p * (log_p - log_q), -1), rtol=1e-4, atol=3e-5)


def test_a_probability_that_underflows_adds_nothing_to_kl():
    logits = rows([1e4, 0.0, -1e4])
    assert np.exp(np.float32(-1e4)) == 0
    np.testing.assert_array_equal(kl(logits, logits), [0.0])
    np.testing.assert_allclose(kl(logits, jnp.zeros((1, 3))), [np.log(3)], rtol=1e-6)
    np.testing.assert_allclose(kl(jnp.zeros((1, 3)), logits), [1e4 - np.log(3)], rtol=1e-6)
    for gradient in gradients_of_kl(logits, jnp.zeros((1, 3))):
        assert np.isfinite(gradient).all()


def test_kl_of_a_shifted_copy_is_zero_and_so_is_its_gradient():
    """So an attack on KL needs a random start (TRADES)."""
    logits = rows([0.3, -1.0, 2.0])
    assert abs(kl(logits, logits + 5)[0]) < 1e-6
    np.testing.assert_allclose(gradients_of_kl(logits, logits + 5)[1], np.zeros((1, 3)), atol=1e-6)


def test_gradients_of_kl_against_the_formulas():
    a, b = rows([0.3, -1.0, 2.0]), rows([1.0, 0.5, -0.2])
    p, q = (special.softmax(np.asarray(z, np.float64), -1) for z in (a, b))
    of_p, of_q = gradients_of_kl(a, b)
    np.testing.assert_allclose(of_q, q - p, atol=1e-6)
    np.testing.assert_allclose(of_p, p * (np.log(p / q) - np.sum(p * np.log(p / q))), atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_losses_are_at_least_float32(dtype):
    logits = jax.random.normal(jax.random.key(1), (3, 4)).astype(dtype)
    wide = logits.astype(jnp.float32)
    for value, expected in [
        (cross_entropy(logits, LABELS), cross_entropy(wide, LABELS)),
        (margin(logits, LABELS), margin(wide, LABELS)),
        (kl(logits, -logits), kl(wide, -wide)),
    ]:
        assert value.dtype == jnp.float32
        np.testing.assert_array_equal(value, expected)


def test_float64_stays_float64():
    with jax.enable_x64(True):
        logits = jnp.array([[0.0, 1e-12], [0.0, 1.0]], jnp.float64)
        assert cross_entropy(logits, jnp.array([0, 1])).dtype == kl(logits, -logits).dtype == jnp.float64
        np.testing.assert_allclose(margin(logits, jnp.array([0, 1])), [1e-12, -1.0], rtol=1e-12)


@pytest.mark.parametrize("loss", list(losses.LOSSES.values()))
def test_errors(loss):
    with pytest.raises(ValueError, match=r"two classes are needed, got logits of shape \(3, 1\)"):
        loss(jnp.zeros((3, 1)), LABELS)
    with pytest.raises(ValueError, match=r"logits must have 2 axes, got shape \(3,\)"):
        loss(jnp.zeros(3), LABELS)
    with pytest.raises(ValueError, match=r"labels must have 1 axes, got shape \(3, 4\)"):
        loss(jnp.zeros((3, 4)), jnp.zeros((3, 4)))
    with pytest.raises(ValueError, match="Batch sizes differ: logits 2, labels 3"):
        loss(jnp.zeros((2, 4)), LABELS)


def test_kl_refuses_two_shapes():
    with pytest.raises(ValueError, match=r"one shape, got \(3, 4\) and \(3, 5\)"):
        losses.kl(jnp.zeros((3, 4)), jnp.zeros((3, 5)))


dlr, targeted_dlr = jax.jit(losses.dlr), jax.jit(losses.targeted_dlr)


def test_dlr_by_hand():
    logits = rows([5.0, 3.0, 1.0, 0.0], [5.0, 3.0, 1.0, 0.0], [5.0, 3.0, 1.0, 0.0])
    # (max of the others - z_y) / (5 - 1)
    np.testing.assert_allclose(dlr(logits, jnp.array([0, 1, 3])), [-2 / 4, 2 / 4, 5 / 4])
    # (z_t - z_y) / (5 - (1 + 0) / 2)
    found = targeted_dlr(logits, jnp.array([0, 0, 3]), jnp.array([1, 3, 0]))
    np.testing.assert_allclose(found, [-2 / 4.5, -5 / 4.5, 5 / 4.5], rtol=1e-6)


def test_dlr_of_ties_by_hand():
    tied_with_the_label = rows([4.0, 4.0, 1.0], [4.0, 4.0, 4.0], [4.0, 2.0, 2.0])
    np.testing.assert_allclose(dlr(tied_with_the_label, jnp.array([0, 1, 0])), [0, 0, -1])
    third_tied = dlr(rows([4.0, 4.0, 4.0, 1.0]), jnp.array([3]))
    assert float(third_tied[0]) > 1e11, "fooled, and the ratio has next to nothing below it"
    for logits in tied_with_the_label:
        assert np.isfinite(jax.grad(lambda z: losses.dlr(z, jnp.array([0])).sum())(logits[None])).all()


@settings(deadline=None, max_examples=40)
@given(
    arrays(np.float32, (3, 5), elements=st.floats(-10, 10, width=32, allow_subnormal=False), unique=True),
    st.floats(0.1, 1e4),
    st.floats(-9, 9),
)
def test_dlr_ignores_scale_and_shift_and_its_sign_is_that_of_the_margin(logits, scale, shift):
    spread = np.sort(logits, axis=1)
    if (spread[:, -1] - spread[:, -3]).min() < 1e-2:
        return
    value = np.asarray(dlr(logits, LABELS))
    np.testing.assert_allclose(dlr(logits * np.float32(scale) + np.float32(shift), LABELS), value, atol=1e-2)
    assert (np.sign(value) == np.sign(margin(logits, LABELS))).all()
    assert (value >= -1 - 1e-6).all()


def test_on_a_confident_model_dlr_has_a_gradient():
    logits, labels = rows([200.0, 0.0, 1.0]) * 1e4, jnp.array([0])
    assert np.abs(jax.grad(lambda z: losses.dlr(z, labels).sum())(logits)).max() > 0


def test_too_few_classes_are_one_sentence():
    with pytest.raises(ValueError, match=r"dlr needs at least 3 classes, got 2; margin needs two\.$"):
        losses.dlr(jnp.zeros((1, 2)), jnp.array([0]))
    with pytest.raises(ValueError, match=r"targeted_dlr needs at least 4 classes, got 3"):
        losses.targeted_dlr(jnp.zeros((1, 3)), jnp.array([0]), jnp.array([1]))


js, logit_l2 = jax.jit(losses.js), jax.jit(losses.logit_l2)
COINS = jnp.log(rows([0.25, 0.75])), jnp.log(rows([0.6, 0.4]))


def test_js_of_two_coins():
    # m = (0.425, 0.575)
    of_p = 0.25 * np.log(0.25 / 0.425) + 0.75 * np.log(0.75 / 0.575)
    of_q = 0.6 * np.log(0.6 / 0.425) + 0.4 * np.log(0.4 / 0.575)
    np.testing.assert_allclose(js(*COINS), [(of_p + of_q) / 2], rtol=1e-5)
    np.testing.assert_allclose(js(*COINS[::-1]), js(*COINS), rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.float32, (3, 4), elements=st.floats(-80, 80, width=32)),
    arrays(np.float32, (3, 4), elements=st.floats(-80, 80, width=32)),
)
def test_js_against_scipy(logits, other):
    p, q = (special.softmax(z.astype(np.float64), axis=-1) for z in (logits, other))
    # Not distance.jensenshannon: its root of a sum that rounding made negative is NaN, with a warning.
    middle = (p + q) / 2
    expected = (special.rel_entr(p, middle) + special.rel_entr(q, middle)).sum(-1) / 2
    np.testing.assert_allclose(js(logits, other), expected, atol=2e-5)


def test_logit_l2_by_hand_counts_a_shift():
    np.testing.assert_allclose(logit_l2(rows([1.0, 2.0, 3.0]), rows([0.0, 4.0, 3.5])), [1 + 4 + 0.25])
    np.testing.assert_allclose(logit_l2(rows([1.0, 2.0]), rows([2.0, 3.0])), [2.0])


@pytest.mark.parametrize("name", losses.DIVERGENCES)
def test_a_divergence_and_its_gradients_are_finite_at_saturated_logits_and_zero_where_equal(name):
    function = losses.DIVERGENCES[name]
    saturated = rows([1e4, 0.0, -1e4], [0.0, 1e4, 0.0], [-1e4, -1e4, 1e4])
    value_and_gradients = jax.jit(jax.value_and_grad(lambda a, b: function(a, b).sum(), argnums=(0, 1)))
    for other in (saturated, saturated[::-1], jnp.zeros((3, 3)), -saturated):
        for values in jax.tree.leaves(value_and_gradients(saturated, other)):
            assert np.isfinite(values).all()
    value, gradients = value_and_gradients(saturated, saturated)
    assert value == 0
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros((3, 3)))


def test_js_of_certain_and_opposite_predictions_is_log_two():
    np.testing.assert_allclose(js(rows([1e4, 0.0]), rows([0.0, 1e4])), [np.log(2)], rtol=1e-6)


@pytest.mark.parametrize("name", losses.DIVERGENCES)
def test_divergences_against_finite_differences(name):
    with jax.enable_x64(True):
        a, b = np.random.default_rng(0).normal(size=(2, 3, 4))
        function = jax.jit(lambda a, b: losses.DIVERGENCES[name](a, b).sum())
        gradients = jax.grad(function, argnums=(0, 1))(a, b)
        for place, gradient in enumerate(gradients):
            direction = np.random.default_rng(1 + place).normal(size=(3, 4))
            ends = [
                function(*(z + sign * 1e-5 * direction * (i == place) for i, z in enumerate((a, b))))
                for sign in (1, -1)
            ]
            np.testing.assert_allclose(np.sum(gradient * direction), (ends[0] - ends[1]) / 2e-5, rtol=1e-7)


@pytest.mark.parametrize("confidence", [1.0, 14.0, 17.0, 40.0, 80.0])
def test_the_gradient_of_cross_entropy_points_the_right_way_at_any_confidence(confidence):
    """As ``logsumexp - z_y`` in float32 it loses the label's part from a margin of 17 on: a cosine of 0.19 here."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(50, 10))
    x = rng.normal(size=50)
    offset = np.zeros(10)
    offset[0] = (x @ weights)[1:].max() - (x @ weights)[0] + confidence

    def slope(dtype):
        w, b = weights.astype(dtype), offset.astype(dtype)
        return jax.grad(lambda z: losses.cross_entropy((z @ w + b)[None], jnp.array([0]))[0])(jnp.asarray(x, dtype))

    with jax.enable_x64(True):
        exact = np.asarray(slope(np.float64))
    found = np.asarray(slope(np.float32), np.float64)
    cosine = found @ exact / np.linalg.norm(found) / np.linalg.norm(exact)
    assert cosine > 0.9999
    value = float(losses.cross_entropy(jnp.array([[confidence, 0.0, -1.0]]), jnp.array([0]))[0])
    assert value == pytest.approx(np.log1p(np.exp(-confidence) + np.exp(-1 - confidence)), rel=1e-5) and value > 0


def test_a_padded_row_whose_label_is_no_class_has_no_gradient():
    logits = jnp.asarray([[1.0, 2.0, 0.5]] * 3)

    @jax.jit
    def slope(logits, labels):
        return jax.grad(lambda z: jnp.where(jnp.arange(3) == 0, losses.cross_entropy(z, labels), 0).sum())(logits)

    found = slope(logits, jnp.array([1, 99, -1]))
    np.testing.assert_array_equal(found[1:], np.zeros((2, 3)))
    np.testing.assert_allclose(found[0], special.softmax([1.0, 2.0, 0.5]) - [0, 1, 0], rtol=1e-5)
