"""Tracing through a linear head, where a unit's difference is its weight times its activation."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import models, neurons
from robust_saliency.neurons import Tracing
from tests.neurons.planted import HEAD, LOGITS_FN, images_and_masks

LABELS = np.array([0, 2, 1, 1], np.int32)
IMAGES = images_and_masks()[0]


def mean_units():
    return np.asarray(neurons.activations(LOGITS_FN, IMAGES, "mean"))[:, 0, 0]


def compiled(logits_fn, layer):
    return jax.jit(lambda x, y, spec: neurons.prediction_differences(logits_fn, x, y, layer, spec))


@pytest.mark.parametrize("layer", ["units", "mean"])
def test_a_linear_head_has_a_closed_form(layer):
    found = compiled(LOGITS_FN, layer)(IMAGES, LABELS, Tracing())
    np.testing.assert_allclose(found, mean_units() * HEAD[:, LABELS].T, atol=1e-6)
    assert (np.asarray(found)[:, 2] == 0).all() and (np.asarray(found)[3] == 0).all()
    value = np.array([0.1, 0.2, 0.3], np.float32)
    found = compiled(LOGITS_FN, layer)(IMAGES, LABELS, Tracing(value=value))
    np.testing.assert_allclose(found, (mean_units() - value) * HEAD[:, LABELS].T, atol=1e-6)


def test_probability_and_log_odds_against_numpy():
    logits = mean_units() @ HEAD
    for score, function in (
        ("probability", lambda p: p),
        ("log_odds", lambda p: np.log(p / (1 - p))),
    ):
        found = compiled(LOGITS_FN, "mean")(IMAGES, LABELS, Tracing(score=score))

        def of(z, function=function):
            return function((np.exp(z) / np.exp(z).sum(1, keepdims=True))[np.arange(4), LABELS])

        for unit in range(3):
            without = mean_units() * (np.arange(3) != unit)
            np.testing.assert_allclose(found[:, unit], of(logits) - of(without @ HEAD), atol=1e-5)


def test_log_odds_of_a_certain_network_are_finite():
    sure = models.Classifier(
        init=None,
        apply=lambda v, x, capture=(), edit=None, **_: (
            lambda a: models.Output(jnp.stack([a[:, 0], 0 * a[:, 0]], -1), {}, {"a": a})
        )((edit or {}).get("a", lambda a: a)(jnp.full((len(x), 1), 80.0))),
        layers=("a",),
    ).logits_fn({})
    found = neurons.prediction_differences(sure, IMAGES[:1], np.zeros(1, int), "a", Tracing(score="log_odds"))
    np.testing.assert_allclose(found, [[80.0]])


def test_a_bundled_network_chunked_unchunked_alone_and_by_hand(small_cnn, rng):
    images = rng.uniform(size=(3, 16, 16, 3)).astype(np.float32)
    labels = np.array([0, 2, 1])
    trace = compiled(small_cnn, "conv3")
    whole = np.asarray(trace(images, labels, Tracing(score="log_odds")))
    assert whole.shape == (3, 8) and (whole != 0).any()
    chunked = trace(images, labels, Tracing(score="log_odds", chunk_size=3))
    np.testing.assert_allclose(chunked, whole, atol=2e-6)
    alone = trace(images[1:2], labels[1:2], Tracing(score="log_odds", max_images=1))
    np.testing.assert_allclose(alone[0], whole[1], atol=2e-6)

    @jax.jit
    def log_odds(unit):
        edit = {"conv3": lambda a: a * (jnp.arange(8) != unit)[None, None, None]}
        p = jax.nn.softmax(small_cnn.output(images, edit=edit).logits)[np.arange(3), labels]
        return jnp.log(p / (1 - p))

    expected = np.stack([log_odds(-1) - log_odds(unit) for unit in range(8)], -1)
    np.testing.assert_allclose(whole, expected, atol=1e-5)


def test_what_lies_below_the_layer_is_computed_once():
    """tanh below, sine above: in the compiled program the one stands once, the other in the loop too."""

    def apply(variables, images, *, mode="eval", key=None, capture=(), edit=None):
        units = (edit or {}).get("units", lambda a: a)(jnp.tanh(images).mean((1, 2)))
        return models.Output(jnp.sin(units), {}, {"units": units})

    logits_fn = models.Classifier(init=None, apply=apply, layers=("units",)).logits_fn({})
    program = compiled(logits_fn, "units").lower(IMAGES, LABELS, Tracing(chunk_size=1)).compile().as_text()
    assert len(re.findall(r" tanh\(", program)) == 1
    assert len(re.findall(r" sine\(", program)) == 2


def test_most_influential_units_for_and_against():
    differences = jnp.array([[0.5, -1.0, 0.0, 0.5, -0.25], [0.0, 0.0, jnp.nan, 2.0, 0.0]])
    found = jax.jit(neurons.most_influential, static_argnums=1)(differences, 3)
    np.testing.assert_array_equal(found.supporting, [[0, 3, -1], [3, -1, -1]])
    np.testing.assert_array_equal(found.opposing, [[1, 4, -1], [-1, -1, -1]])
    np.testing.assert_array_equal(found.support, [[0.5, 0.5, np.nan], [2.0, np.nan, np.nan]])
    np.testing.assert_array_equal(found.opposition, [[-1.0, -0.25, np.nan], [np.nan] * 3])
    assert neurons.most_influential(differences, 9).supporting.shape == (2, 9)


def test_what_will_not_do_is_one_sentence():
    with pytest.raises(ValueError, match=r"Unknown score 'odds'"):
        Tracing(score="odds")
    with pytest.raises(ValueError, match=r"Tracing\.chunk_size must be at least 0, got -1"):
        Tracing(chunk_size=-1)
    with pytest.raises(ValueError, match=r"Tracing\.value must be a number or \[3\], one a unit, got shape \(2,\)"):
        neurons.prediction_differences(LOGITS_FN, IMAGES, LABELS, "units", Tracing(value=np.zeros(2)))
    with pytest.raises(ValueError, match=r"Unknown layer of the network 'means'\. Did you mean 'mean'\?"):
        neurons.prediction_differences(LOGITS_FN, IMAGES, LABELS, "means")
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, found 0\.\.3"):
        neurons.prediction_differences(LOGITS_FN, IMAGES, np.array([0, 1, 2, 3]), "units")


def test_units_taken_away_together_lose_the_sum_where_the_head_is_linear():
    single = compiled(LOGITS_FN, "mean")(IMAGES, LABELS, Tracing())
    taken = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]], bool)
    run = jax.jit(lambda taken, spec: neurons.ablated(LOGITS_FN, IMAGES, LABELS, "mean", taken, spec))
    found = run(taken, Tracing())
    np.testing.assert_allclose(found.lost, (np.asarray(single) * taken).sum(1), atol=1e-6)
    left = (mean_units() * ~taken) @ HEAD
    np.testing.assert_array_equal(found.flipped, left.argmax(1) != (mean_units() @ HEAD).argmax(1))
    assert np.asarray(found.flipped).any() and not np.asarray(found.flipped).all()
    np.testing.assert_allclose(run(np.ones((4, 3), bool), Tracing(value=mean_units()[0])).lost[0], 0, atol=1e-6)


def test_units_taken_away_one_at_a_time_are_prediction_differences():
    """Of maps and of log-odds, where the sum is not what is lost together."""
    spec = Tracing(score="log_odds")
    single = np.asarray(compiled(LOGITS_FN, "units")(IMAGES, LABELS, spec))
    for unit in range(3):
        taken = np.tile(np.arange(3) == unit, (4, 1))
        found = neurons.ablated(LOGITS_FN, IMAGES, LABELS, "units", taken, spec)
        np.testing.assert_allclose(found.lost, single[:, unit], atol=1e-6)
    together = neurons.ablated(LOGITS_FN, IMAGES, LABELS, "units", np.ones((4, 3), bool), spec).lost
    assert np.abs(np.asarray(together) - single.sum(1)).max() > 0.05


def test_what_is_taken_is_one_row_an_image_and_one_column_a_unit():
    with pytest.raises(ValueError, match=r"taken must be \(4, 3\), one a unit, got shape \(4, 2\)"):
        neurons.ablated(LOGITS_FN, IMAGES, LABELS, "mean", np.ones((4, 2), bool))
    with pytest.raises(ValueError, match="Batch sizes differ"):
        neurons.ablated(LOGITS_FN, IMAGES, LABELS, "mean", np.ones((3, 3), bool))
