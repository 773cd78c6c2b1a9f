"""What the process does with memory that a compiled program gives back."""

import ctypes
import glob
import os

# By the name in the environment: the number of the parameter in mallopt(3) of glibc, and its value.
SETTINGS = {
    "MALLOC_MMAP_MAX_": (-4, 0),
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1),
    "MALLOC_TOP_PAD_": (-2, 2**27),
    "MALLOC_ARENA_MAX": (-8, 1),
}


def keep_freed() -> bool:
    """Keeps freed memory for the next program; whether it does. To be called before JAX starts its threads.

    XLA on CPU asks for the temporary memory of a program anew at every run, and glibc hands large pieces back to the
    system, which fills them with zeros again when they are touched: 158 MB and a third of the time of a gradient in the
    weights of ResNet-18 (width 16, 64 images of 32 px, a core). From here on the process stays as large as it once was,
    and all threads share one arena, as the others hold no large piece; so not where an accelerator computes and threads
    of the CPU only read data. Whoever sets ``MALLOC_...`` or ``GLIBC_TUNABLES`` has decided this already.
    """
    if _is_decided() or _has_accelerator():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    done = [mallopt(number, value) for number, value in SETTINGS.values()]
    return all(done)


def _is_decided() -> bool:
    return any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)


def _has_accelerator() -> bool:
    """Of NVIDIA, AMD or Google; without asking JAX, which would start its threads."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    return any(glob.glob(path) for path in ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel*", "/dev/vfio/[0-9]*"))
