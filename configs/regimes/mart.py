"""MART: adversarial training that looks harder at misclassified images (Wang et al. 2020).

    python launch.py --config=configs/regimes/mart.py --workdir=runs/mart
    python launch.py --config=configs/regimes/mart.py:fashion_mnist --workdir=runs/mart_fmnist

The weighted divergence counts five times, as published.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "MART",
        "Adversarial training that weighs misclassified images more.",
    )
    objective = {"name": "mart", "attack": regimes.from_noise(setting), "beta": 5.0}
    return regimes.after_standard(config, setting, objective)
