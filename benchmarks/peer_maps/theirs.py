"""The peers' side, which imports nothing of ours: captum and Quantus on the network of problem.npz."""

import argparse
import copy
import json
import os
import sys
import warnings

import captum
import numpy as np
import quantus
import torch
from captum import attr, metrics
from torch import nn

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import serving

warnings.filterwarnings("ignore")


class SmallCNN(nn.Module):
    """``small_cnn`` in torch, from its weights, of modules that captum can hook."""

    def __init__(self, arrays):
        super().__init__()
        for name in ("conv1", "conv2", "conv3", "conv4"):
            kernel = arrays[f"weights/{name}/kernel"]
            height, _, entering, leaving = kernel.shape
            stride = 2 if name == "conv1" else 1
            conv = nn.Conv2d(entering, leaving, height, stride, (height - 1) // 2)
            conv.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1).copy())
            conv.bias.data = torch.tensor(arrays[f"weights/{name}/bias"])
            setattr(self, name, conv)
            setattr(self, f"{name}_relu", nn.ReLU())
        kernel = arrays["weights/logits/kernel"]
        self.head = nn.Linear(*kernel.shape)
        self.head.weight.data = torch.tensor(kernel.T.copy())
        self.head.bias.data = torch.tensor(arrays["weights/logits/bias"])
        self.pool2, self.pool3 = nn.MaxPool2d(2), nn.MaxPool2d(2)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(arrays[name], dtype=torch.float32).reshape(1, -1, 1, 1))

    def forward(self, images):
        x = (images - self.mean) / self.std
        x = self.conv1_relu(self.conv1(x))
        x = self.pool2(self.conv2_relu(self.conv2(x)))
        x = self.pool3(self.conv3_relu(self.conv3(x)))
        x = self.conv4_relu(self.conv4(x))
        return self.head(x.mean((2, 3)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--serve", action="store_true")
    words = parser.parse_args()
    arrays = dict(np.load(os.path.join(words.folder, "problem.npz")))
    network = SmallCNN(arrays).eval()
    images, labels = nchw(arrays["images"]), torch.tensor(arrays["labels"].astype(np.int64))
    if words.serve:
        serving.serve(timed(network, images, labels))
        return
    versions = {"torch": torch.__version__, "captum": captum.__version__, "quantus": quantus.__version__}
    found = agreed(network, images, labels, arrays)
    np.savez(os.path.join(words.folder, "theirs.npz"), versions=np.array(json.dumps(versions)), **found)


def agreed(network, images, labels, arrays) -> dict:
    gradient = attr.Saliency(network)
    size = images.shape[2:]
    found = {"logits": network(images).detach().numpy()}
    found["gradient"] = nhwc(gradient.attribute(images, labels, abs=False))
    path = {"baselines": 0, "target": labels, "n_steps": 50, "method": "gausslegendre", "internal_batch_size": 1024}
    found["integrated_gradients"] = nhwc(attr.IntegratedGradients(network).attribute(images, **path))
    exact = attr.IntegratedGradients(copy.deepcopy(network).double())
    found["integrated_gradients, float64"] = nhwc(exact.attribute(images.double(), **path))
    occluded = attr.Occlusion(network).attribute(
        images, sliding_window_shapes=(3, 4, 4), strides=(3, 2, 2), target=labels, baselines=0
    )
    found["occlusion"] = nhwc(occluded)[..., 0]
    cam = attr.LayerGradCam(network, network.conv4_relu).attribute(images, labels, relu_attributions=True)
    found["grad_cam"] = nhwc(attr.LayerAttribution.interpolate(cam, tuple(size), "bilinear"))[..., 0]
    each = [gradient.attribute(images + nchw(noise), labels, abs=False) for noise in arrays["noise"]]
    found["smoothgrad"] = nhwc(torch.stack(each).mean(0))
    noisy = nchw(arrays["noisy"].reshape(-1, *arrays["noisy"].shape[2:]))
    found["max_sensitivity"] = metrics.sensitivity_max(
        # Images come as a tuple or as a tensor; maps must be a tuple, for a tensor is taken for one map an image.
        lambda x, target: (gradient.attribute(x[0] if isinstance(x, tuple) else x, target, abs=False).sum(1, True),),
        images,
        perturb_func=lambda x: noisy,
        n_perturb_samples=arrays["noisy"].shape[1],
        target=labels,
    ).numpy()
    # Scaled up: 1e-7 is added to every value, which makes the index depend on the gradient's scale.
    maps = 1e3 * np.abs(arrays["maps"])[:, None]
    sparseness = quantus.Sparseness(disable_warnings=True, normalise=False)
    found["gini"] = np.array(sparseness(model=network, x_batch=images.numpy(), y_batch=labels.numpy(), a_batch=maps))
    return found


def timed(network, images, labels) -> dict:
    gradient = attr.Saliency(network)
    x, y = images.numpy(), labels.numpy()
    maps = gradient.attribute(images, labels).sum(1, keepdim=True).numpy()
    given = {"model": network, "x_batch": x, "y_batch": y, "a_batch": maps, "device": "cpu", "batch_size": 256}
    quiet = {"disable_warnings": True, "display_progressbar": False}
    per_step = x[0].size // 96
    flipping = quantus.PixelFlipping(features_in_step=per_step, perturb_baseline="black", **quiet)
    correlation = quantus.FaithfulnessCorrelation(nr_runs=100, subset_size=224, perturb_baseline="black", **quiet)
    sensitivity = quantus.MaxSensitivity(nr_samples=10, lower_bound=0.02, **quiet)
    infidelity = quantus.Infidelity(perturb_baseline="black", **quiet)
    explained = {"explain_func": quantus.explain, "explain_func_kwargs": {"method": "Saliency"}}
    tunnel = attr.NoiseTunnel(gradient)
    return {
        "integrated gradients, 50 steps": lambda: attr.IntegratedGradients(network).attribute(
            images, baselines=0, target=labels, n_steps=50, internal_batch_size=1024
        ),
        "SmoothGrad, 50 draws": lambda: tunnel.attribute(
            images, nt_samples=50, nt_samples_batch_size=5, stdevs=0.15, target=labels
        ),
        "pixel flipping, 96 steps": lambda: flipping(**given),
        "faithfulness correlation, 100 sets": lambda: correlation(**given),
        "max-sensitivity, 10 draws": lambda: sensitivity(**given, **explained),
        "infidelity": lambda: infidelity(**given),
    }


def nchw(images) -> torch.Tensor:
    return torch.tensor(images.transpose(0, 3, 1, 2).copy())


def nhwc(images) -> np.ndarray:
    return images.detach().numpy().transpose(0, 2, 3, 1)


if __name__ == "__main__":
    main()
