"""The benchmark times every bundled network and writes down what it measured, where and how."""

import math

import jax
import jax.numpy as jnp
import PIL.Image
import pytest

from robust_saliency import (
    benchmark,
    benchmark_attacks,
    benchmark_maps,
    benchmark_training,
    config,
    config_sections,
    metrics,
    models,
    objectives,
    records,
    saliency,
    sharding,
    timing,
)
from robust_saliency.models.windows import AXES
from tests import tiny


def test_every_network_objective_map_and_metric_has_a_row_that_adds_up(tmp_path, capsys, monkeypatch):
    settings = {"batch_size": 4, "image_size": 32, "repetitions": 1, "attack": {"name": "pgd", "num_steps": 1}}
    experiment = tiny.experiment(benchmark=settings | {"models": []})
    few = {name: objectives.OBJECTIVES[name] for name in ("standard", "adversarial", "free")}
    monkeypatch.setattr(objectives, "OBJECTIVES", few)
    monkeypatch.setattr(models, "MODELS", {name: models.MODELS[name] for name in ("small_cnn", "plain_cnn")})
    monkeypatch.setattr(saliency, "SALIENCY", {name: saliency.SALIENCY[name] for name in ("gradient", "active")})
    monkeypatch.setattr(metrics, "METRICS", {name: metrics.METRICS[name] for name in ("gini", "allegiance_auc")})
    path = benchmark.benchmark(experiment, str(tmp_path))
    described = records.read_json(path)
    assert [row["network"] for row in described["attacks"]] == list(models.MODELS)
    for row in described["attacks"]:
        assert (row["batch"], row["steps"]) == (4, 1)
        assert math.isclose(row["gradients_per_second"], row["images_per_second"] * row["steps"])
        assert row["ratio"] > 0
        assert row["compile_seconds"] > row["warm_seconds"] > 0
        assert 0 < row["share"] < 1
        assert row["mebibytes"] > 4 * 32 * 32 * 3 * 4 / 2**20 / 2, "the images of one of two devices alone"
    with PIL.Image.open(tmp_path / "benchmark.png") as picture:
        assert picture.width > 1000
    assert {"command", "hardware", "versions", "benchmark"} <= set(described)
    table = capsys.readouterr().out
    assert all(name in table for name in (*models.MODELS, *benchmark_attacks.COLUMNS))
    training = {row["objective"]: row for row in described["training"]}
    assert list(training) == list(objectives.OBJECTIVES)
    for name, row in training.items():
        assert row["gradients"] > 0 and row["images_per_second"] > 0
        assert (row["ratio"] is None) == (name == "standard")
    assert all(name in table for name in (*objectives.OBJECTIVES, *benchmark_training.COLUMNS))
    maps = {row["name"]: row for row in described["maps"]}
    passes = {name: (row["forwards"], row["gradients"]) for name, row in maps.items()}
    assert passes == {
        "gradient": (0, 1), "active": (0, 10), "class_maps": (0, 10), "gini": (0, 0), "allegiance_auc": (13, 0),
    }  # fmt: skip
    assert all((row["ratio"] is None) == (name == "gini") and row["seconds"] > 0 for name, row in maps.items())
    assert all(name in table for name in (*maps, *benchmark_maps.COLUMNS))


@pytest.mark.parametrize(("channels", "features"), [(1, 8), (3, 8), (8, 8), (32, 32)])
def test_operations_are_those_of_the_convolution_and_not_those_of_its_shape_on_a_cpu(channels, features):
    x, kernel = jnp.ones((2, 10, 10, channels)), jnp.ones((3, 3, channels, features))

    def valid(x, kernel):
        return models.conv_general_dilated(x, kernel, (1, 1), ((0, 0), (0, 0)), dimension_numbers=AXES)

    assert timing.operations(valid, x, kernel) == 2 * (2 * 8 * 8 * features) * (3 * 3 * channels)


def test_a_config_may_name_every_part_that_there_is_and_no_other():
    assert tuple(benchmark.PARTS) == config_sections.BENCHMARK_PARTS
    with pytest.raises(ValueError, match=r"config\.benchmark: Unknown part 'map'\. Did you mean 'maps'"):
        tiny.experiment(benchmark={"parts": ["attacks", "map"]})


