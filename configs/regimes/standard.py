"""Clean images alone: what every other regime is compared with.

    python launch.py --config=configs/regimes/standard.py --workdir=runs/standard
    python launch.py --config=configs/regimes/standard.py:fashion_mnist --workdir=runs/standard_fmnist

One phase; the others begin with it.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, _ = regimes.begin(
        data_set,
        "standard",
        "Trained on clean images.",
    )
    return config
