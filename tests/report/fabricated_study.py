"""Writes a study directory with random but plausible contents, in the format that evaluate and study write."""

import csv
import json
from pathlib import Path

import numpy as np

from robust_saliency import records
from robust_saliency.report import load

CLASSES = ("nevus", "melanoma", "keratosis")
METHODS = {
    "gradient": {"kind": "magnitude", "description": "absolute gradient of the label's logit, summed over channels"},
    "input_x_gradient": {"kind": "signed", "description": "image minus baseline, times the gradient, summed"},
    "random": {"kind": "blind", "description": "a uniformly random map"},
    "centre_gaussian": {"kind": "blind", "description": "the same Gaussian at the image centre for every image"},
    "average of input_x_gradient": {"kind": "blind", "of": "input_x_gradient", "description": "the mean map"},
    "evidence_mask": {"kind": "oracle", "description": "the mask of the class evidence itself"},
}
METRICS = {
    "gini": ("Gini", "higher", "Gini index of |map|: 0 for a constant map, 1 - 1/n for a single pixel. Hurley 2009."),
    "evidence_mass": ("Mass in evidence", "higher", "Share of |map| inside the evidence mask. An empty mask is NaN."),
    "pointing": ("Pointing game", "higher", "Chance that the highest pixel lies in the mask; ties by expectation."),
    "total_variation": ("Total variation", "lower", "Mean absolute difference of neighbours over mean |map|."),
    "deletion_auc": ("Deletion AUC", "lower", "Area under the score while the highest pixels are replaced by a blur."),
    "entropy": ("Entropy", "none", "Shannon entropy of |map| as a distribution over pixels, in nats."),
}  # fmt: skip
SETTINGS = {
    "gini": {"sign": "abs"},
    "pointing": {"sign": "abs", "mask": "evidence", "tolerance": "0"},
    "deletion_auc": {"sign": "abs", "order": "morf", "baseline": "blur of sigma 4"},
}
TIES = {"pointing": "share the hit evenly", "deletion_auc": "in random order"}
ATTACKS = {"linf 4/255": "PGD-20, linf, epsilon 4/255, step epsilon/8", "L2 0.5": "PGD-20, L2, epsilon 0.5"}
RUNS = {
    "standard": "cross-entropy on clean images, 30 epochs",
    "linf": "PGD-7 adversarial training, linf 4/255, from the standard weights, 12 epochs",
    "l2": "PGD-7 adversarial training, L2 0.5, from the standard weights, 12 epochs",
}
ACCURACY = {
    "standard": (0.97, 0.02, 0.02, 0.6),
    "linf": (0.914, 0.66, 0.42, 0.5),
    "l2": (0.905, 0.59, 0.53, 0.45),
}
LEVELS = {
    "standard": (0.545, 0.503, 0.841, 1.057, 0.387, 5.9),
    "linf": (0.695, 0.620, 0.928, 1.080, 0.375, 5.4),
    "l2": (0.546, 0.509, 0.922, 1.004, 0.363, 5.9),
}
FLAWS = {("l2", "gradient", 1): "zero", ("l2", "input_x_gradient", 2): "not finite"}
# These maps are the same for every network, but deletion puts them through it.
BOUND_SHIFTS = {"standard": -0.11, "linf": 0.0, "l2": 0.1}
BOUNDS = {
    "random": (0.333, 0.21, 0.21, 0.667, 0.60, 6.7),
    "centre_gaussian": (0.71, 0.48, 0.55, 0.08, 0.47, 5.6),
    "average of input_x_gradient": (0.75, 0.47, 0.99, 0.09, 0.48, 5.5),
    "evidence_mask": (0.79, 1.0, 1.0, 0.3, 0.30, 5.3),
}


