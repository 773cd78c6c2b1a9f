"""What the end of an epoch may change: it ends training, slows it down, freezes and averages."""

import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import (
    attacks,
    averaging,
    checkpoint,
    data,
    epoch_end,
    initialise,
    losses,
    records,
    study,
    train,
    train_step,
)
from robust_saliency.threat import Threat
from tests import tiny
from tests.interruptions import killed_at

NORMALISED = {"name": "plain_cnn", "layers": ["conv4k5s2", "bn", "max4", "gap"], "width": None}


def rows(workdir, split):
    return [row for row in records.MetricsLog(workdir).read() if row["split"] == split]


def weights(workdir, step="last"):
    return checkpoint.load_variables(workdir / "checkpoints", step=step)[0]


def counted(monkeypatch, values):
    """Validation accuracies as listed, one a call."""
    validated = epoch_end.EpochEnd.validated
    left = list(values)

    def listed(self, variables):
        return validated(self, variables) | {"accuracy": left.pop(0)}

    monkeypatch.setattr(epoch_end.EpochEnd, "validated", listed)


def test_patience_ends_training_and_a_further_call_leaves_it_ended(tmp_path, monkeypatch, capsys):
    counted(monkeypatch, [0.5, 0.6, 0.6, 0.55, 0.9, 0.9])
    experiment = tiny.experiment(train={"epochs": 6, "patience": 2})
    assert train.train(experiment, str(tmp_path))["steps"] == 16
    assert "ended after 16 of 24 steps: 2 validations brought no better accuracy" in capsys.readouterr().err
    assert checkpoint.best_step(tmp_path / "checkpoints") == 8
    told = json.loads((tmp_path / "training.json").read_text())
    assert told["steps"] == 16 and told["ended"]["of_steps"] == 24
    assert train.train(experiment, str(tmp_path))["steps"] == 0
    assert [row["step"] for row in rows(tmp_path, "validation")] == [4, 8, 12, 16]


def test_a_kill_before_the_end_by_patience_is_written_down_does_not_let_the_run_go_on(tmp_path, monkeypatch):
    counted(monkeypatch, [0.5, 0.6, 0.6, 0.55, 0.9, 0.9])
    experiment = tiny.experiment(train={"epochs": 6, "patience": 2})
    with killed_at(16):
        train.train(experiment, str(tmp_path))
    assert not (tmp_path / "training.json").exists()
    assert train.train(experiment, str(tmp_path))["steps"] == 0
    assert [row["step"] for row in rows(tmp_path, "validation")] == [4, 8, 12, 16]
    told = json.loads((tmp_path / "training.json").read_text())
    assert told["steps"] == told["ended"]["checkpoint"] == 16
    assert told["ended"]["why"] == "2 validations brought no better accuracy"


def test_patience_that_is_over_after_the_last_step_is_no_early_end(tmp_path, monkeypatch):
    counted(monkeypatch, [0.5, 0.4])
    experiment = tiny.experiment(train={"epochs": 2, "patience": 1})
    assert train.train(experiment, str(tmp_path))["steps"] == 8
    assert train.train(experiment, str(tmp_path))["steps"] == 0
    assert "ended" not in json.loads((tmp_path / "training.json").read_text())


def test_a_run_without_patience_does_not_end(tmp_path, monkeypatch):
    counted(monkeypatch, [0.5, 0.4, 0.3])
    assert train.train(tiny.experiment(train={"epochs": 3}), str(tmp_path))["steps"] == 12
    assert "ended" not in json.loads((tmp_path / "training.json").read_text())


