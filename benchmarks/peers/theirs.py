"""The peers' side, which imports nothing of ours: torchattacks and foolbox on the network of problem.npz."""

import argparse
import json
import os
import time

import foolbox
import numpy as np
import torch
import torchattacks
from torch import nn
from torch.nn import functional

STEPS = 10
# torchattacks divides by (l2 norm + eps_for_division) of the gradient of a *mean* over the batch: at its default of
# 1e-10 the steps of 1,000 images, some of them sure, come out shorter than their step size.
NEGLIGIBLE = 1e-30


class SmallCNN(nn.Module):
    """``small_cnn`` in torch, from its weights."""

    def __init__(self, arrays):
        super().__init__()
        for name in ("conv1", "conv2", "conv3", "conv4"):
            kernel = arrays[f"weights/{name}/kernel"]
            setattr(self, name, nn.Parameter(torch.tensor(kernel.transpose(3, 2, 0, 1).copy())))
            setattr(self, f"{name}_bias", nn.Parameter(torch.tensor(arrays[f"weights/{name}/bias"])))
        self.out = nn.Parameter(torch.tensor(arrays["weights/logits/kernel"].T.copy()))
        self.out_bias = nn.Parameter(torch.tensor(arrays["weights/logits/bias"]))
        self.register_buffer("mean", torch.tensor(arrays["mean"], dtype=torch.float32).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(arrays["std"], dtype=torch.float32).reshape(1, -1, 1, 1))

    def forward(self, images):
        x = (images - self.mean) / self.std
        x = self._conv(x, "conv1", stride=2)
        x = functional.max_pool2d(self._conv(x, "conv2"), 2)
        x = functional.max_pool2d(self._conv(x, "conv3"), 2)
        x = self._conv(x, "conv4")
        return functional.linear(x.mean((2, 3)), self.out, self.out_bias)

    def _conv(self, x, name: str, stride: int = 1):
        kernel = getattr(self, name)
        padding = (kernel.shape[-1] - 1) // 2
        return functional.relu(functional.conv2d(x, kernel, getattr(self, f"{name}_bias"), stride, padding))


class Smooth(nn.Module):
    def __init__(self, w, v, shape):
        super().__init__()
        # Weights in the order of torch's axes: torchattacks needs gradients that lie in memory as the images do.
        rows = w.reshape(*shape, -1).transpose(2, 0, 1, 3).reshape(w.shape)
        self.w, self.v = nn.Parameter(torch.tensor(rows.copy())), nn.Parameter(torch.tensor(v))

    def forward(self, images):
        return torch.tanh(images.flatten(1) @ self.w) @ self.v


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    folder = parser.parse_args().folder
    arrays = dict(np.load(os.path.join(folder, "problem.npz")))
    images = torch.tensor(arrays["images"].transpose(0, 3, 1, 2).copy())
    labels = torch.tensor(arrays["labels"].astype(np.int64))
    network = SmallCNN(arrays).eval()
    with torch.no_grad():
        found = {"logits": network(images).numpy()}
    budgets = {norm: float(arrays[f"epsilon/{norm}"]) for norm in ("linf", "l2")}
    for steps in (1, STEPS):
        found |= pgd(network, images, labels, budgets, steps, f"pgd/{{peer}}/{{norm}}/{steps}")
    exact, doubles = SmallCNN(arrays).eval().double(), images.double()  # the step that float32 rounds
    found |= pgd(exact, doubles, labels, budgets, 1, "exact/{peer}/{norm}/1")
    found |= smooth_pgd(arrays, budgets)
    began = time.monotonic()
    attack = torchattacks.AutoAttack(
        network, norm="Linf", eps=budgets["linf"], version="standard", n_classes=10, seed=0
    )
    found["autoattack"] = nhwc(attack(images, labels))
    found["seconds"] = np.array(time.monotonic() - began)
    versions = {"torch": torch.__version__, "torchattacks": torchattacks.__version__, "foolbox": foolbox.__version__}
    np.savez(os.path.join(folder, "theirs.npz"), versions=np.array(json.dumps(versions)), **found)


def smooth_pgd(arrays, budgets: dict) -> dict:
    found = {}
    labels = torch.tensor(arrays["smooth/labels"].astype(np.int64))
    for label, dtype in (("smooth", torch.float64), ("smooth32", torch.float32)):
        network = Smooth(arrays["smooth/w"], arrays["smooth/v"], arrays["smooth/images"].shape[1:]).eval().to(dtype)
        images = torch.tensor(arrays["smooth/images"].transpose(0, 3, 1, 2).copy()).to(dtype)
        for steps in (1, STEPS):
            found |= pgd(network, images, labels, budgets, steps, f"{label}/{{peer}}/{{norm}}/{steps}")
    return found


def pgd(network, images, labels, budgets: dict, steps: int, label: str) -> dict:
    found = {}
    linf, l2 = budgets["linf"], budgets["l2"]
    torchs = {
        "linf": torchattacks.PGD(network, eps=linf, alpha=linf / 4, steps=steps, random_start=False),
        "l2": torchattacks.PGDL2(
            network, eps=l2, alpha=l2 / 4, steps=steps, random_start=False, eps_for_division=NEGLIGIBLE
        ),
    }
    fools = {
        "linf": foolbox.attacks.LinfPGD(abs_stepsize=linf / 4, steps=steps, random_start=False),
        "l2": foolbox.attacks.L2PGD(abs_stepsize=l2 / 4, steps=steps, random_start=False),
    }
    for norm in budgets:
        found[label.format(peer="torchattacks", norm=norm)] = nhwc(torchs[norm](images, labels))
        model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
        raw = fools[norm].run(model, images, foolbox.criteria.Misclassification(labels), epsilon=budgets[norm])
        found[label.format(peer="foolbox", norm=norm)] = nhwc(raw)
    return found


def nhwc(images) -> np.ndarray:
    return images.detach().numpy().transpose(0, 2, 3, 1)


if __name__ == "__main__":
    main()
