"""What a training step on eight devices says between them, and that it is the step of one device."""

import re

import jax
import numpy as np
import pytest

from robust_saliency import data as data_lib
from robust_saliency import optimizer, sharding, train, train_step
from tests import tiny

COLLECTIVE = re.compile(r"= .* (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
BATCH = 16


class Step:
    """The training step of a config on so many devices, and all that it takes."""

    def __init__(self, devices: int, parameters: str = "replicated", **changes):
        changes = {"optimizer": {"name": "sgd", "clip_norm": 0.0}, **changes}
        experiment = tiny.experiment(**changes)
        data = data_lib.load(experiment.data)
        mesh = sharding.make_mesh(devices, BATCH, "config.data.batch_size")
        classifier = train.check(experiment, data)
        transformation, schedule = optimizer.make(experiment.optimizer, 4, ())
        step = train_step.make_train_step(classifier, experiment, transformation, schedule, 4)
        variables = classifier.init(jax.random.key(0))
        opt_state = transformation.init(variables["params"])
        state = train_step.TrainState(np.int32(2), variables["params"], variables["state"], opt_state, ())
        state = sharding.put_state(state, mesh, parameters)
        rows = next(data_lib.train_batches(data.train, batch_size=BATCH, seed=0))
        root, scale = sharding.put_replicated((jax.random.key(1), np.float32(1)), mesh)
        self.layers, self.function = classifier.layers, step
        self.places = jax.tree.map(lambda leaf: leaf.sharding, state), sharding.replicated(mesh)
        self.arguments = (state, sharding.put_batch(rows, mesh), root, scale)
        self.compiled = jax.jit(step, out_shardings=self.places).lower(*self.arguments).compile()

    def run(self):
        return jax.block_until_ready(self.compiled(*self.arguments))

    def collectives(self) -> list[str]:
        return COLLECTIVE.findall(self.compiled.as_text())


ATTACKED = {"name": "adversarial", "attack": {"num_steps": 3}}


@pytest.mark.parametrize("objective", [{"name": "standard"}, ATTACKED], ids=lambda each: each["name"])
def test_without_batch_norm_devices_speak_once(objective):
    """Of gradients, loss and accuracy together; the attack says nothing."""
    assert Step(8, objective=objective).collectives() == ["all-reduce"]


def test_with_batch_norm_once_more_than_twice_a_layer():
    step = Step(8, objective=ATTACKED, model={"name": "resnet18", "width": 4})
    found = step.collectives()
    assert set(found) == {"all-reduce"}
    assert len(found) <= 1 + 2 * sum(name.endswith("/norm") for name in step.layers)


@pytest.mark.parametrize("parameters", ["replicated", "sharded"])
def test_the_step_of_eight_devices_is_that_of_one(parameters):
    changes = {"objective": ATTACKED, "model": {"width": 16}}
    one, eight = Step(1, **changes).run(), Step(8, parameters, **changes).run()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one[0].params, eight[0].params)
    np.testing.assert_allclose(one[1]["loss"], eight[1]["loss"], atol=1e-6)


def test_of_a_sharded_state_each_device_holds_a_part():
    """Of the large arrays; what weighs nothing it holds whole."""
    step = Step(8, "sharded", model={"width": 16})
    params = step.run()[0].params
    kernel, logits = params["conv4"]["conv"]["kernel"], params["logits"]["kernel"]
    assert {part.data.size for part in kernel.addressable_shards} == {kernel.size // 8}
    assert logits.is_fully_replicated
    assert "all-gather" in step.collectives()
