"""A map against that of an attacked image, for attacks whose outcome is known; with a real one see test_evaluate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import metrics
from robust_saliency.metrics import AttackStability, ExplanationAttack

SIDE = 6


def explain(key, images, labels):
    """The image itself, turned upside down for class 1."""
    upright = images.mean(-1)
    return jnp.where((labels == 1)[:, None, None], -upright, upright)


def score(images, attacked, labels, spec=None):
    @jax.jit
    def run(images, attacked, labels):
        return metrics.run(
            spec or AttackStability(sign="raw"),
            saliency_fn=explain,
            attacked_fn=lambda attack: attacked,
            map_key=jax.random.key(0),
            labels=labels,
            maps=explain(None, images, labels),
        )

    return run(images, attacked, labels)


@pytest.mark.parametrize("similarity", ["spearman", "kendall", "top_k_intersection"])
def test_an_attack_that_fails_leaves_one_and_one_that_turns_the_map_the_least(rng, similarity):
    images, labels = rng.uniform(size=(3, 10, 20, 1)).astype(np.float32), jnp.array([0, 1, 0])
    spec = AttackStability(sign="raw", similarity=similarity)
    np.testing.assert_allclose(score(images, images, labels, spec), np.ones(3), atol=1e-6)
    least = 0 if similarity == "top_k_intersection" else -1
    np.testing.assert_allclose(score(images, 1 - images, labels, spec), np.full(3, least), atol=1e-6)


def test_one_image_of_the_batch_alone_may_change(rng):
    images = rng.uniform(size=(2, SIDE, SIDE, 3)).astype(np.float32)
    attacked = np.stack([images[0], 1 - images[1]])
    np.testing.assert_allclose(score(images, attacked, jnp.array([0, 0])), [1, -1], atol=1e-6)


def test_a_random_map_is_not_stable(rng):
    """The correlation of 36 independent pixels has the deviation 1 / sqrt(35)."""
    images, attacked = rng.uniform(size=(2, 300, SIDE, SIDE, 1)).astype(np.float32)
    values = np.asarray(score(images, attacked, jnp.zeros(300, int)))
    assert abs(values.mean()) < 4 / np.sqrt(35 * 300)
    np.testing.assert_allclose(values.std(), 1 / np.sqrt(35), rtol=0.15)


def test_a_map_without_relevance_has_no_stability(rng):
    images = rng.uniform(size=(2, SIDE, SIDE, 3)).astype(np.float32)
    attacked = images.copy()
    attacked[1] = 0
    np.testing.assert_array_equal(np.isnan(score(images, attacked, jnp.array([0, 0]))), [False, True])


def test_the_attack_that_is_asked_for_is_that_of_the_spec():
    asked = []

    def attacked_fn(attack):
        asked.append(attack)
        return jnp.ones((1, SIDE, SIDE, 1))

    attack = ExplanationAttack(epsilon=0.1, k=3)
    given = {"map_key": jax.random.key(0), "labels": jnp.array([0]), "maps": jnp.ones((1, SIDE, SIDE))}
    metrics.run(AttackStability(attack=attack), saliency_fn=explain, attacked_fn=attacked_fn, **given)
    assert asked == [attack]


def test_scores_of_one_attack_share_their_maps_and_each_is_what_it_is_alone(rng):
    images = rng.uniform(size=(3, SIDE, SIDE, 1)).astype(np.float32)
    attack = ExplanationAttack(k=3)
    specs = {
        "spearman": AttackStability(attack=attack),
        "kendall": AttackStability(attack=ExplanationAttack(k=3), similarity="kendall"),
        "weaker": AttackStability(attack=ExplanationAttack(k=3, epsilon=1e-3)),
    }
    assert metrics.count_runs(specs.values()) == (3, 2)
    calls = []

    def counted(key, images, labels):
        calls.append(len(images))
        return explain(key, images, labels)

    given = {"map_key": jax.random.key(0), "labels": jnp.array([0, 1, 0]), "maps": jnp.asarray(images[..., 0])}
    given["attacked_fn"] = lambda asked: jnp.flip(images, 1 if asked == attack else 2)
    values, curves = metrics.measure(specs, saliency_fn=counted, **given)
    assert calls == [3, 3] and not curves
    for label, spec in specs.items():
        np.testing.assert_array_equal(values[label], metrics.run(spec, saliency_fn=explain, **given), err_msg=label)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "linfinity"}, "Unknown norm 'linfinity'"),
        ({"distance": "topk"}, "Unknown distance 'topk'"),
        ({"epsilon": 0.0}, "ExplanationAttack.epsilon must be above 0"),
        ({"num_steps": 0}, "ExplanationAttack.num_steps must be at least 1"),
    ],
    ids=str,
)
def test_what_is_no_attack_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ExplanationAttack(**wrong)
