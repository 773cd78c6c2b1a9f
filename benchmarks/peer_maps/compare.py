"""How far ours.npz and theirs.npz agree, and how long each side takes, in turns; prints JSON.

Ends with status 1 where it is worse than the README promises.
"""

import argparse
import json
import os
import statistics
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from turns import Worker

from robust_saliency import environment

TOLERANCE = 1e-4  # of the largest absolute value
# In float32 a node of the path within rounding of a kink falls to either side of it: promised is float64 alone.
TOLD = ("integrated_gradients",)
# How many times as fast as the peer, at least.
PROMISED = {
    "integrated gradients, 50 steps": 2.0,
    "SmoothGrad, 50 draws": 2.0,
    "pixel flipping, 96 steps": 1.5,
    "faithfulness correlation, 100 sets": 1.5,
    "max-sensitivity, 10 draws": 1.5,
    "infidelity": 10.0,
}
HERE = os.path.dirname(os.path.abspath(__file__))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--python", required=True, help="of the environment of the peers")
    parser.add_argument("--pairs", type=int, default=3)
    words = parser.parse_args()
    ours, theirs, problem = (
        dict(np.load(os.path.join(words.folder, f"{name}.npz"))) for name in ("ours", "theirs", "problem")
    )
    differences = {name: difference(ours[name], theirs[name]) for name in ours}
    differences["logits"] = difference(problem["logits"], theirs["logits"])
    times = in_turns(words) if words.pairs else {}
    kept = {name: value <= TOLERANCE for name, value in differences.items() if name not in TOLD}
    kept |= {f"{name}: speed": row["ratio"] >= PROMISED[name] for name, row in times.items()}
    described = {
        "largest difference over the largest value": differences,
        "seconds": times,
        "kept": kept,
        "peers": json.loads(str(theirs["versions"])),
        "hardware": environment.hardware(),
        "versions": environment.versions(),
    }
    print(json.dumps(described, indent=2))
    sys.exit(0 if all(kept.values()) else 1)


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def in_turns(words) -> dict:
    """Each task once for warming up and then ``pairs`` times, ours and theirs in turns; median seconds and ratio."""
    folder = ["--folder", words.folder, "--serve"]
    workers = [
        Worker([sys.executable, os.path.join(HERE, "ours.py"), "--workdir", words.workdir, *folder]),
        Worker([words.python, os.path.join(HERE, "theirs.py"), *folder]),
    ]
    found = {}
    for task in PROMISED:
        pairs = [tuple(worker.seconds(task) for worker in workers) for _ in range(words.pairs + 1)][1:]
        mine, peers = zip(*pairs, strict=True)
        found[task] = {
            "ours": statistics.median(mine),
            "theirs": statistics.median(peers),
            "ratio": statistics.median(b / a for a, b in pairs),
        }
        print(task, found[task], file=sys.stderr)
    for worker in workers:
        worker.close()
    return found


if __name__ == "__main__":
    main()
