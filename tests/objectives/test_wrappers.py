"""What stands around an objective, by hand on a linear network: AWP, clean images, an epsilon for each example."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robust_saliency import attacks, config, data, models, randomness, train
from robust_saliency.objectives import (
    AWP,
    WRAPPERS,
    AdaptiveEpsilon,
    Adversarial,
    CleanMix,
    Consistent,
    Standard,
    adaptive_epsilon,
    adversarial,
    awp,
    clean_mix,
    consistent,
    innermost,
    standard,
)
from robust_saliency.objectives.wrappers.awp import worst_weights
from robust_saliency.threat import Threat
from tests import tiny
from tests.objectives import two_layers
from tests.objectives.two_layers import LABELS, MODEL, SHAPE, batch_of, cross_entropy, image_gradient, variables

EPSILON = 0.1
FGSM = attacks.FGSM(threat=Threat(epsilon=EPSILON))
INNER = Adversarial(attack=FGSM)


@pytest.fixture
def images(rng):
    return rng.uniform(0.3, 0.7, SHAPE).astype(np.float32)


@pytest.fixture
def params(rng):
    return two_layers.params_of(rng)


def worst(images, params, epsilon=EPSILON):
    steps = np.broadcast_to(np.float32(epsilon), len(images)).reshape(-1, 1, 1, 1)
    return images + steps * np.sign(image_gradient(images, params)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def run(objective, spec, params, batch, key):
    """The perturbed batch, and loss, (state, metrics) and gradient with perturb inside what is differentiated."""

    def total(params):
        given = variables(params)
        perturbed = objective.perturb(MODEL, given, key, batch, spec)
        value, (state, metrics) = objective.loss(MODEL, given, (), key, perturbed, spec)
        return value, (state, metrics, perturbed)

    (value, (state, metrics, perturbed)), slope = jax.value_and_grad(total, has_aux=True)(params)
    return perturbed, (value, (state, metrics)), slope


def moved_by_hand(images, params, gamma, gradient_of=two_layers.gradient):
    """v of AWP: each kernel's gradient, scaled to gamma times its norm; no bias."""
    slopes = gradient_of(images, params)
    v = {name: {"kernel": gamma * np.linalg.norm(params[name]["kernel"]) * slope["kernel"]
                / np.linalg.norm(slope["kernel"])} for name, slope in slopes.items()}  # fmt: skip
    v["logits"]["bias"] = np.zeros(3)
    return v


def near(tree, expected, atol):
    chex.assert_trees_all_close(tree, jax.tree.map(np.float32, expected), atol=atol)


# AWP


def test_awp_by_hand(images, params, key):
    perturbed, (value, (state, metrics)), slope = run(
        awp(adversarial), AWP(inner=INNER, gamma=0.2), params, batch_of(images), key
    )
    adversary = worst(images, params)
    v = moved_by_hand(adversary, params, 0.2)
    near(perturbed["weight_perturbation"], v, 2e-6)
    assert not np.any(perturbed["weight_perturbation"]["logits"]["bias"]), "a bias is not attacked"
    for name, kernel in (("hidden", params["hidden"]["kernel"]), ("logits", params["logits"]["kernel"])):
        length = np.linalg.norm(perturbed["weight_perturbation"][name]["kernel"])
        np.testing.assert_allclose(length, 0.2 * np.linalg.norm(kernel), rtol=1e-5)
    moved = jax.tree.map(np.add, params, v)
    np.testing.assert_allclose(value, cross_entropy(adversary, moved).mean(), rtol=1e-5)
    assert value > cross_entropy(adversary, params).mean() + 0.05
    np.testing.assert_allclose(state["seen"], adversary.mean(), rtol=1e-5)
    assert metrics["loss"] == value
    # v and the images are functions of the parameters here: a gradient that leaked through them would show.
    near(slope, two_layers.gradient(adversary, moved), 5e-6)


