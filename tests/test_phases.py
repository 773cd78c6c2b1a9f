"""Training in phases: what each of them is, and what it leaves to the next."""

import json

import chex
import jax
import numpy as np
import pytest

from configs import common
from robust_saliency import checkpoint, config, data, epoch_end, initialise, phases, train
from tests import tiny
from tests.interruptions import killed_at

HEAD = {"label": "head", "init_step": "best", "overrides": {"train": {"trainable": ["^params/logits"], "epochs": 1}}}
WHOLE = {"label": "whole", "overrides": {"objective": {"name": "adversarial"}, "optimizer": {"learning_rate": 1e-4}}}
TUNED = {"label": "tuned", "overrides": {"optimizer": {"learning_rate": 0.0, "weight_decay": 0.0}}}


def weights(folder, step="best"):
    return checkpoint.load_variables(folder / "checkpoints", step=step)[0]


def test_phases_become_runs_of_their_own():
    plain = tiny.plain(phases=[HEAD, WHOLE, TUNED], init_from={"workdir": "../standard", "exclude": "logits"})
    folders, configs = zip(*phases.unfolded(plain), strict=True)
    assert folders == ("phases/1_head", "phases/2_whole", "")
    starts = [each["init_from"] for each in configs]
    assert [start["workdir"] for start in starts] == ["../../../standard", "../1_head", "phases/2_whole"]
    assert [start["exclude"] for start in starts] == ["logits", "", ""]
    assert [each["objective"]["name"] for each in configs] == ["standard", "adversarial", "standard"]
    assert [each["train"]["epochs"] for each in configs] == [1, 2, 2]
    assert [start["step"] for start in starts] == ["best", "best", "best"]
    assert not any("phases" in each for each in configs)
    experiment = config.parse(plain)
    assert experiment.plain == json.loads(json.dumps(plain))
    assert experiment.train.trainable == () and experiment.optimizer.learning_rate == 0.0
    assert [(folder, each.objective.name) for folder, each in experiment.phases] == [
        ("phases/1_head", "standard"),
        ("phases/2_whole", "adversarial"),
    ]


def test_a_phase_may_begin_with_the_last_weights_of_the_one_before():
    plain = tiny.plain(phases=[HEAD, {**WHOLE, "init_step": "last"}, TUNED], init_from={"step": "7"})
    assert [each["init_from"]["step"] for _, each in phases.unfolded(plain)] == ["7", "last", "best"]
    assert common.phase("a", init_step="last", train={"epochs": 1}).to_dict() == {
        "label": "a",
        "init_step": "last",
        "overrides": {"train": {"epochs": 1}},
    }


def test_each_phase_has_a_seed_of_its_own_and_the_first_that_of_the_config():
    def seeds(seed, *listed):
        return [each["seed"] for _, each in phases.unfolded(tiny.plain(seed=seed, phases=list(listed)))]

    assert seeds(3) == [3]
    three, four = seeds(3, HEAD, WHOLE, TUNED), seeds(4, HEAD, WHOLE, TUNED)
    assert three[0] == 3 and len({*three, *four}) == 6
    assert three == seeds(3, HEAD, TUNED, WHOLE)
    experiment = tiny.experiment(seed=3, phases=[HEAD, WHOLE])
    assert (experiment.phases[0][1].seed, experiment.seed, experiment.plain["seed"]) == (3, three[1], 3)


def test_a_config_without_phases_is_one():
    plain = tiny.plain()
    [(folder, only)] = phases.unfolded(plain)
    assert folder == "" and {**only, "phases": []} == plain
    assert config.parse(plain).phases == ()


def test_an_absolute_start_stays():
    plain = tiny.plain(phases=[HEAD, WHOLE], init_from={"workdir": "/runs/standard"})
    assert phases.unfolded(plain)[0][1]["init_from"]["workdir"] == "/runs/standard"


def test_a_phase_of_the_config_file_is_what_the_json_says():
    made = common.phase("head", train={"trainable": ("^params/logits",), "epochs": 1})
    assert config.to_plain(made) == HEAD


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([HEAD, HEAD], r"config\.phases: every phase needs a label of its own, got head, head\."),
        ([{"overrides": {}}], r"config\.phases\[0\] must be a section with a label and overrides"),
        ([HEAD, {"label": "a", "overrides": 5}], r"config\.phases\[1\]\.overrides must be a section, got 5\."),
        ([HEAD, {"label": "a", "overrides": {"train": 5}}], r"overrides\.train must be a section, got 5\."),
        (["head"], r"config\.phases\[0\] must be a section with a label and overrides, got 'head'"),
        ([{"label": "../a"}], r"config\.phases\[0\]\.label: a label must not start with a dot or hold a slash"),
        ([HEAD, {"label": "a", "override": {}}], r"config\.phases\[1\]: Unknown field 'override'\. Did you mean 'over"),
        (
            [{"label": "a", "overrides": {"model": {"width": 3}}}],
            r"Unknown section of config\.phases\[0\]\.overrides 'model'.*Choices: objective, optimizer, schedules",
        ),
        (
            [{"label": "a", "overrides": {"train": {"epoch": 3}}}, HEAD],
            r"config\.phases\[0\]\.overrides\.train: Unknown field 'epoch'\. Did you mean 'epochs'",
        ),
        (
            [{"label": "a", "overrides": {"train": {"trainable": ["("]}}}, HEAD],
            r"config\.phases\[0\] \('a'\): config\.train: train\.trainable '\(' is no regular expression",
        ),
        (
            [HEAD, {"label": "b", "overrides": {"optimizer": {"learning_rate": -1.0}}}],
            r"^config\.phases\[1\] \('b'\): config\.optimizer\.learning_rate must be at least 0, got -1\.0\.",
        ),
        (
            [HEAD, {"label": "b", "overrides": {"train": {"guard_drop": 0.2}}}, TUNED],
            r"^config\.phases\[1\] \('b'\): config\.train\.guard_drop guards adversarial training",
        ),
        (
            [{"label": "a", "overrides": {"train": {"epochs": 0}}}, HEAD],
            r"^config\.phases\[0\] \('a'\): config\.train\.epochs is 0, so the phase after it has no start\.",
        ),
        (
            [HEAD, {"label": "b", "init_step": "lst"}],
            r"Unknown config\.phases\[1\]\.init_step 'lst'\. Did you mean 'last'",
        ),
        (
            [{"label": "a", "init_step": "last"}, HEAD],
            r"config\.phases\[0\]\.init_step is 'last', but the first phase begins as config\.init_from says\.",
        ),
    ],
)
def test_mistakes_are_told_when_the_config_is_read(listed, message):
    with pytest.raises(ValueError, match=message):
        config.parse(tiny.plain(phases=listed))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phases") / "run"
    experiment = tiny.experiment(phases=[HEAD, WHOLE, TUNED])
    return folder, experiment, train.train(experiment, str(folder))


