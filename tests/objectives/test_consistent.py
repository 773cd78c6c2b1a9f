"""The consistent loss by hand on a linear network, and on bundled ones against adversarial training."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robust_saliency import attacks, data, losses, models, study, train
from robust_saliency.objectives import Adversarial, Consistent, Standard, adversarial, consistent, standard
from robust_saliency.objectives.consistent import GRADIENTS
from robust_saliency.objectives.feature_distances import normalised
from robust_saliency.threat import Threat
from tests import tiny
from tests.objectives import two_layers
from tests.objectives.two_layers import (
    CLASSES,
    LABELS,
    MODEL,
    SHAPE,
    batch_of,
    cross_entropy,
    image_gradient,
    variables,
)

EPSILON = 0.1
FGSM = attacks.FGSM(threat=Threat(epsilon=EPSILON))


@pytest.fixture
def images(rng):
    return rng.uniform(0.3, 0.7, SHAPE).astype(np.float32)


@pytest.fixture
def params(rng):
    return two_layers.params_of(rng)


def untargeted(images, params, sign=1.0):
    return images + np.float32(EPSILON) * np.sign(image_gradient(images, params, sign=sign)).astype(np.float32)


def toward_least_likely(images, params, sign=1.0):
    least = (sign * two_layers.logits(images, params)).argmin(-1)
    slope = image_gradient(images, params, least, sign)
    return images - np.float32(EPSILON) * np.sign(slope).astype(np.float32)


def perturbed_of(images, params, spec, key, **kwargs):
    perturb = jax.jit(lambda params, batch: consistent.perturb(MODEL, variables(params), key, batch, spec))
    return perturb(params, batch_of(images, **kwargs))


def value_and_gradient(params, spec, batch, key, classifier=MODEL, objective=consistent):
    """Loss, (state, metrics) and gradient; the adversary is sought inside what is differentiated."""

    def total(params, batch):
        given = variables(params)
        return objective.loss(classifier, given, (), key, objective.perturb(MODEL, given, key, batch, spec), spec)

    return jax.jit(jax.value_and_grad(total, has_aux=True))(params, batch)


def test_the_loss_by_hand(images, params, key):
    weights = {"clean_weight": 0.3, "consistency_weight": 0.7, "layer_weights": (2.0, 0.5)}
    spec = Consistent(attack=FGSM, layers=("hidden", "logits"), **weights)
    (value, (state, metrics)), _ = value_and_gradient(params, spec, batch_of(images), key)
    adversary = untargeted(images, params)
    apart = [
        np.mean((f(images, params) - f(adversary, params)) ** 2, -1) for f in (two_layers.hidden, two_layers.logits)
    ]
    inconsistency = np.mean(2.0 * apart[0] + 0.5 * apart[1])
    clean, attacked = cross_entropy(images, params).mean(), cross_entropy(adversary, params).mean()
    assert attacked > clean + 0.05 and inconsistency > 0.05
    np.testing.assert_allclose(value, 0.3 * clean + 0.7 * attacked + 0.7 * inconsistency, rtol=1e-5)
    np.testing.assert_allclose(metrics["inconsistency"], inconsistency, rtol=1e-5)
    np.testing.assert_allclose(state["seen"], adversary.mean(), rtol=1e-5)
    for name, shown in (("accuracy", images), ("robust_accuracy", adversary)):
        hits = two_layers.logits(shown, params).argmax(-1) == LABELS
        np.testing.assert_allclose(metrics[name], hits.mean(), rtol=1e-6)
    assert metrics["loss"] == value


@pytest.mark.parametrize(("mode", "sign"), [("eval", 1.0), ("batch", -1.0)])
def test_the_least_likely_class_draws_the_adversary(images, params, key, mode, sign):
    spec = Consistent(attack=FGSM, target="least_likely", attack_mode=mode)
    found = perturbed_of(images, params, spec, key)["adversarial"]
    expected = toward_least_likely(images, params, sign)
    assert np.abs(expected - untargeted(images, params, sign)).max() > EPSILON
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_pgd_with_the_least_likely_class_is_the_iterative_one(images, params, key):
    """Step by step in NumPy: ``x <- clip(x - a sign(grad CE(f(x), k)))``, k of the clean image throughout."""
    attack = attacks.PGD(threat=Threat(epsilon=EPSILON), step_size=0.04, num_steps=5, start="none", unroll=False)
    found = perturbed_of(images, params, Consistent(attack=attack, target="least_likely"), key)["adversarial"]
    least, shown = two_layers.logits(images, params).argmin(-1), images.astype(np.float64)
    for _ in range(5):
        shown = shown - 0.04 * np.sign(image_gradient(shown, params, least))
        shown = np.clip(shown, images - EPSILON, images + EPSILON)
    np.testing.assert_allclose(found, shown, atol=1e-6)


@pytest.mark.parametrize("into", GRADIENTS)
def test_the_gradient_goes_into_the_chosen_passes_only(images, params, key, into):
    spec = Consistent(attack=FGSM, layers=("hidden",), gradient_into=into, consistency_weight=3.0, clean_weight=0.25)
    _, slope = value_and_gradient(params, spec, batch_of(images), key)
    adversary = untargeted(images, params)
    x, a = (shown.reshape(len(shown), -1).astype(np.float64) for shown in (images, adversary))
    apart = (x - a) @ params["hidden"]["kernel"]
    parts = {"clean": x.T @ apart, "adversarial": -a.T @ apart}
    parts["both"] = parts["clean"] + parts["adversarial"]
    of_both = [two_layers.gradient(shown, params) for shown in (images, adversary)]
    expected = jax.tree.map(lambda clean, attacked: 0.25 * clean + 0.75 * attacked, *of_both)
    expected["hidden"]["kernel"] += 3.0 * 2 * parts[into] / apart.size
    # The images are a function of the parameters here, so a gradient that leaked through them would show.
    chex.assert_trees_all_close(slope, jax.tree.map(np.float32, expected), atol=2e-6)


def test_padded_examples_change_nothing(images, params, key):
    spec = Consistent(attack=FGSM, target="least_likely", layers=("hidden",), feature_distance="cosine")
    valid = np.array([True] * 4 + [False] * 2)
    padded = batch_of(images, valid, np.array([*LABELS[:4], 99, -1]))
    few = batch_of(images[:4], labels=LABELS[:4])
    (value, (_, metrics)), slope = value_and_gradient(params, spec, padded, key)
    (expected, (_, expected_metrics)), expected_slope = value_and_gradient(params, spec, few, key)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    chex.assert_trees_all_close(metrics, expected_metrics, rtol=1e-6)
    chex.assert_trees_all_close(slope, expected_slope, atol=1e-6)


@pytest.fixture(scope="module")
def net():
    return models.make(models.SmallCNN(width=2, pool="average", activation="softplus"), (16, 16, 3), CLASSES)


@pytest.fixture(scope="module")
def initial(net):
    return {"params": he_normal(net), "state": {}}


@pytest.fixture
def shown(rng):
    return batch_of(rng.uniform(0.2, 0.8, (6, 16, 16, 3)).astype(np.float32))


def doubled(tree):
    """Arrays in float64."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64) if leaf_is_float(leaf) else leaf, tree)


