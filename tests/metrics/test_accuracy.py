import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import metrics
from robust_saliency.metrics.accuracy import confidence, correct, margin

logits = jnp.array([[2.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 1.0, 3.5], [1.0, 1.0, 1.0]])
labels = jnp.array([0, 1, 0, 2], jnp.int32)


def test_hand_computed():
    np.testing.assert_array_equal(jax.jit(margin)(logits, labels), [1.0, 0.0, -3.5, 0.0])
    np.testing.assert_array_equal(jax.jit(correct)(logits, labels), [1.0, 0.0, 0.0, 0.0])
    e = np.e
    np.testing.assert_allclose(
        jax.jit(confidence)(logits),
        [e**2 / (e**2 + e + 1), e**2 / (2 * e**2 + 1), e**3.5 / (1 + e + e**3.5), 1 / 3],
        rtol=1e-6,
    )


def test_a_constant_network_is_never_right():
    """argmax would give class 0 a free point: an attack that drives all logits together must count as a success."""
    tied = jnp.zeros((5, 3))
    np.testing.assert_array_equal(correct(tied, jnp.zeros(5, jnp.int32)), np.zeros(5))


def test_nan_logits_are_not_correct():
    broken = jnp.array([[jnp.nan, 0.0], [5.0, jnp.nan]])
    np.testing.assert_array_equal(correct(broken, jnp.array([0, 0], jnp.int32)), [0.0, 0.0])
    assert np.isnan(confidence(broken)).all()


def test_large_logits_do_not_overflow():
    huge = jnp.array([[1e30, 0.0], [1e4, 1e4]])
    np.testing.assert_allclose(confidence(huge), [1.0, 0.5])


def test_registered_metrics_read_the_images():
    def logits_fn(images):
        return images[:, 0, 0]

    images = logits[:, None, None]
    available = {"logits_fn": logits_fn, "images": images, "labels": labels}
    np.testing.assert_array_equal(metrics.run(metrics.Accuracy(), **available), correct(logits, labels))
    np.testing.assert_array_equal(metrics.run(metrics.Margin(), **available), margin(logits, labels))
    np.testing.assert_array_equal(metrics.run(metrics.Confidence(), **available), confidence(logits))
    attacked = images.at[0].set(images[0, :, :, ::-1])
    assert metrics.run(metrics.Accuracy(), logits_fn=logits_fn, images=attacked, labels=labels).sum() == 0


def test_bfloat16_logits_are_widened():
    assert confidence(logits.astype(jnp.bfloat16)).dtype == jnp.float32
    assert correct(logits.astype(jnp.bfloat16), labels).dtype == jnp.float32


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match="Batch sizes differ: logits 4, labels 3"):
        correct(logits, labels[:3])
    with pytest.raises(ValueError, match=r"logits must have 2 axes, got shape \(3,\)"):
        confidence(logits[0])
