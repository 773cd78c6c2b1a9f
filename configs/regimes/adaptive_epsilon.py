"""Adversarial training with an epsilon for each image, as large as fools it (after Ding et al. 2020).

    python launch.py --config=configs/regimes/adaptive_epsilon.py --workdir=runs/adaptive_epsilon
    python launch.py --config=configs/regimes/adaptive_epsilon.py:fashion_mnist --workdir=runs/adaptive_epsilon_fmnist

The wrapper 'adaptive_epsilon' goes around any regime with an attack.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "an epsilon for each image",
        "The worst images within an epsilon of their own.",
    )
    objective = {"name": "adversarial", "attack": regimes.linf(setting), "wrappers": ("adaptive_epsilon",)}
    return regimes.after_standard(config, setting, objective)
