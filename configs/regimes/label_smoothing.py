"""Label smoothing: a tenth of each label is spread over all classes (Szegedy et al. 2016).

    python launch.py --config=configs/regimes/label_smoothing.py --workdir=runs/label_smoothing
    python launch.py --config=configs/regimes/label_smoothing.py:fashion_mnist --workdir=runs/label_smoothing_fmnist

The cheapest baseline that changes the gradient of the network.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, _ = regimes.begin(
        data_set,
        "label smoothing",
        "Trained on clean images and smoothed labels.",
    )
    config.objective.label_smoothing = 0.1
    return config