def leaf_is_float(leaf):
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)


def both_losses(net, initial, specs, batch, key):
    """Value and gradient of each (objective, spec) on the same adversaries, in one program."""
    batch = {**batch, "adversarial": jnp.clip(batch["image"] + 0.03, 0, 1)}

    @jax.jit
    def program(params, batch):
        def total(params, objective, spec):
            return objective.loss(net, {**initial, "params": params}, (), key, batch, spec)[0]

        return [jax.value_and_grad(total)(params, *pair) for pair in specs]

    return program(initial["params"], batch)


@pytest.mark.parametrize("clean_weight", [0.0, 0.4])
def test_without_weight_it_is_adversarial_training(net, initial, shown, key, clean_weight):
    """Up to the order of sums in float64."""
    ours = Consistent(consistency_weight=0.0, clean_weight=clean_weight)
    theirs = Adversarial(include_clean=clean_weight > 0, clean_weight=clean_weight)
    weighted = Consistent(clean_weight=clean_weight)
    specs = [(consistent, ours), (adversarial, theirs), (consistent, weighted)]
    with jax.enable_x64(True):
        first, second, third = both_losses(net, doubled(initial), specs, doubled(shown), key)
    chex.assert_trees_all_close(first, second, rtol=1e-13, atol=1e-15)
    assert third[0] > first[0]


