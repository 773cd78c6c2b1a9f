"""SCAAT against TRADES and the standard loss, against NumPy step by step, and what its adversary may never touch."""

import dataclasses
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from robust_saliency import attacks, losses, models, randomness, saliency, schedules, sharding
from robust_saliency.data.planted_lesions import PlantedLesions, generate
from robust_saliency.objectives import SCAAT, TRADES, Standard, scaat, standard, trades
from robust_saliency.schedules import Ramp
from robust_saliency.threat import Threat
from tests.keys import fast_key
from tests.objectives import nets
from tests.objectives.nets import LINEAR, QUADRATIC, SMOOTH, batch_of
from tests.objectives.test_protection import greedy, maps_of

SHAPE, LABELS = (4, 3, 4, 2), np.array([0, 1, 2, 0])
KEY = fast_key(3)
GAUSSIAN = attacks.PGD(threat=Threat(epsilon=0.05), step_size=0.02, num_steps=3, start="gaussian")


@pytest.fixture
def images(rng):
    return rng.uniform(0.2, 0.8, SHAPE).astype(np.float32)


_perturb = jax.jit(scaat.perturb, static_argnums=0)


def perturbed(net, variables, batch, spec):
    return _perturb(net, variables, KEY, batch, spec)


def value_and_gradient(objective, net, variables, batch, spec):
    """The loss with what ``perturb`` added to ``batch`` held fixed."""

    def total(params):
        return objective.loss(net, {**variables, "params": params}, (), KEY, batch, spec)

    return jax.jit(jax.value_and_grad(total, has_aux=True))(variables["params"])


# The loss


def test_with_lambda_zero_the_gradient_is_exactly_that_of_standard(images, rng):
    variables, batch = nets.smooth_variables(rng, SHAPE), batch_of(images, LABELS)
    spec = SCAAT(attack=GAUSSIAN, divergence_weight=0.0)
    batch = perturbed(SMOOTH, variables, batch, spec)
    assert (np.abs(batch["adversarial"] - images).max((1, 2, 3)) > 0.04).all()
    (value, (state, _)), gradient = value_and_gradient(scaat, SMOOTH, variables, batch, spec)
    (expected, (clean_state, _)), clean = value_and_gradient(standard, SMOOTH, variables, batch, Standard())
    assert value == expected and state == clean_state
    jax.tree.map(np.testing.assert_array_equal, gradient, clean)


def test_with_every_pixel_free_it_is_trades(images, rng):
    """``CE(f(x), y) + beta KL(p(x) || p(x'))``, x' by PGD on the same KL from x + 0.001 normal noise; written anew."""
    variables, batch, beta = nets.smooth_variables(rng, SHAPE), batch_of(images, LABELS), 6.0
    spec = SCAAT(attack=GAUSSIAN, quantile=1.0, divergence_weight=beta)

    def kl(params, images, other):
        log_p, log_q = (jax.nn.log_softmax(SMOOTH.forward(params, x.reshape(len(x), -1))) for x in (images, other))
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)

    def adversary(params):
        x = jnp.clip(images + 0.001 * jax.random.normal(KEY, SHAPE), 0, 1)
        for _ in range(3):
            slope = jax.grad(lambda x: kl(params, images, x).sum())(x)
            x = jnp.clip(jnp.clip(x + 0.02 * jnp.sign(slope), images - 0.05, images + 0.05), 0, 1)
        return x

    def trades(params, x):
        logits = SMOOTH.forward(params, images.reshape(4, -1))
        return (losses.cross_entropy(logits, batch["label"]) + beta * kl(params, images, x)).mean()

    x = jax.jit(adversary)(variables["params"])
    batch = perturbed(SMOOTH, variables, batch, spec)
    np.testing.assert_allclose(batch["adversarial"], x, atol=1e-6)
    (value, (_, metrics)), gradient = value_and_gradient(scaat, SMOOTH, variables, batch, spec)
    expected_value, expected = jax.jit(jax.value_and_grad(trades))(variables["params"], x)
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    assert beta * metrics["divergence"] > 0.03 and metrics["changeable_share"] == 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient, expected)