def test_awp_of_gamma_zero_is_none(images, params, key):
    plain = run(adversarial, INNER, params, batch_of(images), key)
    wrapped = run(awp(adversarial), AWP(inner=INNER, gamma=0.0), params, batch_of(images), key)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(wrapped[0].pop("weight_perturbation")))
    chex.assert_trees_all_equal(wrapped[0], plain[0])
    chex.assert_trees_all_close(wrapped[1:], plain[1:], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("pattern", ["^params/hidden/", "^params/logits"])
def test_awp_attacks_none_of_the_weights_that_are_frozen(images, params, key, pattern):
    spec = AWP(inner=INNER, gamma=0.2, trainable=(pattern,))
    perturbed, (value, _), _ = run(awp(adversarial), spec, params, batch_of(images), key)
    adversary = worst(images, params)
    v = moved_by_hand(adversary, params, 0.2)
    frozen = "logits" if "hidden" in pattern else "hidden"
    v[frozen] = jax.tree.map(np.zeros_like, params[frozen])
    near(perturbed["weight_perturbation"], v, 2e-6)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(perturbed["weight_perturbation"][frozen]))
    np.testing.assert_allclose(value, cross_entropy(adversary, jax.tree.map(np.add, params, v)).mean(), rtol=1e-5)


def test_patterns_that_cannot_be_are_refused(images, params, key):
    with pytest.raises(ValueError, match=r"AWP\.trainable must be a tuple of patterns, got the string '\^params'"):
        AWP(trainable="^params")
    with pytest.raises(ValueError, match=r"AWP\.trainable '\(' is no regular expression"):
        AWP(trainable=("(",))
    with pytest.raises(
        ValueError, match=r"'conv9' matches no parameter\. Parameters lie in params/hidden, params/logits"
    ):
        run(awp(adversarial), AWP(inner=INNER, trainable=("conv9",)), params, batch_of(images), key)


def test_awp_with_one_key_an_example_depends_on_the_keys_and_not_on_their_order(rng, key):
    """The pass that the weights are attacked on has dropout, whose draw is that of all keys together."""
    net = models.make(models.PlainCNN(layers=("conv2", "dropout0.5", "gap")), (6, 6, 1), 3)
    batch = batch_of(rng.random((6, 6, 6, 1), np.float32))
    variables = net.init(key)
    perturb = jax.jit(lambda keys: awp(standard).perturb(net, variables, keys, batch, AWP(inner=Standard())))
    keys, others = (randomness.per_example_keys(key, jnp.arange(6) + first) for first in (0, 1))
    one, turned, other = (perturb(each)["weight_perturbation"] for each in (keys, keys[::-1], others))
    chex.assert_trees_all_equal(one, turned)
    assert np.abs(one["logits"]["kernel"] - other["logits"]["kernel"]).max() > 1e-4


def test_which_tensors_awp_attacks():
    shape = (2, 3)
    params = {
        "attention": {"query": {"kernel": np.ones((2, 3, 4)), "bias": np.ones(shape)}},
        "norms": {"scale": np.ones(shape), "bias": np.ones(shape)},
        "embedding": np.ones(shape),
        "token": np.ones(3),
        "dead": {"kernel": np.ones(shape)},
    }
    gradient = jax.tree.map(np.ones_like, params) | {"dead": {"kernel": np.zeros(shape)}}
    v = worst_weights(params, gradient, 0.1)
    expected = jax.tree.map(np.zeros_like, params)
    expected["attention"]["query"]["kernel"] += 0.1
    expected["embedding"] += 0.1
    chex.assert_trees_all_close(v, jax.tree.map(jnp.float32, expected), rtol=1e-6)


def test_a_gradient_whose_square_leaves_float32_still_has_a_direction(rng):
    w, g = (rng.normal(size=(3, 4)).astype(np.float32) for _ in range(2))
    v = jax.jit(worst_weights)({"w": w}, {"w": g * np.float32(1e-30)}, 0.1)["w"]
    np.testing.assert_allclose(v, 0.1 * np.linalg.norm(w) * g / np.linalg.norm(g), rtol=1e-5)