def write_study(
    directory: Path, *, seeds=(0, 1, 2), runs=tuple(RUNS), attacks=ATTACKS, classes=CLASSES, channels=3, masks=True,
    num_examples=90, side=24,
) -> Path:  # fmt: skip
    """A study of ``runs`` x ``seeds``; two examples share a group; the example 3 has no evidence, and so no defined
    pointing score; of l2 the gradient of example 1 is zero, and input x gradient of example 2 not finite."""
    directory.mkdir(parents=True, exist_ok=True)
    entries = [
        {"label": label, "seed": seed, "dir": f"seed{seed}/{label}", "description": RUNS[label]}
        for seed in seeds
        for label in runs
    ]
    for entry in entries:
        run = directory / entry["dir"]
        write_run(run, entry["label"], entry["seed"], attacks, classes, channels, masks, num_examples, side)
    about = {
        "title": "Planted lesions: standard and adversarial training",
        "description": "A small CNN learns to tell three kinds of procedurally drawn skin lesions apart.",
        "reference": runs[0],
        "command": "python launch.py --mode=study --config=configs/quickstart.py --workdir=runs/quickstart",
        "seconds": 183.4,
        "runs": entries,
    }
    (directory / "study.json").write_text(json.dumps(about))
    return directory


def write_run(directory, label, seed, attacks, classes, channels, masks, num_examples, side):
    """One run's workdir: config.json, metrics.jsonl and evaluation/."""
    evaluation = directory / "evaluation"
    evaluation.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, list(RUNS).index(label)])
    config = {
        "objective": {"name": "standard" if label == "standard" else "adversarial"},
        "train": {"epochs": 30 if label == "standard" else 12, "learning_rate": 3e-3},
        "model": {"name": "small_cnn", "width": 16},
        "seed": seed,
    }
    if label != "standard":
        config["objective"]["threat"] = {"norm": label, "epsilon": 0.0157 if label == "linf" else 0.5}
    (directory / "config.json").write_text(json.dumps(config))
    _write_history(directory / "metrics.jsonl", rng, label, config["train"]["epochs"])
    metrics = dict(METRICS) if masks else {k: v for k, v in METRICS.items() if k not in ("evidence_mass", "pointing")}
    methods = METHODS if masks else {k: v for k, v in METHODS.items() if k != "evidence_mask"}
    summary = {
        "split": "test", "num_examples": num_examples, "class_names": list(classes), "checkpoint_step": 960,
        "seconds": 11.2, "command": f"python launch.py --mode=evaluate --workdir={label}",
        "hardware": {"platform": "cpu", "devices": "2 virtual CPU devices", "cores": "2"},
        "versions": {"python": "3.11.7", "jax": "0.10.2", "flax": "0.12.8", "robust_saliency": "0.1.0"},
        "runs": {"read": 5, "made": 3},
        "data": "planted lesions, 24 px, 4096 train, 90 test", "attacks": dict(attacks), "methods": methods,
        "metrics": {
            name: {"title": title, "direction": direction, "low": 0, "high": 1, "description": description,
                   "name": name, "settings": SETTINGS.get(name, {}), "ties": TIES.get(name, "")}
            for name, (title, direction, description) in metrics.items()
        },
    }  # fmt: skip
    (evaluation / "summary.json").write_text(json.dumps(summary))
    labels = np.random.default_rng(0).integers(len(classes), size=num_examples)
    groups = [f"lesion_{i // 2}" for i in range(num_examples)]
    _write_examples(evaluation / "examples.csv", rng, label, labels, groups, attacks, len(classes))
    _write_maps(evaluation / "maps.csv", rng, label, labels, groups, methods, metrics)
    _write_curves(evaluation / "curves.npz", rng, label, num_examples)
    _write_pictures(evaluation / "pictures.npz", rng, label, labels, methods, channels, masks, side)


def _write_history(path, rng, label, epochs):
    rows = []
    for epoch in range(1, epochs + 1):
        decay = np.exp(-epoch / (epochs / 3))
        ceiling, robust = ACCURACY[label][0], ACCURACY[label][1]
        for split, gap in (("train", 0.0), ("validation", 0.03)):
            loss = float(0.1 + gap + decay + 0.02 * rng.random())
            rows.append({
                "step": 32 * epoch, "epoch": epoch, "split": split, "loss": loss,
                "accuracy": float(ceiling - gap - 0.5 * decay), "robust_accuracy": float(robust * (1 - decay)),
            })  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_examples(path, rng, label, labels, groups, attacks, num_classes):
    accuracies = ACCURACY[label]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        columns = ["id", "label", "group", "prediction", "confidence", "correct"]
        writer.writerow(columns + [f"robust:{attack}" for attack in attacks] + ["mask:evidence"])
        for i, y in enumerate(labels):
            correct = rng.random() < accuracies[0]
            robust = [int(correct and rng.random() < accuracies[1 + j] / accuracies[0]) for j in range(len(attacks))]
            prediction = y if correct else (y + 1) % num_classes
            writer.writerow(
                [
                    i,
                    y,
                    groups[i],
                    prediction,
                    f"{0.5 + rng.random() / 2:.6f}",
                    int(correct),
                    *robust,
                    0.0 if i == 3 else 0.2,
                ]
            )


