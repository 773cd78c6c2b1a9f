"""How far ours.npz and theirs.npz agree; prints JSON, ends with status 1 where it is worse than the README promises."""

import argparse
import itertools
import json
import os
import sys

import jax.numpy as jnp
import numpy as np

from robust_saliency import environment, load, losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--folder", required=True)
    words = parser.parse_args()
    problem, ours, theirs = (
        dict(np.load(os.path.join(words.folder, f"{name}.npz"))) for name in ("problem", "ours", "theirs")
    )
    classifier, variables, _ = load(words.workdir)
    logits_fn = classifier.logits_fn(variables)
    difference = float(np.abs(problem["logits"] - theirs["logits"]).max())
    parts = [({"logits, largest difference": difference}, {"the same logits": difference < 1e-3})]
    for peer, norm in itertools.product(("torchattacks", "foolbox"), ("linf", "l2")):
        parts.append(on_smooth(problem, ours, theirs, peer, norm))
        parts.append(on_trained(logits_fn, problem, ours, theirs, peer, norm))
    parts.append(autoattack(logits_fn, problem["labels"], ours, theirs))
    found = dict(row for rows, _ in parts for row in rows.items())
    kept = dict(promise for _, promises in parts for promise in promises.items())
    described = {
        "found": found,
        "kept": kept,
        "peers": json.loads(str(theirs["versions"])),
        "hardware": environment.hardware(),
        "versions": environment.versions(),
    }
    print(json.dumps(described, indent=2))
    sys.exit(0 if all(kept.values()) else 1)


def on_smooth(problem, ours, theirs, peer: str, norm: str) -> tuple[dict, dict]:
    """What was found on the smooth network, and which promises hold."""
    label = f"{peer}, {norm}, smooth network"
    exact = float(np.abs(ours[f"smooth/{norm}/10"] - theirs[f"smooth/{peer}/{norm}/10"]).max())
    step = agreement(ours[f"smooth32/{norm}/1"], theirs[f"smooth32/{peer}/{norm}/1"])
    w, v = (problem[f"smooth/{name}"].astype(np.float32) for name in "wv")
    found = (ours[f"smooth32/{norm}/10"], theirs[f"smooth32/{peer}/{norm}/10"])
    mean = [mean_loss(lambda x: jnp.tanh(x.reshape(len(x), -1) @ w) @ v, x, problem["smooth/labels"]) for x in found]
    return {
        f"{label}, float64: largest difference after 10 steps": exact,
        f"{label}, float32: share of pixels that agree after a step": step,
        f"{label}, float32: mean loss after 10 steps, ours and theirs": mean,
    }, {
        f"{label}, float64": exact < 1e-8,
        f"{label}, float32, one step": step >= 0.999,
        f"{label}, float32, loss": same_loss(mean),
    }


def on_trained(logits_fn, problem, ours, theirs, peer: str, norm: str) -> tuple[dict, dict]:
    """The same on the trained network, in float32."""
    label = f"{peer}, {norm}, trained network"
    step, rounded, exact = ours[f"pgd/{norm}/1"], theirs[f"pgd/{peer}/{norm}/1"], theirs[f"exact/{peer}/{norm}/1"]
    found = (ours[f"pgd/{norm}/10"], theirs[f"pgd/{peer}/{norm}/10"])
    mean = [mean_loss(logits_fn, x, problem["labels"]) for x in found]
    pixels = f"{label}: share of pixels that agree after a step"
    return {
        f"{pixels}, both in float32": agreement(step, rounded),
        f"{pixels}, ours in float32, theirs in float64": agreement(step, exact),
        f"{pixels}, theirs in float32, theirs in float64": agreement(rounded, exact),
        f"{label}: mean loss after 10 steps, ours and theirs": mean,
    }, {
        f"{label}, one step": agreement(step, rounded) >= 0.999,
        f"{label}, one step, theirs in float64": agreement(step, exact) >= 0.999,
        f"{label}, loss": same_loss(mean),
    }


def autoattack(logits_fn, labels, ours, theirs) -> tuple[dict, dict]:
    fooled = np.asarray(losses.margin(logits_fn(jnp.asarray(theirs["autoattack"])), labels)) >= 0
    missed = int((ours["robust"] & fooled).sum())
    return {
        "AutoAttack: images": len(labels),
        "AutoAttack: robust images, ours": int(ours["robust"].sum()),
        "AutoAttack: robust images, torchattacks": int((~fooled).sum()),
        "AutoAttack: robust for us, fooled by their adversary": missed,
        "AutoAttack: seconds, ours (compilation included) and theirs": [
            float(ours["seconds"]),
            float(theirs["seconds"]),
        ],
    }, {
        "AutoAttack, robust accuracy": bool(ours["robust"].mean() <= (~fooled).mean() + 0.01),
        "AutoAttack, their adversaries": missed == 0,
    }


def mean_loss(logits_fn, images, labels) -> float:
    return float(np.mean(losses.cross_entropy(logits_fn(jnp.asarray(images)), labels)))


def same_loss(mean: list[float]) -> bool:
    return abs(mean[0] - mean[1]) <= 1e-3 * max(mean)


def agreement(images, others) -> float:
    """Share of the pixels that agree to 1e-5."""
    return float((np.abs(images - others) < 1e-5).mean())


if __name__ == "__main__":
    main()
