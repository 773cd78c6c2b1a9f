"""robust_saliency: train image classifiers whose saliency maps can be trusted, and measure whether they can.

The modules are imported when they are first used, so that the pure layer (attacks, saliency, metrics, neurons,
objectives) can be had without flax, orbax or a data pipeline. ``load(workdir)`` gives a trained run back.
"""

import importlib

__version__ = "0.1.0"

_MODULES = (
    "attacks", "baselines", "benchmark", "blur", "checkpoint", "checks", "config", "data", "evaluate", "explain",
    "losses", "map_attacks", "map_distances", "metrics", "models", "neurons", "objectives", "optimizer", "randomness",
    "records", "report", "saliency", "schedules", "sharding", "statistics", "study", "threat", "train", "types",
)  # fmt: skip

__all__ = [*_MODULES, "load"]


def __getattr__(name: str):
    if name == "load":
        return importlib.import_module("robust_saliency.initialise").load
    if name in _MODULES:
        return importlib.import_module(f"robust_saliency.{name}")
    raise AttributeError(f"module 'robust_saliency' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