def test_awp_leaves_batch_norm_alone_in_a_bundled_network(rng, key):
    net = models.make(models.PlainCNN(layers=("conv2", "bn", "gap")), (6, 6, 1), 3)
    batch = batch_of(rng.random((6, 6, 6, 1), np.float32))
    perturb = jax.jit(lambda batch: awp(standard).perturb(net, net.init(key), key, batch, AWP(inner=Standard())))
    v = perturb(batch)["weight_perturbation"]
    assert np.any(v["conv1"]["conv"]["kernel"]) and np.any(v["logits"]["kernel"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((v["conv1"]["norm"], v["logits"]["bias"])))


# Clean images


def test_clean_mix_of_adversarial_is_its_own_clean_images(images, params, key):
    mixed = run(clean_mix(adversarial), CleanMix(inner=INNER, clean_weight=0.3), params, batch_of(images), key)
    own = Adversarial(attack=FGSM, include_clean=True, clean_weight=0.3)
    chex.assert_trees_all_close(mixed, run(adversarial, own, params, batch_of(images), key), rtol=1e-5, atol=1e-7)


def test_clean_mix_weighs_any_objective(images, params, key):
    inner = Consistent(attack=FGSM, layers=("hidden",), clean_weight=0.0)
    _, (alone, _), _ = run(consistent, inner, params, batch_of(images), key)
    for weight in (0.0, 0.25, 1.0):
        spec = CleanMix(inner=inner, clean_weight=weight)
        _, (value, (state, metrics)), _ = run(clean_mix(consistent), spec, params, batch_of(images), key)
        clean = cross_entropy(images, params).mean()
        np.testing.assert_allclose(value, (1 - weight) * alone + weight * clean, rtol=1e-5)
        assert metrics["loss"] == value and "inconsistency" in metrics
        np.testing.assert_allclose(state["seen"], worst(images, params).mean(), rtol=1e-5)


# An epsilon for each example


def shares_by_hand(images, params, num_shares):
    """On a linear model of two classes: the margin rises by ``eps |w_other - w_label|_1``."""
    whole = params["hidden"]["kernel"].astype(np.float64) @ params["logits"]["kernel"]
    z = two_layers.logits(images, params)
    own, other = LABELS % 2, 1 - LABELS % 2
    rows = np.arange(len(images))
    margin, slope = z[rows, other] - z[rows, own], np.abs(whole[:, other] - whole[:, own]).sum(0)
    needed = np.maximum(-margin / slope / EPSILON, 0)
    return np.minimum(np.ceil(needed * num_shares) / num_shares, 1), needed


@pytest.fixture
def two_classes(rng):
    """Parameters, images and labels whose examples need from nothing to more than the budget."""
    params = {
        "hidden": {"kernel": rng.normal(size=(4, 5)).astype(np.float32)},
        "logits": {"kernel": rng.normal(size=(5, 2)).astype(np.float32), "bias": np.zeros(2, np.float32)},
    }
    whole = params["hidden"]["kernel"] @ params["logits"]["kernel"]
    slope, wanted = whole[:, 0] - whole[:, 1], np.array([0.1, 0.3, 0.6, 0.9, 1.7, -0.4])
    images = np.full((6, 4), 0.5) + rng.uniform(-0.01, 0.01, (6, 4))
    sign = np.where(LABELS % 2 == 0, 1, -1)
    now = images @ slope
    images += ((sign * wanted * EPSILON * np.abs(slope).sum() - now) / (slope @ slope))[:, None] * slope[None]
    return params, images.reshape(SHAPE).astype(np.float32), LABELS % 2


@pytest.mark.parametrize("probe_steps", [1, 3])
@pytest.mark.parametrize("num_shares", [1, 4])
def test_epsilon_is_the_smallest_share_that_fools(two_classes, key, num_shares, probe_steps):
    params, images, labels = two_classes
    expected, needed = shares_by_hand(images, params, num_shares)
    np.testing.assert_allclose(needed, [0.1, 0.3, 0.6, 0.9, 1.7, 0.0], atol=1e-4)
    attack = attacks.FGSM(threat=Threat(epsilon=EPSILON, bounds=(-9.0, 9.0)))
    spec = AdaptiveEpsilon(inner=Adversarial(attack=attack), num_shares=num_shares, probe_steps=probe_steps)
    perturbed, (value, (_, metrics)), _ = run(
        adaptive_epsilon(adversarial), spec, params, batch_of(images, labels=labels), key
    )
    np.testing.assert_allclose(perturbed["epsilon_share"], expected)
    length = np.abs(perturbed["adversarial"] - images).max((1, 2, 3))
    np.testing.assert_allclose(length, EPSILON * expected, atol=1e-6)
    np.testing.assert_allclose(metrics["epsilon_share"], expected.mean(), rtol=1e-6)
    np.testing.assert_allclose(
        value, cross_entropy(np.asarray(perturbed["adversarial"]), params, labels).mean(), rtol=1e-5
    )


def test_factor_and_least_share(two_classes, key):
    params, images, labels = two_classes
    expected, _ = shares_by_hand(images, params, 4)
    attack = attacks.FGSM(threat=Threat(epsilon=EPSILON, bounds=(-9.0, 9.0)))
    for fields, wanted in (
        ({"factor": 1.5}, np.minimum(1.5 * expected, 1)),
        ({"factor": 0.5}, 0.5 * expected),
        ({"least_share": 0.4}, np.maximum(expected, 0.4)),
        ({"factor": 0.0, "least_share": 1.0}, np.ones(6)),
    ):
        spec = AdaptiveEpsilon(inner=Adversarial(attack=attack), **fields)
        batch = batch_of(images, labels=labels)
        perturbed, *_ = run(adaptive_epsilon(adversarial), spec, params, batch, key)
        np.testing.assert_allclose(perturbed["epsilon_share"], wanted, rtol=1e-6)


@pytest.mark.parametrize(("name", "norm"), [("pgd", "linf"), ("fgsm", "l2"), ("fgsm_rs", "l1"), ("apgd", "l2")])
def test_every_attack_stays_within_the_epsilon_of_each_example(two_classes, key, name, norm):
    params, images, labels = two_classes
    Spec, _ = attacks.ATTACKS[name]
    few = {"num_steps": 2, "unroll": False} if hasattr(Spec(), "num_steps") else {}
    spec = AdaptiveEpsilon(inner=Adversarial(attack=Spec(threat=Threat(norm=norm, epsilon=EPSILON), **few)))
    batch = batch_of(images, labels=labels)
    perturbed = jax.jit(lambda b: adaptive_epsilon(adversarial).perturb(MODEL, variables(params), key, b, spec))(batch)
    share = np.asarray(perturbed["epsilon_share"])
    assert len(set(share)) > 1
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    lengths = np.linalg.norm((perturbed["adversarial"] - np.clip(images, 0, 1)).reshape(6, -1), order, axis=1)
    assert (lengths <= EPSILON * share + 1e-6).all() and lengths[share == 0].max(initial=0) == 0
    assert (lengths[share > 0] > 0).all()


def test_an_example_has_the_epsilon_of_itself_alone(two_classes, key):
    params, images, labels = two_classes
    whole, some = (
        run(adaptive_epsilon(adversarial), AdaptiveEpsilon(inner=INNER), params, batch, key)[0]["epsilon_share"]
        for batch in (batch_of(images, labels=labels), batch_of(images[[3, 0, 5]], labels=labels[[3, 0, 5]]))
    )
    np.testing.assert_array_equal(some, whole[np.array([3, 0, 5])])


# Together


def test_the_order_of_wrappers_is_inside_out(images, params, key):
    """Mixing outside AWP weighs clean images at the weights as they are; inside, they are under attack too."""
    mix = functools.partial(CleanMix, clean_weight=0.4)
    adversary, clean = worst(images, params), cross_entropy(images, params).mean()
    outside = mix(inner=AWP(inner=INNER, gamma=0.2))
    _, (value, _), _ = run(clean_mix(awp(adversarial)), outside, params, batch_of(images), key)
    moved = jax.tree.map(np.add, params, moved_by_hand(adversary, params, 0.2))
    np.testing.assert_allclose(value, 0.6 * cross_entropy(adversary, moved).mean() + 0.4 * clean, rtol=1e-5)

    def mixed_gradient(_, params):
        both = two_layers.gradient(adversary, params), two_layers.gradient(images, params)
        return jax.tree.map(lambda attacked, clean: 0.6 * attacked + 0.4 * clean, *both)

    inside = AWP(inner=mix(inner=INNER), gamma=0.2)
    _, (value, _), _ = run(awp(clean_mix(adversarial)), inside, params, batch_of(images), key)
    moved = jax.tree.map(np.add, params, moved_by_hand(None, params, 0.2, mixed_gradient))
    expected = 0.6 * cross_entropy(adversary, moved).mean() + 0.4 * cross_entropy(images, moved).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_the_gradient_of_all_wrappers_is_that_of_finite_differences(rng, key):
    """In float64 on a smooth network, with adversaries, epsilons and the weight perturbation held fixed."""
    net = models.make(models.PlainCNN(layers=("conv2", "gap"), activation="softplus"), (4, 4, 1), 3)
    spec = CleanMix(inner=AWP(inner=AdaptiveEpsilon(inner=INNER, num_shares=2), gamma=0.05), clean_weight=0.3)
    objective = clean_mix(awp(adaptive_epsilon(adversarial)))
    initial = jax.jit(net.init)(key)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), initial)
        batch = batch_of(rng.uniform(0.2, 0.8, (6, 4, 4, 1)))
        batch = jax.jit(lambda batch: objective.perturb(net, wide, key, batch, spec))(batch)
        direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), wide["params"])

        @jax.jit
        def total(params):
            return objective.loss(net, {**wide, "params": params}, (), key, batch, spec)[0]

        slope = optax.tree.vdot(jax.jit(jax.grad(total))(wide["params"]), direction)
        ahead, behind = (
            total(jax.tree.map(lambda w, d, step=step: w + step * d, wide["params"], direction))
            for step in (1e-5, -1e-5)
        )
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize("name", WRAPPERS)
def test_padded_examples_change_nothing(images, params, key, name):
    Spec, wrap = WRAPPERS[name]
    valid, labels = np.array([True] * 4 + [False] * 2), np.array([*LABELS[:4], 99, -1])
    spec = Spec(inner=INNER)
    _, value, slope = run(wrap(adversarial), spec, params, batch_of(images, valid, labels), key)
    _, expected, expected_slope = run(wrap(adversarial), spec, params, batch_of(images[:4], labels=LABELS[:4]), key)
    chex.assert_trees_all_close((value[0], value[1][1]), (expected[0], expected[1][1]), rtol=1e-6)
    chex.assert_trees_all_close(slope, expected_slope, atol=1e-6)


