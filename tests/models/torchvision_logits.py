"""Writes torchvision_logits.json: what torchvision's networks make of the numbers of torchvision_weights.py.

    pip install torch torchvision && python tests/models/torchvision_logits.py

Not part of the tests, which read the file: PyTorch is too large to be installed for them.
"""

import json
from pathlib import Path

import torch
import torchvision
import torchvision_weights as weights

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def logits(depth, sides):
    network = getattr(torchvision.models, f"resnet{depth}")(num_classes=weights.CLASSES)
    state_dict = {name: torch.as_tensor(array) for name, array in weights.state_dict(depth).items()}
    network.load_state_dict(state_dict, strict=True)
    images = torch.as_tensor(weights.images(sides)).permute(0, 3, 1, 2)
    with torch.no_grad():
        return network.eval()(torchvision.transforms.functional.normalize(images, MEAN, STD)).numpy()


def main():
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    found = {name: logits(*case).astype(float).round(6).tolist() for name, case in weights.CASES.items()}
    for name, rows in found.items():
        print(name, rows)
    text = json.dumps({"versions": versions, "logits": found}, indent=1)
    Path(__file__).with_suffix(".json").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
