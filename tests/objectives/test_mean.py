import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency.objectives.types import accuracy, mean

LOGITS = jnp.array([[2.0, 1.0], [0.0, 3.0], [5.0, 1.0], [1.0, 1.0]])
LABELS = jnp.array([0, 0, 0, 0])


def batch(*valid):
    return {"valid": jnp.array(valid), "label": LABELS}


def test_mean_over_valid_examples():
    values = jnp.array([1.0, 2.0, 4.0, 8.0])
    assert mean(values, batch(True, True, True, True)) == 3.75
    assert mean(values, batch(True, False, True, False)) == 2.5


def test_what_a_padded_example_holds_does_not_count_and_has_no_gradient():
    values = jnp.array([1.0, jnp.nan, 4.0, jnp.inf])
    assert mean(values, batch(True, False, True, False)) == 2.5
    gradient = jax.jit(jax.grad(mean))(values, batch(True, False, True, False))
    np.testing.assert_array_equal(gradient, [0.5, 0.0, 0.5, 0.0])


def test_a_batch_of_padding_has_mean_zero():
    assert mean(jnp.ones(4), batch(False, False, False, False)) == 0


def test_mean_keeps_float64():
    with jax.enable_x64(True):
        value = mean(jnp.array([1.0, 1 + 1e-12, 0.0, 0.0], jnp.float64), batch(True, True, False, False))
        np.testing.assert_allclose(value - 1, 5e-13, rtol=1e-3)


def test_accuracy_counts_a_tie_for_the_first_class():
    assert accuracy(LOGITS, batch(True, True, True, True)) == 0.75
    assert accuracy(LOGITS, batch(False, True, True, False)) == 0.5