def test_a_wrapper_keeps_what_the_objective_reads_and_checks():
    told = []
    inner = adversarial._replace(reads=("lesion_mask",), check=lambda classifier, spec: told.append(spec))
    outer = clean_mix(awp(inner))
    outer.check(MODEL, CleanMix(inner=AWP(inner=INNER)))
    assert outer.reads == ("lesion_mask",) and told == [INNER]


# From a config


def parsed(*wrappers, **objective):
    chosen = {"name": "adversarial", "wrappers": list(wrappers), **objective}
    return tiny.experiment(objective=chosen, schedules={"epsilon": {"until": 0.5}})


def test_a_config_names_wrappers_inside_out():
    fields = {"awp": {"gamma": 0.02}, "clean_mix": {"clean_weight": 0.1}, "clean_weight": 0.4}
    experiment = parsed("adaptive_epsilon", "awp", "clean_mix", **fields)
    spec = experiment.objective.spec
    assert (type(spec), spec.clean_weight) == (CleanMix, 0.1)
    assert (type(spec.inner), spec.inner.gamma, type(spec.inner.inner)) == (AWP, 0.02, AdaptiveEpsilon)
    assert innermost(spec) == parsed(**fields).objective.spec
    assert experiment.attack == innermost(spec).attack
    assert experiment.ramps == parsed(**fields).ramps, "dotted paths are the same with wrappers"
    assert type(parsed("clean_mix", "awp").objective.spec.inner) is CleanMix
    assert config.parse(experiment.plain) == experiment
    assert tiny.experiment(objective={"wrappers": ["awp"]}).attack is None


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (
            {"wrappers": ["awq"]},
            r"Unknown wrapper in config.objective.wrappers 'awq'\. Did you mean 'awp'\? Choices: ad",
        ),
        ({"wrappers": ["awp", "awp"]}, r"config.objective.wrappers: each may stand there once, got 'awp' twice"),
        ({"wrappers": "awp"}, r"config.objective.wrappers must be a list, got 'awp'"),
        (
            {"wrappers": ["clean_mix", "adaptive_epsilon"]},
            r"wrappers: adaptive_epsilon needs an objective with an attack",
        ),
        ({"awp": {"gamma": -1.0}, "wrappers": ["awp"]}, r"config.objective.awp.gamma must be at least 0, got -1.0"),
        ({"awp": {"gamma": "big"}, "wrappers": ["awp"]}, r"config.objective.awp.gamma must be a number, got 'big'"),
        ({"adaptive_epsilon": {"num_shares": 0}, "wrappers": ["adaptive_epsilon"]}, r"num_shares must be at least 1"),
        ({"name": "free", "wrappers": ["awp"]}, r"wrappers: awp cannot stand around an objective that keeps something"),
        ({"name": "free", "wrappers": ["adaptive_epsilon"]}, r"wrappers: adaptive_epsilon cannot stand around an obj"),
        ({"clean_mix": {"clean_weight": 1.5}, "wrappers": ["clean_mix"]}, r"clean_weight must be in \[0, 1\], got 1.5"),
        ({"awp": 0.1}, r"config.objective.awp must be a section, got 0.1"),
    ],
)
def test_wrappers_that_cannot_be_are_told_when_the_config_is_read(objective, message):
    with pytest.raises(ValueError, match=message) as error:
        tiny.experiment(objective=objective)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["gama", "inner"])
