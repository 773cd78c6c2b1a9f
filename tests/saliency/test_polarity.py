"""Active and inactive maps against hand-computed entries and against the authors' procedure, written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency.saliency import Active, Gradient, Inactive, active, gradient, inactive, polarities

CLASSES, SHAPE = 4, (3, 5, 4, 2)
RNG = np.random.default_rng(7)
HIDDEN = RNG.normal(size=(*SHAPE[1:], 9)).astype(np.float32)
HEAD = RNG.normal(size=(9, CLASSES)).astype(np.float32)
IMAGES = RNG.uniform(size=SHAPE).astype(np.float32)
LABELS = np.array([2, 0, 3], np.int32)


def net(images):
    return jnp.tanh(jnp.einsum("bhwc,hwck->bk", images, HIDDEN)) @ HEAD


def linear(weights):
    """Weights ``[C, K]`` of one pixel."""
    return lambda images: images[:, 0, 0] @ jnp.asarray(weights, jnp.float32)


# Gradients of one pixel with five channels, of three classes; the label is class 0.
BY_HAND = [[2.0, 1.0, 0.0], [-1.0, -2.0, -3.0], [1.0, 1.0, 0.0], [-3.0, 1.0, 2.0], [0.5, 0.7, 0.6]]


@pytest.mark.parametrize(
    ("method", "kwargs", "expected"),
    [
        (active, {}, [2, 1, 0, 0, 0]),  # as the authors' code: the least negative counts
        (active, {"ties": "kept"}, [2, 1, 1, 0, 0]),
        (active, {"ties": "kept", "sign": "signed"}, [2, -1, 1, 0, 0]),  # as equation 5
        (active, {"sign": "positive"}, [2, 0, 0, 0, 0]),
        (inactive, {}, [0, 0, 0, 3, 0.5]),
        (inactive, {"sign": "signed"}, [0, 0, 0, -3, 0.5]),  # as equation 6
        (inactive, {"sign": "negative"}, [0, 0, 0, 3, 0]),
    ],
)
def test_entries_by_hand(key, method, kwargs, expected):
    spec = (Active if method is active else Inactive)(channels="none", **kwargs)
    maps = jax.jit(lambda x, spec: method(linear(BY_HAND), key, x, np.zeros(1, np.int32), spec))(
        jnp.ones((1, 1, 1, 5)), spec
    )
    np.testing.assert_allclose(maps.reshape(-1), expected)


def test_the_papers_inactive_map_is_nearly_empty_where_its_code_is_not(key):
    """The maximum over signed channels hides what the class loses: the reason for the absolute value in the code."""
    image, label = jnp.ones((1, 1, 1, 5)), np.zeros(1, np.int32)
    paper = Inactive(ties="kept", sign="signed", channels="max")
    assert float(inactive(linear([*BY_HAND[:4], [0.7, 0.5, 0.6]]), key, image, label, paper)[0, 0, 0]) == 0
    code = Inactive(channels="max_abs")
    assert float(inactive(linear([*BY_HAND[:4], [0.7, 0.5, 0.6]]), key, image, label, code)[0, 0, 0]) == 3


def as_the_authors_compute(gradients, labels):
    """The five maps as their code makes them, before it divides by the range; ``gradients [K, B, H, W, C]``."""
    maps = {name: [] for name in ("original", "positive", "negative", "active", "inactive")}
    for example, label in enumerate(labels):
        own = gradients[label, example]
        maps["original"].append(np.abs(own).max(-1))
        maps["positive"].append(np.maximum(own, 0).max(-1))
        maps["negative"].append(np.maximum(-own, 0).max(-1))
        for name, loses in (("active", np.less_equal), ("inactive", np.greater_equal)):
            left = own.copy()
            for other in set(range(len(gradients))) - {label}:
                left[loses(own, gradients[other, example])] = 0
            maps[name].append(np.abs(left).max(-1))
    return {name: np.stack(values) for name, values in maps.items()}


@pytest.mark.parametrize("more", [{}, {"unroll": False}])
def test_all_five_as_the_authors_compute_them(more):
    gradients = np.asarray(jax.jacrev(lambda x: net(x).sum(0))(jnp.asarray(IMAGES)))
    expected = as_the_authors_compute(gradients, LABELS)
    found = jax.jit(lambda x, spec: polarities(net, x, LABELS, spec))(IMAGES, Active(channels="max_abs", **more))
    for name, maps in found._asdict().items():
        np.testing.assert_allclose(maps, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert 0.1 < np.mean(found.active > 0) < 0.9 and 0.1 < np.mean(found.inactive > 0) < 0.9


def test_each_of_the_five_is_the_map_of_its_own_method(key):
    found = polarities(net, jnp.asarray(IMAGES), LABELS)
    for name, sign in (("original", "abs"), ("positive", "positive"), ("negative", "negative")):
        own = gradient(net, key, IMAGES, LABELS, Gradient(sign=sign, channels="max_abs"))
        np.testing.assert_allclose(getattr(found, name), own, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.active, active(net, key, IMAGES, LABELS, Active(channels="max_abs")))
    np.testing.assert_array_equal(found.inactive, inactive(net, key, IMAGES, LABELS, Inactive(channels="max_abs")))


def test_one_forward_pass_serves_all_classes(key, rng):
    """In floating-point operations, on a network of matrix products: K + 1 passes of 2 K."""
    layers = [rng.normal(size=size).astype(np.float32) for size in ((40, 300), (300, 300), (300, CLASSES))]

    def wide(images):
        x = images.reshape(len(images), -1)
        for layer in layers[:-1]:
            x = jnp.tanh(x @ layer)
        return x @ layers[-1]

    def cost(function):
        return jax.jit(function).lower(jnp.asarray(IMAGES)).compile().cost_analysis()["flops"]

    one = cost(lambda x: gradient(wide, key, x, LABELS, Gradient()))
    assert cost(lambda x: polarities(wide, x, LABELS)) < 0.65 * CLASSES * one


def test_a_gradient_that_is_nan_stays_nan(key):
    def broken(images):
        return jnp.stack([images.sum((1, 2, 3)), jnp.nan * images[:, 0, 0, 0], images[:, 0, 0, 1]], 1)

    for method, spec in ((active, Active()), (inactive, Inactive())):
        assert np.isnan(method(broken, key, IMAGES, np.zeros(3, np.int32), spec)[:, 0, 0]).all()


def test_mistakes_are_one_sentence(key):
    with pytest.raises(ValueError, match=r"Unknown ties 'drop'\. Did you mean 'dropped'\?"):
        Active(ties="drop")
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.3, found 2\.\.4"):
        active(net, key, IMAGES, np.array([2, 3, 4]), Active())