@pytest.mark.parametrize("statistics", ["adversarial", "clean"])
def test_with_every_pixel_free_it_is_trades_on_a_network_with_dropout_and_batch_norm(statistics, rng):
    classifier = models.make(models.PlainCNN(layers=("conv4", "bn", "dropout0.5", "gap")), (6, 6, 2), 3)
    variables, batch = classifier.init(KEY), batch_of(rng.uniform(0.2, 0.8, (4, 6, 6, 2)).astype(np.float32), LABELS)

    spec = SCAAT(attack=GAUSSIAN, quantile=1.0, divergence_weight=6.0, statistics=statistics)
    made = perturbed(classifier, variables, batch, spec)
    (value, (state, _)), gradient = value_and_gradient(scaat, classifier, variables, made, spec)
    spec = TRADES(attack=GAUSSIAN, beta=6.0)
    expected_made = jax.jit(lambda batch: trades.perturb(classifier, variables, KEY, batch, spec))(batch)
    (expected, (both, _)), expected_gradient = value_and_gradient(trades, classifier, variables, expected_made, spec)
    np.testing.assert_allclose(made["adversarial"], expected_made["adversarial"], atol=1e-6)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    chex.assert_trees_all_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)
    clean = classifier.apply(variables, batch["image"], mode="train", key=KEY).state
    chex.assert_trees_all_close(state, clean if statistics == "clean" else both, rtol=1e-5)


@pytest.mark.parametrize("divergence", ["cross_entropy", "js", "kl", "logit_l2"])
def test_the_gradient_against_finite_differences_and_none_through_adversary_mask_and_guide(divergence, rng):
    with jax.enable_x64(True):
        images, variables = rng.uniform(0.2, 0.8, SHAPE), nets.smooth_variables(rng, SHAPE, dtype="float64")
        spec = SCAAT(attack=GAUSSIAN, divergence=divergence, divergence_weight=3.0, budget="saliency", renewed=True)
        batch = perturbed(SMOOTH, variables, batch_of(images, LABELS), spec)
        assert batch["adversarial"].dtype == jnp.float64
        (_, _), gradient = value_and_gradient(scaat, SMOOTH, variables, batch, spec)

        def value(params):
            return scaat.loss(SMOOTH, {**variables, "params": params}, (), KEY, batch, spec)[0]

        value = jax.jit(value)
        for seed in range(3):
            draws = iter(np.random.default_rng(seed).normal(size=(2, *s)) for s in ((24, 8), (8, 3)))
            direction = {name: next(draws)[0] for name in ("first", "second")}
            ends = [
                value(jax.tree.map(lambda p, d, step=step: p + step * d, variables["params"], direction))
                for step in (1e-6, -1e-6)
            ]
            slope = sum(np.sum(gradient[name] * direction[name]) for name in direction)
            np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-8)

        if divergence != "kl":
            return

        def whole(params):
            given = {**variables, "params": params}
            made = scaat.perturb(SMOOTH, given, KEY, batch_of(images, LABELS), spec)
            return scaat.loss(SMOOTH, given, (), KEY, made, spec)[0]

        through = jax.jit(jax.grad(whole))(variables["params"])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), through, gradient)