def test_a_field_that_a_wrapper_does_not_have_is_refused_even_where_it_is_not_used(field):
    plain = tiny.plain()
    plain["objective"]["awp"][field] = {}
    with pytest.raises(ValueError, match=rf"config.objective.awp: Unknown field '{field}'.*Choices: gamma"):
        config.parse(plain)


def test_a_run_with_all_wrappers_trains_on_two_devices(tmp_path):
    experiment = tiny.experiment(
        objective={
            "name": "consistent",
            "attack": {"name": "fgsm"},
            "wrappers": ["adaptive_epsilon", "awp", "clean_mix"],
            "adaptive_epsilon": {"num_shares": 2},
        },
        schedules={"awp": {"after": 0.5}, "epsilon": {"until": 0.5, "fields": ["attack.threat.epsilon"]}},
        data={"num_train": 32},
        train={"epochs": 1, "log_every": 1},
    )
    assert train.train(experiment, str(tmp_path))["steps"] == 2
    rows = [line for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if '"train"' in line]
    assert all('"epsilon_share"' in row and '"inconsistency"' in row for row in rows)


@pytest.mark.parametrize("wrap", [awp, clean_mix])
def test_a_wrapper_replays_as_what_it_stands_around(wrap):
    replaying = standard._replace(replays=lambda spec: 3)
    Spec = {awp: AWP, clean_mix: CleanMix}[wrap]
    assert wrap(replaying).replays(Spec(inner=Standard())) == 3
    assert wrap(standard).replays(Spec(inner=Standard())) == 1


def test_weights_to_attack_that_are_not_there_are_told_before_training():
    section = {"name": "standard", "wrappers": ["awp"], "awp": {"trainable": ["^params/nope"]}}
    experiment = tiny.experiment(objective=section)
    with pytest.raises(ValueError, match=r"config.objective.awp.trainable: '\^params/nope' matches no parameter"):
        train.check(experiment, data.load(experiment.data))