def test_no_layers_means_the_last_map(net, initial, shown, key):
    specs = [(consistent, Consistent(layers=layers)) for layers in ((), ("conv4",), ("conv3",), ("gap",))]
    values = [float(value) for value, _ in both_losses(net, initial, specs, shown, key)]
    assert values[0] == values[1] and len(set(values)) == 3


@pytest.mark.parametrize("distance", ["l2", "normalised", "cosine"])
def test_the_gradient_is_that_of_finite_differences(net, initial, rng, key, distance):
    """In float64, on a smooth network, the adversary held fixed."""
    with jax.enable_x64(True):
        spec = Consistent(layers=("conv2", "conv4", "logits"), layer_weights=(0.5, 2.0, 1.0), feature_distance=distance)
        wide = doubled(initial)
        direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), wide["params"])
        batch = batch_of(rng.uniform(0.2, 0.8, (6, 16, 16, 3)))
        batch["adversarial"] = batch["image"] + 0.05 * jnp.sign(jnp.asarray(rng.normal(size=(6, 16, 16, 3))))

        @jax.jit
        def total(params):
            return consistent.loss(net, {**wide, "params": params}, (), key, batch, spec)[0]

        slope = optax.tree.vdot(jax.jit(jax.grad(total))(wide["params"]), direction)
        ahead, behind = (
            total(jax.tree.map(lambda w, d, step=step: w + step * d, wide["params"], direction))
            for step in (1e-5, -1e-5)
        )
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-6)


def test_weights_are_data_and_names_are_not():
    spec = Consistent(
        attack=FGSM, clean_weight=0.25, consistency_weight=2.0, layers=("a", "b"), layer_weights=(1.0, 3.0)
    )
    assert sorted(jax.tree.leaves(spec)) == [EPSILON, 0.25, 2.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": "least-likely"}, r"Unknown target 'least-likely'\. Did you mean 'least_likely'\? Choices: least_l"),
        ({"attack_mode": "train"}, r"Unknown attack_mode 'train'.*Choices: batch, eval"),
        ({"feature_distance": "l1"}, r"Unknown feature_distance 'l1'.*Choices: cosine, l2, l2_sum, normalised"),
        ({"gradient_into": "one"}, r"Unknown gradient_into 'one'.*Choices: adversarial, both, clean"),
        ({"layers": "conv4"}, r"Consistent.layers must be a tuple of layer names, got the string 'conv4'"),
        ({"layers": ("conv4", "conv4")}, r"names a layer twice: conv4, conv4"),
        ({"layers": ("conv3", "conv4"), "layer_weights": (1.0,)}, r"one number a layer, 2, got \(1.0,\)"),
        ({"layer_weights": (1.0, 2.0)}, r"one number a layer, 1, got \(1.0, 2.0\)"),
        ({"layer_weights": (-1.0,)}, r"Consistent\.layer_weights must be at least 0, got \(-1\.0,\)"),
        ({"layer_weights": (float("nan"),)}, r"layer_weights must be at least 0, got \(nan,\)"),
    ],
)
def test_errors_of_the_spec(fields, message):
    with pytest.raises(ValueError, match=message):
        Consistent(**fields)


def test_layers_that_a_network_does_not_have_are_told_with_those_it_has(net):
    with pytest.raises(ValueError, match=r"'conv44'\. Did you mean 'conv4'\? Choices: conv1, conv1/conv, conv2"):
        consistent.check(net, Consistent(layers=("conv3", "conv44")))
    with pytest.raises(
        ValueError, match=r"No layer of this network is a map: name objective.layers, out of hidden, logits"
    ):
        consistent.check(MODEL._replace(image_shape=(2, 2, 1)), Consistent())
    assert consistent.check(net, Consistent(layers=("conv3", "gap", "logits"))) is None
    assert consistent.check(MODEL, Consistent(layers=("hidden",))) is None


