"""What only some users' networks have: shared submodules, lifted transforms, attention, odd outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from robust_saliency.models import from_linen, from_nnx

SHAPE = (4, 4, 3)


class LinenShared(nn.Module):
    @nn.compact
    def __call__(self, x):
        shared = nn.Dense(3, name="shared")
        return shared(nn.relu(shared(x.mean((1, 2)))))


class NnxShared(nnx.Module):
    def __init__(self, rngs):
        self.shared = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        return self.shared(nnx.relu(self.shared(x.mean((1, 2)))))


@pytest.mark.parametrize("make", [lambda: from_linen(LinenShared(), SHAPE), lambda: from_nnx(NnxShared, SHAPE)])
def test_each_call_of_a_shared_submodule_is_a_layer(make, key):
    classifier = make()
    assert classifier.layers == ("shared", "shared#2")
    variables, images = classifier.init(key), jax.random.uniform(key, (2, *SHAPE))
    output = classifier.apply(variables, images, capture=classifier.layers)
    dense = variables["params"]["shared"]
    affine = lambda x: x @ dense["kernel"] + dense["bias"].reshape(1, -1)  # noqa: E731
    np.testing.assert_allclose(output.features["shared"], affine(images.mean((1, 2))), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(output.features["shared#2"], output.logits)
    first = classifier.apply(variables, images, edit={"shared": jnp.zeros_like}).logits
    np.testing.assert_allclose(first, np.broadcast_to(dense["bias"], (2, 3)), atol=1e-6)


class LinenLogSoftmax(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.log_softmax(nn.Dense(3, name="dense")(x.mean((1, 2))))


class NnxOwnWeights(nnx.Module):
    def __init__(self, rngs):
        self.weights = nnx.Param(jax.random.normal(rngs.params(), (3, 2)))

    def __call__(self, x):
        return x.mean((1, 2)) @ self.weights[...]


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (lambda: from_linen(LinenLogSoftmax(), SHAPE), ("dense", "output")),
        (lambda: from_nnx(NnxOwnWeights, SHAPE), ("output",)),
        (lambda: from_linen(nn.Sequential([lambda x: x.mean((1, 2)), nn.Dense(3)]), SHAPE), ("layers_1",)),
    ],
)
def test_the_last_layer_is_the_layer_of_the_logits(make, layers, key):
    classifier = make()
    assert classifier.layers == layers
    variables, images = classifier.init(key), jax.random.uniform(key, (2, *SHAPE))
    output = classifier.apply(variables, images, capture=layers[-1:], edit={layers[-1]: lambda a: 2 * a})
    np.testing.assert_allclose(output.logits, 2 * classifier.apply(variables, images).logits, rtol=1e-6)
    np.testing.assert_array_equal(output.logits, output.features[layers[-1]])


class NnxTrained(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)])
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = x.mean((1, 2))
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def test_a_trained_nnx_module_goes_in_as_it_is_and_stays_so(key):
    images, module = jax.random.uniform(key, (4, *SHAPE)), NnxTrained(nnx.Rngs(0))
    module(images)  # in training mode: the running statistics move
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(module, nnx.Param, nnx.BatchStat)[1]))
    classifier = from_nnx(lambda rngs: module, SHAPE)
    variables = classifier.init(key)
    logits = jax.jit(lambda v, x: classifier.logits_fn(v)(x))(variables, images)
    classifier.apply(variables, images, mode="train", key=key)
    jax.tree.map(
        np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(module, nnx.Param, nnx.BatchStat)[1])
    )
    assert classifier.layers == ("layers/0", "layers/1", "layers/2", "head")
    module.eval()
    np.testing.assert_allclose(logits, module(images), rtol=1e-5, atol=1e-6)
    assert np.abs(variables["state"]["layers"]["1"]["mean"]).max() > 1e-3


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return nn.tanh(nn.Dense(3, name="dense")(x)), None


class LinenLifted(nn.Module):
    @nn.compact
    def __call__(self, x):
        x, _ = nn.remat(LinenBlock)(name="remat")(x.mean((1, 2)))
        scan = nn.scan(LinenBlock, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        x, _ = scan(name="scan")(x, None)
        return nn.Dense(2, name="head")(x)


def test_linen_layers_inside_remat_are_captured_and_those_inside_scan_are_not_listed(key):
    classifier = from_linen(LinenLifted(), SHAPE)
    assert classifier.layers == ("remat/dense", "remat", "head")
    variables, images = jax.jit(classifier.init)(key), jax.random.uniform(key, (2, *SHAPE))

    @jax.jit
    def loss(params):
        output = classifier.apply({"params": params, "state": {}}, images, capture=("remat/dense",))
        return (output.features["remat/dense"] ** 2).sum(), output

    gradients, output = jax.grad(loss, has_aux=True)(variables["params"])
    dense = variables["params"]["remat"]["dense"]
    expected = images.mean((1, 2)) @ dense["kernel"] + dense["bias"].reshape(1, -1)
    np.testing.assert_allclose(output.features["remat/dense"], expected, rtol=1e-5, atol=1e-6)
    closed = 2 * images.mean((1, 2)).T @ expected
    np.testing.assert_allclose(gradients["remat"]["dense"]["kernel"], closed, rtol=1e-4, atol=1e-6)
    assert not gradients["head"]["kernel"].any()
    edited = classifier.apply(variables, images, edit={"remat/dense": jnp.zeros_like}, capture=("remat/dense",))
    assert not edited.features["remat/dense"].any() and not np.allclose(edited.logits, output.logits)


class NnxRemat(nnx.Module):
    def __init__(self, rngs):
        self.block = nnx.Linear(3, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        x = nnx.remat(lambda block, x: block(x))(self.block, x.mean((1, 2)))
        return self.head(self.norm(x))


def test_nnx_layers_inside_remat_run_and_are_not_listed(key):
    classifier = from_nnx(NnxRemat, SHAPE)
    assert classifier.layers == ("norm", "head")
    variables, images = jax.jit(classifier.init)(key), jax.random.uniform(key, (4, *SHAPE))

    @jax.jit
    def loss(params):
        output = classifier.apply({**variables, "params": params}, images, mode="train", capture=("norm",))
        return (output.logits**2).sum(), output

    gradients, output = jax.grad(loss, has_aux=True)(variables["params"])
    np.testing.assert_allclose(output.features["norm"].mean(0), 0.0, atol=1e-5)
    assert np.abs(gradients["block"]["kernel"]).max() > 1e-4


class LinenAttention(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x.reshape(x.shape[0], -1, 3)
        x = nn.MultiHeadDotProductAttention(1, dropout_rate=0.5, deterministic=False, name="attention")(x)
        return nn.Dense(2, name="head")(x.mean(1))


class NnxAttention(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(1, 3, dropout_rate=0.5, decode=False, rngs=rngs)
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(self.attention(x.reshape(x.shape[0], -1, 3), deterministic=False).mean(1))


@pytest.mark.parametrize("make", [lambda: from_linen(LinenAttention(), SHAPE), lambda: from_nnx(NnxAttention, SHAPE)])
def test_dropout_of_attention_follows_the_mode(make, key):
    classifier = make()
    variables, images = jax.jit(classifier.init)(key), jax.random.uniform(key, (2, *SHAPE))
    frozen = jax.jit(lambda key: classifier.apply(variables, images, mode="frozen", key=key).logits)
    assert not np.allclose(frozen(jax.random.key(1)), frozen(jax.random.key(2)))
    evaluate = jax.jit(lambda key: classifier.apply(variables, images, key=key).logits)
    np.testing.assert_array_equal(evaluate(jax.random.key(1)), evaluate(jax.random.key(2)))
    with pytest.raises(ValueError, match="Layer 'attention' draws random numbers"):
        classifier.apply(variables, images, mode="train")


class LinenOwnStream(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(2, name="head")(x.mean((1, 2)))
        return x + jax.random.normal(self.make_rng("depth"), x.shape) if train else x


class NnxOwnStream(nnx.Module):
    def __init__(self, rngs):
        self.head = nnx.Linear(3, 2, rngs=rngs)
        self.rngs = rngs

    def __call__(self, x, train=False):
        x = self.head(x.mean((1, 2)))
        return x + jax.random.normal(self.rngs.depth(), x.shape) if train else x


@pytest.mark.parametrize("make", [lambda: from_linen(LinenOwnStream(), SHAPE), lambda: from_nnx(NnxOwnStream, SHAPE)])
def test_other_random_streams_are_driven_by_the_key_and_kept_out_of_the_variables(make, key):
    classifier = make()
    variables, images = classifier.init(key), jax.random.uniform(key, (2, *SHAPE))
    assert variables["state"] == {} and set(variables["params"]) == {"head"}
    noise = lambda seed: (  # noqa: E731
        classifier.apply(variables, images, mode="train", key=jax.random.key(seed)).logits
        - classifier.apply(variables, images).logits
    )
    np.testing.assert_array_equal(noise(1), noise(1))
    assert np.abs(noise(1) - noise(2)).max() > 0.1
    with pytest.raises(ValueError, match="draws random numbers"):
        classifier.apply(variables, images, mode="train")


class LinenCounter(nn.Module):
    """A collection of the user's own, written in training; and one that is sown."""

    @nn.compact
    def __call__(self, x, is_training):
        calls = self.variable("counters", "calls", lambda: jnp.zeros((), jnp.int32))
        if is_training and not self.is_initializing():
            calls.value += 1
        x = nn.Dense(2, name="head")(x.mean((1, 2)))
        self.sow("intermediates", "sown", x)
        return x


