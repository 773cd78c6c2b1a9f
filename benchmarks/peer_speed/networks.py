"""The bundled networks in torch, from the arrays of problem.npz."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

MEAN, STD = 0.5, 0.25


class SmallCNN(nn.Module):
    def __init__(self, arrays, name: str):
        super().__init__()
        weights = Weights(arrays, name)
        for layer in ("conv1", "conv2", "conv3", "conv4"):
            setattr(self, layer, weights.conv(layer, stride=2 if layer == "conv1" else 1, bias=True))
        self.logits = weights.dense("logits")

    def forward(self, images):
        x = functional.relu(self.conv1((images - MEAN) / STD))
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv3(x)), 2)
        return self.logits(functional.relu(self.conv4(x)).mean((2, 3)))


class ResNet18(nn.Module):
    def __init__(self, arrays, name: str):
        super().__init__()
        weights = Weights(arrays, name)
        self.stem = ConvNorm(weights, "stem", 1)
        self.blocks = nn.Sequential(
            *(
                Block(weights, f"block{stage}_{index}", 2 if stage > 1 and index == 1 else 1)
                for stage in (1, 2, 3, 4)
                for index in (1, 2)
            )
        )
        self.logits = weights.dense("logits")

    def forward(self, images):
        x = functional.relu(self.stem((images - MEAN) / STD))
        return self.logits(self.blocks(x).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, weights, name: str, stride: int):
        super().__init__()
        self.conv1, self.conv2 = ConvNorm(weights, f"{name}/conv1", stride), ConvNorm(weights, f"{name}/conv2", 1)
        there = weights.has(f"{name}/shortcut")
        self.shortcut = ConvNorm(weights, f"{name}/shortcut", stride) if there else nn.Identity()

    def forward(self, x):
        return functional.relu(self.conv2(functional.relu(self.conv1(x))) + self.shortcut(x))


class ConvNorm(nn.Module):
    def __init__(self, weights, name: str, stride: int):
        super().__init__()
        self.conv, self.norm = weights.conv(name, stride, bias=False), weights.norm(name)

    def forward(self, x):
        return self.norm(self.conv(x))


class Weights:
    """Modules of torch with our arrays."""

    def __init__(self, arrays, name: str):
        own = f"{name}/weights/"
        self.arrays = {key.removeprefix(own): value for key, value in arrays.items() if key.startswith(own)}

    def has(self, layer: str) -> bool:
        return f"params/{layer}/conv/kernel" in self.arrays

    def conv(self, layer: str, stride: int, bias: bool) -> nn.Conv2d:
        kernel = self.arrays[f"params/{layer}/conv/kernel"]
        side, _, entering, leaving = kernel.shape
        made = nn.Conv2d(entering, leaving, side, stride, (side - 1) // 2, bias=bias)
        made.weight.data = tensor(kernel.transpose(3, 2, 0, 1))
        if bias:
            made.bias.data = tensor(self.arrays[f"params/{layer}/conv/bias"])
        return made

    def norm(self, layer: str) -> nn.BatchNorm2d:
        scale = self.arrays[f"params/{layer}/norm/scale"]
        made = nn.BatchNorm2d(len(scale), eps=1e-5, momentum=0.1)
        made.weight.data, made.bias.data = tensor(scale), tensor(self.arrays[f"params/{layer}/norm/bias"])
        state = f"state/batch_stats/{layer}/norm"
        made.running_mean.data = tensor(self.arrays[f"{state}/mean"])
        made.running_var.data = tensor(self.arrays[f"{state}/var"])
        return made

    def dense(self, layer: str) -> nn.Linear:
        kernel = self.arrays[f"params/{layer}/kernel"]
        made = nn.Linear(*kernel.shape)
        made.weight.data, made.bias.data = tensor(kernel.T), tensor(self.arrays[f"params/{layer}/bias"])
        return made


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.ascontiguousarray(array))
