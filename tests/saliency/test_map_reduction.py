import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency.saliency import Gradient
from robust_saliency.saliency._reduce import reduce_entries

ENTRIES = jnp.array([3.0, -4.0, 0.0]).reshape(1, 1, 1, 3)


@pytest.mark.parametrize(
    ("sign", "channels", "expected"),
    [
        ("abs", "sum_abs", 7.0),
        ("abs", "max_abs", 4.0),
        ("abs", "l2", 5.0),
        ("abs", "sum", 7.0),
        ("abs", "none", [3.0, 4.0, 0.0]),
        ("squared", "sum_abs", 25.0),
        ("squared", "max_abs", 16.0),
        ("squared", "l2", np.sqrt(81.0 + 256.0)),
        ("squared", "sum", 25.0),
        ("squared", "none", [9.0, 16.0, 0.0]),
        ("signed", "sum", -1.0),
        ("signed", "max", 3.0),
        ("signed", "none", [3.0, -4.0, 0.0]),
        ("positive", "max_abs", 3.0),
        ("positive", "sum_abs", 3.0),
        ("negative", "max_abs", 4.0),
        ("negative", "none", [0.0, 4.0, 0.0]),
    ],
)
def test_first_the_sign_then_the_channels(sign, channels, expected):
    reduced = jax.jit(reduce_entries)(ENTRIES, Gradient(sign=sign, channels=channels))
    assert reduced.shape == ((1, 1, 1, 3) if channels == "none" else (1, 1, 1))
    np.testing.assert_allclose(reduced.reshape(-1), np.reshape(expected, -1), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1.0, 1e25])
def test_l2_survives_gradients_whose_squares_do_not(scale):
    reduced = reduce_entries(ENTRIES * scale, Gradient(channels="l2"))
    np.testing.assert_allclose(reduced, np.full((1, 1, 1), 5.0) * scale, rtol=1e-6)


def test_l2_has_the_derivative_of_a_norm_and_zero_at_zero():
    slope = jax.grad(lambda entries: reduce_entries(entries, Gradient(channels="l2")).sum())
    np.testing.assert_allclose(slope(ENTRIES).reshape(-1), [0.6, -0.8, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(slope(jnp.zeros_like(ENTRIES)), jnp.zeros_like(ENTRIES))


@pytest.mark.parametrize("channels", ["sum_abs", "max_abs", "l2"])
def test_a_reduction_that_loses_the_sign_is_refused(channels):
    with pytest.raises(ValueError, match="channels='sum', 'max' or 'none' with sign='signed'"):
        Gradient(sign="signed", channels=channels)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("score", "logits", "Unknown score 'logits'. Did you mean 'logit'?"),
        ("sign", "postive", "Did you mean 'positive'. Choices: abs, negative, positive, signed, squared"),
        ("channels", "mean", "Unknown channels 'mean'"),
    ],
)
def test_unknown_names_are_answered_with_the_choices(field, value, message):
    with pytest.raises(ValueError, match=message):
        Gradient(**{field: value})
