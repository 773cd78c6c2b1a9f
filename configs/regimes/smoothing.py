"""A Gaussian filter on the activation of a layer, kept at evaluation (after Bhusal et al. 2026).

    python launch.py --config=configs/regimes/smoothing.py --workdir=runs/smoothing
    python launch.py --config=configs/regimes/smoothing.py:fashion_mnist --workdir=runs/smoothing_fmnist

Trained standard, with the filter from the start.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, _ = regimes.begin(
        data_set,
        "feature-map smoothing",
        "Trained on clean images, with smoothed feature maps.",
    )
    config.model.smoothing = "conv2" if config.model.name == "small_cnn" else "block2_2"
    return config
