"""How far the two sides agree, and how fast each attacks and trains, in turns; prints JSON.

Ends with status 1 where ours is not as fast, beside the fastest peer, as the README promises.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from turns import Worker  # noqa: E402

from robust_saliency import environment, memory  # noqa: E402

# How many times as fast as the fastest peer, at least.
PROMISED = {
    "PGD-10, small_cnn": 1.5,
    "PGD-10, resnet18_w16": 1.2,
    "PGD-10, resnet18": 1.1,
    "training step, PGD-7, small_cnn": 1.0,
    "training step, PGD-7, resnet18_w16": 1.0,
}
ATTACKS = ("eager", "eager, channels_last", "torch.compile", "torch.compile, channels_last", "torchattacks", "foolbox")
PEERS = {task: ATTACKS if task.startswith("PGD") else ATTACKS[:4] for task in PROMISED}
# What robust_saliency.memory does, told to a peer's process; beside the peers, as it is nobody's habit.
KEPT = {name: str(value) for name, (_, value) in memory.SETTINGS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--python", required=True, help="of the environment of the peers")
    parser.add_argument("--rounds", type=int, default=7)
    words = parser.parse_args()
    theirs = [words.python, os.path.join(HERE, "theirs.py"), "--folder", words.folder]
    subprocess.run(theirs, check=True)
    with open(os.path.join(words.folder, "theirs.json"), encoding="utf-8") as file:
        told = json.load(file)
    mine = Worker([sys.executable, os.path.join(HERE, "ours.py"), "--folder", words.folder, "--serve"])
    peers = Worker([*theirs, "--serve"])
    keeping = Worker([*theirs, "--serve"], KEPT)
    times = {task: in_turns(task, mine, peers, keeping, words.rounds) for task in PROMISED}
    for worker in (mine, peers, keeping):
        worker.close()
    kept = {task: row["ratio"] >= PROMISED[task] for task, row in times.items()}
    described = {
        "agreement": told["agreement"],
        "seconds": times,
        "kept": kept,
        "rounds": words.rounds,
        "peers": told["versions"],
        "hardware": environment.hardware(),
        "versions": environment.versions(),
        "command": environment.command(),
    }
    print(json.dumps(described, indent=2))
    sys.exit(0 if all(kept.values()) else 1)


def in_turns(task: str, mine: Worker, peers: Worker, keeping: Worker, rounds: int) -> dict:
    """Each once for warming up, and then ours and all peers in turns; medians, the ratio of pairs with the fastest.

    Last among them the one that is the fastest as a rule, in a process that keeps freed memory.
    """
    usual = "eager, channels_last"
    kept = f"{usual}, memory kept"
    found: dict[str, list[float]] = {"ours": [], **{peer: [] for peer in PEERS[task]}, kept: []}
    for _ in range(rounds + 1):
        found["ours"].append(mine.seconds(task))
        for peer in PEERS[task]:
            found[peer].append(peers.seconds(f"{task}: {peer}"))
        found[kept].append(keeping.seconds(f"{task}: {usual}"))
    seconds = {who: statistics.median(each[1:]) for who, each in found.items()}
    fastest = min(PEERS[task], key=seconds.get)
    row = {"seconds": seconds, "fastest": fastest}
    for name, peer in (("", fastest), ("_memory_kept", kept)):
        pairs = [theirs / ours for ours, theirs in zip(found["ours"][1:], found[peer][1:], strict=True)]
        row |= {f"ratio{name}": statistics.median(pairs), f"pairs{name}": sorted(pairs)}
    print(task, row, file=sys.stderr, flush=True)
    return row


if __name__ == "__main__":
    main()
