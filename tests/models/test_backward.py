"""The value of one function with the derivative of another, under every transformation that attacks use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency.models import backward_through

IMAGES = jnp.asarray(np.random.default_rng(0).uniform(0.1, 0.9, (3, 2, 2, 1)), jnp.float32)
SCALES = jnp.asarray([[1.0, 2.0, -3.0]])


def rounded(images):
    return jnp.round(4 * images).sum((1, 2)) * SCALES


def smooth(images):
    return 2 * (images**2).sum((1, 2)) * SCALES


@pytest.fixture(params=["plain", "jit", "scan", "closure"])
def function(request):
    through = backward_through(rounded, smooth)
    if request.param == "jit":
        return jax.jit(through)
    if request.param == "scan":
        return lambda x: jax.lax.scan(lambda carry, _: (carry, through(x)), 0, None, length=2)[1][1]
    if request.param == "closure":  # weights that are arguments of the compiled program, as in an evaluation

        @jax.jit
        def program(weights, x):
            return backward_through(lambda z: weights * rounded(z), lambda z: weights * smooth(z))(x)

        return lambda x: program(jnp.float32(1), x)
    return through


def test_the_value_is_of_the_one_and_the_gradient_of_the_other(function):
    np.testing.assert_array_equal(function(IMAGES), rounded(IMAGES))
    gradient = jax.grad(lambda x: function(x)[:, 1].sum())(IMAGES)
    np.testing.assert_allclose(gradient, 8 * IMAGES, rtol=1e-6)
    _, tangent = jax.jvp(function, (IMAGES,), (jnp.ones_like(IMAGES),))
    np.testing.assert_allclose(tangent, 4 * IMAGES.sum((1, 2)) * SCALES, rtol=1e-6)


def test_examples_can_be_mapped_over():
    through = backward_through(rounded, smooth)
    one = jax.vmap(lambda x: jax.grad(lambda z: through(z[None])[0, 0])(x))(IMAGES)
    np.testing.assert_allclose(one, 4 * IMAGES, rtol=1e-6)
