"""The command line twice, as two processes of one run on this machine."""

import socket

from tests import tiny


def started(workdir, *words: str):
    """Of each process the command; they have one device each, whatever the machine has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = ("--multihost", f"--coordinator=127.0.0.1:{port}", "--num_processes=2")
    return [
        tiny.launch(*together, f"--process_id={number}", f"--workdir={workdir}", *words, devices=1)
        for number in range(2)
    ]


def finished(commands, timeout: float = 300) -> list[tuple[int, str, str]]:
    """Of each its exit status, and what it printed."""
    said = [command.communicate(timeout=timeout) for command in commands]
    return [(command.returncode, *texts) for command, texts in zip(commands, said, strict=True)]
