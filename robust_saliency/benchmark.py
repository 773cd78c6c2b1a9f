"""Throughput of attacks and of training steps, each beside as many plain gradients in the same run."""

import os

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import (
    benchmark_maps,
    benchmark_training,
    environment,
    losses,
    models,
    records,
    sharding,
    timing,
    workdirs,
)
from robust_saliency.config import Experiment
from robust_saliency.config_sections import Benchmark
from robust_saliency.progress import say

COLUMNS = ("network", "batch", "steps", "compile_seconds", "images_per_second", "gradients_per_second", "ratio")


def benchmark(experiment: Experiment, workdir: str) -> str:
    """Times the ``config.benchmark.parts``; prints and writes a table of each.

    attacks: ``config.benchmark.attack`` on every network of ``MODELS`` at its defaults; training: a step of every
    objective with that attack; maps: every map and every metric, both on the network of the config.

    ratio: seconds of the work over seconds of the bare passes that it cannot do without, pair by pair in one run, the
    median of the pairs: 1 means that all else costs nothing. Returns the path of benchmark.json.
    """
    settings = experiment.benchmark
    mesh = sharding.make_mesh(experiment.num_devices, settings.batch_size, "config.benchmark.batch_size")
    with workdirs.Workdir(workdir):
        tables = {part: PARTS[part][0](experiment, mesh) for part in settings.parts}
        described = {
            "benchmark": experiment.plain.get("benchmark", {}),
            "command": environment.command(),
            "hardware": environment.hardware(),
            "versions": environment.versions(),
            **tables,
        }
        path = os.path.join(workdir, "benchmark.json")
        records.write_json(path, described)
    for part, rows in tables.items():
        print(_table(rows, PARTS[part][1]))
    return path


def _attacks(experiment: Experiment, mesh) -> list[dict]:
    settings, rows = experiment.benchmark, []
    shape = (settings.image_size, settings.image_size, settings.channels)
    for name, (Spec, make) in models.MODELS.items():
        say(f"benchmark: {settings.attack.name} on {name}, {settings.batch_size} images of {shape}")
        classifier = make(Spec(), shape, settings.num_classes)
        rows.append({"network": name, **_timed(classifier, settings, shape, mesh)})
    return rows


def _timed(classifier: models.Classifier, settings: Benchmark, shape: tuple[int, int, int], mesh) -> dict:
    attack, spec, batch = settings.attack.function, settings.attack.spec, settings.batch_size
    key, rng = jax.random.key(0), np.random.default_rng(0)
    variables = sharding.put_replicated(classifier.init(key), mesh)
    labels = rng.integers(0, settings.num_classes, batch).astype(np.int32)
    placed = sharding.put_batch({"image": rng.random((batch, *shape), np.float32), "label": labels}, mesh)
    steps = getattr(spec, "num_steps", 1)

    def loss_fn(variables, images, labels):
        return losses.cross_entropy(classifier.logits_fn(variables)(images), labels)

    def attacked(variables, key, images, labels):
        return attack(lambda x: loss_fn(variables, x, labels), key, images, spec)

    def gradient(variables, images, labels):
        return jax.grad(lambda x: jnp.sum(loss_fn(variables, x, labels)))(images)

    run_attack, compile_seconds = timing.compiled(attacked, variables, key, *placed.values())
    run_gradient, _ = timing.compiled(gradient, variables, *placed.values())

    def gradients():
        for _ in range(steps):
            run_gradient(variables, *placed.values())

    seconds, ratio = timing.in_turns(
        lambda: run_attack(variables, key, *placed.values()), gradients, settings.repetitions
    )
    return {
        "batch": batch,
        "steps": steps,
        "compile_seconds": compile_seconds,
        "images_per_second": batch / seconds,
        "gradients_per_second": batch * steps / seconds,
        "ratio": ratio,
    }


def _table(rows: list[dict], columns: tuple[str, ...]) -> str:
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    lines = [columns, *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


# The rows of each part, and their columns.
PARTS = {
    "attacks": (_attacks, COLUMNS),
    "training": (benchmark_training.rows, benchmark_training.COLUMNS),
    "maps": (benchmark_maps.rows, benchmark_maps.COLUMNS),
}