def test_each_divergence_by_hand(images):
    """A linear network, so that both predictions are a matrix product."""
    w = np.random.default_rng(1).normal(size=(24, 3)).astype(np.float32)
    variables, batch = nets.variables(w=w, b=np.zeros(3, np.float32)), batch_of(images, LABELS)
    other = np.clip(images + 0.1, 0, 1)
    batch |= {"adversarial": jnp.asarray(other), "changeable": jnp.ones(SHAPE[:3])}
    z, z_other = (x.reshape(4, -1).astype(np.float64) @ w for x in (images, other))
    p, q = special.softmax(z, -1), special.softmax(z_other, -1)
    m = (p + q) / 2
    expected = {
        "cross_entropy": -np.log(q[np.arange(4), LABELS]),
        "js": (special.rel_entr(p, m) + special.rel_entr(q, m)).sum(-1) / 2,
        "kl": special.rel_entr(p, q).sum(-1),
        "logit_l2": ((z - z_other) ** 2).sum(-1),
    }
    clean = -np.log(p[np.arange(4), LABELS]).mean()
    for divergence, by_hand in expected.items():
        spec = SCAAT(divergence=divergence, divergence_weight=0.7)
        (value, (_, metrics)), _ = value_and_gradient(scaat, LINEAR, variables, batch, spec)
        np.testing.assert_allclose(metrics["divergence"], by_hand.mean(), rtol=1e-4)
        np.testing.assert_allclose(value, clean + 0.7 * by_hand.mean(), rtol=1e-4)
        # Logits of 1e5, beyond where probabilities underflow.
        loud = nets.variables(w=1e4 * w, b=np.zeros(3, np.float32))
        (value, _), gradient = value_and_gradient(scaat, LINEAR, loud, batch, spec)
        assert np.isfinite(value) and np.isfinite(gradient["w"]).all()


def test_whose_batch_statistics_are_kept(images, rng):
    variables, batch = nets.smooth_variables(rng, SHAPE), batch_of(images, LABELS)
    batch |= {"adversarial": jnp.asarray(images) + 0.1, "changeable": jnp.ones(SHAPE[:3])}
    for statistics, seen in (("clean", images.mean()), ("adversarial", images.mean() + 0.1)):
        (_, (state, _)), _ = value_and_gradient(scaat, SMOOTH, variables, batch, SCAAT(statistics=statistics))
        np.testing.assert_allclose(state["seen"], seen, rtol=1e-6)


def test_padding_changes_nothing(images, rng):
    variables, spec = nets.smooth_variables(rng, SHAPE), SCAAT(attack=GAUSSIAN)
    whole = perturbed(SMOOTH, variables, batch_of(images, LABELS), spec)
    padded = {**whole, "valid": jnp.array([True, True, True, False])}
    padded |= {name: whole[name].at[3].set(jnp.nan) for name in ("image", "adversarial")}
    few = {name: value[:3] for name, value in whole.items()}
    (value, (_, metrics)), _ = value_and_gradient(scaat, SMOOTH, variables, padded, spec)
    (expected, (_, expected_metrics)), _ = value_and_gradient(scaat, SMOOTH, variables, few, spec)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for name in ("accuracy", "robust_accuracy", "divergence", "changeable_share"):
        np.testing.assert_allclose(metrics[name], expected_metrics[name], rtol=1e-6)


# What the adversary may change

