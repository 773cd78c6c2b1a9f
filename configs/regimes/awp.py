"""Adversarial training in linf with an adversarial perturbation of the weights (Wu et al. 2020).

    python launch.py --config=configs/regimes/awp.py --workdir=runs/awp
    python launch.py --config=configs/regimes/awp.py:fashion_mnist --workdir=runs/awp_fmnist

The wrapper 'awp' goes around any regime.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "adversarial weight perturbation",
        "The worst images for the worst weights nearby.",
    )
    objective = {"name": "adversarial", "attack": regimes.linf(setting), "wrappers": ("awp",)}
    return regimes.after_standard(config, setting, objective)
