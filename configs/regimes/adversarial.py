"""Adversarial training in linf (Madry et al. 2018).

    python launch.py --config=configs/regimes/adversarial.py --workdir=runs/adversarial
    python launch.py --config=configs/regimes/adversarial.py:fashion_mnist --workdir=runs/adversarial_fmnist

PGD from a uniform start; epsilon grows for four tenths of the training.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "adversarial training in linf",
        "Trained on the worst images within an epsilon a pixel.",
    )
    objective = {"name": "adversarial", "attack": regimes.linf(setting)}
    return regimes.after_standard(config, setting, objective)
