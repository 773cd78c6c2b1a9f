"""Devices that share what one example is asked: the same values, and of the work each its part."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from robust_saliency import attacks, evaluate, losses, models, randomness, records, saliency, samples, sharding, train
from robust_saliency.threat import Threat
from tests import tiny

MAPS = {
    "integrated_gradients": saliency.IntegratedGradients(num_steps=8),
    "smoothgrad": saliency.SmoothGrad(num_samples=8),
    "expected_gradients": saliency.ExpectedGradients(num_samples=8),
    "blur_ig": saliency.BlurIG(num_steps=8, max_sigma=1.0),
    "rise": saliency.RISE(num_samples=8, cells=2, score="logit"),
}
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def problem():
    classifier = models.make(models.SmallCNN(width=4), (16, 16, 3), 5)
    rng = np.random.default_rng(0)
    images = rng.random((2, 16, 16, 3), np.float32)
    return classifier, classifier.init(KEY), images, np.array([1, 3], np.int32)


def on_a_mesh(program, variables, images, labels, for_samples: int):
    """The program's value on eight devices, and the floating-point operations of one of them."""
    mesh = sharding.make_local_mesh(8, len(images), "batch_size", for_samples)
    placed = sharding.put_batch({"images": images, "labels": labels}, mesh)
    arguments = sharding.put_replicated(variables, mesh), placed["images"], placed["labels"]
    with jax.set_mesh(mesh):
        compiled = jax.jit(program).lower(*arguments).compile()
        return jax.block_until_ready(compiled(*arguments)), compiled.cost_analysis()["flops"]


@pytest.mark.parametrize("name", MAPS)
def test_the_points_of_a_map_are_shared(name, problem):
    classifier, variables, images, labels = problem

    def program(variables, images, labels):
        keys = randomness.per_example_keys(KEY, np.arange(len(images)))
        return saliency.SALIENCY[name][1](classifier.logits_fn(variables), keys, images, labels, MAPS[name])

    alone = jax.jit(program).lower(variables, images, labels).compile()
    expected, operations = alone(variables, images, labels), alone.cost_analysis()["flops"]
    found, own = on_a_mesh(program, variables, images, labels, 4)  # two devices by example, four times
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert own < operations / 4


def test_the_restarts_of_an_attack_are_shared(problem):
    classifier, variables, images, labels = problem
    spec = attacks.PGD(threat=Threat(epsilon=8 / 255), num_steps=3, num_restarts=4)

    def program(variables, images, labels):
        keys = randomness.per_example_keys(KEY, np.arange(len(images)))
        logits_fn = classifier.logits_fn(variables)
        return attacks.run(lambda x: losses.cross_entropy(logits_fn(x), labels), keys, images, spec)

    alone = jax.jit(program).lower(variables, images, labels).compile()
    expected, operations = alone(variables, images, labels), alone.cost_analysis()["flops"]
    found, own = on_a_mesh(program, variables, images, labels, 4)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert own < operations / 4


def constrained(values, mesh) -> bool:
    with jax.set_mesh(mesh):
        return "sharding_constraint" in str(jax.make_jaxpr(samples.spread)(values))


def mesh_of(*axes: str, kind: AxisType = AxisType.Auto):
    return jax.make_mesh((2, 4)[: len(axes)], axes, (kind,) * len(axes))


def test_where_it_cannot_share_nothing_happens():
    both, values = mesh_of("data", "samples"), np.ones((2, 8))
    assert constrained(values, both)
    assert "sharding_constraint" not in str(jax.make_jaxpr(samples.spread)(values))
    assert not constrained(np.ones((2, 6)), both)  # no multiple
    assert not constrained(np.ones((4, 8)), both)  # two examples for a device
    for mesh in (mesh_of("data"), mesh_of("batch", "samples"), mesh_of("data", "samples", kind=AxisType.Explicit)):
        assert not constrained(values, mesh)
    with jax.set_mesh(both):
        split = jax.shard_map(samples.spread, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"))
        np.testing.assert_array_equal(jax.jit(split)(values), values)


def test_the_mesh_says_what_does_not_fit():
    assert dict(sharding.make_local_mesh(0, 3, "batch_size", 2).shape) == {"data": 3, "samples": 2}
    assert dict(sharding.make_local_mesh(8, 1, "batch_size", 8).shape) == {"data": 1, "samples": 8}
    for devices, there in (
        (0, "there are 8"),
        (8, "config.mesh.num_devices is 8"),
        (16, "config.mesh.num_devices is 16"),
    ):
        with pytest.raises(ValueError, match=rf"samples is 3.*batch_size 3 takes 9 of them, but {there}\."):
            sharding.make_local_mesh(devices, 3, "batch_size", 3)


def test_an_evaluation_has_the_same_rows(tmp_path):
    changes = {
        "evaluation": {
            "maps": {"integrated_gradients": {"num_steps": 4}, "smoothgrad": {"num_samples": 4}},
            "attacks": {"linf": {"name": "pgd", "num_steps": 3, "num_restarts": 2}},
        },
        "train": {"epochs": 1},
    }
    train.train(tiny.experiment(**changes), str(tmp_path))
    rows = []
    for mesh, batch_size in (({"num_devices": 2}, 16), ({"num_devices": 8, "samples": 2}, 4)):
        changes["evaluation"] |= {"batch_size": batch_size}
        evaluate.evaluate(tiny.experiment(**changes, mesh=mesh), str(tmp_path))
        folder = tmp_path / "evaluation"
        rows.append(records.read_csv(folder / "examples.csv") | records.read_csv(folder / "maps.csv"))
    assert rows[0].keys() == rows[1].keys()
    for name, values in rows[0].items():
        if values.dtype.kind in "fiu":
            np.testing.assert_allclose(values, rows[1][name], rtol=1e-3, atol=1e-3, err_msg=name)
        else:
            np.testing.assert_array_equal(values, rows[1][name], err_msg=name)
