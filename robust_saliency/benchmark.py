"""Attack throughput of the bundled networks: compile seconds, images/s, and the ratio to as many plain gradients."""

import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import environment, losses, models, records, sharding, workdirs
from robust_saliency.config import Benchmark, Experiment
from robust_saliency.progress import say

COLUMNS = ("network", "batch", "steps", "compile_seconds", "images_per_second", "gradients_per_second", "ratio")


def benchmark(experiment: Experiment, workdir: str) -> str:
    """Times ``config.benchmark.attack`` on every network of ``MODELS`` at its defaults; prints and writes a table.

    ratio: seconds of the attack over seconds of as many loss gradients, pair by pair in one run, the median of the
    pairs: 1 means that projection, steps and random start cost nothing. Returns the path of benchmark.json.
    """
    settings = experiment.benchmark
    mesh = sharding.make_mesh(experiment.num_devices, settings.batch_size, "config.benchmark.batch_size")
    shape = (settings.image_size, settings.image_size, settings.channels)
    rows = []
    with workdirs.Workdir(workdir):
        for name, (Spec, make) in models.MODELS.items():
            say(f"benchmark: {settings.attack.name} on {name}, {settings.batch_size} images of {shape}")
            classifier = make(Spec(), shape, settings.num_classes)
            rows.append({"network": name, **_timed(classifier, settings, shape, mesh)})
        described = {
            "benchmark": experiment.plain.get("benchmark", {}),
            "command": environment.command(),
            "hardware": environment.hardware(),
            "versions": environment.versions(),
            "rows": rows,
        }
        path = os.path.join(workdir, "benchmark.json")
        records.write_json(path, described)
    print(_table(rows))
    return path


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

    began = time.monotonic()
    compiled = jax.jit(attacked).lower(variables, key, *placed.values()).compile()
    compile_seconds = time.monotonic() - began
    compiled_gradient = jax.jit(gradient).lower(variables, *placed.values()).compile()

    def attack_once():
        jax.block_until_ready(compiled(variables, key, *placed.values()))

    def gradients_once():
        for _ in range(steps):
            jax.block_until_ready(compiled_gradient(variables, *placed.values()))

    attack_once()
    gradients_once()
    pairs = [(_seconds(attack_once), _seconds(gradients_once)) for _ in range(settings.repetitions)]
    seconds = statistics.median(attack_seconds for attack_seconds, _ in pairs)
    return {
        "batch": batch,
        "steps": steps,
        "compile_seconds": compile_seconds,
        "images_per_second": batch / seconds,
        "gradients_per_second": batch * steps / seconds,
        "ratio": statistics.median(one / other for one, other in pairs),
    }


def _seconds(work) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _table(rows: list[dict]) -> str:
    cells = [
        [f"{row[name]:.2f}" if isinstance(row[name], float) else str(row[name]) for name in COLUMNS] for row in rows
    ]
    lines = [COLUMNS, *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
