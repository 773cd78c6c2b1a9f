"""A result names the command that made it, and a shell that reads it runs the same."""

import shlex
import sys

from robust_saliency import environment


def test_the_command_can_be_pasted_into_a_shell(monkeypatch):
    words = ["--mode=benchmark", "--config.benchmark.parts=('attacks', 'maps')", "--workdir=my runs"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/launch.py", *words])
    assert shlex.split(environment.command()) == ["python", "launch.py", *words]
