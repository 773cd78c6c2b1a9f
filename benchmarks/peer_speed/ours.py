"""Our side: writes problem.npz (networks, images, adversaries, weights after a step), or times tasks (--serve)."""

import argparse
import os
import sys

import jax

jax.config.update("jax_num_cpu_devices", os.cpu_count())

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

BENCHMARKS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [BENCHMARKS, os.path.dirname(BENCHMARKS)]
import serving  # noqa: E402

from configs import common  # noqa: E402
from robust_saliency import attacks, config, losses, memory, models, optimizer, sharding, train_step  # noqa: E402
from robust_saliency.threat import Threat  # noqa: E402

SHAPE, CLASSES = (32, 32, 3), 10
EPSILON, STEP = 8 / 255, 2 / 255
ATTACK_STEPS, TRAINING_STEPS = 10, 7
RATE = 0.1
NETWORKS = {
    "small_cnn": (models.SmallCNN(), 256),
    "resnet18_w16": (models.ResNet18(width=16), 128),
    "resnet18": (models.ResNet18(), 64),
}
TRAINED = ("small_cnn", "resnet18_w16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--serve", action="store_true")
    words = parser.parse_args()
    memory.keep_freed()  # as launch.py does
    tasks, agreed = programs()
    if words.serve:
        serving.serve(tasks)
        return
    os.makedirs(words.folder, exist_ok=True)
    np.savez(os.path.join(words.folder, "problem.npz"), **agreed())


def programs():
    """``(tasks, agreed)``: what is timed, by name, compiled; and what gives the arrays that both sides must share."""
    tasks, results = {}, []
    for name, (spec, size) in NETWORKS.items():
        classifier = models.make(spec, SHAPE, CLASSES)
        mesh = sharding.make_mesh(0, size, "batch size")
        rng = np.random.default_rng(0)
        rows = {
            "image": rng.random((size, *SHAPE), np.float32),
            "label": rng.integers(0, CLASSES, size).astype(np.int32),
            "id": np.arange(size, dtype=np.int32),
            "valid": np.ones(size, bool),
        }
        variables = as_trained(classifier, rows["image"])
        batch, placed = sharding.put_batch(rows, mesh), sharding.put_replicated(variables, mesh)
        results.append((name, rows, variables, None))
        attack = compiled(attacked(classifier), placed, batch)
        tasks[f"PGD-{ATTACK_STEPS}, {name}"] = attack
        results.append((f"{name}/adversaries", {}, None, attack))
        if name in TRAINED:
            step = compiled(*training_step(classifier, variables, name, mesh), batch, jax.random.key(0), 1.0)
            tasks[f"training step, PGD-{TRAINING_STEPS}, {name}"] = step
            results.append((f"{name}/after", {}, None, lambda step=step: step()[0].variables))
        results.append((f"{name}/logits", {}, None, compiled(logits(classifier), placed, batch)))

    def agreed() -> dict:
        found = {}
        for name, rows, weights, run in results:
            tree = {"rows": rows, "weights": weights} if run is None else run()
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                found["/".join([name, *(str(part.key) for part in path)])] = np.asarray(leaf)
        return found

    return tasks, agreed


def as_trained(classifier, images) -> dict:
    """Fresh weights, with biases and scales that are not 0 and 1, and the statistics of the images.

    A peer that forgets one of them does not agree. With statistics that are not the images' activations grow from layer
    to layer, and gradients become denormal numbers, with which every CPU is slow.
    """
    rng = np.random.default_rng(1)

    def change(path, leaf):
        kind = path[-1].key
        if kind == "bias":
            return leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32)
        return leaf * rng.uniform(0.8, 1.2, leaf.shape).astype(np.float32) if kind == "scale" else leaf

    variables = jax.tree_util.tree_map_with_path(change, classifier.init(jax.random.key(0)))
    passed = jax.jit(lambda variables: classifier.apply(variables, images, mode="train").state)
    for _ in range(60 if variables["state"] else 0):
        variables = {**variables, "state": passed(variables)}
    return variables


def compiled(program, *arguments):
    executable = jax.jit(program).lower(*arguments).compile()
    return lambda: jax.block_until_ready(executable(*arguments))


def logits(classifier):
    return lambda variables, batch: classifier.logits_fn(variables)(batch["image"])


def attacked(classifier):
    spec = attacks.PGD(threat=Threat(epsilon=EPSILON), num_steps=ATTACK_STEPS, step_size=STEP, start="none")

    def run(variables, batch):
        logits_fn = classifier.logits_fn(variables)
        loss_fn = lambda images: losses.cross_entropy(logits_fn(images), batch["label"])  # noqa: E731
        return attacks.run(loss_fn, jax.random.key(0), batch["image"], spec)

    return run


def training_step(classifier, variables: dict, name: str, mesh):
    """The step that launch.py compiles, and its state: PGD in eval mode, then SGD with Nesterov momentum."""
    changed = common.default()
    changed.objective.name = "adversarial"
    changed.objective.attack.update(
        epsilon=EPSILON, step_size=STEP, num_steps=TRAINING_STEPS, start="none", relative_step_size=None
    )
    changed.optimizer.update(name="sgd", learning_rate=RATE, schedule="constant", clip_norm=0.0, weight_decay=0.0)
    experiment = config.parse(config.to_plain(changed))
    transformation, schedule = optimizer.make(experiment.optimizer, 100, ())
    step = train_step.make_train_step(classifier, experiment, transformation, schedule, 100)
    opt_state = transformation.init(variables["params"])
    state = train_step.TrainState(jnp.int32(0), variables["params"], variables["state"], opt_state, ())
    return step, sharding.put_replicated(state, mesh)


if __name__ == "__main__":
    main()