def test_the_learning_rate_falls_on_a_plateau_also_after_a_kill(tmp_path, monkeypatch):
    settings = {"epochs": 4, "plateau_patience": 1, "plateau_factor": 0.5, "log_every": 4}
    experiment = tiny.experiment(train=settings, optimizer={"schedule": "constant", "learning_rate": 1e-3})
    with monkeypatch.context() as patch:
        counted(patch, [0.5, 0.5, 0.4, 0.6])
        train.train(experiment, str(tmp_path / "whole"))
    rates = [row["learning_rate"] for row in rows(tmp_path / "whole", "train")]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 5e-4, 2.5e-4], rtol=1e-6)

    with monkeypatch.context() as patch, killed_at(8):
        counted(patch, [0.5, 0.5])
        train.train(experiment, str(tmp_path / "killed"))
    counted(monkeypatch, [0.4, 0.6])
    assert train.train(experiment, str(tmp_path / "killed"))["steps"] == 8
    chex.assert_trees_all_equal(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


def test_a_smaller_factor_is_a_smaller_learning_rate(tmp_path):
    """A step whose update is halved is the step of half the learning rate."""
    optimizer = {"schedule": "constant", "name": "adamw"}
    fields = {"epochs": 1, "checkpoint_every": 1}
    half = tiny.experiment(train=fields, optimizer={**optimizer, "learning_rate": 5e-4})
    train.train(half, str(tmp_path / "half"))
    scaled = tiny.experiment(train=fields, optimizer={**optimizer, "learning_rate": 1e-3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epoch_end.EpochEnd, "learning_rate_scale", lambda self, rows: 0.5)
        train.train(scaled, str(tmp_path / "scaled"))
    chex.assert_trees_all_close(weights(tmp_path / "scaled"), weights(tmp_path / "half"), rtol=1e-5, atol=1e-7)


def test_frozen_statistics_stay_bitwise_and_are_otherwise_updated(tmp_path):
    found = {}
    for mode in ("frozen", "train"):
        experiment = tiny.experiment(model=NORMALISED, train={"epochs": 5, "batch_norm": mode})
        assert train.train(experiment, str(tmp_path / mode))["steps"] == 20
        found[mode] = weights(tmp_path / mode)["state"]
    start = initialise.classifier_of(experiment.model, (32, 32, 3), 3).init(jax.random.key(0))["state"]
    chex.assert_trees_all_equal(found["frozen"], start)
    for before, after in zip(jax.tree.leaves(start), jax.tree.leaves(found["train"]), strict=True):
        assert not np.array_equal(before, after)


AVERAGED = {"epochs": 3, "average_decay": 0.9, "average_batches": 30, "keep_last": 5}


def test_the_average_is_what_is_kept_and_goes_on_after_a_kill(tmp_path, monkeypatch):
    seen = []
    updated = averaging.updated

    def told(average, params, step, decay):
        jax.debug.callback(lambda step, leaf: seen.append((int(step), np.array(leaf))), step, params["logits"]["bias"])
        return updated(average, params, step, decay)

    experiment = tiny.experiment(model=NORMALISED, train=AVERAGED, mesh={"num_devices": 1})
    with monkeypatch.context() as patch:
        patch.setattr(averaging, "updated", told)
        train.train(experiment, str(tmp_path / "whole"))
    jax.effects_barrier()
    mean = np.zeros(3)
    for step, bias in sorted(seen, key=lambda one: one[0]):
        rate = min(0.9, (1 + step) / (10 + step))
        mean = rate * mean + (1 - rate) * bias
    assert len(seen) == 12
    np.testing.assert_allclose(weights(tmp_path / "whole")["params"]["logits"]["bias"], mean, rtol=1e-4, atol=1e-7)

    with killed_at(8):
        train.train(experiment, str(tmp_path / "killed"))
    assert train.train(experiment, str(tmp_path / "killed"))["steps"] == 4
    chex.assert_trees_all_equal(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


def test_statistics_of_the_average_are_its_own(tmp_path):
    """After 30 batches of its own activations the running mean is that of the average, not of the last weights."""
    experiment = tiny.experiment(model=NORMALISED, train=AVERAGED | {"average_batches": 100})
    train.train(experiment, str(tmp_path))
    classifier, variables, _ = initialise.load(str(tmp_path), step="last")
    split = data.load(experiment.data).train
    images = data.to_float(split.gather(np.arange(len(split))))["image"]
    bn = next(name for name in variables["state"])
    before = next(name for name in classifier.layers if name.startswith("conv"))
    features = classifier.apply(variables, images, capture=(before,)).features[before]
    running = next(
        leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables["state"][bn]) if "mean" in str(path)
    )
    np.testing.assert_allclose(running, features.mean((0, 1, 2)), atol=0.02)


def statistics(tmp_path, step, carry=None, **changes):
    """BatchNorm's of the average of the first weights, estimated after ``step`` steps; and the run's parts."""
    experiment = tiny.experiment(model=NORMALISED, mesh={"num_devices": 1}, **changes)
    training = train._Training(experiment, str(tmp_path), data.load(experiment.data))
    state = training._new_state()
    state = state._replace(step=jnp.int32(step), carry=state.carry if carry is None else carry(state.carry))
    return training.judge.kept_variables(state)["state"], state, training


def test_statistics_of_the_average_are_of_the_epsilon_that_a_ramp_has_reached(tmp_path):
    changes = {
        "objective": {"name": "adversarial", "attack": {"epsilon": 0.2, "num_steps": 1}},
        "train": {"average_decay": 0.9, "average_batches": 5},
    }
    whole, *_ = statistics(tmp_path, 4, **changes)
    ramped, *_ = statistics(tmp_path, 4, schedules={"epsilon": {"until": 0.5}}, **changes)
    clean, *_ = statistics(tmp_path, 0, schedules={"epsilon": {"until": 0.5}}, **changes)
    chex.assert_trees_all_close(ramped, whole, rtol=1e-4)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(clean, whole, rtol=1e-2)


def test_statistics_of_the_average_are_of_the_perturbation_that_free_training_has_reached(tmp_path):
    found, state, training = statistics(
        tmp_path,
        4,
        carry=lambda carry: carry + 0.1,
        objective={"name": "free", "replays": 2},
        train={"average_decay": 0.9, "average_batches": 1},
    )
    images = jnp.asarray(data.to_float(next(training._make_batches()))["image"])
    expected = training.classifier.apply(state.variables, (images + 0.1).clip(0, 1), mode="train").state
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-6)


ADVERSARIAL = {"name": "adversarial", "attack": {"num_steps": 1}}


def guarded(monkeypatch, values):
    """Accuracies of the guard as listed, one a call; returns the variables that it is asked about."""
    left, seen = list(values), []

    def listed(self, variables):
        seen.append(jax.device_get(variables))
        return left.pop(0)

    monkeypatch.setattr(epoch_end.EpochEnd, "pgd_accuracy", listed)
    return seen


def test_with_a_guard_every_good_epoch_is_kept_before_the_first_validation_too(tmp_path, monkeypatch):
    guarded(monkeypatch, [0.9, 0.1])
    settings = {"epochs": 10, "guard_drop": 0.2, "validate_every": 5, "checkpoint_every": 5}
    experiment = tiny.experiment(objective=ADVERSARIAL, train=settings)
    assert train.train(experiment, str(tmp_path))["steps"] == 8
    assert checkpoint.steps(tmp_path / "checkpoints") == [4]
    assert train.train(experiment, str(tmp_path))["steps"] == 0
    assert weights(tmp_path, "best")["params"]


def test_a_run_whose_checkpoints_are_gone_begins_anew(tmp_path, monkeypatch):
    experiment = tiny.experiment(objective=ADVERSARIAL, train={"epochs": 3, "guard_drop": 0.2})
    guarded(monkeypatch, [0.9, 0.1, 0.9, 0.8, 0.9])
    assert train.train(experiment, str(tmp_path))["steps"] == 8
    shutil.rmtree(tmp_path / "checkpoints")
    assert train.train(experiment, str(tmp_path))["steps"] == 12
    assert [row["step"] for row in rows(tmp_path, "guard")] == [4, 8, 12]
    assert "ended" not in json.loads((tmp_path / "training.json").read_text())


def test_a_guard_that_trips_in_the_last_epoch_ends_the_run_for_good(tmp_path, monkeypatch, capsys):
    guarded(monkeypatch, [0.9, 0.9, 0.1])
    experiment = tiny.experiment(objective=ADVERSARIAL, train={"epochs": 3, "guard_drop": 0.2})
    assert train.train(experiment, str(tmp_path))["steps"] == 12
    told = json.loads((tmp_path / "training.json").read_text())["ended"]
    assert told["checkpoint"] == 8 and told["of_steps"] == 12
    capsys.readouterr()
    assert train.train(experiment, str(tmp_path))["steps"] == 0
    told = capsys.readouterr().err
    assert "ended after 12 of 12 steps" in told and "going on" not in told
    assert checkpoint.steps(tmp_path / "checkpoints") == [4, 8]


def test_a_kill_before_the_end_by_the_guard_is_written_down_does_not_let_the_run_go_on(tmp_path, monkeypatch):
    guarded(monkeypatch, [0.9, 0.9, 0.1])
    experiment = tiny.experiment(objective=ADVERSARIAL, train={"epochs": 6, "guard_drop": 0.2})
    with killed_at(12):
        train.train(experiment, str(tmp_path))
    assert train.train(experiment, str(tmp_path))["steps"] == 0
    told = json.loads((tmp_path / "training.json").read_text())
    assert told["steps"] == 12 and told["ended"]["checkpoint"] == 8
    assert "fell from 0.900 to 0.100" in told["ended"]["why"]


def test_the_guard_tests_what_is_kept(tmp_path, monkeypatch):
    seen = guarded(monkeypatch, [0.9, 0.9])
    settings = {"guard_drop": 0.2, "average_decay": 0.9, "average_batches": 3}
    train.train(tiny.experiment(model=NORMALISED, objective=ADVERSARIAL, train=settings), str(tmp_path))
    chex.assert_trees_all_equal(seen[-1], weights(tmp_path))


def test_the_guard_ends_training_and_keeps_the_last_good_weights(tmp_path, monkeypatch, capsys):
    guarded(monkeypatch, [0.5, 0.6, 0.55, 0.35])
    experiment = tiny.experiment(objective={"name": "adversarial"}, train={"epochs": 6, "guard_drop": 0.2})
    assert train.train(experiment, str(tmp_path))["steps"] == 16
    assert "under PGD-5 fell from 0.600 to 0.350 (catastrophic overfitting)" in capsys.readouterr().err
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] == 12
    assert [row["pgd_accuracy"] for row in rows(tmp_path, "guard")] == [0.5, 0.6, 0.55, 0.35]
    assert train.train(experiment, str(tmp_path))["steps"] == 0


