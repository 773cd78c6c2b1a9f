"""Workers of several libraries that take turns at the same tasks; see serving.py for their side."""

import os
import subprocess


class Worker:
    """A process that times tasks by name."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None):
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | (env or {})
        )
        assert self._answer() == "ready"

    def seconds(self, task: str) -> float:
        print(task, file=self._process.stdin, flush=True)
        return float(self._answer())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> str:
        line = self._process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"A worker ended with status {self._process.wait()}; what it printed says why.")
        return line
