"""Our side: writes problem.npz (weights, images, labels) for the peers and ours.npz (what our attacks found)."""

import argparse
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import attacks, data, load, losses, sharding, survivors
from robust_saliency.attacks import stages
from robust_saliency.threat import Threat

STEPS = 10
SMOOTH, NUM_SMOOTH = (12, 9, 2), 200  # shape and number of the images of the smooth network
BUDGETS = {"linf": 0.1, "l2": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--num", type=int, default=200)
    words = parser.parse_args()
    os.makedirs(words.folder, exist_ok=True)
    classifier, variables, config = load(words.workdir)
    if config["model"]["name"] != "small_cnn":
        raise SystemExit(f"The peers know small_cnn alone; {words.workdir} holds {config['model']['name']}.")
    held, problem = examples(config, words.num)
    for layer, parts in variables["params"].items():
        for name, value in (parts.get("conv") or parts).items():
            problem[f"weights/{layer}/{name}"] = np.asarray(value)
    problem |= {"mean": np.array(config["model"]["mean"]), "std": np.array(config["model"]["std"])}
    problem |= {f"epsilon/{norm}": np.array(epsilon) for norm, epsilon in BUDGETS.items()}
    problem["logits"] = np.asarray(classifier.logits_fn(variables)(held["image"]))
    smooth, found = smooth_problem()
    problem |= smooth
    np.savez(os.path.join(words.folder, "problem.npz"), **problem)

    logits_fn = classifier.logits_fn(variables)
    for norm, epsilon in BUDGETS.items():
        for steps in (1, STEPS):
            found[f"pgd/{norm}/{steps}"] = pgd(logits_fn, held["image"], held["label"], norm, epsilon, steps)
    found |= autoattack(classifier, variables, held)
    np.savez(os.path.join(words.folder, "ours.npz"), **found)


def examples(config: dict, num: int) -> tuple[dict, dict]:
    """``num`` test images as floats with labels and ids, and the arrays that the peers get.

    Dithered by less than half a grey level: on a black background the values under a max-pool tie, and torch gives the
    gradient of a tie to one of them where JAX shares it, so that only 0.986 of the signs agree.
    """
    from robust_saliency import config as config_lib

    split = data.load(config_lib.parse(config).data).test
    rows = split.gather(data.choose(len(split), num))
    images = np.asarray(data.to_float({"image": rows["image"]})["image"])
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, images.shape) / 255
    images = np.clip(images + noise, 0, 1).astype(np.float32)
    held = {"image": images, "label": rows["label"], "id": rows["id"]}
    return held, {"images": images, "labels": rows["label"]}


def pgd(logits_fn, images, labels, norm: str, epsilon: float, steps: int) -> np.ndarray:
    model = Threat(norm=norm, epsilon=epsilon, projection="scale_then_clip")  # as the peers project
    spec = attacks.PGD(threat=model, step_size=epsilon / 4, num_steps=steps, start="none")
    run = jax.jit(lambda x, y: attacks.pgd(lambda z: losses.cross_entropy(logits_fn(z), y), jax.random.key(0), x, spec))
    return np.asarray(run(jnp.asarray(images), jnp.asarray(labels)))


def smooth_problem() -> tuple[dict, dict]:
    """A tanh network, and our PGD on it: in float64 by the name smooth, in float32 by the name smooth32."""
    rng = np.random.default_rng(0)
    height, width, channels = SMOOTH
    w = rng.normal(size=(height * width * channels, 20)) / 8
    v = rng.normal(size=(20, 5))
    images, labels = rng.uniform(size=(NUM_SMOOTH, *SMOOTH)), rng.integers(0, 5, NUM_SMOOTH)
    problem = {"smooth/w": w, "smooth/v": v, "smooth/images": images, "smooth/labels": labels}
    single = {name: value.astype(np.float32) for name, value in problem.items() if value.dtype == np.float64}
    found = smooth_pgd(problem | single, "smooth32")
    with jax.enable_x64(True):
        return problem, found | smooth_pgd(problem, "smooth")


def smooth_pgd(problem: dict, label: str) -> dict:
    def logits_fn(x):
        return jnp.tanh(x.reshape(len(x), -1) @ problem["smooth/w"]) @ problem["smooth/v"]

    return {
        f"{label}/{norm}/{steps}": pgd(
            logits_fn, problem["smooth/images"], problem["smooth/labels"], norm, epsilon, steps
        )
        for norm, epsilon in BUDGETS.items()
        for steps in (1, STEPS)
    }


def autoattack(classifier, variables, held: dict) -> dict:
    batch_size = min(128, len(held["label"]))
    mesh = sharding.make_mesh(0, batch_size, "batch size")
    spec = attacks.AutoAttack(threat=Threat(norm="linf", epsilon=BUDGETS["linf"]))
    began = time.monotonic()
    found = survivors.attack(
        classifier.logits_fn,
        sharding.put_replicated(variables, mesh),
        lambda at: {name: rows[at] for name, rows in held.items()},
        np.arange(len(held["label"])),
        stages.stages(spec, classifier.num_classes),
        key=jax.random.key(0),
        mesh=mesh,
        batch_size=batch_size,
        title="AutoAttack",
    )
    return {"autoattack": found.images, "robust": found.robust, "seconds": np.array(time.monotonic() - began)}


if __name__ == "__main__":
    main()
