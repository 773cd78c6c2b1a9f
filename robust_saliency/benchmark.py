"""Throughput of attacks and of training steps, each beside as many plain gradients in the same run."""

import os

from robust_saliency import (
    benchmark_attacks,
    benchmark_maps,
    benchmark_plot,
    benchmark_training,
    environment,
    records,
    sharding,
    workdirs,
)
from robust_saliency.config import Experiment

LEGEND = """
ratio: seconds over those of the bare passes that the work cannot do without, of pairs in turns; 1 = all else is free.
share: of the speed of a product of large matrices on the same devices. trace, compile, warm: seconds to trace, and to
compile without and with the compilation cache. mebibytes: what a program reads, writes and keeps on one device."""


def benchmark(experiment: Experiment, workdir: str) -> str:
    """Times the ``config.benchmark.parts``; prints and writes a table of each.

    attacks: ``config.benchmark.attacks`` on networks of ``MODELS`` at their defaults, drawn in benchmark.png too;
    training: a step of every objective with ``config.benchmark.attack``; maps: every map and every metric, both on the
    network of the config.

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
        if "attacks" in tables:
            hardware = described["hardware"]
            title = f"{hardware['devices']}, {hardware['cores']} cores; jax {described['versions']['jax']}"
            benchmark_plot.draw(tables["attacks"], title, os.path.join(workdir, "benchmark.png"))
    for part, rows in tables.items():
        print(_table(rows, PARTS[part][1]))
    print(LEGEND)
    return path


def _table(rows: list[dict], columns: tuple[str, ...]) -> str:
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    lines = [columns, *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


# The rows of each part, and their columns.
PARTS = {
    "attacks": (benchmark_attacks.rows, benchmark_attacks.COLUMNS),
    "training": (benchmark_training.rows, benchmark_training.COLUMNS),
    "maps": (benchmark_maps.rows, benchmark_maps.COLUMNS),
}
