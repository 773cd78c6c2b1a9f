"""Adversarial training in L2 as Margeloiu et al. 2020 (2012.01281) trained it.

    python launch.py --config=configs/regimes/margeloiu_l2.py --workdir=runs/margeloiu_l2
    python launch.py --config=configs/regimes/margeloiu_l2.py:fashion_mnist --workdir=runs/margeloiu_l2_fmnist

PGD with seven steps of epsilon / 5 from the sphere, scaled then clipped, the best iterate kept.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "adversarial training in L2",
        "Trained on the worst images within a Euclidean distance.",
    )
    attack = {
        "norm": "l2",
        "epsilon": setting.l2,
        "num_steps": 7,
        "relative_step_size": 1 / 5,
        "start": "sphere",
        "projection": "scale_then_clip",
        "keep_best": True,
    }
    objective = {"name": "adversarial", "attack": attack}
    return regimes.after_standard(config, setting, objective)
