"""The benchmark times every bundled network and writes down what it measured, where and how."""

import math

from robust_saliency import benchmark, benchmark_training, config, models, objectives, records, sharding
from tests import tiny


def test_every_network_and_objective_has_a_row_that_adds_up(tmp_path, capsys, monkeypatch):
    few = {name: objectives.OBJECTIVES[name] for name in ("standard", "adversarial", "free")}
    monkeypatch.setattr(objectives, "OBJECTIVES", few)
    settings = {"batch_size": 4, "image_size": 32, "repetitions": 1, "attack": {"name": "pgd", "num_steps": 1}}
    path = benchmark.benchmark(tiny.experiment(benchmark=settings), str(tmp_path))
    described = records.read_json(path)
    assert [row["network"] for row in described["rows"]] == list(models.MODELS)
    for row in described["rows"]:
        assert (row["batch"], row["steps"]) == (4, 1)
        assert math.isclose(row["gradients_per_second"], row["images_per_second"] * row["steps"])
        assert row["ratio"] > 0
        assert row["compile_seconds"] > 0
    assert {"command", "hardware", "versions", "benchmark"} <= set(described)
    table = capsys.readouterr().out
    assert all(name in table for name in (*models.MODELS, *benchmark.COLUMNS))
    training = {row["objective"]: row for row in described["training"]}
    assert list(training) == list(objectives.OBJECTIVES)
    for name, row in training.items():
        assert row["gradients"] > 0 and row["images_per_second"] > 0
        assert (row["ratio"] is None) == (name == "standard")
    assert all(name in table for name in (*objectives.OBJECTIVES, *benchmark_training.COLUMNS))


def test_what_only_a_whole_training_has_is_left_out_of_a_step(monkeypatch):
    monkeypatch.setattr(objectives, "OBJECTIVES", {"standard": objectives.OBJECTIVES["standard"]})
    plain = tiny.plain(train={"average_decay": 0.9, "trainable": ["^params/logits"]})
    plain["benchmark"] = {"batch_size": 4, "repetitions": 1}
    (row,) = benchmark_training.rows(config.parse(plain), sharding.make_mesh(2, 4, "batch_size"))
    assert row["objective"] == "standard" and row["gradients"] > 0


def test_an_objective_that_the_attack_does_not_suit_has_no_row_and_its_reason(capsys, monkeypatch):
    monkeypatch.setattr(objectives, "OBJECTIVES", {"trades": objectives.OBJECTIVES["trades"]})
    settings = {"batch_size": 4, "repetitions": 1, "attack": {"start": "none", "num_steps": 1}}
    experiment = tiny.experiment(benchmark=settings)
    assert benchmark_training.rows(experiment, sharding.make_mesh(2, 4, "batch_size")) == []
    assert "no training step of trades: " in capsys.readouterr().err
