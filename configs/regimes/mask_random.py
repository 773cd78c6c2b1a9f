"""A control of SCAAT: the adversary may change a half of the pixels that is drawn by lot, at every step anew.

    python launch.py --config=configs/regimes/mask_random.py --workdir=runs/mask_random
    python launch.py --config=configs/regimes/mask_random.py:cifar10 --workdir=runs/mask_random_cifar10

What SCAAT would do if its maps said nothing. With ':small' behind the data set for a laptop. Scores of it beside SCAAT:
docs/papers/scaat2023.md; docs/results.md has those of the other regimes.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "adversary on random pixels",
        "Control: the adversary changes a half of the pixels drawn by lot.",
    )
    attack = regimes.from_noise(setting, epsilon=2 * setting.linf)
    objective = {"name": "random_mask_control", "attack": attack, "divergence_weight": 3.0, "quantile": 0.5}
    return regimes.after_standard(config, setting, objective)
