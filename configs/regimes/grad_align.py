"""GradAlign: FGSM, and gradients that agree within the ball (Andriushchenko, Flammarion 2020).

    python launch.py --config=configs/regimes/grad_align.py --workdir=runs/grad_align
    python launch.py --config=configs/regimes/grad_align.py:fashion_mnist --workdir=runs/grad_align_fmnist

The regulariser is differentiated twice.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "GradAlign",
        "One-step adversarial training with aligned gradients.",
    )
    objective = {"name": "grad_align", "attack": regimes.linf(setting)}
    return regimes.after_standard(config, setting, objective, guard_drop=0.2)