def test_the_guard_measures_pgd_on_a_training_batch(tmp_path):
    attack = {"name": "fgsm", "epsilon": 0.02}
    experiment = tiny.experiment(objective={"name": "adversarial", "attack": attack}, train={"guard_drop": 0.9})
    train.train(experiment, str(tmp_path))
    classifier, variables, _ = initialise.load(str(tmp_path), step="last")
    loaded = data.load(experiment.data)
    batch = data.to_float(next(data.train_batches(loaded.train, batch_size=16, seed=experiment.seed)))
    logits_fn, labels = classifier.logits_fn(variables), jnp.asarray(batch["label"])
    spec = attacks.PGD(threat=Threat(epsilon=0.02), num_steps=5, step_size=0.01)
    loss_fn = lambda x: losses.cross_entropy(logits_fn(x), labels)  # noqa: E731
    found = attacks.pgd(loss_fn, jax.random.key(5), jnp.asarray(batch["image"]), spec)
    own = float((losses.margin(logits_fn(found), labels) < 0).mean())
    assert abs(rows(tmp_path, "guard")[-1]["pgd_accuracy"] - own) <= 1 / 16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guard_drop": 0.2}, r"config\.train\.guard_drop guards adversarial training; 'standard' has no attack\."),
        ({"best_metric": "acuracy"}, r"Unknown config\.train\.best_metric 'acuracy'\. Did you mean 'accuracy'\?"),
        ({"best_metric": "robust_loss"}, r"'robust_loss'\..* Choices: accuracy, balanced_accuracy, loss\."),
        ({"plateau_factor": 1.0}, r"train\.plateau_factor must lie strictly between 0 and 1, got 1\.0\."),
        ({"plateau_factor": 0.0}, r"train\.plateau_factor must lie strictly between 0 and 1, got 0\.0\."),
    ],
)
def test_rules_that_cannot_be_followed_are_told_when_the_config_is_read(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny.experiment(train=settings)


@pytest.mark.parametrize("wrappers", [(), ("awp",)])
def test_best_is_robust_accuracy_where_the_objective_has_an_attack(wrappers):
    assert tiny.experiment().train.best_metric == "accuracy"
    assert tiny.experiment(data={"class_balanced": True}).train.best_metric == "balanced_accuracy"
    objective = ADVERSARIAL | {"wrappers": list(wrappers)}
    assert tiny.experiment(objective=objective).train.best_metric == "robust_accuracy"


def test_a_study_with_a_rule_that_cannot_be_followed_is_refused_before_its_first_run():
    runs = [{"label": "standard"}, {"label": "guarded", "overrides": {"train": {"guard_drop": 0.2}}}]
    with pytest.raises(ValueError, match="guard_drop guards adversarial training"):
        study.parse(tiny.plain(study={"runs": runs}))


def test_of_a_robust_loss_the_lowest_is_best(tmp_path, monkeypatch):
    validated, left = epoch_end.EpochEnd.validated, [0.9, 0.4, 0.6]

    def listed(self, variables):
        return validated(self, variables) | {"robust_loss": left.pop(0)}

    monkeypatch.setattr(epoch_end.EpochEnd, "validated", listed)
    settings = {"epochs": 3, "best_metric": "robust_loss", "keep_last": 3}
    train.train(tiny.experiment(objective=ADVERSARIAL, train=settings), str(tmp_path))
    assert checkpoint.best_step(tmp_path / "checkpoints") == 8


def test_free_training_replays_each_batch_and_keeps_its_perturbation_through_a_kill(tmp_path):
    experiment = tiny.experiment(
        objective={"name": "free", "replays": 3, "attack": {"epsilon": 4 / 255, "num_steps": 2}}, train={"epochs": 2}
    )
    assert train.train(experiment, str(tmp_path / "whole"))["steps"] == 24

    def look(state):
        assert float(jnp.abs(state.carry).max()) == pytest.approx(4 / 255)

    with killed_at(12, look=look):
        train.train(experiment, str(tmp_path / "killed"))
    assert train.train(experiment, str(tmp_path / "killed"))["steps"] == 12
    chex.assert_trees_all_equal(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


def test_the_guard_attacks_as_sparsely_as_the_regime(monkeypatch):
    """In l1 a step of one value in a hundred is another attack than one of a fifth."""
    attack = {"norm": "l1", "epsilon": 3.0, "sparsity": 0.2, "unroll": False}
    experiment = tiny.experiment(objective={"name": "adversarial", "attack": attack}, train={"guard_drop": 0.2})
    ran = []
    monkeypatch.setattr(train_step.attacks, "run", lambda loss_fn, keys, images, spec: ran.append(spec) or images)
    classifier = initialise.classifier_of(experiment.model, (32, 32, 3), 3)
    batch = {"image": jnp.zeros((2, 32, 32, 3)), "label": jnp.zeros(2, int), "id": jnp.arange(2)}
    train_step.make_guard_step(classifier, experiment)(classifier.init(jax.random.key(0)), batch, jax.random.key(0))
    (spec,) = ran
    assert (spec.sparsity, spec.unroll, spec.num_steps, spec.threat.norm) == (0.2, False, 5, "l1")
