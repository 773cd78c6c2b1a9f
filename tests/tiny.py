"""A config so small that a whole run takes a second: planted lesions, a narrow net, two virtual devices."""

import os
import pathlib
import subprocess
import sys

from configs import common
from robust_saliency import config, config_fields
from tests import commands

ROOT = pathlib.Path(__file__).parents[1]


def plain(**changes) -> dict:
    small = {
        "mesh": {"num_devices": 2},
        "data": {"num_train": 64, "num_validation": 24, "num_test": 24, "batch_size": 16},
        "model": {"width": 4},
        "train": {"epochs": 2, "validate_every": 1, "checkpoint_every": 1, "log_every": 2},
        "evaluation": {
            "batch_size": 16,
            "num_pictures": 3,
            "randomisation": {"orders": []},
            "attacks": {"linf": {"num_steps": 12}, "l2": {"name": "fgsm"}},
            "maps": {"integrated_gradients": {"num_steps": 4}, "smoothgrad": {"num_samples": 3}},
            "metrics": {"deletion": {"points": 3}, "insertion": {"points": 3}},
        },
    }
    return config_fields.merge(config_fields.merge(config.to_plain(common.default()), small), changes)


def experiment(**changes) -> config.Experiment:
    return config.parse(plain(**changes))


def launch(*words: str, cwd=ROOT, devices: int = 2) -> commands.Command:
    """The command line on two virtual devices, in a process that has its imports from another."""
    return commands.Command(words, cwd, environment(devices))


def process(*words: str, cwd=ROOT) -> subprocess.Popen:
    """The command line as a user starts it: ``python launch.py WORDS``."""
    command = [sys.executable, str(ROOT / "launch.py"), *words]
    return subprocess.Popen(
        command, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def environment(devices: int = 2) -> dict[str, str]:
    flags = os.environ.get("XLA_FLAGS", "")
    return {**os.environ, "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}"}


def flags(**fields) -> list[str]:
    """``--config.a.b=value`` for a__b=value."""
    return [f"--config.{name.replace('__', '.')}={value}" for name, value in fields.items()]


SMALL_FLAGS = flags(
    data__num_train=64,
    data__num_validation=24,
    data__num_test=24,
    data__batch_size=16,
    model__width=4,
    train__epochs=2,
    train__validate_every=1,
    train__checkpoint_every=1,
)
