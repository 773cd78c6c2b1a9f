"""Adversarial training in L2 with the attack of Margeloiu et al. 2020 (2012.01166).

    python launch.py --config=configs/regimes/adversarial_l2.py --workdir=runs/adversarial_l2
    python launch.py --config=configs/regimes/adversarial_l2.py:fashion_mnist --workdir=runs/adversarial_l2_fmnist

PGD with seven steps of epsilon / 5 from the sphere, scaled then clipped, the best iterate kept. Their whole recipe is
configs/regimes/margeloiu.py.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "adversarial training in L2",
        "Trained on the worst images within a Euclidean distance.",
    )
    objective = {"name": "adversarial", "attack": regimes.margeloiu_attack(setting.l2)}
    return regimes.after_standard(config, setting, objective)
