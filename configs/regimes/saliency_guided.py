"""Saliency-guided training: what the map calls unimportant is replaced by noise (Ismail et al. 2021).

    python launch.py --config=configs/regimes/saliency_guided.py --workdir=runs/saliency_guided
    python launch.py --config=configs/regimes/saliency_guided.py:fashion_mnist --workdir=runs/saliency_guided_fmnist

No adversary; one half of the pixels, one pass more an image.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "saliency-guided training",
        "Half of each image, the less important, is replaced by noise.",
    )
    return regimes.after_standard(config, setting, {"name": "saliency_guided"})
