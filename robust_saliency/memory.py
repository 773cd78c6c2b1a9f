"""What the process does with memory that a compiled program gives back."""

import ctypes
import glob
import os

# Parameters of mallopt(3) in glibc.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_AT_ONCE = 128 * 2**20  # bytes


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
    wanted = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: _AT_ONCE, _ARENA_MAX: 1}
    done = [mallopt(name, value) for name, value in wanted.items()]
    return all(done)


def _is_decided() -> bool:
    return any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)


def _has_accelerator() -> bool:
    """Of NVIDIA, AMD or Google; without asking JAX, which would start its threads."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    return any(glob.glob(path) for path in ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel*", "/dev/vfio/[0-9]*"))