def test_attacks_on_networks_in_batches_of_dtypes():
    grid = {"attacks": ["pgd", "fgsm"], "models": ["small_cnn"], "batch_sizes": [2, 4], "dtypes": ["bfloat16"]}
    attack = {"num_steps": 2, "num_restarts": 2}
    experiment = tiny.experiment(benchmark=grid | {"repetitions": 1, "attack": attack})
    found = benchmark_attacks.rows(experiment, sharding.make_mesh(2, 4, "batch_size"))
    assert [(row["attack"], row["batch"], row["dtype"], row["steps"]) for row in found] == [
        ("pgd", 2, "bfloat16", 4), ("fgsm", 2, "bfloat16", 1), ("pgd", 4, "bfloat16", 4), ("fgsm", 4, "bfloat16", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"models": ["resnet19"]}, r"network in config\.benchmark\.models 'resnet19'\. Did you mean 'resnet18'"),
        ({"dtypes": ["float16"]}, r"dtype in config\.benchmark\.dtypes 'float16'"),
        ({"attacks": ["pdg"]}, "Did you mean 'pgd'"),
        ({"repetitions": 0}, "repetitions"),
    ],
)
def test_what_cannot_be_timed_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny.experiment(benchmark=fields)


def test_a_program_compiles_cold_twice_and_the_cache_of_the_user_stays():
    before = jax.config.jax_compilation_cache_dir
    program = jax.jit(lambda x: jnp.sin(x) @ x)
    costs = [timing.compiled_with_costs(program, jnp.ones((4, 4)))[1] for _ in range(2)]
    assert all(each.compile_seconds > 1e-3 and each.trace_seconds > 0 for each in costs)
    assert jax.config.jax_compilation_cache_dir == before


def passes_made(spec_of, shape, classes):
    """How many images a method of a network passes forward for each of its own, counted where they pass."""
    seen = []

    def logits_fn(images):
        jax.debug.callback(lambda n: seen.append(int(n)), jnp.int32(len(images)))
        return jnp.tensordot(images, jnp.broadcast_to(jnp.arange(1.0, classes + 1), (*shape, classes)), 3)

    jax.block_until_ready(spec_of(logits_fn))
    jax.effects_barrier()
    return sum(seen) / BATCH


BATCH, SHAPE, CLASSES = 2, (12, 9, 3), 4
NEED_A_NETWORK = ("grad_cam", "grad_cam_plus_plus", "guided_backprop")


@pytest.mark.parametrize("name", [name for name in saliency.SALIENCY if name not in NEED_A_NETWORK])
def test_a_map_makes_as_many_passes_as_are_said(name, key):
    """Gradients share a forward pass: of the classes of an image, and of no two steps of a path."""
    spec = saliency.SALIENCY[name][0](**{field: 5 for field in ("num_samples",) if name == "rise"})
    forwards, gradients = benchmark_maps.SALIENCY_PASSES[name](spec, SHAPE, CLASSES)
    images, labels = jax.random.uniform(key, (BATCH, *SHAPE)), jnp.array([0, 2])
    made = passes_made(lambda f: jax.jit(lambda x: saliency.run(f, key, x, labels, spec))(images), SHAPE, CLASSES)
    assert made == forwards + (1 if name in ("active", "inactive") else gradients)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_a_metric_makes_as_many_passes_as_are_said(name, key):
    spec = metrics.METRICS[name][0]()
    forwards, gradients = benchmark_maps.METRIC_PASSES[name](spec, SHAPE, CLASSES)
    images, labels = jax.random.uniform(key, (BATCH, *SHAPE)), jnp.array([0, 2])
    mask = jnp.zeros((BATCH, *SHAPE[:2])).at[:, 3:6, 3:6].set(1)
    given = {"key": key, "labels": labels, "maps": images[..., 0], "masks": {"lesion": mask, "evidence": mask}}

    def measured(logits_fn):
        def explain(key, images, labels):
            return saliency.gradient(logits_fn, key, images, labels, saliency.Gradient())

        fns = {"logits_fn": logits_fn, "saliency_fn": explain, "attacked_fn": lambda attack: 1 - images, "map_key": key}
        return jax.jit(lambda x: metrics.run(spec, **fns, images=x, **given))(images)

    assert passes_made(measured, SHAPE, CLASSES) == forwards + gradients


def test_what_only_a_whole_training_has_is_left_out_of_a_step(monkeypatch):
    monkeypatch.setattr(objectives, "OBJECTIVES", {"standard": objectives.OBJECTIVES["standard"]})
    plain = tiny.plain(train={"average_decay": 0.9, "trainable": ["^params/logits"]})
    plain["benchmark"] = {"batch_size": 4, "repetitions": 1}
    (row,) = benchmark_training.rows(config.parse(plain), sharding.make_mesh(2, 4, "batch_size"))
    assert row["objective"] == "standard" and row["gradients"] > 0


def test_an_objective_that_the_attack_does_not_suit_has_no_row_and_its_reason(capsys, monkeypatch):
    settings = {"batch_size": 4, "repetitions": 1, "attack": {"start": "none", "num_steps": 1}}
    experiment = tiny.experiment(benchmark=settings)
    monkeypatch.setattr(objectives, "OBJECTIVES", {"trades": objectives.OBJECTIVES["trades"]})
    assert benchmark_training.rows(experiment, sharding.make_mesh(2, 4, "batch_size")) == []
    assert "no training step of trades: " in capsys.readouterr().err
