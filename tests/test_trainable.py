"""Which parameters train, by their names."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robust_saliency import optimizer, trainable

PARAMS = {
    "conv1": {"kernel": jnp.ones((2, 3)), "bias": jnp.array([0.5, -0.25])},
    "conv10": {"kernel": jnp.full((2, 2), 2.0)},
    "logits": {"kernel": jnp.full((3,), -1.5)},
}


def labels(*patterns):
    found = trainable.labels(PARAMS, patterns)
    return [
        trainable.name(path) for path, label in jax.tree_util.tree_leaves_with_path(found) if label == trainable.TRAINED
    ]


def test_patterns_are_searched_in_the_whole_name():
    assert labels() == ["conv1/bias", "conv1/kernel", "conv10/kernel", "logits/kernel"]
    assert labels("logits") == ["logits/kernel"]
    assert labels("^params/conv1/", "logits") == ["conv1/bias", "conv1/kernel", "logits/kernel"]
    assert labels("kernel$") == ["conv1/kernel", "conv10/kernel", "logits/kernel"]


def test_a_pattern_that_matches_nothing_is_told_with_the_blocks():
    message = (
        r"trainable: 'layer4' matches no parameter\. Parameters lie in params/conv1, params/conv10, params/logits\."
    )
    with pytest.raises(ValueError, match=message):
        trainable.labels(PARAMS, ("logits", "layer4"))


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_frozen_parameters_stay_bitwise_and_the_others_move_as_if_they_were_alone(name):
    spec = optimizer.Optimizer(name=name, learning_rate=0.1, schedule="constant", weight_decay=0.3, clip_norm=1.0)
    gradient = jax.tree.map(lambda leaf: jnp.full_like(leaf, 100.0), PARAMS)

    def trained(params, gradient, patterns):
        rule, _ = optimizer.make(spec, 20, patterns)

        @jax.jit
        def step(carry, _):
            params, state = carry
            updates, state = rule.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, rule.init(params)), None, length=20)[0][0]

    whole = trained(PARAMS, gradient, ("^params/logits",))
    alone = trained({"logits": PARAMS["logits"]}, {"logits": gradient["logits"]}, ())
    np.testing.assert_array_equal(whole["logits"]["kernel"], alone["logits"]["kernel"])
    assert not np.array_equal(whole["logits"]["kernel"], PARAMS["logits"]["kernel"])
    for block in ("conv1", "conv10"):
        for leaf, before in zip(jax.tree.leaves(whole[block]), jax.tree.leaves(PARAMS[block]), strict=True):
            np.testing.assert_array_equal(np.asarray(leaf).view(np.int32), np.asarray(before).view(np.int32))
