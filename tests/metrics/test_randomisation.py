"""Parameter randomisation: which block each weight belongs to, what is mixed, and curves that are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from scipy import stats

from robust_saliency import metrics, models, saliency
from robust_saliency.metrics import ParameterRandomisation, parameter_randomisation, parameter_randomisation_of
from robust_saliency.metrics.randomisation import NO_LAYER, blocks, mixtures, points, randomised, randomised_maps

SHAPE, CLASSES = (12, 12, 3), 3


def abstract(classifier):
    return jax.eval_shape(classifier.init, jax.random.key(0))


# Which block a weight belongs to


BUNDLED = {
    "small_cnn": (models.SmallCNN(width=2), ["logits", "conv4", "conv3", "conv2", "conv1"]),
    "plain_cnn": (
        models.PlainCNN(layers=("bn", "conv4k3", "bn", "gap", "dense5")),
        ["logits", "dense1", "conv1", "bn1"],
    ),
    "resnet18": (
        models.ResNet18(width=2),
        ["logits", *(f"block{stage}_{index}" for stage in (4, 3, 2, 1) for index in (2, 1)), "stem"],
    ),
    "resnet50": (
        models.ResNet50(width=2),
        [
            "logits",
            *(
                f"block{stage}_{index}"
                for stage, last in ((4, 3), (3, 6), (2, 4), (1, 3))
                for index in range(last, 0, -1)
            ),
            "stem",
        ],
    ),
}


@pytest.mark.parametrize("name", BUNDLED)
def test_the_blocks_of_a_bundled_network_stand_in_the_order_of_its_layers_from_the_logits_down(name):
    spec, expected = BUNDLED[name]
    classifier = models.make(spec, SHAPE, CLASSES)
    assert list(blocks(abstract(classifier), classifier.layers)) == expected
    assert points(abstract(classifier), classifier.layers) == ("trained", *expected)


def test_without_the_blocks_their_convolutions_are_blocks_and_a_normalisation_beside_them():
    classifier = models.make(models.ResNet18(width=2), SHAPE, CLASSES)
    parts = [name for name in classifier.layers if "/" in name or name == "logits"]
    found = blocks(abstract(classifier), [name for name in parts if name.count("/") < 2])
    assert found[:3] == ("logits", "block4_2/conv2", "block4_2/conv1") and "block2_1/shortcut" in found
    leaves = [name for name in parts if name.rpartition("/")[2] in ("conv", "norm", "logits")]
    found = blocks(abstract(classifier), leaves)
    assert found[:3] == ("logits", "block4_2/conv2/norm", "block4_2/conv2/conv") and len(found) == len(leaves)


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        token = self.param("token", nn.initializers.ones, (1, 4))
        x = nn.Dense(4, name="second")(nn.Dense(4, name="first")(x.reshape(len(x), -1)) + token)
        return nn.Dense(CLASSES, name="last")(nn.BatchNorm(False, name="norm")(x))


class Around(nn.Module):
    """A network whose one submodule holds every parameter, one of them in no layer of its own."""

    @nn.compact
    def __call__(self, x):
        return Inner(name="inner")(x) * 2


def test_a_layer_that_is_the_whole_network_is_no_block_and_a_parameter_of_none_comes_last():
    classifier = models.from_linen(Around(), SHAPE, CLASSES)
    assert "inner" in classifier.layers
    expected = ("inner/last", "inner/norm", "inner/second", "inner/first", NO_LAYER)
    assert blocks(abstract(classifier), classifier.layers) == expected
    assert blocks(abstract(classifier), ()) == (NO_LAYER,)


def test_a_network_of_one_layer_has_one_block():
    class Dense(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(CLASSES, name="logits")(x.reshape(len(x), -1))

    classifier = models.from_linen(Dense(), SHAPE, CLASSES)
    assert blocks(abstract(classifier), classifier.layers) == ("logits",)


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        last = nnx.Linear(4, 4, rngs=rngs)
        self.blocks = nnx.List([nnx.Sequential(nnx.Linear(4, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)), last])
        self.stem = nnx.Linear(3, 4, rngs=rngs)
        self.head = nnx.Linear(4, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x.mean((1, 2)))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_an_nnx_network_is_taken_apart_in_the_order_of_its_call_with_its_state():
    classifier = models.from_nnx(NnxNet, SHAPE, CLASSES)
    own, fresh = (classifier.init(jax.random.key(seed)) for seed in (0, 1))
    own["state"] = jax.tree.map(lambda leaf: leaf + 5, own["state"])
    assert blocks(own, classifier.layers) == ("head", "blocks/1", "blocks/0", "stem")
    mixed = randomised(own, fresh, classifier.layers, ("blocks/0",))
    assert jax.tree.leaves(own["state"])
    jax.tree.map(np.testing.assert_array_equal, mixed["state"], fresh["state"])
    jax.tree.map(np.testing.assert_array_equal, mixed["params"]["head"], own["params"]["head"])


# What is mixed


@pytest.fixture(scope="module")
def normalised():
    """A network with BatchNorm, its weights and running statistics, and fresh ones, all of other values."""
    classifier = models.make(models.ResNet18(width=1), SHAPE, CLASSES)
    tree = abstract(classifier)
    return classifier.layers, *(jax.tree.map(lambda leaf, v=value: np.full(leaf.shape, v), tree) for value in (1, 2))


def values_of(variables):
    return {
        "/".join(str(entry.key) for entry in path): set(np.unique(leaf).tolist())
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }


@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_every_leaf_of_a_chosen_block_is_fresh_running_statistics_too_and_no_other(order, normalised):
    layers, own, fresh = normalised
    names = blocks(own, layers)
    mixed = mixtures(own, fresh, layers, order)
    assert len(mixed) == len(names) + 1 and mixed[0] is own
    for place, variables in enumerate(mixed[1:]):
        chosen = names[: place + 1] if order == "cascading" else names[place : place + 1]
        found = values_of(variables)
        assert found.keys() == values_of(own).keys()
        for path, values in found.items():
            belongs = any(f"/{name}/" in f"/{path}/" for name in chosen)
            assert values == ({2} if belongs else {1}), path
        assert any(path.startswith("state/batch_stats/") for path in found)
    if order == "cascading":
        assert set.union(*values_of(mixed[-1]).values()) == {2}


def test_nothing_chosen_is_the_trained_network_and_mistakes_are_said(normalised):
    layers, own, fresh = normalised
    assert values_of(randomised(own, fresh, layers, ())) == values_of(own)
    with pytest.raises(ValueError, match=r"Unknown block 'logit'. Did you mean 'logits'.*Choices: block1_1, "):
        randomised(own, fresh, layers, ("logit",))
    with pytest.raises(ValueError, match="of one network: their names or their shapes differ"):
        randomised(own, {**fresh, "state": {}}, layers, ())
    with pytest.raises(ValueError, match=r"Unknown order 'cascade'. Did you mean 'cascading'"):
        mixtures(own, fresh, layers, "cascade")
    with pytest.raises(ValueError, match="Unknown order"):
        ParameterRandomisation(order="upwards")


# Curves


LAYERS = ("first", "last")
FACTORS = 7


def linear(rng):
    """logits = last (first x): the map of class k is ``sum_f last[k, f] first[f]``."""
    return {
        "params": {
            "first": {"kernel": rng.normal(size=(FACTORS, *SHAPE[:2])).astype(np.float32)},
            "last": {"kernel": rng.normal(size=(CLASSES, FACTORS)).astype(np.float32)},
        },
        "state": {},
    }


def map_of(first, last, labels):
    return np.einsum("bf,fhw->bhw", last["params"]["last"]["kernel"][labels], first["params"]["first"]["kernel"])


def saliency_of(variables):
    def logits_fn(images):
        hidden = jnp.einsum("bhw,fhw->bf", jnp.mean(images, axis=-1), variables["params"]["first"]["kernel"])
        return hidden @ variables["params"]["last"]["kernel"].T

    def explain(key, images, labels):
        method = saliency.Gradient(sign="signed", channels="sum")
        return saliency.gradient(logits_fn, key, images, labels, method)

    return explain


@pytest.fixture
def nets(rng):
    images = rng.uniform(size=(4, *SHAPE)).astype(np.float32)
    return linear(rng), linear(rng), images, np.array([0, 1, 2, 0], np.int32)


def curve(nets, spec, explain=saliency_of):
    own, fresh, images, labels = nets
    run = jax.jit(lambda own, fresh: parameter_randomisation(
        explain, own, fresh, LAYERS, jax.random.key(0), images, labels, spec
    ))  # fmt: skip
    return np.asarray(run(own, fresh))


@pytest.mark.parametrize("sign", ["abs", "raw"])
@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_the_curve_of_a_linear_network_has_its_closed_form(order, sign, nets):
    own, fresh, _, labels = nets
    assert points(own, LAYERS) == ("trained", "last", "first")
    ends = (fresh, fresh) if order == "cascading" else (fresh, own)
    maps = [map_of(own, own, labels), map_of(own, fresh, labels), map_of(ends[0], ends[1], labels)]
    policy = np.abs if sign == "abs" else lambda m: m
    expected = [[stats.spearmanr(policy(maps[0][b]).ravel(), policy(m[b]).ravel())[0] for m in maps] for b in range(4)]
    found = curve(nets, ParameterRandomisation(order=order, sign=sign))
    np.testing.assert_allclose(found, expected, atol=2e-4)
    np.testing.assert_allclose(found[:, 0], 1, rtol=1e-6)
    assert np.abs(found[:, 1:]).max() < 0.9


def test_opposite_weights_change_the_map_with_its_sign_and_not_without(nets):
    """Why Adebayo et al. report both: the absolute value hides that every weight of the last layer was turned."""
    own, _, *data = nets
    turned = jax.tree.map(jnp.asarray, own)
    turned["params"]["last"]["kernel"] = -own["params"]["last"]["kernel"]
    for sign, value in (("abs", 1), ("raw", -1)):
        spec = ParameterRandomisation(sign=sign, order="independent")
        np.testing.assert_allclose(curve((own, turned, *data), spec)[:, 1], value, rtol=1e-6)


def test_a_method_that_knows_no_weights_keeps_its_map(nets):
    found = curve(nets, ParameterRandomisation(), lambda _: lambda key, images, labels: metrics.blind.sobel(images))
    np.testing.assert_allclose(found, np.ones((4, 3)), rtol=1e-6)


def test_random_numbers_of_the_method_do_not_count_as_change(nets):
    found = curve(nets, ParameterRandomisation(), lambda _: lambda key, images, labels: metrics.blind.random_map(
        key, images.shape[:3]))  # fmt: skip
    np.testing.assert_allclose(found, np.ones((4, 3)), rtol=1e-6)


def test_a_dead_network_is_nan_and_an_example_is_free_of_its_neighbours(nets):
    own, fresh, images, labels = nets
    fresh["params"]["last"]["kernel"][1] = 0
    found = curve((own, fresh, images, labels), ParameterRandomisation())
    np.testing.assert_array_equal(np.isnan(found), (labels == 1)[:, None] & [False, True, True])
    alone = curve((own, fresh, images[2:3], labels[2:3]), ParameterRandomisation())
    np.testing.assert_allclose(alone, found[2:3], rtol=1e-5)


def test_a_score_of_maps_by_hand_with_ties_constant_zero_and_nan():
    ramp = np.arange(12, dtype=np.float32).reshape(3, 4)
    tied = np.repeat([[1, 2, 3]], 4, axis=0).T.astype(np.float32)
    others = [ramp, ramp[::-1, ::-1], tied, np.ones_like(ramp), 0 * ramp, np.nan * ramp]
    run = jax.jit(lambda maps: parameter_randomisation_of(maps, ParameterRandomisation(similarity="kendall")))
    tau = stats.kendalltau(ramp.ravel(), tied.ravel()).statistic
    np.testing.assert_allclose(run(np.stack(others)[None]), [[1, -1, tau, np.nan, np.nan, np.nan]], rtol=1e-6)


def test_an_explanation_jitted_inside_is_compiled_once_and_ends_at_that_of_the_fresh_network(rng):
    classifier = models.make(models.SmallCNN(width=2), SHAPE, CLASSES)
    own, fresh = (
        jax.tree.map(lambda leaf: rng.normal(scale=0.3, size=leaf.shape).astype(np.float32), abstract(classifier))
        for _ in range(2)
    )
    images = rng.uniform(size=(4, *SHAPE)).astype(np.float32)
    traces = []

    @jax.jit
    def explain(variables, key, images, labels):
        traces.append(1)
        return saliency.gradient(classifier.logits_fn(variables), key, images, labels, saliency.Gradient())

    saliency_of = lambda variables: functools.partial(explain, variables)  # noqa: E731
    labels = np.zeros(4, np.int32)
    maps = randomised_maps(saliency_of, own, fresh, classifier.layers, jax.random.key(0), images, labels)
    assert len(traces) == 1 and maps.shape == (4, 6, *SHAPE[:2])
    np.testing.assert_array_equal(maps[:, -1], explain(fresh, jax.random.key(0), images, labels))
    found = np.asarray(jax.jit(parameter_randomisation_of)(maps))
    np.testing.assert_allclose(found[:, 0], 1, rtol=1e-6)
    assert np.mean(found[:, -1]) < 0.7


def test_the_facts_of_a_table():
    assert ParameterRandomisation.title == "Parameter randomisation, cascading, Spearman rank correlation"
    assert ParameterRandomisation.direction == "lower" and ParameterRandomisation.range == (-1, 1)
    assert ParameterRandomisation(similarity="top_k_intersection").range == (0, 1)
