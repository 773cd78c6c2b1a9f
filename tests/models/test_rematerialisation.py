"""The same gradients from fewer arrays that the backward pass is handed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import losses, models

NETS = {
    "with BatchNorm": models.ResNet18(width=4),
    "without": models.SmallCNN(width=4),
}


def loss_of(classifier, variables, images, edit=None):
    def loss(params):
        given = {**variables, "params": params}
        output = classifier.apply(given, images, mode="train", edit=edit)
        return jnp.mean(losses.cross_entropy(output.logits, jnp.zeros(len(images), jnp.int32))), output.state

    return loss


@pytest.fixture(params=NETS)
def networks(request, key, rng):
    plain = models.make(NETS[request.param], (16, 16, 3), 5)
    images = rng.random((4, 16, 16, 3)).astype(np.float32)
    return plain, models.with_rematerialisation(plain), plain.init(key), images


def test_loss_state_and_gradients_are_those_of_the_network(networks):
    plain, less, variables, images = networks
    found = [
        jax.jit(jax.value_and_grad(loss_of(network, variables, images), has_aux=True))(variables["params"])
        for network in (plain, less)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *found)


def test_logits_features_and_edits_are_those_of_the_network(networks):
    plain, less, variables, images = networks
    layer = plain.layers[0]

    @jax.jit
    def output(images, add):
        found = [
            network.apply(variables, images, capture=plain.layers[:3], edit={layer: lambda a: a + add})
            for network in (plain, less)
        ]
        return [(each.logits, each.features) for each in found]

    first, second = output(images, 0.1)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def kept(network, variables, images):
    """Elements of the arrays ``[B, h, w, C]`` that the backward pass closes over; the images are one."""
    loss = loss_of(network, variables, images)
    _, back = jax.vjp(lambda params: loss(params)[0], variables["params"])
    arrays = [leaf for leaf in jax.tree.leaves(back) if np.ndim(leaf) == 4 and len(leaf) == len(images)]
    return sum(array.size for array in arrays) - images.size


def test_the_backward_pass_is_handed_the_outputs_of_convolutions_alone(key, rng):
    """Of the plain network BatchNorm and ReLU hand on more arrays of each size."""
    plain = models.make(NETS["with BatchNorm"], (16, 16, 3), 5)
    variables, images = plain.init(key), rng.random((4, 16, 16, 3)).astype(np.float32)
    less = models.with_rematerialisation(plain)
    names = [name for name in plain.layers if name.endswith("/conv")]
    features = jax.eval_shape(lambda: plain.apply(variables, images, capture=names).features)
    of_convolutions = sum(leaf.size for leaf in jax.tree.leaves(features))
    assert kept(less, variables, images) == of_convolutions
    assert kept(plain, variables, images) > 3 * of_convolutions


def test_gradients_of_gradients_exist(networks):
    plain, less, variables, images = networks

    def slope(network):
        logits_fn = network.logits_fn(variables)
        return jax.jit(jax.grad(lambda x: jnp.sum(jax.grad(lambda x: jnp.sum(logits_fn(x) ** 2))(x) ** 2)))(images)

    np.testing.assert_allclose(slope(less), slope(plain), rtol=1e-3, atol=1e-5)
