"""Adversarial training with a consistent loss on the last layer of maps (Dong et al. 2017).

    python launch.py --config=configs/regimes/consistent.py --workdir=runs/consistent
    python launch.py --config=configs/regimes/consistent.py:fashion_mnist --workdir=runs/consistent_fmnist

FGSM, and a distance between the clean and the attacked image's activations.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "consistent loss",
        "Clean and attacked images shall have like activations.",
    )
    attack = {"name": "fgsm", "norm": "linf", "epsilon": setting.linf}
    return regimes.after_standard(config, setting, {"name": "consistent", "attack": attack})
