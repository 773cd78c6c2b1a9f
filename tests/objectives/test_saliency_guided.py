"""Saliency-guided training: which features are replaced, by what, and the loss on a smooth net."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from robust_saliency.objectives import SaliencyGuided, saliency_guided
from robust_saliency.objectives.saliency_guided import least_important
from tests.objectives import smooth_net


def chosen(entries, **fields):
    """``[B, H, W, C or 1]`` of the signed map ``entries [B, H, W, C]``."""
    return np.asarray(jax.jit(lambda e, s: least_important(e, s))(np.float32(entries), SaliencyGuided(**fields)))


def of_one_channel(rows):
    return np.float32(rows)[None, :, :, None]


def test_the_least_important_pixels_of_a_map_with_ties_by_hand():
    """Ties go in reading order, 0 and -0 are tied, and a half rounds to even."""
    entries = of_one_channel([[3, 1, -2], [1, 0.0, 1], [-0.0, 5, 1]])
    for fraction, expected in (
        (0.0, [[0, 0, 0], [0, 0, 0], [0, 0, 0]]),
        (0.12, [[0, 0, 1], [0, 0, 0], [0, 0, 0]]),
        (0.22, [[0, 0, 1], [0, 1, 0], [0, 0, 0]]),
        (0.33, [[0, 0, 1], [0, 1, 0], [1, 0, 0]]),
        (0.5, [[0, 1, 1], [0, 1, 0], [1, 0, 0]]),  # 4.5 features: 4
        (0.67, [[0, 1, 1], [1, 1, 1], [1, 0, 0]]),
        (1.0, [[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
    ):
        np.testing.assert_array_equal(chosen(entries, fraction=fraction)[0, :, :, 0], expected)
    by_size = chosen(entries, fraction=0.6, importance="abs")[0, :, :, 0]
    np.testing.assert_array_equal(by_size, [[0, 1, 0], [1, 1, 1], [1, 0, 0]])


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.7, 0.71, 0.99])
def test_exactly_the_share_of_a_map_that_is_mostly_zero(fraction, rng):
    entries = rng.normal(size=(5, 9, 11, 1)) * (rng.uniform(size=(5, 9, 11, 1)) > 0.7)
    assert (entries == 0).mean() == pytest.approx(0.7, abs=0.05)
    mask = chosen(entries, fraction=fraction, importance="abs")
    np.testing.assert_array_equal(mask.sum((1, 2, 3)), round(fraction * 99))
    for size, taken in zip(np.abs(entries).reshape(5, 99), mask.reshape(5, 99), strict=True):
        places = stats.rankdata(size, method="ordinal")
        np.testing.assert_array_equal(taken, places <= round(fraction * 99))


def test_channels_of_a_pixel_by_hand():
    entries = np.float32([[[[2, -3], [1, 1]], [[0, -0.5], [-4, 4]]]])  # mean -0.5, 1, -0.25, 0
    for importance, expected in (
        ("signed", [[1, 0], [1, 0]]),
        ("abs", [[0, 0], [1, 1]]),
        ("mean_abs", [[0, 1], [1, 0]]),  # 2.5, 1, 0.25, 4
    ):
        found = chosen(entries, fraction=0.5, importance=importance)
        assert found.shape == (1, 2, 2, 1)
        np.testing.assert_array_equal(found[0, :, :, 0], expected)
    alone = chosen(entries, fraction=0.5, features="entry")
    np.testing.assert_array_equal(alone, [[[[0, 1], [0, 0]], [[1, 1], [1, 0]]]])
    alone = chosen(entries, fraction=0.5, features="entry", importance="abs")
    np.testing.assert_array_equal(alone, [[[[0, 0], [1, 1]], [[1, 1], [0, 0]]]])


def test_the_share_is_data_and_may_differ_from_example_to_example(rng):
    entries = rng.normal(size=(3, 4, 5, 2))
    mask = chosen(entries, fraction=jnp.array([0.0, 0.25, 1.0]))
    np.testing.assert_array_equal(mask.sum((1, 2, 3)), [0, 5, 20])


class Given(NamedTuple):
    """A classifier whose gradient in the pixels is given: the logit of class k is ``k * sum(weights * x)``."""

    weights: np.ndarray

    def logits_fn(self, variables, *, mode="eval"):
        assert mode == "eval"
        return lambda x: jnp.sum(x * self.weights[None], (1, 2, 3))[:, None] * jnp.arange(3.0)[None, :]


IMAGES = np.float32(np.random.default_rng(7).uniform(0.2, 0.8, (2, 3, 4, 2)))
BATCH = {"image": jnp.asarray(IMAGES), "label": jnp.array([1, 2], jnp.int32)}
WEIGHTS = np.float32(np.random.default_rng(8).normal(size=(3, 4, 2)))


def masked(key=None, **fields):
    key = jax.random.key(4) if key is None else key
    spec = SaliencyGuided(**fields)
    return np.asarray(jax.jit(lambda b: saliency_guided.perturb(Given(WEIGHTS), {}, key, b, spec))(BATCH)["masked"])


@pytest.mark.parametrize(("replacement", "over"), [(r, o) for r in ("mean", "uniform") for o in ("channel", "image")])
def test_what_replaces_a_pixel(replacement, over):
    found = masked(fraction=0.5, replacement=replacement, over=over)
    least = np.argsort(WEIGHTS.mean(-1).ravel(), kind="stable")[:6]
    replaced = np.isin(np.arange(12), least).reshape(1, 3, 4, 1)
    np.testing.assert_array_equal(np.where(replaced, 0, found), np.where(replaced, 0, IMAGES))
    axes = (1, 2) if over == "channel" else (1, 2, 3)
    low, high, middle = (f(IMAGES, axis=axes, keepdims=True) for f in (np.min, np.max, np.mean))
    values = found.reshape(2, 12, 2)[:, least]
    if replacement == "mean":
        np.testing.assert_allclose(values, np.broadcast_to(middle.reshape(2, 1, -1), (2, 6, 2)), rtol=1e-6)
    else:
        assert (values >= low.reshape(2, 1, -1)).all() and (values <= high.reshape(2, 1, -1)).all()
        assert len(np.unique(values)) == values.size


def test_uniform_values_fill_the_range():
    wide = {name: jnp.tile(field, (500, *[1] * (field.ndim - 1))) for name, field in BATCH.items()}
    spec = SaliencyGuided(fraction=1.0, over="image")
    found = jax.jit(lambda b: saliency_guided.perturb(Given(WEIGHTS), {}, jax.random.key(4), b, spec))(wide)["masked"]
    for image, values in zip(IMAGES, np.reshape(found, (500, 2, -1)).swapaxes(0, 1), strict=True):
        spread = stats.kstest(values.ravel(), "uniform", (image.min(), image.max() - image.min()))
        assert spread.pvalue > 1e-3
        assert np.ptp(values) > 0.99 * (image.max() - image.min())


def test_a_constant_and_single_entries():
    found = masked(fraction=0.25, replacement="constant", constant=0.875, features="entry")
    least = np.argsort(WEIGHTS.ravel(), kind="stable")[:6]
    expected = IMAGES.reshape(2, 24).copy()
    expected[:, least] = 0.875
    np.testing.assert_array_equal(found.reshape(2, 24), expected)


@pytest.mark.parametrize("name", ["gradient", "input_x_gradient", "integrated_gradients", "smoothgrad"])
def test_maps_that_can_be_chosen(name):
    """For a linear score: the weights, or the weights times the image."""
    found = masked(fraction=0.5, map=name, replacement="constant", constant=-1.0)
    times = IMAGES if name in ("input_x_gradient", "integrated_gradients") else np.ones_like(IMAGES)
    importance = (WEIGHTS * times).mean(-1).reshape(2, 12)
    for image, values in zip(found.reshape(2, 12, 2), importance, strict=True):
        np.testing.assert_array_equal(np.flatnonzero(image[:, 0] == -1), np.sort(np.argsort(values)[:6]))


def test_an_example_does_not_depend_on_its_neighbours():
    keys = jax.random.split(jax.random.key(3), 2)
    whole = masked(keys)
    spec = SaliencyGuided()
    alone = {name: field[1:] for name, field in BATCH.items()}
    found = jax.jit(lambda b: saliency_guided.perturb(Given(WEIGHTS), {}, keys[1:], b, spec))(alone)["masked"]
    np.testing.assert_array_equal(found, whole[1:])


@pytest.mark.parametrize("name", ["gradient", "smoothgrad"])
def test_gradient_of_the_loss_and_none_through_the_mask(name):
    fixed = smooth_net.check_gradient(saliency_guided, SaliencyGuided(map=name))
    assert (fixed["masked"] != fixed["image"]).mean() == pytest.approx(0.5)


def test_loss_state_and_metrics_by_hand():
    with jax.enable_x64(True):
        params, batch = smooth_net.params_and_batch()
        fixed = {**batch, "masked": 1 - batch["image"]}
        found = jax.jit(lambda p: smooth_net.loss(saliency_guided, SaliencyGuided(weight=0.4), p, fixed))(params)
        params, fixed, (value, (state, metrics)) = jax.device_get((params, fixed, found))
    clean, other = fixed["image"], fixed["masked"]
    log_p, log_q = (smooth_net.log_probabilities(params, x)[:4] for x in (clean, other))
    divergence = np.mean(np.sum(special.rel_entr(np.exp(log_p), np.exp(log_q)), -1))
    plain = -np.mean(log_p[np.arange(4), fixed["label"][:4]])
    np.testing.assert_allclose([value, metrics["kl"]], [plain + 0.4 * divergence, divergence], rtol=1e-10)
    np.testing.assert_allclose(state["mean"], 0.9 * 0.1 * clean.mean() + 0.1 * other.mean(), rtol=1e-10)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"map": "grad"}, r"Unknown map 'grad'. Did you mean 'gradient'"),
        ({"score": "logits"}, r"Unknown score 'logits'. Did you mean 'logit'"),
        ({"importance": "absolute"}, r"Unknown importance 'absolute'.*abs, mean_abs, signed"),
        ({"features": "channel"}, r"Unknown features 'channel'.*entry, pixel"),
        ({"replacement": "noise"}, r"Unknown replacement 'noise'"),
        ({"over": "batch"}, r"Unknown over 'batch'"),
    ],
)
def test_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        SaliencyGuided(**fields)
