"""The command line in a process of its own, forked from one that has already imported what a command needs.

A command spends more time on imports than on its work here. ``tiny.process`` starts one from nothing, as a user does.
"""

import multiprocessing
import os
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["__main__", "launch", *(f"robust_saliency.{name}" for name in ("explain", "report", "study", "study_robustness"))]
)


class Command:
    """As much of ``subprocess.Popen`` as the tests use."""

    def __init__(self, words: tuple[str, ...], cwd, environment: dict[str, str]):
        self._folder = tempfile.TemporaryDirectory()
        self._files = [os.path.join(self._folder.name, name) for name in ("out", "err")]
        self._process = _FORKS.Process(target=_run, args=(words, str(cwd), environment, *self._files), daemon=True)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutError(f"the command still runs after {timeout} s")
        with self._folder:
            return tuple(pathlib.Path(file).read_text(encoding="utf-8") for file in self._files)


def _run(words, cwd, environment, out, err):
    for descriptor, file in ((1, out), (2, err)):
        with open(file, "wb") as opened:
            os.dup2(opened.fileno(), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(ROOT / "launch.py"), *words]
    import launch

    launch.run()
