"""What a result must say of where it came from: the command, the hardware, the versions."""

import importlib.metadata
import os
import platform
import shlex
import sys

import jax

PACKAGES = ("robust_saliency", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def command() -> str:
    """The command line as a shell reads it, with the interpreter and the folders of the machine left out."""
    return shlex.join(["python", os.path.basename(sys.argv[0]), *sys.argv[1:]])


def hardware() -> dict[str, str]:
    devices = jax.devices()
    return {
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "cores": str(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else str(os.cpu_count()),
        "machine": platform.machine(),
        "system": platform.system(),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
