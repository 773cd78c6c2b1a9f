"""Free adversarial training: one backward pass trains and attacks (Shafahi et al. 2019).

    python launch.py --config=configs/regimes/free.py --workdir=runs/free
    python launch.py --config=configs/regimes/free.py:fashion_mnist --workdir=runs/free_fmnist

Each batch is seen four times in a row, for a quarter of the epochs.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "free adversarial training",
        "One backward pass trains weights and perturbation.",
    )
    objective = {"name": "free", "attack": regimes.linf(setting), "replays": 4}
    return regimes.after_standard(config, setting, objective, epochs=-(-setting.epochs // 4))
