"""Checkpoints: what is restored is bit for bit what was saved, on any devices, and the right steps are kept."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from robust_saliency import checkpoint
from tests.checkpoint.fabricated_runs import assert_same, run_of, save_run


@pytest.mark.parametrize("asynchronous", [True, False])
def test_round_trip_keeps_structure_dtype_and_bits(tmp_path, asynchronous):
    variables, trainer = run_of(3)
    with checkpoint.Checkpointer(tmp_path / "a" / "b", asynchronous=asynchronous) as saver:
        assert saver.restore(variables, trainer) is None
        assert save_run(saver, 3)
        restored = saver.restore(*jax.eval_shape(lambda: (variables, trainer)))
    assert_same((restored.variables, restored.trainer), (variables, trainer))
    assert isinstance(restored.trainer["opt_state"][0], optax.ScaleByAdamState)
    assert restored.position == {"epoch": 3, "index": 2**40 + 3}


def test_numpy_leaves_and_python_numbers_come_back_as_such(tmp_path):
    trainer = {"step": 7, "rate": 0.1, "host": np.arange(3, dtype=np.uint8)}
    with checkpoint.Checkpointer(tmp_path) as saver:
        saver.save(1, variables={"params": {}}, trainer=trainer, position={}, config={}, metrics={})
        restored = saver.restore({"params": {}}, trainer)
    assert restored.variables == {"params": {}}
    assert (restored.trainer["step"], restored.trainer["rate"]) == (7, 0.1)
    assert isinstance(restored.trainer["host"], np.ndarray)
    assert restored.trainer["host"].tolist() == [0, 1, 2]


def test_what_is_overwritten_after_save_is_saved_as_it_was(tmp_path):
    forget = jax.jit(lambda array: array * 0 - 1, donate_argnums=0)
    expected = np.arange(2e6, dtype=np.float32)
    on_device, on_host = jnp.arange(2e6), expected.copy()
    with checkpoint.Checkpointer(tmp_path) as saver:
        saver.save(
            1, variables={"w": on_device}, trainer={"host": on_host}, position={}, config={}, metrics={"accuracy": 1.0}
        )
        jax.block_until_ready(forget(on_device))
        on_host[:] = -1
        restored = saver.restore({"w": jax.ShapeDtypeStruct((2_000_000,), jnp.float32)}, {"host": on_host})
    np.testing.assert_array_equal(restored.variables["w"], expected)
    np.testing.assert_array_equal(restored.trainer["host"], expected)


def test_the_last_two_and_the_best_stay(tmp_path):
    with checkpoint.Checkpointer(tmp_path, keep_last=2, best_metric="accuracy") as saver:
        for step, accuracy in enumerate([0.3, 0.9, 0.9, 0.2, float("nan"), 0.4], start=1):
            save_run(saver, step, accuracy=accuracy)
    assert checkpoint.steps(tmp_path) == [2, 5, 6]
    assert checkpoint.best_step(tmp_path) == 2
    for step, number in (("best", 2), ("last", 6), (5, 5), ("5", 5)):
        variables, config, found = checkpoint.load_variables(tmp_path, step=step)
        assert (found, config) == (number, {"seed": number})
        assert_same(variables, run_of(number)[0])
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(variables))


def test_best_is_remembered_by_the_next_process_and_may_be_the_least(tmp_path):
    options = {"keep_last": 1, "keep_best": 2, "best_metric": "loss", "best_mode": "min"}
    with checkpoint.Checkpointer(tmp_path, **options) as saver:
        for step, loss in ((1, 0.5), (2, 0.1), (3, 0.3)):
            save_run(saver, step, loss=loss)
    with checkpoint.Checkpointer(tmp_path, **options) as saver:
        save_run(saver, 4, loss=0.9)
        save_run(saver, 5)
        saver.wait()
        assert checkpoint.steps(tmp_path) == [2, 3, 5]
        assert checkpoint.best_step(tmp_path) == 2


def test_without_a_metric_best_is_the_last(directory):
    assert checkpoint.best_step(directory) is None
    assert checkpoint.load_variables(directory)[2] == 20


def test_load_gives_arrays_where_the_abstract_tree_says(directory):
    target = jax.devices()[3]
    variables = run_of(20)[0]
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=jax.sharding.SingleDeviceSharding(target)),
        variables,
    )
    loaded, _, _ = checkpoint.load_variables(directory, abstract)
    assert_same(loaded, variables)
    assert all(leaf.devices() == {target} for leaf in jax.tree.leaves(loaded))


def test_load_reads_no_trainer(directory):
    shutil.rmtree(directory / "20" / "trainer")
    shutil.rmtree(directory / "20" / "position")
    assert checkpoint.load_variables(directory, step="last")[2] == 20


def test_load_errors_name_the_steps(directory, tmp_path):
    with pytest.raises(ValueError, match=r"^There is no checkpoint 15 in .*; there are 10, 20, 'best' and 'last'\.$"):
        checkpoint.load_variables(directory, step=15)
    with pytest.raises(ValueError, match=r"^There is no checkpoint 'bset' in .*; there are 10, 20"):
        checkpoint.load_variables(directory, step="bset")
    with pytest.raises(ValueError, match=r"^There is no checkpoint in .*nowhere\.$"):
        checkpoint.load_variables(tmp_path / "nowhere")
    assert checkpoint.steps(tmp_path / "nowhere") == []


@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8), (8, 4)])
def test_the_number_of_devices_may_change(tmp_path, before, after):
    def placed(count: int) -> tuple[dict, dict]:
        mesh = jax.make_mesh((count,), ("data",), (AxisType.Auto,), devices=jax.devices()[:count])
        whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
        variables = {"params": {"w": jax.device_put(jnp.arange(12.0).reshape(3, 4), whole)}, "state": {}}
        return variables, {"carry": jax.device_put(jnp.arange(48.0).reshape(16, 3) / 7, split)}

    variables, trainer = placed(before)
    with checkpoint.Checkpointer(tmp_path) as saver:
        saver.save(1, variables=variables, trainer=trainer, position={}, config={}, metrics={})
    with checkpoint.Checkpointer(tmp_path) as saver:
        restored = saver.restore(*placed(after))
    assert_same((restored.variables, restored.trainer), (variables, trainer))
    assert restored.trainer["carry"].sharding.num_devices == after
    assert restored.trainer["carry"].addressable_shards[0].data.shape == (16 // after, 3)


def test_another_model_is_one_sentence_not_a_damaged_step(directory, caplog):
    variables, trainer = run_of(0)
    wide = {"conv": {"kernel": jnp.zeros((40, 60)), "bias": variables["params"]["conv"]["bias"]}}
    with checkpoint.Checkpointer(directory) as saver:
        with pytest.raises(ValueError) as error:
            saver.restore({**variables, "params": wide}, trainer)
        assert str(error.value) == (
            f"Checkpoint {directory / '20'} does not fit: variables params/conv/kernel is float32[40, 50] in it and "
            "float32[40, 60] in this run, and 1 more leaves differ."
        )
        half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
        with pytest.raises(ValueError, match=r"float32\[40, 50\] in it and bfloat16\[40, 50\] in this run"):
            saver.restore(half, trainer)
        with pytest.raises(ValueError, match=r"trainer extra is absent in it and float32\[2\] in this run\.$"):
            saver.restore(variables, {**trainer, "extra": jnp.zeros(2)})
    assert caplog.text == ""


def test_bad_arguments_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"Unknown best_mode 'maxx'\. Did you mean 'max'\?"):
        checkpoint.Checkpointer(tmp_path, best_mode="maxx")
    with pytest.raises(ValueError, match=r"keep_last must be >= 1"):
        checkpoint.Checkpointer(tmp_path, keep_last=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written: Not a directory\.$"):
        checkpoint.Checkpointer(tmp_path / "file" / "checkpoints")
    variables = {"params": {"w": jnp.ones(2)}}
    rest = {"trainer": {"step": 1}, "config": {}}
    with checkpoint.Checkpointer(tmp_path, best_metric="robust_acuracy") as saver:
        with pytest.raises(ValueError, match=r"'robust_acuracy'\. Did you mean 'robust_accuracy'\?"):
            saver.save(1, variables=variables, position={}, metrics={"robust_accuracy": 0.5}, **rest)
        with pytest.raises(ValueError, match=r"The position of a checkpoint must be JSON: .* set "):
            saver.save(1, variables=variables, position={"seen": {1}}, metrics={}, **rest)
        with pytest.raises(ValueError, match=r"cannot hold arrays without elements, got 0/none\.$"):
            saver.save(1, variables={"none": jnp.zeros((0, 3))}, position={}, metrics={}, **rest)
    assert checkpoint.steps(tmp_path) == []


def test_a_folder_named_by_way_of_its_parent_is_read_as_it_is_written(tmp_path):
    """Orbax writes below ``a/../b``, and then says of every file there that its path is invalid."""
    there = tmp_path / "elsewhere" / ".." / "run"
    (tmp_path / "elsewhere").mkdir()
    with checkpoint.Checkpointer(there, asynchronous=False) as saver:
        save_run(saver, 3)
        restored = saver.restore(*run_of(3))
    assert_same(restored.variables, run_of(3)[0])
    assert_same(checkpoint.load_variables(there)[0], run_of(3)[0])
