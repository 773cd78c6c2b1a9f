"""A state_dict of torchvision's ResNets made of seeded numbers, and images: the same here and where PyTorch is.

Names and shapes are written out, not asked of the importer; ``torchvision_logits.py`` loads them with ``strict=True``.
"""

import zlib

import numpy as np

DEPTHS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
CASES = {  # name -> depth, sides of the images
    "resnet18_48": (18, (48, 48)),
    "resnet18_33x51": (18, (33, 51)),
    "resnet18_224": (18, (224, 224)),
    "resnet50_64": (50, (64, 64)),
    "resnet50_65x47": (50, (65, 47)),
    "resnet50_224": (50, (224, 224)),
}
CLASSES = 10


def state_dict(depth, first=64):
    """Name -> float32 array. BatchNorms have means that are not 0 and variances that are not 1.

    first: channels of the first layer, and of which the others have multiples; torchvision's own have 64.
    """
    tensors = convolution("conv1", "bn1", 3, first, 7)
    channels = first
    for stage, blocks in enumerate(DEPTHS[depth]):
        width = first * 2**stage
        out = width * (4 if depth == 50 else 1)
        for index in range(blocks):
            block = f"layer{stage + 1}.{index}"
            if depth == 50:
                sizes = [(channels, width, 1), (width, width, 3), (width, out, 1)]
            else:
                sizes = [(channels, width, 3), (width, out, 3)]
            for i, size in enumerate(sizes, start=1):
                tensors |= convolution(f"{block}.conv{i}", f"{block}.bn{i}", *size, branch=i == len(sizes))
            if channels != out:
                tensors |= convolution(f"{block}.downsample.0", f"{block}.downsample.1", channels, out, 1)
            channels = out
    tensors["fc.weight"] = normal("fc.weight", (CLASSES, channels)) * np.float32(channels**-0.5)
    tensors["fc.bias"] = normal("fc.bias", (CLASSES,))
    return tensors


def images(sides):
    """float32 ``[2, H, W, 3]`` in [0, 1]: noise on a slope, so that no two places and no two images are alike."""
    noise = uniform("images", (2, *sides, 3), 0, 1)
    slope = np.linspace(0, 1, sides[0], dtype=np.float32)[:, None, None] * np.float32([1, 0])[:, None, None, None]
    return (noise + slope) / 2


def convolution(name, norm, inputs, outputs, kernel, branch=False):
    """He's scale. The last BatchNorm of a branch has small weights, so that sums of many blocks stay of size one."""
    scale = np.float32((2 / (inputs * kernel**2)) ** 0.5)
    low, high = (0.1, 0.3) if branch else (0.5, 1.5)
    return {
        f"{name}.weight": normal(f"{name}.weight", (outputs, inputs, kernel, kernel)) * scale,
        f"{norm}.weight": uniform(f"{norm}.weight", (outputs,), low, high),
        f"{norm}.bias": normal(f"{norm}.bias", (outputs,)) * np.float32(0.1),
        f"{norm}.running_mean": normal(f"{norm}.running_mean", (outputs,)) * np.float32(0.3),
        f"{norm}.running_var": uniform(f"{norm}.running_var", (outputs,), 0.5, 2),
        f"{norm}.num_batches_tracked": np.int64(7),
    }


def normal(name, shape):
    return generator(name).standard_normal(shape).astype(np.float32)


def uniform(name, shape, low, high):
    return generator(name).uniform(low, high, shape).astype(np.float32)


def generator(name):
    """RandomState and not default_rng: NumPy promises that its numbers stay the same in every version."""
    return np.random.RandomState(zlib.crc32(name.encode()))
