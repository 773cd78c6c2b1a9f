"""The peers' side, which imports nothing of ours: hand-written PyTorch loops, torchattacks and foolbox.

On the networks of problem.npz: writes theirs.json, how far it agrees, or times tasks (--serve).
"""

import argparse
import json
import os
import sys

import foolbox
import numpy as np
import torch
import torchattacks
from torch.nn import functional

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import serving
from networks import ResNet18, SmallCNN

EPSILON, STEP, RATE = 8 / 255, 2 / 255, 0.1
ATTACK_STEPS, TRAINING_STEPS = 10, 7
NETWORKS = {"small_cnn": SmallCNN, "resnet18_w16": ResNet18, "resnet18": ResNet18}
TRAINED = ("small_cnn", "resnet18_w16")
LAYOUTS = {"": torch.contiguous_format, ", channels_last": torch.channels_last}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--serve", action="store_true")
    words = parser.parse_args()
    torch.set_num_threads(os.cpu_count())
    arrays = dict(np.load(os.path.join(words.folder, "problem.npz")))
    if words.serve:
        serving.serve(timed(arrays))
        return
    versions = {"torch": torch.__version__, "torchattacks": torchattacks.__version__, "foolbox": foolbox.__version__}
    with open(os.path.join(words.folder, "theirs.json"), "w", encoding="utf-8") as file:
        json.dump({"agreement": agreement(arrays), "versions": versions}, file)


def timed(arrays) -> dict:
    """By '<task>: <peer>'."""
    tasks = {}
    for name in NETWORKS:
        for layout, memory in LAYOUTS.items():
            images, labels = batch(arrays, name, memory)
            network = NETWORKS[name](arrays, name).eval().to(memory_format=memory)
            for how, called in {"eager": network, "torch.compile": torch.compile(network)}.items():
                tasks[f"PGD-{ATTACK_STEPS}, {name}: {how}{layout}"] = (
                    lambda called=called, images=images, labels=labels: pgd(called, images, labels, ATTACK_STEPS)
                )
                if name in TRAINED:
                    own = NETWORKS[name](arrays, name).to(memory_format=memory)
                    # At rate 0 the weights stay what they are on our side, at every repetition.
                    step = Training(torch.compile(own) if how != "eager" else own, own, rate=0.0)
                    tasks[f"training step, PGD-{TRAINING_STEPS}, {name}: {how}{layout}"] = (
                        lambda step=step, images=images, labels=labels: step(images, labels)
                    )
        images, labels = batch(arrays, name, torch.contiguous_format)
        network = NETWORKS[name](arrays, name).eval()
        attack = torchattacks.PGD(network, eps=EPSILON, alpha=STEP, steps=ATTACK_STEPS, random_start=False)
        tasks[f"PGD-{ATTACK_STEPS}, {name}: torchattacks"] = lambda a=attack, x=images, y=labels: a(x, y)
        model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
        fool = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=ATTACK_STEPS, random_start=False)
        tasks[f"PGD-{ATTACK_STEPS}, {name}: foolbox"] = lambda f=fool, m=model, x=images, y=labels: f.run(
            m, x, foolbox.criteria.Misclassification(y), epsilon=EPSILON
        )
    return tasks


def agreement(arrays) -> dict:
    """Largest differences of logits, and of weights after a step, over the largest value; share of unequal pixels."""
    found = {}
    for name in NETWORKS:
        images, labels = batch(arrays, name, torch.contiguous_format)
        network = NETWORKS[name](arrays, name).eval()
        with torch.no_grad():
            found[f"{name}: logits"] = difference(network(images).numpy(), arrays[f"{name}/logits"])
        adversaries = pgd(network, images, labels, ATTACK_STEPS).numpy().transpose(0, 2, 3, 1)
        found[f"{name}: pixels that differ by 1e-5"] = float(
            (np.abs(adversaries - arrays[f"{name}/adversaries"]) > 1e-5).mean()
        )
        if name in TRAINED:
            own = NETWORKS[name](arrays, name)
            Training(own, own, RATE)(images, labels)
            after = NETWORKS[name](
                {
                    key.replace(f"{name}/after/", f"{name}/weights/"): value
                    for key, value in arrays.items()
                    if key.startswith((f"{name}/after/", f"{name}/rows/"))
                },
                name,
            )
            ours, theirs = after.state_dict(), own.state_dict()
            found[f"{name}: weights after a step"] = max(
                difference(theirs[key].numpy(), ours[key].numpy()) for key in ours if ours[key].dtype.is_floating_point
            )
    return found


def difference(theirs: np.ndarray, ours: np.ndarray) -> float:
    return float(np.abs(theirs - ours).max() / np.abs(theirs).max())


def batch(arrays, name: str, memory):
    images = torch.tensor(arrays[f"{name}/rows/image"].transpose(0, 3, 1, 2).copy()).contiguous(memory_format=memory)
    return images, torch.tensor(arrays[f"{name}/rows/label"].astype(np.int64))


def pgd(network, images, labels, steps: int):
    low, high = (images - EPSILON).clamp(0, 1), (images + EPSILON).clamp(0, 1)
    x = images
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(network(x), labels, reduction="sum"), x)
        x = torch.minimum(torch.maximum(x.detach() + STEP * gradient.sign(), low), high)
    return x


class Training:
    """A step of adversarial training: PGD in eval mode, then SGD with Nesterov momentum in train mode."""

    def __init__(self, called, network, rate: float):
        self.called, self.network = called, network
        self.optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True)

    def __call__(self, images, labels):
        self.network.eval()
        adversaries = pgd(self.called, images, labels, TRAINING_STEPS)
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(self.called(adversaries), labels).backward()
        self.optimizer.step()


if __name__ == "__main__":
    main()
