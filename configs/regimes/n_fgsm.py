"""N-FGSM: one step from wide noise, without clipping (de Jorge et al. 2022).

    python launch.py --config=configs/regimes/n_fgsm.py --workdir=runs/n_fgsm
    python launch.py --config=configs/regimes/n_fgsm.py:fashion_mnist --workdir=runs/n_fgsm_fmnist

A guard ends the training where one step no longer defends against several.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "N-FGSM",
        "Fast adversarial training: one step from wide noise.",
    )
    objective = {"name": "n_fgsm", "attack": regimes.linf(setting)}
    return regimes.after_standard(config, setting, objective, guard_drop=0.2)
