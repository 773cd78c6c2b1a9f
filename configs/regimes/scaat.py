"""SCAAT, a reconstruction: the adversary changes only what the map calls unimportant.

    python launch.py --config=configs/regimes/scaat.py --workdir=runs/scaat
    python launch.py --config=configs/regimes/scaat.py:fashion_mnist --workdir=runs/scaat_fmnist

Half of the pixels, twice the epsilon of adversarial training, weight 3, from standard weights.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "SCAAT",
        "The adversary changes the half of the pixels that the map calls unimportant.",
    )
    attack = regimes.from_noise(setting, epsilon=2 * setting.linf)
    objective = {"name": "scaat", "attack": attack, "divergence_weight": 3.0, "quantile": 0.5}
    return regimes.after_standard(config, setting, objective)
