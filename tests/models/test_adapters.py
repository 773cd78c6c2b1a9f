"""One contract for users' networks in Linen and NNX: modes, randomness, purity, mistakes."""

import functools
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.equal_nets import (
    CLASSES,
    EPSILON,
    LAYERS,
    MOMENTUM,
    NETS,
    SHAPE,
    every_net,
    run_modes,
    setup,
    statistics,
)


@every_net
def test_init_gives_plain_picklable_dicts_of_the_expected_tree(name, weights, key):
    classifier, expected = setup(name, 0.5, weights)
    variables = jax.jit(classifier.init)(key)
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, expected)

    def check_plain(node):
        assert type(node) is dict or isinstance(node, jax.Array)
        for child in node.values() if isinstance(node, dict) else ():
            check_plain(child)

    check_plain(variables)
    host = jax.device_get(variables)
    chex.assert_trees_all_equal(pickle.loads(pickle.dumps(host)), host)
    assert classifier.layers == LAYERS
    assert (classifier.num_classes, classifier.image_shape) == (CLASSES, SHAPE)
    chex.assert_trees_all_equal(jax.jit(classifier.init)(key), variables)
    other = jax.jit(classifier.init)(jax.random.key(1))
    assert not np.allclose(other["params"]["conv"]["kernel"], variables["params"]["conv"]["kernel"])


@every_net
def test_batch_norm_and_dropout_in_every_mode(name, weights, images, key):
    classifier, variables = setup(name, 0.5, weights)
    for mode, output in run_modes(classifier, variables, images, key=key, capture=LAYERS).items():
        check_mode(mode, output, weights[0]["norm"], variables["state"])


def check_mode(mode, output, affine, state):
    conv, normed, dropped = (np.asarray(output.features[layer], np.float64) for layer in LAYERS[:3])
    running, batch = statistics(state), (conv.mean((0, 1, 2)), conv.var((0, 1, 2)))

    mean, var = batch if mode in ("train", "batch") else running
    mean, var, scale, bias = (np.asarray(a).reshape(1, 1, 1, -1) for a in (mean, var, affine["scale"], affine["bias"]))
    expected = (conv - mean) / np.sqrt(var + EPSILON) * scale + bias
    np.testing.assert_allclose(normed, expected, rtol=1e-3, atol=1e-4, err_msg=mode)

    active = np.maximum(normed, 0)
    if mode in ("train", "frozen"):
        kept = dropped != 0
        np.testing.assert_allclose(dropped[kept], 2 * active[kept], rtol=1e-6)
        assert 0.35 < kept[active > 0].mean() < 0.65
    else:
        np.testing.assert_array_equal(dropped, active)

    for new, old, observed in zip(statistics(output.state), running, batch, strict=True):
        closed = MOMENTUM * np.asarray(old) + (1 - MOMENTUM) * observed if mode == "train" else np.asarray(old)
        np.testing.assert_allclose(new, closed, rtol=1e-4, atol=1e-6, err_msg=mode)
    chex.assert_trees_all_equal_structs(output.state, state)
    np.testing.assert_array_equal(output.logits, output.features["head"])


def test_without_dropout_frozen_is_eval_and_train_is_batch_and_all_nets_agree(weights, images):
    outputs = {name: run_modes(*setup(name, 0.0, weights), images) for name in NETS}
    for name, modes in outputs.items():
        np.testing.assert_allclose(modes["frozen"].logits, modes["eval"].logits, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(modes["train"].logits, modes["batch"].logits, rtol=1e-6, err_msg=name)
        assert np.abs(modes["train"].logits - modes["eval"].logits).max() > 0.1
        for mode, output in modes.items():
            reference = outputs["linen train"][mode]
            np.testing.assert_allclose(output.logits, reference.logits, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(statistics(output.state), statistics(reference.state), rtol=1e-5, atol=1e-6)


@every_net
def test_dropout_depends_on_the_key_alone_and_needs_one(name, weights, images):
    classifier, variables = setup(name, 0.5, weights)
    jitted = jax.jit(lambda v, x, key: classifier.apply(v, x, mode="frozen", key=key).logits)
    logits = functools.partial(jitted, variables, images)
    np.testing.assert_array_equal(logits(jax.random.key(3)), logits(jax.random.key(3)))
    assert not np.array_equal(logits(jax.random.key(3)), logits(jax.random.key(4)))
    for mode in ("train", "frozen"):
        with pytest.raises(ValueError, match=r"Layer 'drop' draws random numbers .* give apply"):
            jax.eval_shape(lambda m=mode: classifier.apply(variables, images, mode=m))
    with pytest.raises(ValueError, match="one key a batch, got an array of 5 keys"):
        classifier.apply(variables, images, mode="train", key=jax.random.split(jax.random.key(0), 5))


@every_net
def test_eval_is_independent_of_neighbours_and_maps_over_examples(name, weights, images):
    classifier, variables = setup(name, 0.5, weights)
    logits_fn = classifier.logits_fn(variables)
    score = lambda image: logits_fn(image[None])[0, 0]  # noqa: E731
    whole = jax.jit(lambda x: (logits_fn(x)[:, 0], jax.grad(lambda x: logits_fn(x)[:, 0].sum())(x)))
    logits, gradients = whole(images)
    np.testing.assert_array_equal(whole(images.at[1:].set(0.0))[0][0], logits[0])
    each_logit, each_gradient = jax.jit(jax.vmap(jax.value_and_grad(score)))(images)
    np.testing.assert_allclose(each_logit, logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(each_gradient, gradients, rtol=1e-4, atol=1e-5)


@every_net
def test_train_step_gradients_and_one_trace(name, weights, images, key):
    classifier, variables = setup(name, 0.5, weights)
    chex.clear_trace_counter()  # it counts by the function's name, which all cases share

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(variables, key):
        def loss(params):
            output = classifier.apply({**variables, "params": params}, images, mode="train", key=key)
            return (output.logits**2).mean(), output.state

        gradients, state = jax.grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - 0.01 * g, variables["params"], gradients)
        return {"params": params, "state": state}, gradients

    for index in range(3):
        variables, gradients = step(variables, jax.random.fold_in(key, index))
    # BatchNorm takes the mean of conv away, so conv's bias has no gradient but rounding.
    assert np.abs(gradients["conv"].pop("bias")).max() < 1e-4
    assert all(np.abs(leaf).max() > 1e-4 for leaf in jax.tree.leaves(gradients))


@every_net
def test_mistakes_are_one_sentence(name, weights, images):
    classifier, variables = setup(name, 0.5, weights)
    for kwargs, message in (
        ({"capture": ("convv",)}, "Unknown layer 'convv'. Did you mean 'conv'"),
        ({"edit": {"haed": jnp.zeros_like}}, "Unknown layer 'haed'. Did you mean 'head'"),
        ({"capture": "conv"}, "capture must be a tuple of layer names, got the string 'conv'"),
        ({"mode": "evall"}, "Unknown mode 'evall'. Did you mean 'eval'"),
    ):
        with pytest.raises(ValueError, match=message):
            classifier.apply(variables, images, **kwargs)
    with pytest.raises(ValueError, match=r"images must be \[B, height, width, 3\], got shape \(6, 6, 3\)"):
        classifier.apply(variables, images[0])
    with pytest.raises(ValueError, match="images must be floating point"):
        classifier.apply(variables, jnp.zeros((1, *SHAPE), jnp.uint8))