ATTACKS = [
    attacks.PGD(threat=Threat(epsilon=0.1), step_size=0.05, num_steps=3),
    attacks.PGD(threat=Threat(epsilon=0.1), step_size=0.05, num_steps=3, start="sphere", unroll=False, momentum=1.0),
    attacks.PGD(threat=Threat(epsilon=0.5, norm="l2"), step_size=0.3, num_steps=3),
    attacks.PGD(threat=Threat(epsilon=0.5, norm="l1"), step_size=0.3, num_steps=3, num_restarts=2, keep_best=True),
    attacks.APGD(threat=Threat(epsilon=0.1), num_steps=4, unroll=False),
    attacks.FGSMRS(threat=Threat(epsilon=0.1)),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{type(attack).__name__}-{attack.threat.norm}")
def test_a_protected_pixel_is_never_touched_and_no_budget_is_broken(attack, rng):
    """Of a linear network the map is the size of the label's weights, the same for every image."""
    for kind in ("distinct", "sparse", "tied"):
        assert_keeps_out(attack, kind, rng)


def assert_keeps_out(attack, kind, rng):
    per_class = maps_of(kind, rng, (3, 6, 5))
    w = (per_class * rng.choice([-1, 1], per_class.shape)).reshape(3, -1).T.astype(np.float32)
    variables = nets.variables(w=w, b=np.zeros(3, np.float32))
    images = rng.choice([0.0, 0.05, 0.5, 1.0], (4, 6, 5, 1)).astype(np.float32)
    maps = per_class[LABELS]
    linf = attack.threat.norm == "linf"
    for protect, share in (("rank", 0.4), ("energy", 0.6)):
        for budget in ("uniform", "saliency") if linf else ("uniform",):
            spec = SCAAT(attack=attack, protect=protect, quantile=share, energy=share, budget=budget)
            made = perturbed(LINEAR, variables, batch_of(images, LABELS), spec)
            free = np.zeros((4, 30), bool)
            for row, values in zip(free, maps.reshape(4, -1), strict=True):
                if protect == "rank":
                    row[np.argsort(values, kind="stable")[:12]] = True
                else:
                    row[sorted(set(range(30)) - greedy(values, np.float64(np.float32(share))))] = True
            if budget == "saliency":
                free &= (maps < maps.max((1, 2), keepdims=True)).reshape(4, -1)
            np.testing.assert_array_equal(np.reshape(made["changeable"], (4, -1)), free)
            found = np.asarray(made["adversarial"])
            np.testing.assert_array_equal(found.reshape(4, -1)[~free], images.reshape(4, -1)[~free])
            assert found.min() >= 0 and found.max() <= 1 and (found != images).any()
            if linf:
                room = 1 - maps / maps.max((1, 2), keepdims=True) if budget == "saliency" else np.ones_like(maps)
                assert (np.abs(found - images)[..., 0] <= attack.threat.epsilon * room + 1e-7).all()


def test_exactly_the_quantile_may_change_and_the_quantile_is_annealed_without_tracing_again(images, rng):
    variables, batch = nets.smooth_variables(rng, SHAPE), batch_of(images, LABELS)
    traces, ramp = [], Ramp(fields=("quantile",), start=4.0, stop=1.0, until=0.5)

    @jax.jit
    def changeable(progress):
        traces.append(None)
        spec = schedules.apply(SCAAT(attack=GAUSSIAN, quantile=0.25), [ramp], progress)
        return scaat.perturb(SMOOTH, variables, KEY, batch, spec)["changeable"]

    for progress, pixels in ((0.0, 12), (0.1, 10), (0.25, 8), (0.3, 7), (0.5, 3), (1.0, 3)):
        np.testing.assert_array_equal(np.sum(changeable(progress), (1, 2)), pixels)
    assert len(traces) == 1


def test_the_guide_is_any_map_and_explains_the_class_asked_for(images, rng):
    variables, batch = nets.smooth_variables(rng, SHAPE), batch_of(images, LABELS)
    logits_fn = SMOOTH.logits_fn(variables)
    predicted = jnp.argmax(logits_fn(batch["image"]), -1)
    assert (predicted != batch["label"]).any()
    for guide, explained, labels in (
        (saliency.InputXGradient(), "true", batch["label"]),
        (saliency.SmoothGrad(num_samples=2), "predicted", predicted),
        (saliency.IntegratedGradients(num_steps=3, sign="signed", channels="sum"), "predicted", predicted),
    ):
        spec = SCAAT(attack=attacks.FGSMRS(), guide=guide, explained=explained)
        changeable = np.asarray(perturbed(SMOOTH, variables, batch, spec)["changeable"])
        maps = saliency.run(logits_fn, jax.random.fold_in(KEY, 0), batch["image"], labels, guide)
        for values, mask in zip(np.abs(np.reshape(maps, (4, -1))), changeable.reshape(4, -1), strict=True):
            assert mask.sum() == 6 and values[mask].max() < values[~mask].min()


def test_attack_mode_reaches_the_model(images):
    """In mode 'batch' the test network turns its logits round, and with them which way is worse."""
    w = np.random.default_rng(1).normal(size=(24, 3)).astype(np.float32)
    variables, batch = nets.variables(w=w, b=np.zeros(3, np.float32)), batch_of(images, LABELS)
    attack = attacks.FGSM(threat=Threat(epsilon=0.1))
    found = {
        mode: perturbed(LINEAR, variables, batch, SCAAT(attack=attack, raises="cross_entropy", attack_mode=mode))
        for mode in ("eval", "batch")
    }
    for mode, sign in (("eval", 1), ("batch", -1)):
        p = special.softmax(sign * images.reshape(4, -1) @ w, -1)
        slope = (sign * (p - np.eye(3)[LABELS]) @ w.T).reshape(SHAPE)
        expected = images + 0.1 * np.sign(slope) * np.asarray(found[mode]["changeable"])[..., None]
        np.testing.assert_allclose(found[mode]["adversarial"], expected, atol=1e-6)


# The mask renewed, the strength adapted


def by_hand(images, a, steps, quantile, budget, renewed, step_size, epsilon):
    """PGD on the cross-entropy of class 0 of QUADRATIC: every step goes against a, where the map |a x| is low."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    x, size = flat.copy(), flat.shape[1]
    for step in range(steps):
        if step == 0 or renewed:
            maps = np.abs(a[None] * x)
            rank = np.argsort(np.argsort(maps, axis=1, kind="stable"), axis=1)
            room = (rank < round(quantile * size)).astype(float)
            if budget == "saliency":
                room *= 1 - maps / maps.max(1, keepdims=True)
        moved = x - step_size * np.sign(a)[None] * (room > 0)
        x = np.clip(np.clip(moved, flat - epsilon * room, flat + epsilon * room), 0, 1)
    return x.reshape(images.shape), room.reshape(images.shape[:3])


@pytest.mark.parametrize("budget", ["uniform", "saliency"])
@pytest.mark.parametrize("renewed", [False, True])
@pytest.mark.parametrize("unroll", [False, True])
def test_the_mask_of_the_start_and_the_mask_of_each_step_against_numpy(budget, renewed, unroll, rng):
    images = rng.uniform(0.3, 0.6, (3, 4, 5, 1)).astype(np.float32)
    a = rng.uniform(0.5, 1.5, 20).astype(np.float32) * rng.choice([-1, 1], 20).astype(np.float32)
    variables, batch = nets.variables(a=a), batch_of(images, [0, 0, 0])
    attack = attacks.PGD(threat=Threat(epsilon=0.25), step_size=0.08, num_steps=5, start="none", unroll=unroll)
    spec = SCAAT(attack=attack, raises="cross_entropy", quantile=0.4, budget=budget, renewed=renewed)
    made = perturbed(QUADRATIC, variables, batch, spec)
    settings = {"quantile": 0.4, "budget": budget, "step_size": 0.08, "epsilon": 0.25}
    expected, room = by_hand(images, a, 5, renewed=renewed, **settings)
    other, _ = by_hand(images, a, 5, renewed=not renewed, **settings)
    assert np.abs(expected - other).max() > 0.1, "the two are told apart"
    np.testing.assert_allclose(made["adversarial"], expected, atol=1e-5)
    np.testing.assert_array_equal(made["changeable"], room > 0)
    untouched = np.asarray(made["adversarial"])[..., 0][room == 0]
    np.testing.assert_array_equal(untouched, images[..., 0][room == 0])
    assert np.sum(made["changeable"], (1, 2)).max() <= 8


@pytest.mark.parametrize("unroll", [False, True])
def test_strength_grows_to_the_flip_of_each_example_and_no_further(unroll):
    """Two classes, weights of size 1 on 12 pixels: at epsilon t / 6 of 0.12 the margin has fallen by 12 * 0.02 t."""
    signs = np.where(np.arange(12) % 3 == 0, -1.0, 1.0).astype(np.float32)
    w = np.stack([signs, 0 * signs], axis=1)
    margins = np.float32([0.1, 0.5, 0.9, 1.4, 1.5, -0.3])
    images = np.full((6, 3, 4, 1), 0.5, np.float32) + (margins / 12)[:, None, None, None] * signs.reshape(1, 3, 4, 1)
    b = np.array([-0.5 * signs.sum(), 0], np.float32)
    attack = attacks.PGD(threat=Threat(epsilon=0.12), step_size=0.05, num_steps=6, start="none", unroll=unroll)
    spec = SCAAT(attack=attack, raises="cross_entropy", quantile=1.0, strength="until_flip")
    # The last is wrong before: of label 0 the loss is raised further, and its prediction, class 1, never changes.
    made = perturbed(LINEAR, nets.variables(w=w, b=b), batch_of(images, np.zeros(6)), spec)
    steps = np.array([1, 3, 4, 6, 6, 6])
    np.testing.assert_allclose(made["strength"], steps / 6, rtol=1e-6)
    expected = images - 0.02 * steps[:, None, None, None] * signs.reshape(1, 3, 4, 1)
    np.testing.assert_allclose(made["adversarial"], expected, atol=1e-6)
    flipped = np.sum((np.asarray(made["adversarial"]).reshape(6, -1)) * signs, 1) + b[0] < 0
    np.testing.assert_array_equal(flipped, [True, True, True, True, False, True])
    (_, (_, metrics)), _ = value_and_gradient(scaat, LINEAR, nets.variables(w=w, b=b), made, spec)
    np.testing.assert_allclose(metrics["strength"], steps.mean() / 6, rtol=1e-6)


def test_strength_and_mask_together_stay_within_the_budget_of_the_last_step_taken(images, rng):
    variables = nets.smooth_variables(rng, SHAPE)
    attack = dataclasses.replace(GAUSSIAN, threat=Threat(epsilon=0.4), step_size=0.2, num_steps=5)
    spec = SCAAT(attack=attack, raises="cross_entropy", quantile=0.75, renewed=True, strength="until_flip")
    made = perturbed(SMOOTH, variables, batch_of(images, LABELS), spec)
    change = np.abs(np.asarray(made["adversarial"]) - images)
    strength = np.asarray(made["strength"])
    assert (change.max((1, 2, 3)) <= 0.4 * strength + 1e-6).all() and len(set(strength.tolist())) > 1
    np.testing.assert_array_equal(change[~np.asarray(made["changeable"])], 0)
    np.testing.assert_array_equal(np.sum(made["changeable"], (1, 2)), 9)


# The spec


def test_numbers_are_data_and_a_spec_that_cannot_work_is_refused():
    spec = SCAAT(attack=GAUSSIAN, quantile=0.125, energy=0.375, divergence_weight=7.0)
    assert {0.125, 0.375, 7.0} <= set(jax.tree.leaves(spec))
    for fields, message in [
        ({"divergence": "kll"}, r"Unknown divergence 'kll'\. Did you mean 'kl'\? Choices: cross_entropy, js, kl"),
        ({"protect": "ranks"}, r"Unknown protect 'ranks'\. Did you mean 'rank'"),
        ({"budget": "adaptive"}, r"Unknown budget 'adaptive'.*saliency, uniform"),
        ({"strength": "flip"}, r"Unknown strength 'flip'.*fixed, until_flip"),
        ({"raises": "kl"}, r"Unknown raises 'kl'.*cross_entropy, divergence"),
        ({"attack": attacks.FGSM()}, r"SCAAT.attack FGSM starts at the clean image.*raises='cross_entropy'"),
        ({"attack": attacks.APGD(start="none")}, r"kl has no gradient there to follow"),
        ({"attack": attacks.PGD(start="gaussian", start_scale=0.0)}, r"starts at the clean image.*above 0"),
        ({"attack": attacks.APGD(), "strength": "until_flip"}, r"need pgd with num_restarts=1.*got APGD"),
        ({"attack": attacks.PGD(keep_best=True), "renewed": True}, r"keep_best=False, got PGD"),
        ({"attack": attacks.PGD(threat=Threat(norm="l2")), "budget": "saliency"}, r"norm 'linf', got 'l2'"),
        ({"guide": saliency.Gradient(channels="none")}, r"SCAAT.guide must give one value a pixel"),
    ]:
        with pytest.raises(ValueError, match=message):
            SCAAT(**fields)
    SCAAT(attack=attacks.FGSM(), raises="cross_entropy")
    SCAAT(attack=attacks.FGSM(), divergence="cross_entropy")


# Training


def test_it_makes_lesions_robust_where_the_map_says_unimportant_at_no_loss_of_accuracy():
    loaded = generate(PlantedLesions(size=16), 0, 64, "train")
    batch = batch_of(np.float32(loaded["image"]) / 255, loaded["label"])
    classifier = models.make(models.SmallCNN(width=6), (16, 16, 3), 3)
    optimizer = optax.adam(3e-3)
    model = Threat(epsilon=3 / 255)
    training = SCAAT(
        attack=attacks.PGD(threat=model, step_size=1.5 / 255, num_steps=3, start="gaussian"),
        quantile=0.9,
        divergence_weight=3.0,
    )
    stronger = attacks.PGD(threat=model, step_size=0.75 / 255, num_steps=20, unroll=False)

    def fit(variables, objective, spec, steps):
        @jax.jit
        def step(params, state, key):
            given = {**variables, "params": params}
            made = objective.perturb(classifier, given, key, batch, spec)

            def loss(params):
                return objective.loss(classifier, {**given, "params": params}, (), key, made, spec)[0]

            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        params, state = variables["params"], optimizer.init(variables["params"])
        for key in jax.random.split(KEY, steps):
            params, state = step(params, state, key)
        return {**variables, "params": params}

    @jax.jit
    def accuracies(variables):
        spec = dataclasses.replace(training, attack=stronger, raises="cross_entropy")
        made = scaat.perturb(classifier, variables, KEY, batch, spec)
        predict = classifier.logits_fn(variables)
        return [jnp.mean(jnp.argmax(predict(made[name]), -1) == batch["label"]) for name in ("image", "adversarial")]

    trained = fit(classifier.init(KEY), standard, Standard(), 150)
    clean, robust = accuracies(trained)
    assert clean == 1.0 and robust < 0.6
    clean, robust = accuracies(fit(trained, scaat, training, 120))
    assert clean == 1.0 and robust >= 0.9


def test_making_an_adversary_needs_no_other_example_and_no_other_device(images, rng):
    mesh = sharding.make_mesh(2, 4, "batch_size")
    variables = sharding.put_replicated(nets.smooth_variables(rng, SHAPE), mesh)
    batch = sharding.put_batch(batch_of(images, LABELS), mesh)
    spec = SCAAT(attack=GAUSSIAN, protect="energy", budget="saliency", renewed=True, strength="until_flip")

    @jax.jit
    def make(variables, batch, spec):
        keys = randomness.per_example_keys(jax.random.key(0), batch["id"])
        return scaat.perturb(SMOOTH, variables, keys, batch, spec)["adversarial"]

    program = make.lower(variables, batch, spec).compile().as_text()
    assert "sort" in program and not re.findall(r"= \S+ (all-|collective-)", program)
    whole, order = np.asarray(make(variables, batch, spec)), np.array([2, 0, 3, 3])
    again = make(variables, sharding.put_batch({name: np.asarray(v)[order] for name, v in batch.items()}, mesh), spec)
    np.testing.assert_allclose(again, whole[order], atol=1e-6)
