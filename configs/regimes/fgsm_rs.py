"""Fast adversarial training: one step from a random start (Wong et al. 2020).

    python launch.py --config=configs/regimes/fgsm_rs.py --workdir=runs/fgsm_rs
    python launch.py --config=configs/regimes/fgsm_rs.py:fashion_mnist --workdir=runs/fgsm_rs_fmnist

A guard ends the training where one step no longer defends against several.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "FGSM from a random start",
        "Fast adversarial training: one step from a random start.",
    )
    objective = {"name": "fgsm_rs", "attack": regimes.linf(setting)}
    return regimes.after_standard(config, setting, objective, guard_drop=0.2)
