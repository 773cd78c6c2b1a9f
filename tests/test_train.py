"""Training: it learns, it resumes bit by bit, it stops on NaN, and its programs compile once."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import checkpoint, data, initialise, losses, models, optimizer, records, train
from robust_saliency.train_step import TrainState, make_train_step, make_validation_step, validation_metrics
from tests import tiny
from tests.interruptions import killed_at


def rows(workdir, split):
    return [row for row in records.MetricsLog(workdir).read() if row["split"] == split]


def leaves(workdir, step="last"):
    return jax.tree.leaves(checkpoint.load_variables(workdir / "checkpoints", step=step)[0])


def test_a_run_leaves_its_config_its_metrics_and_checkpoints(tmp_path):
    experiment = tiny.experiment()
    result = train.train(experiment, str(tmp_path))
    assert result["steps"] == 8
    assert json.loads((tmp_path / "config.json").read_text()) == experiment.plain
    assert [row["step"] for row in rows(tmp_path, "train")] == [2, 4, 6, 8]
    assert [row["epoch"] for row in rows(tmp_path, "validation")] == [1.0, 2.0]
    assert checkpoint.steps(tmp_path / "checkpoints") == [4, 8]
    classifier, variables, config = initialise.load(str(tmp_path), step="last")
    assert config == experiment.plain
    split = data.load(experiment.data).validation
    batch = data.to_float(split.gather(np.arange(len(split))))
    logits = classifier.logits_fn(variables)(batch["image"])
    measured = rows(tmp_path, "validation")[-1]
    assert measured["loss"] == pytest.approx(float(losses.cross_entropy(logits, batch["label"]).mean()), rel=1e-5)
    assert measured["accuracy"] == pytest.approx(float((losses.margin(logits, batch["label"]) < 0).mean()))


def test_a_run_resumed_after_an_epoch_ends_bitwise_equal(tmp_path):
    experiment = tiny.experiment(train={"epochs": 3}, objective={"name": "adversarial"})
    train.train(experiment, str(tmp_path / "whole"))

    with killed_at(8):
        train.train(experiment, str(tmp_path / "stopped"))
    records.MetricsLog(tmp_path / "stopped").write(9, split="train", loss=1.0)
    assert train.train(experiment, str(tmp_path / "stopped"))["steps"] == 4
    chex.assert_trees_all_equal(leaves(tmp_path / "stopped"), leaves(tmp_path / "whole"))
    whole, stopped = rows(tmp_path / "whole", "train"), rows(tmp_path / "stopped", "train")
    assert [(row["step"], row["loss"]) for row in stopped] == [(row["step"], row["loss"]) for row in whole]
    assert train.train(experiment, str(tmp_path / "stopped"))["steps"] == 0


def test_a_workdir_of_another_config_is_refused_and_kept(tmp_path):
    train.train(tiny.experiment(), str(tmp_path))
    before = leaves(tmp_path)
    with pytest.raises(ValueError, match=r"train\.epochs: 2 -> 3"):
        train.train(tiny.experiment(train={"epochs": 3}), str(tmp_path))
    chex.assert_trees_all_equal(leaves(tmp_path), before)
    assert train.train(tiny.experiment(title="another title"), str(tmp_path))["steps"] == 0


def test_a_loss_that_is_not_finite_stops_with_step_checkpoint_and_hint(tmp_path):
    experiment = tiny.experiment(
        optimizer={"learning_rate": 1e30, "schedule": "constant", "clip_norm": 0.0, "name": "sgd"}
    )
    with pytest.raises(train.Diverged, match=r"NaN or infinite in step [1-4]; no checkpoint.*learning_rate"):
        train.train(experiment, str(tmp_path))
    assert train.train(tiny.experiment(), str(tmp_path))["steps"] == 8, "nothing was lost, so another config may begin"


def test_a_batch_with_nan_stops_with_the_last_good_checkpoint(tmp_path):
    experiment = tiny.experiment()
    loaded = data.load(experiment.data)

    class Poisoned(data.MemorySplit):
        def gather(self, indices):
            batch = super().gather(indices)
            self.gathered = getattr(self, "gathered", 0) + 1
            poison = np.nan if self.gathered > 7 else 0.0  # two were only looked at, for their shapes
            return {**batch, "image": batch["image"].astype(np.float32) / 255 + np.float32(poison)}

    poisoned = loaded._replace(train=Poisoned(loaded.train.arrays))
    with pytest.raises(train.Diverged, match=r"loss became NaN or infinite in step 6; .*good checkpoint is of step 4"):
        train.train(experiment, str(tmp_path), poisoned)
    assert checkpoint.steps(tmp_path / "checkpoints") == [4]


def test_an_older_checkpoint_is_taken_when_the_last_is_damaged(tmp_path, capsys):
    experiment = tiny.experiment()
    train.train(experiment, str(tmp_path))
    whole = leaves(tmp_path)
    last = tmp_path / "checkpoints" / "8" / "variables"
    largest = max((path for path in last.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(bytes(content))
    assert train.train(experiment, str(tmp_path))["steps"] == 4
    chex.assert_trees_all_equal(leaves(tmp_path), whole)


def test_weights_of_another_run_start_this_one(tmp_path):
    train.train(tiny.experiment(), str(tmp_path / "first"))
    changes = {"workdir": "../first", "step": "last", "exclude": "logits"}
    second = tiny.experiment(init_from=changes, optimizer={"learning_rate": 0.0, "weight_decay": 0.0}, seed=1)
    train.train(second, str(tmp_path / "second"))
    first, taken = (
        checkpoint.load_variables(tmp_path / name / "checkpoints", step="last")[0]["params"]
        for name in ("first", "second")
    )
    leaves_of = jax.tree_util.tree_leaves_with_path
    same = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.array_equal(mine, other)
        for (path, mine), (_, other) in zip(leaves_of(first), leaves_of(taken), strict=True)
        if "kernel" in str(path)
    }
    assert len(same) == 5 and sum(same.values()) == 4
    assert [name for name, is_same in same.items() if not is_same] == ["logits/kernel"]
    wider = tiny.experiment(init_from={"workdir": "../first"}, model={"width": 5})
    with pytest.raises(ValueError, match=r"init_from: .* has shape .* leave it out with init_from.exclude"):
        train.train(wider, str(tmp_path / "third"))


def test_of_a_loss_the_lowest_is_best(tmp_path):
    experiment = tiny.experiment(train={"best_metric": "loss", "epochs": 4, "keep_last": 4})
    train.train(experiment, str(tmp_path))
    losses_by_step = {row["step"]: row["loss"] for row in rows(tmp_path, "validation")}
    assert len(losses_by_step) == 4
    assert checkpoint.best_step(tmp_path / "checkpoints") == min(losses_by_step, key=losses_by_step.get)


def test_five_hundred_steps_on_two_devices_do_not_stall(tmp_path):
    experiment = tiny.experiment(
        train={"epochs": 125, "validate_every": 125, "checkpoint_every": 125, "log_every": 100}
    )
    assert train.train(experiment, str(tmp_path))["steps"] == 500


def test_a_step_is_traced_once_and_is_the_same_on_one_and_on_two_devices():
    chex.clear_trace_counter()
    results = {}
    experiment = tiny.experiment(objective={"name": "adversarial"}, schedules={"epsilon": {"until": 0.5}})
    loaded = data.load(experiment.data)
    classifier = models.make(experiment.model.spec, loaded.image_shape, 3)
    transformation, schedule = optimizer.make(experiment.optimizer, 8)
    step = make_train_step(classifier, experiment, transformation, schedule, 8)
    from robust_saliency import sharding

    for devices in (1, 2):
        chex.clear_trace_counter()
        mesh = sharding.make_mesh(devices, 16, "config.data.batch_size")
        variables = classifier.init(jax.random.key(0))
        opt_state = transformation.init(variables["params"])
        state = TrainState(jnp.zeros((), jnp.int32), variables["params"], variables["state"], opt_state, ())
        state = sharding.put_replicated(state, mesh)
        batches = data.train_batches(loaded.train, batch_size=16, seed=0)
        whole = sharding.replicated(mesh)
        counted = chex.assert_max_traces(lambda *arguments: step(*arguments), n=1)
        jitted = jax.jit(counted, out_shardings=(whole, whole))
        for number in range(2):
            state, metrics = jax.block_until_ready(
                jitted(state, sharding.put_batch(next(batches), mesh), jax.random.key(0), jnp.float32(1))
            )
            if number == 0:
                results[devices] = jax.device_get((state.params, metrics))
    # One step only: sign amplifies rounding, so that trajectories part.
    chex.assert_trees_all_close(results[1], results[2], atol=2e-5)


def test_validation_by_class_against_hand_counted_numbers():
    sums = {
        "examples": np.array([4.0, 1.0, 0.0]),
        "loss": np.array([2.0, 3.0, 0.0]),
        "accuracy": np.array([3.0, 0.0, 0.0]),
    }
    expected = {"loss": 1.0, "accuracy": 0.6, "balanced_accuracy": 0.375}
    assert validation_metrics(sums) == pytest.approx(expected)


def test_the_robust_loss_is_the_cross_entropy_of_the_adversaries():
    """Under one FGSM step from the image itself the adversary is known."""
    attack = {"name": "fgsm", "epsilon": 0.05}
    experiment = tiny.experiment(objective={"name": "adversarial", "attack": attack})
    classifier = models.make(experiment.model.spec, (32, 32, 3), 3)
    variables = classifier.init(jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    labels = np.array([0, 1, 2, 2], np.int32)
    batch = {"image": images, "label": labels, "id": np.arange(4, dtype=np.int32), "valid": np.ones(4, bool)}
    sums = jax.jit(make_validation_step(classifier, experiment))(variables, batch, jax.random.key(0))

    def loss_fn(images):
        return losses.cross_entropy(classifier.logits_fn(variables)(images), labels)

    clean = jnp.asarray(images, jnp.float32) / 255
    adversaries = (clean + 0.05 * jnp.sign(jax.grad(lambda x: loss_fn(x).sum())(clean))).clip(0, 1)
    expected = np.zeros(3)
    np.add.at(expected, labels, np.asarray(loss_fn(adversaries)))
    np.testing.assert_allclose(sums["robust_loss"], expected, rtol=1e-4)
    assert float(sums["robust_loss"].sum()) > float(sums["loss"].sum())
    assert "balanced_robust_loss" not in validation_metrics(jax.device_get(sums))


def test_padding_does_not_count_in_validation():
    experiment = tiny.experiment()
    classifier = models.make(experiment.model.spec, (32, 32, 3), 3)
    variables = classifier.init(jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    batch = {"image": images, "label": np.array([0, 1, 2, 2], np.int32), "id": np.arange(4, dtype=np.int32)}
    validate = jax.jit(make_validation_step(classifier, experiment))
    some = validate(variables, {**batch, "valid": np.array([True, True, False, False])}, jax.random.key(0))
    assert some["examples"].tolist() == [1.0, 1.0, 0.0]
    assert float(some["loss"][2]) == 0.0


def test_a_map_of_a_layer_that_is_not_there_is_refused_before_any_training(tmp_path):
    experiment = tiny.experiment(evaluation={"maps": {"gradient": {"name": "grad_cam", "layer": "conv33"}}})
    message = r"Unknown layer in config\.evaluation\.maps\.gradient\.layer 'conv33'\. Did you mean 'conv3'"
    with pytest.raises(ValueError, match=message):
        train.train(experiment, str(tmp_path))
    assert not (tmp_path / "checkpoints").exists()
