"""A directory with two whole checkpoints."""

import shutil
from pathlib import Path

import pytest

from robust_saliency import checkpoint
from tests.checkpoint.fabricated_runs import save_run


@pytest.fixture(scope="session")
def two_steps(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two") / "checkpoints"
    with checkpoint.Checkpointer(directory) as saver:
        save_run(saver, 10)
        save_run(saver, 20)
    return directory


@pytest.fixture
def directory(two_steps, tmp_path):
    return Path(shutil.copytree(two_steps, tmp_path / "checkpoints"))
