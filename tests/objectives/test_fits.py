"""Each regime fits a few planted lesions, and one that is attacked holds against a stronger attack than it was taught.

A new objective adds one row. All start from one network that was trained standard, which the attack defeats. Where a
regime confines its adversary to some pixels, the stronger attack has the same pixels.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robust_saliency import attacks, data, losses, models
from robust_saliency.data import planted_lesions
from robust_saliency.objectives import OBJECTIVES
from robust_saliency.threat import Threat

LINF = Threat(epsilon=4 / 255)
WIDER = Threat(epsilon=8 / 255)
L2 = Threat(norm="l2", epsilon=0.25)
CLEAN = None


def pgd(model, num_steps=3, relative_step=0.5):
    return attacks.PGD(threat=model, step_size=relative_step * model.epsilon, num_steps=num_steps, unroll=False)


# name of the test -> objective, the fields of its spec, the threat model it must hold in (CLEAN: none), steps of Adam
ROWS = {
    "adversarial": ("adversarial", {"attack": pgd(LINF)}, LINF, 150),
    "adversarial l2": ("adversarial", {"attack": pgd(L2), "label_smoothing": 0.1}, L2, 150),
    "consistent": ("consistent", {"attack": pgd(LINF)}, LINF, 150),
    "fgsm_rs": ("fgsm_rs", {"attack": pgd(LINF)}, LINF, 150),
    "free": ("free", {"attack": pgd(LINF), "replays": 4}, LINF, 200),
    "grad_align": ("grad_align", {"attack": pgd(LINF)}, LINF, 150),
    "gradient_penalty": ("gradient_penalty", {}, CLEAN, 150),
    "lesion_mask_control": ("lesion_mask_control", {"attack": pgd(LINF)}, LINF, 150),
    "mart": ("mart", {"attack": pgd(LINF), "beta": 2.0}, LINF, 150),
    "n_fgsm": ("n_fgsm", {"attack": pgd(LINF)}, LINF, 150),
    "random_mask_control": ("random_mask_control", {"attack": pgd(LINF)}, LINF, 150),
    "saliency_guided": ("saliency_guided", {}, CLEAN, 150),
    "scaat": ("scaat", {"attack": pgd(WIDER), "divergence_weight": 3.0}, WIDER, 150),
    "trades": ("trades", {"attack": pgd(LINF), "beta": 2.0}, LINF, 200),
}

CLASSIFIER = models.make(models.SmallCNN(width=8, pool="stride"), (16, 16, 3), 3)
ADAM = optax.adam(3e-3)


@pytest.fixture(scope="module")
def batch():
    drawn = planted_lesions.generate(planted_lesions.PlantedLesions(size=16), 0, 64, "train")
    batch = {name: jnp.asarray(drawn[name]) for name in ("image", "label", "id", "lesion_mask")}
    return data.to_float({**batch, "valid": jnp.ones(64, bool)})


@pytest.fixture(scope="module")
def standard(batch):
    return fit("standard", {}, CLASSIFIER.init(jax.random.key(0)), batch, 60)


def fit(name, fields, variables, batch, num_steps):
    Spec, objective = OBJECTIVES[name]
    spec = Spec(**fields)

    @jax.jit
    def step(variables, opt_state, carry, key):
        perturbed = objective.perturb(CLASSIFIER, variables, key, batch, spec)

        def loss_fn(params, carry):
            return objective.loss(CLASSIFIER, {**variables, "params": params}, carry, key, perturbed, spec)

        differentiate = jax.grad(loss_fn, argnums=(0, 1), has_aux=True)
        (gradient, along), (state, _) = differentiate(variables["params"], carry)
        updates, opt_state = ADAM.update(gradient, opt_state)
        variables = {"params": optax.apply_updates(variables["params"], updates), "state": state}
        return variables, opt_state, objective.advance(carry, along, batch, spec)

    opt_state, carry = ADAM.init(variables["params"]), objective.start(batch, spec)
    for number in range(num_steps):
        variables, opt_state, carry = step(variables, opt_state, carry, jax.random.key(number))
    return variables


def pixels_of(name, fields, variables, batch):
    """The mask of the pixels that the regime's adversary may change, None where these are all."""
    Spec, objective = OBJECTIVES[name]
    perturb = jax.jit(functools.partial(objective.perturb, CLASSIFIER))
    perturbed = perturb(variables, jax.random.key(9), batch, Spec(**fields))
    return perturbed["changeable"][..., None].astype(jnp.float32) if "changeable" in perturbed else None


@functools.partial(jax.jit, static_argnums=2)
def accuracies(variables, batch, norm, epsilon, mask=None):
    """Clean, and after PGD-20 inside the threat model."""
    logits_fn, labels = CLASSIFIER.logits_fn(variables), batch["label"]
    judge = pgd(Threat(norm=norm, epsilon=epsilon, mask=mask), num_steps=20, relative_step=1 / 8)

    def loss_fn(images):
        return losses.cross_entropy(logits_fn(images), labels)

    adversaries = attacks.run(loss_fn, jax.random.key(9), batch["image"], judge)
    return [jnp.mean(losses.margin(logits_fn(images), labels) < 0) for images in (batch["image"], adversaries)]


def test_every_objective_has_a_row():
    assert {name for name, *_ in ROWS.values()} | {"standard"} == set(OBJECTIVES)


@pytest.mark.parametrize("model", [LINF, L2], ids=["linf", "l2"])
def test_the_start_is_right_and_easily_fooled(model, standard, batch):
    clean, robust = accuracies(standard, batch, model.norm, model.epsilon)
    assert clean == 1 and robust < 0.5


@pytest.mark.parametrize("row", ROWS)
def test_fits(row, standard, batch):
    name, fields, model, num_steps = ROWS[row]
    variables = fit(name, fields, standard, batch, num_steps)
    judge = model or LINF
    mask = pixels_of(name, fields, variables, batch)
    clean, robust = np.asarray(accuracies(variables, batch, judge.norm, judge.epsilon, mask))
    assert clean == 1
    assert model is CLEAN or robust >= 0.9


@pytest.mark.parametrize("row", ["lesion_mask_control", "scaat"])
def test_the_start_is_fooled_within_the_pixels_of_the_regime_too(row, standard, batch):
    name, fields, model, _ = ROWS[row]
    mask = pixels_of(name, fields, standard, batch)
    assert 0.4 < mask.mean() < 1
    _, robust = accuracies(standard, batch, model.norm, model.epsilon, mask)
    assert robust < 0.7
