"""The benchmark times every bundled network and writes down what it measured, where and how."""

import math

from robust_saliency import benchmark, models, records
from tests import tiny


def test_every_network_has_a_row_that_adds_up(tmp_path, capsys):
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