def test_a_layer_that_gives_no_array_is_told():
    class Two(models.Classifier):
        """Its first layer gives a pair."""

    def apply(variables, images, *, mode="eval", key=None, capture=(), edit=None):
        features = {"pair": (images, images), "logits": images.mean((1, 2))}
        return models.Output(features["logits"], {}, {name: features[name] for name in capture})

    pairs = Two(lambda key: {"params": {}, "state": {}}, apply, ("pair", "logits"), 3, (4, 4, 3))
    with pytest.raises(ValueError, match=r"objective.layers: 'pair' gives tuple, not one array"):
        consistent.check(pairs, Consistent(layers=("pair",)))


def test_a_layer_that_is_not_there_stops_before_anything_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "make_train_step", None)
    wrong = {"name": "consistent", "layers": ("conv44",)}
    with pytest.raises(
        ValueError, match=r"in objective.layers 'conv44'\. Did you mean 'conv4'\? Choices: conv1"
    ) as error:
        train.train(tiny.experiment(objective=wrong), str(tmp_path / "run"))
    assert "\n" not in str(error.value)
    runs = [{"label": label, "description": "", "overrides": {"objective": objective}}
            for label, objective in (("standard", {"name": "standard"}), ("wrong", wrong))]  # fmt: skip
    with pytest.raises(ValueError, match=r"config.study.runs\[wrong\]: Unknown layer.*'conv44'"):
        study.study(tiny.plain(study={"runs": runs}), str(tmp_path / "study"))
    assert not (tmp_path / "study" / "seed0").exists()


def he_normal(net):
    """Random weights that need no compilation of ``init``."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.0
        return jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree.map(draw, jax.eval_shape(net.init, jax.random.key(0))["params"])


def test_it_fits_64_lesions_withstands_its_own_threat_and_represents_adversaries_like_clean_images():
    split = data.load(
        data.DataSpec(num_train=64, num_validation=1, num_test=1, planted=data.PlantedLesions(size=16))
    ).train
    batch = data.to_float(split.gather(np.arange(64))) | {"valid": jnp.ones(64, bool)}
    net, key, epsilon = models.make(models.SmallCNN(width=8), (16, 16, 3), CLASSES), jax.random.key(0), 4 / 255
    attack = attacks.PGD(threat=Threat(epsilon=epsilon), step_size=epsilon / 2, num_steps=3)
    optimizer = optax.adam(5e-3)

    @functools.partial(jax.jit, static_argnums=0)
    def step(objective, spec, params, opt_state, key):
        given = {"params": params, "state": {}}
        shown = objective.perturb(net, given, key, batch, spec)

        def total(params):
            return objective.loss(net, {**given, "params": params}, (), key, shown, spec)[0]

        updates, opt_state = optimizer.update(jax.grad(total)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    def fit(params, objective, spec, steps):
        opt_state = optimizer.init(params)
        for number in range(steps):
            params, opt_state = step(objective, spec, params, opt_state, jax.random.fold_in(key, number))
        return params

    @jax.jit
    def measured(params):
        """Clean accuracy, accuracy under PGD-20, and how far its images are from the clean ones in conv4."""
        variables = {"params": params, "state": {}}
        logits_fn = net.logits_fn(variables)
        pgd = attacks.PGD(threat=attack.threat, step_size=epsilon / 8, num_steps=20, unroll=False)
        found = attacks.run(lambda x: losses.cross_entropy(logits_fn(x), batch["label"]), key, batch["image"], pgd)
        outputs = [net.apply(variables, x, capture=("conv4",)) for x in (batch["image"], found)]
        hits = [jnp.mean(losses.margin(output.logits, batch["label"]) < 0) for output in outputs]
        return *hits, jnp.mean(normalised(*(output.features["conv4"] for output in outputs)))

    plain = fit(he_normal(net), standard, Standard(), 60)
    spec = functools.partial(Consistent, attack=attack, feature_distance="normalised")
    clean, robust, apart = measured(fit(plain, consistent, spec(), 100))
    assert clean == 1.0 and robust >= 0.9
    assert measured(plain)[1] < 0.5, "the threat is none to a network trained without it"
    without = fit(plain, consistent, spec(consistency_weight=0.0), 100)
    assert apart < 0.5 * measured(without)[2]
