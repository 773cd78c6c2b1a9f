"""A batch in parts: the update of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import config, microbatches, optimizer, sharding, train, train_step
from robust_saliency import data as data_lib
from robust_saliency.objectives import Objective
from tests import tiny

BATCH = 8


def test_means_and_the_state_after_the_last_part():
    """Rows 0 to 5 in three parts: (0, 3), (1, 4), (2, 5)."""

    def function(state, rows, number):
        return {"mean": jnp.mean(rows["x"]), "number": number.astype(jnp.float32)}, state + jnp.max(rows["x"])

    run = jax.jit(lambda state, rows: microbatches.accumulated(function, state, rows, 3))
    means, state = run(jnp.float32(0), {"x": jnp.arange(6.0)})
    assert means == {"mean": 2.5, "number": 1.0}
    assert state == 3 + 4 + 5


def stepped(parts: int, model: str, function: Objective | None = None, **objective):
    changes = {"train": {"accumulate": parts}, "model": {"name": model, "width": 4}}
    changes["optimizer"] = {"name": "sgd", "clip_norm": 0.0}
    experiment = tiny.experiment(objective=objective, **changes)
    if function:
        experiment = experiment._replace(objective=experiment.objective._replace(function=function))
    data = data_lib.load(experiment.data)
    classifier = train.check(experiment, data)
    transformation, schedule = optimizer.make(experiment.optimizer, 4, ())
    step = jax.jit(train_step.make_train_step(classifier, experiment, transformation, schedule, 4))
    variables = classifier.init(jax.random.key(0))
    opt_state = transformation.init(variables["params"])
    state = train_step.TrainState(jnp.int32(2), variables["params"], variables["state"], opt_state, (), ())
    batch = next(data_lib.train_batches(data.train, batch_size=BATCH, seed=0))
    return step(state, batch, jax.random.key(1), 1.0)


ATTACKED = {"name": "adversarial", "attack": {"num_steps": 2, "start": "none"}}


@pytest.mark.parametrize("objective", [{"name": "standard"}, ATTACKED])
def test_a_step_in_parts_is_the_step_of_the_whole_batch(objective):
    (whole, metrics), (parts, others) = (stepped(count, "small_cnn", **objective) for count in (1, 4))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole.params, parts.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), metrics, others)


def test_each_part_draws_its_own_numbers():
    def drawing(classifier, variables, carry, key, batch, spec):
        draw = jax.random.uniform(key)
        zero = 0.0 * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(variables["params"]))
        return zero, (variables["state"], {"loss": zero, "draw": draw, "square": draw**2})

    _, metrics = stepped(4, "small_cnn", function=Objective(lambda c, v, key, batch, spec: batch, drawing))
    assert metrics["square"] - metrics["draw"] ** 2 > 1e-3


def test_batch_norm_sees_the_parts_one_after_the_other():
    """Running statistics move once a part, so they are not those of the whole batch; nothing but BatchNorm differs."""
    (whole, _), (parts, _) = (stepped(count, "resnet18", name="standard") for count in (1, 2))
    mean = ["stem", "norm", "mean"]
    found = [jax.tree_util.tree_leaves_with_path(each.model_state) for each in (whole, parts)]
    of_stem = [{jax.tree_util.keystr(p): leaf for p, leaf in leaves} for leaves in found]
    name = next(key for key in of_stem[0] if all(word in key for word in mean))
    assert not np.allclose(of_stem[0][name], of_stem[1][name], rtol=1e-2)


def test_a_batch_that_the_devices_cannot_share_in_parts_is_refused():
    mesh = sharding.make_mesh(2, 16, "config.data.batch_size")
    sharding.check_parts(mesh, 16, 4)
    with pytest.raises(ValueError, match=r"config.train.accumulate is 3: .* 16 cannot .* 2 device.* multiple of 6"):
        sharding.check_parts(mesh, 16, 3)


def test_a_regime_that_keeps_something_of_a_whole_batch_is_refused():
    experiment = tiny.experiment(train={"accumulate": 2}, objective={"name": "free"})
    with pytest.raises(ValueError, match=r"config.train.accumulate is 2, but 'free' keeps something"):
        train.check(experiment, data_lib.load(experiment.data))


def test_less_than_one_part_is_refused():
    with pytest.raises(ValueError, match="accumulate"):
        config.parse(tiny.plain(train={"accumulate": 0}))


def test_a_training_run_takes_both_settings(tmp_path):
    experiment = tiny.experiment(train={"accumulate": 2, "remat": True, "epochs": 1}, mesh={"parameters": "sharded"})
    assert train.train(experiment, str(tmp_path))["steps"] == 4
