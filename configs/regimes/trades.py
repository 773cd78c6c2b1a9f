"""TRADES: clean images, and agreement with the worst around them (Zhang et al. 2019).

    python launch.py --config=configs/regimes/trades.py --workdir=runs/trades
    python launch.py --config=configs/regimes/trades.py:fashion_mnist --workdir=runs/trades_fmnist

The Kullback-Leibler divergence weighs six times, as published.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "TRADES",
        "Clean images, and agreement with the worst around them.",
    )
    objective = {"name": "trades", "attack": regimes.from_noise(setting), "beta": 6.0}
    return regimes.after_standard(config, setting, objective)
