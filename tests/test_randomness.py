import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from robust_saliency import attacks, randomness

IMAGE = jnp.full((1, 2, 2, 1), 0.5)


def data(keys):
    return np.asarray(jax.random.key_data(keys))


def test_an_examples_key_is_the_root_folded_with_its_id(key):
    ids = jnp.array([5, 0, 123456])
    keys = jax.jit(randomness.per_example_keys)(key, ids)
    for row, example in enumerate([5, 0, 123456]):
        np.testing.assert_array_equal(data(keys[row]), data(jax.random.fold_in(key, example)))


def test_ten_thousand_ids_give_ten_thousand_keys(key):
    assert len(np.unique(data(randomness.per_example_keys(key, jnp.arange(10_000))), axis=0)) == 10_000


def test_fold_in_and_split_treat_each_key_alone(key):
    keys = randomness.per_example_keys(key, jnp.arange(4))
    folded, parts = jax.jit(lambda k: (randomness.fold_in(k, 7), randomness.split(k, 3)))(keys)
    assert parts.shape == (3, 4)
    for row in range(4):
        np.testing.assert_array_equal(data(folded[row]), data(jax.random.fold_in(keys[row], 7)))
        np.testing.assert_array_equal(data(parts[:, row]), data(jax.random.split(keys[row], 3)))


def test_with_one_key_they_are_those_of_jax(key):
    np.testing.assert_array_equal(data(randomness.fold_in(key, 7)), data(jax.random.fold_in(key, 7)))
    np.testing.assert_array_equal(data(randomness.split(key, 3)), data(jax.random.split(key, 3)))
    np.testing.assert_array_equal(
        randomness.draw(jax.random.normal, key, (3, 2)), jax.random.normal(key, (3, 2), jnp.float32)
    )


def test_the_draw_of_an_example_depends_on_its_key_alone(key):
    @jax.jit
    def draw(ids):
        keys = randomness.per_example_keys(key, ids)
        return randomness.draw(jax.random.uniform, keys, (ids.shape[0], 3, 2), minval=-1.0, maxval=1.0)

    whole = draw(jnp.arange(6))
    np.testing.assert_array_equal(draw(jnp.array([4, 1, 2, 99, 99, 99]))[:3], whole[jnp.array([4, 1, 2])])
    own = jax.random.uniform(jax.random.fold_in(key, 3), (3, 2), jnp.float32, -1.0, 1.0)
    np.testing.assert_array_equal(whole[3], own)


def test_draws_of_neighbouring_examples_are_independent(key):
    draws = randomness.draw(jax.random.normal, randomness.per_example_keys(key, jnp.arange(2000)), (2000, 3))
    assert stats.kstest(np.ravel(draws), "norm").pvalue > 0.01
    # The standard error of a correlation of 1999 pairs is 0.022.
    assert np.abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.08


def test_dtype_is_passed_on(key):
    with jax.enable_x64(True):
        assert randomness.draw(jax.random.normal, key, (2, 2), jnp.float64).dtype == jnp.float64


def test_too_few_keys(key):
    with pytest.raises(ValueError, match="got 3 keys for a batch of 4"):
        randomness.draw(jax.random.normal, randomness.per_example_keys(key, jnp.arange(3)), (4, 2))


def test_old_style_keys_are_refused():
    with pytest.raises(ValueError, match=r"made by jax.random.key, got an array of dtype uint32 and shape \(2,\)"):
        randomness.split(jax.random.PRNGKey(0))


@pytest.mark.parametrize("bad", [0, None, np.int32(3), np.zeros(2, np.uint32)])
def test_what_is_no_key_is_told_how_keys_are_made(bad):
    for use in (
        randomness.split,
        lambda k: randomness.fold_in(k, 1),
        lambda k: attacks.pgd(None, k, IMAGE, attacks.PGD()),
    ):
        with pytest.raises(ValueError, match=r"Keys are made by jax.random.key, got (0|None|an array of dtype)"):
            use(bad)


@pytest.mark.parametrize(
    "spec",
    [attacks.Untargeted(), attacks.Targeted(), attacks.Square(), attacks.AutoAttack(steps=1, num_queries=1)],
    ids=lambda spec: type(spec).__name__,
)
def test_every_decision_attack_that_draws_says_so_too(spec):
    with pytest.raises(ValueError, match=r"^Keys are made by jax\.random\.key, got 0\.$"):
        attacks.decide(lambda x: x.reshape(len(x), -1), 0, IMAGE, jnp.zeros(1, jnp.int32), spec)
