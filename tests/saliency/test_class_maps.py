"""The maps of many classes are the gradient maps of each of them."""

import jax
import numpy as np
import pytest

from robust_saliency.saliency import ClassMaps, Gradient, class_maps, gradient
from tests.saliency.test_polarity import CLASSES, IMAGES, net


@pytest.mark.parametrize(
    "fields", [{}, {"score": "probability", "channels": "l2"}, {"sign": "signed", "channels": "none"}]
)
@pytest.mark.parametrize("memory", [{}, {"unroll": False}])
def test_each_is_the_gradient_map_of_its_class(key, fields, memory):
    with jax.enable_x64(True):
        images = IMAGES.astype(float)
        found = jax.jit(lambda x, spec: class_maps(net, x, spec))(images, ClassMaps(**fields, **memory))
        for label in range(CLASSES):
            expected = gradient(net, key, images, np.full(3, label), Gradient(**fields))
            np.testing.assert_allclose(found[:, label], expected, rtol=1e-12, atol=1e-12)


def test_only_the_classes_asked_for_in_that_order():
    everything = class_maps(net, IMAGES, ClassMaps())
    np.testing.assert_allclose(class_maps(net, IMAGES, ClassMaps(), (3, 1, 3)), everything[:, [3, 1, 3]], atol=1e-6)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((0, 4), r"^classes must lie in 0\.\.3, for the network has 4; got \[0, 4\]\.$"),
        ((), r"^classes must be numbers of classes, one at least, got \(\)\.$"),
        ((0.5,), r"^classes must be numbers of classes"),
    ],
)
def test_classes_that_are_not_there_are_one_sentence(classes, message):
    with pytest.raises(ValueError, match=message):
        class_maps(net, IMAGES, ClassMaps(), classes)
