"""A control that USES THE TRUE LESION MASK: the adversary may change only what is outside the lesion.

    python launch.py --config=configs/regimes/mask_outside.py --workdir=runs/mask_outside
    python launch.py --config=configs/regimes/mask_outside.py:ham10000 --workdir=runs/mask_outside_ham10000

What SCAAT would do if its maps were right. No method: it reads what an explanation is judged by.
With ':small' behind the data set for a laptop. The others have no masks. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "adversary outside the true mask",
        "Control: the adversary stays outside the true lesion.",
    )
    attack = regimes.from_noise(setting, epsilon=2 * setting.linf)
    objective = {"name": "lesion_mask_control", "attack": attack, "divergence_weight": 3.0}
    return regimes.after_standard(config, setting, objective)
