"""Our side: writes problem.npz for the peers and ours.npz (our maps and scores), or times tasks (--serve)."""

import argparse
import os
import sys

import jax

jax.config.update("jax_num_cpu_devices", os.cpu_count())

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import serving  # noqa: E402

from robust_saliency import config as config_lib  # noqa: E402
from robust_saliency import data, load, metrics, saliency, sharding  # noqa: E402
from robust_saliency.baselines import Baseline  # noqa: E402
from robust_saliency.randomness import per_example_keys  # noqa: E402

BLACK = Baseline(kind="black")
SIGNED = {"sign": "signed", "channels": "none"}
NOISE = metrics.Noise(kind="uniform", scale=0.02, num_samples=10)
FLIPPED = 96  # steps of pixel flipping


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--num", type=int, default=256)
    parser.add_argument("--serve", action="store_true")
    words = parser.parse_args()
    os.makedirs(words.folder, exist_ok=True)
    classifier, variables, config = load(words.workdir)
    if config["model"]["name"] != "small_cnn":
        raise SystemExit(f"The peers know small_cnn alone; {words.workdir} holds {config['model']['name']}.")
    split = data.load(config_lib.parse(config).data).test
    rows = split.gather(data.choose(len(split), words.num))
    images = np.asarray(data.to_float({"image": rows["image"]})["image"])
    # Dithered by less than half a grey level: torch gives the gradient of a tie under a max-pool to one of the two.
    images = np.clip(images + np.random.default_rng(0).uniform(-0.5, 0.5, images.shape) / 255, 0, 1).astype(np.float32)
    labels = rows["label"].astype(np.int32)
    if words.serve:
        serving.serve(timed(classifier, variables, images, labels))
        return
    logits_fn = classifier.logits_fn(variables)
    found, problem = agreed(logits_fn, images, labels)
    problem |= {"images": images, "labels": labels, "logits": np.asarray(logits_fn(images))}
    for layer, parts in variables["params"].items():
        for name, value in (parts.get("conv") or parts).items():
            problem[f"weights/{layer}/{name}"] = np.asarray(value)
    problem |= {name: np.array(config["model"][name]) for name in ("mean", "std")}
    np.savez(os.path.join(words.folder, "problem.npz"), **problem)
    np.savez(os.path.join(words.folder, "ours.npz"), **found)


def agreed(logits_fn, images, labels) -> tuple[dict, dict]:
    """What both sides compute, and the random numbers that the peers are given."""
    key = jax.random.key(0)

    def explained(spec, images, labels):
        return jax.jit(lambda x, y: saliency.run(logits_fn, key, x, y, spec))(jnp.asarray(images), labels)

    maps = {
        "gradient": saliency.Gradient(**SIGNED),
        "integrated_gradients": saliency.IntegratedGradients(num_steps=50, baseline=BLACK, **SIGNED),
        "occlusion": saliency.Occlusion(window=4, stride=2, baseline=BLACK),
        "grad_cam": saliency.GradCAM(layer="conv4"),
    }
    found = {name: np.asarray(explained(spec, images, labels)) for name, spec in maps.items()}
    with jax.enable_x64(True):  # in float32 a node within rounding of a kink falls to either side of it
        path = maps["integrated_gradients"]
        found["integrated_gradients, float64"] = np.asarray(explained(path, images.astype(np.float64), labels))
    deviation = 0.1 * np.random.default_rng(1).normal(size=(5, *images.shape)).astype(np.float32)
    each = [explained(maps["gradient"], images + noise, labels) for noise in deviation]
    found["smoothgrad"] = np.mean(each, axis=0)
    summed = saliency.Gradient(sign="signed", channels="sum")
    own = explained(summed, images, labels)
    noisy = metrics.noisy_maps(lambda _, x, y: explained(summed, x, y), key, jnp.asarray(images), labels, NOISE)
    found["max_sensitivity"] = np.asarray(metrics.max_sensitivity_of(own, noisy, metrics.MaxSensitivity(sign="raw")))
    found["gini"] = np.asarray(metrics.gini(own))
    return found, {"noise": deviation, "noisy": np.asarray(noisy.images), "maps": np.asarray(own)}


def timed(classifier, variables, images, labels) -> dict:
    """What is timed, compiled before, on one virtual device a core."""
    mesh = sharding.make_mesh(0, len(images), "batch size")
    variables = sharding.put_replicated(variables, mesh)
    batch = {"images": images, "labels": labels, "keys": per_example_keys(jax.random.key(0), np.arange(len(images)))}
    batch["maps"] = np.asarray(
        saliency.gradient(classifier.logits_fn(variables), None, jnp.asarray(images), labels, saliency.Gradient())
    )
    batch = sharding.put_batch(batch, mesh)

    def explain(spec):
        def run(variables, batch):
            logits_fn = classifier.logits_fn(variables)
            return saliency.run(logits_fn, batch["keys"], batch["images"], batch["labels"], spec)

        return run

    def score(spec):
        def run(variables, batch):
            logits_fn = classifier.logits_fn(variables)
            return metrics.run(
                spec,
                logits_fn=logits_fn,
                saliency_fn=lambda key, x, y: saliency.gradient(logits_fn, key, x, y, saliency.Gradient()),
                key=batch["keys"],
                **{name: batch[name] for name in ("images", "labels", "maps")},
            )

        return run

    programs = {
        "integrated gradients, 50 steps": explain(saliency.IntegratedGradients(num_steps=50, baseline=BLACK)),
        "SmoothGrad, 50 draws": explain(saliency.SmoothGrad(num_samples=50, sigma=0.15)),
        "pixel flipping, 96 steps": score(metrics.Deletion(points=FLIPPED + 1, baseline=BLACK)),
        "faithfulness correlation, 100 sets": score(
            metrics.FaithfulnessCorrelation(num_samples=100, score="probability")
        ),
        "max-sensitivity, 10 draws": score(metrics.MaxSensitivity(noise=NOISE)),
        "infidelity": score(metrics.Infidelity(num_samples=64, perturbation="squares")),
    }
    compiled = {name: jax.jit(program).lower(variables, batch).compile() for name, program in programs.items()}
    return {name: lambda run=run: jax.block_until_ready(run(variables, batch)) for name, run in compiled.items()}


if __name__ == "__main__":
    main()
