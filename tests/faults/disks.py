"""A small disk of its own for a test: a tmpfs, which can be filled, enlarged and made read-only; root may mount one."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOMY = 64 * 2**20


def mount(place: Path) -> None:
    """Skips the test where nothing can be mounted."""
    place.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root mounts a disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")


def unmount(place: Path) -> None:
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def leave(place: Path, free: int) -> None:
    """Makes the disk so small that only so many bytes, in whole blocks, are free."""
    found = os.statvfs(place)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    _remount(place, f"size={used + free}")


def enlarge(place: Path) -> None:
    _remount(place, f"size={ROOMY}")


def make_read_only(place: Path) -> None:
    _remount(place, "ro")


def make_writable(place: Path) -> None:
    _remount(place, "rw")


def _remount(place: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(place)], check=True)
