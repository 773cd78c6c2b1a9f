"""How far ours.npz and theirs.npz agree; prints JSON, ends with status 1 where it is worse than the README promises."""

import argparse
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
    logits_fn, labels = classifier.logits_fn(variables), problem["labels"]
    rows = {"logits, largest difference": float(np.abs(problem["logits"] - theirs["logits"]).max())}
    kept = {"the same logits": rows["logits, largest difference"] < 1e-3}
    for peer in ("torchattacks", "foolbox"):
        for norm in ("linf", "l2"):
            smooth = float(np.abs(ours[f"smooth/{norm}"] - theirs[f"smooth/{peer}/{norm}"]).max())
            rows[f"{peer}, {norm}, float64: largest difference after 10 steps"] = smooth
            step, rounded, exact = (
                ours[f"pgd/{norm}/1"], theirs[f"pgd/{peer}/{norm}/1"], theirs[f"exact/{peer}/{norm}/1"]
            )  # fmt: skip
            step_label = f"{peer}, {norm}: share of pixels that agree after a step"
            rows[f"{step_label}, ours in float32, theirs in float64"] = agreement(step, exact)
            rows[f"{step_label}, both in float32"] = agreement(step, rounded)
            rows[f"{step_label}, theirs in float32, theirs in float64"] = agreement(rounded, exact)
            mean = [
                float(np.mean(losses.cross_entropy(logits_fn(jnp.asarray(found)), labels)))
                for found in (ours[f"pgd/{norm}/10"], theirs[f"pgd/{peer}/{norm}/10"])
            ]
            rows[f"{peer}, {norm}: mean loss after 10 steps, ours and theirs"] = mean
            kept[f"{peer}, {norm}, float64"] = smooth < 1e-8
            kept[f"{peer}, {norm}, one step"] = agreement(step, rounded) >= 0.999
            kept[f"{peer}, {norm}, one step, theirs in float64"] = agreement(step, exact) >= 0.999
            kept[f"{peer}, {norm}, loss"] = abs(mean[0] - mean[1]) <= 1e-3 * max(mean)
    fooled = np.asarray(losses.margin(logits_fn(jnp.asarray(theirs["autoattack"])), labels)) >= 0
    rows["AutoAttack: robust images, ours"] = int(ours["robust"].sum())
    rows["AutoAttack: robust images, torchattacks"] = int((~fooled).sum())
    rows["AutoAttack: robust for us, fooled by their adversary"] = int((ours["robust"] & fooled).sum())
    rows["AutoAttack: images"] = len(labels)
    rows["AutoAttack: seconds, ours (compilation included) and theirs"] = [
        float(ours["seconds"]),
        float(theirs["seconds"]),
    ]
    kept["AutoAttack, robust accuracy"] = bool(ours["robust"].mean() <= (~fooled).mean() + 0.01)
    kept["AutoAttack, their adversaries"] = rows["AutoAttack: robust for us, fooled by their adversary"] == 0
    described = {
        "found": rows,
        "kept": kept,
        "peers": json.loads(str(theirs["versions"])),
        "hardware": environment.hardware(),
        "versions": environment.versions(),
    }
    print(json.dumps(described, indent=2))
    sys.exit(0 if all(kept.values()) else 1)


def agreement(images, others) -> float:
    """Share of the pixels that agree to 1e-5."""
    return float((np.abs(images - others) < 1e-5).mean())


if __name__ == "__main__":
    main()