class NnxCounter(nnx.Module):
    def __init__(self, rngs):
        self.head = nnx.Linear(3, 2, rngs=rngs)
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, x, is_training):
        if is_training:
            self.calls[...] += 1
        x = self.head(x.mean((1, 2)))
        self.sow(nnx.Intermediate, "sown", x)
        return x


@pytest.mark.parametrize("make", [lambda: from_linen(LinenCounter(), SHAPE), lambda: from_nnx(NnxCounter, SHAPE)])
def test_state_of_the_users_own_is_updated_by_train_alone(make, key):
    classifier = make()
    variables, images = classifier.init(key), jax.random.uniform(key, (2, *SHAPE))
    for mode, expected in (("train", 1), ("eval", 0), ("frozen", 0), ("batch", 0)):
        state = jax.jit(lambda v, m=mode: classifier.apply(v, images, mode=m).state)(variables)
        assert jax.tree.leaves(state) == [expected], mode
        assert jax.tree.structure(state) == jax.tree.structure(variables["state"])


class LinenOnlyInTraining(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(2, name="head")(x.mean((1, 2)))
        always = nn.Dense(2, name="always")(x)
        return always if train else always + nn.Dense(2, name="late")(x)


def test_a_layer_not_called_in_this_mode_is_said(key):
    classifier = from_linen(LinenOnlyInTraining(), SHAPE)
    variables, images = classifier.init(key), jnp.zeros((1, *SHAPE))
    with pytest.raises(ValueError, match="Layer 'late' is not called in mode 'train'"):
        classifier.apply(variables, images, mode="train", capture=("late",))


def test_layers_can_be_narrowed_down_and_keep_their_order():
    classifier = from_linen(LinenOnlyInTraining(), SHAPE, layers=("late", "head"))
    assert classifier.layers == ("head", "late")
    with pytest.raises(ValueError, match="Unknown layer 'always'"):
        classifier.apply({}, jnp.zeros((1, *SHAPE)), capture=("always",))
    with pytest.raises(ValueError, match="Unknown layer 'hed'\\. Did you mean 'head'"):
        from_linen(LinenOnlyInTraining(), SHAPE, layers=("hed",))


class NnxMap(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 2, (1, 1), rngs=rngs)

    def __call__(self, x):
        return self.conv(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_nnx(NnxMap, SHAPE), r"must return logits \[B, K\], got shape \(1, 4, 4, 2\)"),
        (lambda: from_linen(LinenShared(), SHAPE, 7), r"must return logits \[B, 7\], got shape \(1, 3\)"),
        (lambda: from_linen(LinenBlock(), SHAPE), r"must return logits \[B, K\], got shape \(\(1, 4, 4, 3\), None\)"),
        (lambda: from_linen(LinenShared(), (4, 4)), r"image_shape must be \(height, width, channels\)"),
    ],
)
def test_networks_that_are_no_classifiers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_nested_nnx_lists_are_plain_dicts_with_string_keys(key):
    class Deep(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.List([nnx.Sequential(nnx.Linear(3, 3, rngs=rngs), nnx.relu) for _ in range(2)])

        def __call__(self, x):
            x = x.mean((1, 2))
            for block in self.blocks:
                x = block(x)
            return x

    classifier = from_nnx(Deep, SHAPE)
    params = classifier.init(key)["params"]
    assert jax.tree.map(jnp.shape, params["blocks"]["1"]["layers"]["0"]) == {"kernel": (3, 3), "bias": (3,)}
    assert classifier.layers[-1] == "blocks/1" and "blocks/0/layers/0" in classifier.layers


def test_variables_as_linen_gives_them_are_taken_as_they_are():
    """Who brings trained weights has ``{'params', 'batch_stats'}``."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(x))
            return nn.Dense(3)(nn.relu(x).mean((1, 2)))

    images, net = jnp.linspace(0, 1, 2 * 8 * 8 * 3).reshape(2, 8, 8, 3), Net()
    own = net.init(jax.random.key(0), images)
    own = {**own, "batch_stats": jax.tree.map(lambda leaf: leaf + 0.5, own["batch_stats"])}
    classifier = from_linen(net, (8, 8, 3))
    expected = net.apply(own, images)
    np.testing.assert_allclose(jax.jit(classifier.logits_fn(own))(images), expected, rtol=1e-5)
    changed = classifier.apply(own, images, mode="batch").state
    assert changed.keys() == {"batch_stats"}
    with pytest.raises(ValueError, match=r"variables must hold 'params', got 'batch_stats'\."):
        classifier.apply({"batch_stats": own["batch_stats"]}, images)