def _write_maps(path, rng, label, labels, groups, methods, metrics):
    shared = np.random.default_rng(1).normal(size=(len(labels), len(METRICS)))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "group", "method", "flaw", *metrics])
        for m, method in enumerate(methods):
            levels = BOUNDS.get(method, LEVELS[label])
            noise = np.random.default_rng([9, m]) if method in BOUNDS else rng
            for i, y in enumerate(labels):
                row = [i, y, groups[i], method, FLAWS.get((label, method, i), "")]
                for j, name in enumerate(METRICS):
                    value = levels[j] + 0.02 * m * (method not in BOUNDS) + 0.05 * shared[i, j] + 0.02 * noise.normal()
                    if method in BOUNDS and name == "deletion_auc":
                        value += BOUND_SHIFTS[label]
                    undefined = name == "pointing" and i == 3
                    if name in metrics:
                        row.append("" if undefined else f"{value:.6f}")
                writer.writerow(row)


def _write_curves(path, rng, label, num_examples):
    fractions = np.linspace(0, 1, 11)
    arrays = {"fractions/deletion_auc": fractions, "ids": np.arange(num_examples)}
    start, pace = {"standard": (0.9, 1.0), "linf": (0.75, 1.3), "l2": (0.7, 1.15)}[label]
    for method, speed in (("gradient", 6.0), ("input_x_gradient", 8.0), ("random", 2.5)):
        noise = 0.05 * rng.normal(size=(num_examples, 1))
        arrays[f"{method}/deletion_auc"] = start * np.exp(-pace * speed * fractions) + 0.05 + noise * (1 - fractions)
    np.savez(path, **arrays)


def _write_pictures(path, rng, label, labels, methods, channels, masks, side):
    scene = np.random.default_rng(2)
    count = 5
    y, x = np.mgrid[:side, :side] / side
    centres = scene.uniform(0.35, 0.65, (count, 2))
    distance = np.hypot(y - centres[:, :1, None], x - centres[:, 1:, None])
    lesion, evidence = distance < 0.28, distance < 0.14
    skin = np.array([0.85, 0.66, 0.55])[-channels:]
    image = skin - 0.4 * lesion[..., None] * skin - 0.25 * evidence[..., None] * skin + 0.02 * scene.normal(
        size=(count, side, side, channels)
    )  # fmt: skip
    prediction = np.where(rng.random(count) < 0.8, labels[:count], (labels[:count] + 1) % 3)
    arrays = {
        "ids": np.arange(count), "label": labels[:count], "prediction": prediction,
        "confidence": rng.uniform(0.5, 1.0, count), "image": (255 * image.clip(0, 1)).astype(np.uint8),
    }  # fmt: skip
    if masks:
        arrays |= {"lesion_mask": lesion.astype(np.uint8), "evidence_mask": evidence.astype(np.uint8)}
    sharpness = {"standard": 0.25, "linf": 0.12, "l2": 0.2}[label]
    scale = {"standard": 3.0, "linf": 1.0, "l2": 1.4}[label]
    for method, about in methods.items():
        bump = np.exp(-((distance / sharpness) ** 2)) * scale
        noise = rng.normal(size=(count, side, side))
        magnitude = bump * np.abs(noise) + 0.05 * np.abs(noise)
        arrays[f"map/{method}"] = (magnitude * np.sign(noise) if about["kind"] == "signed" else magnitude).astype("f4")
    if label == "l2":
        arrays["map/gradient"][1] = 0.0
        arrays["map/input_x_gradient"][2, 0, 0] = np.nan
    np.savez(path, **arrays)


def study_of(directory, claims, kind="expected", **changes):
    """The study that states ``claims``: by label, what is expected or correlated."""
    path = write_study(directory, **changes) / "study.json"
    parts = {"expected": [], "correlated": []}
    listed = [{"label": label, "sentence": f"{label}!", **parts, kind: claims[label]} for label in claims]
    records.write_json(path, records.read_json(path) | {"claims": listed})
    return load.read_study(directory)