def test_each_phase_trains_what_it_says_and_begins_where_the_last_was_best(trained):
    folder, experiment, _ = trained
    classifier = initialise.classifier_of(experiment.model, (32, 32, 3), 3)
    start = classifier.init(jax.random.fold_in(jax.random.key(experiment.phases[0][1].seed), 0))["params"]
    head, whole, tuned = (weights(folder / each)["params"] for each in ("phases/1_head", "phases/2_whole", ""))
    changed = {name for name in start if not np.array_equal(*map(_flat, (start[name], head[name])))}
    assert changed == {"logits"}
    assert {name for name in start if not np.array_equal(*map(_flat, (head[name], whole[name])))} == set(start)
    chex.assert_trees_all_equal(tuned, whole)  # a learning rate of zero


def _flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_a_run_in_phases_is_read_like_any_other(trained):
    folder, experiment, took = trained
    assert took["steps"] == 8
    assert json.loads((folder / "config.json").read_text()) == experiment.plain
    _, _, described = initialise.load(str(folder))
    assert described == experiment.plain
    initialise.check_unchanged({"config": described}, experiment.plain)
    assert json.loads((folder / "phases/2_whole/config.json").read_text())["objective"]["name"] == "adversarial"


def test_finished_phases_are_not_trained_again(trained):
    folder, experiment, _ = trained
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.jsonl")}
    assert train.train(experiment, str(folder))["steps"] == 0
    assert len(before) == 3
    checkpoints = {path: path.stat().st_mtime_ns for path in folder.rglob("checkpoints/*/_CHECKPOINT_METADATA")}
    train.train(experiment, str(folder))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("checkpoints/*/_CHECKPOINT_METADATA")} == checkpoints


def test_a_run_killed_in_its_second_phase_ends_as_if_it_had_not_been(trained, tmp_path):
    whole, experiment, _ = trained

    with killed_at(4, "2_whole"):
        train.train(experiment, str(tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoints").exists()
    train.train(experiment, str(tmp_path / "run"))
    for each in ("phases/1_head", "phases/2_whole", ""):
        chex.assert_trees_all_equal(weights(tmp_path / "run" / each, "last"), weights(whole / each, "last"))


def test_a_pattern_of_a_later_phase_that_matches_nothing_is_told_before_anything_is_trained(tmp_path):
    wrong = {"label": "wrong", "overrides": {"train": {"trainable": ["layer4"]}}}
    message = r"^config\.phases\[1\] \('wrong'\): config\.train\.trainable: 'layer4' matches no parameter\."
    with pytest.raises(ValueError, match=message):
        train.train(tiny.experiment(phases=[HEAD, wrong]), str(tmp_path / "run"))
    assert not (tmp_path / "run" / "phases").exists()


def test_a_layer_that_an_earlier_phase_does_not_find_is_told_with_the_phase():
    wrong = {"label": "wrong", "overrides": {"objective": {"name": "consistent", "layers": ["conv9"]}}}
    experiment = tiny.experiment(phases=[wrong, HEAD])
    with pytest.raises(ValueError, match=r"^config\.phases\[0\] \('wrong'\): .*conv9"):
        train.check(experiment, data.load(experiment.data))


def test_the_last_weights_of_a_phase_start_the_next(tmp_path, monkeypatch):
    left = [0.9, 0.1, 0.5]
    validated = epoch_end.EpochEnd.validated
    monkeypatch.setattr(
        epoch_end.EpochEnd, "validated", lambda self, variables: validated(self, variables) | {"accuracy": left.pop(0)}
    )
    first = {"label": "first", "overrides": {"train": {"epochs": 2}}}
    still = {**TUNED, "init_step": "last", "overrides": TUNED["overrides"] | {"train": {"epochs": 1}}}
    train.train(tiny.experiment(phases=[first, still]), str(tmp_path))
    before = tmp_path / "phases/1_first"
    chex.assert_trees_all_equal(weights(tmp_path)["params"], weights(before, "last")["params"])
    assert checkpoint.best_step(before / "checkpoints") == 4 and checkpoint.steps(before / "checkpoints")[-1] == 8
