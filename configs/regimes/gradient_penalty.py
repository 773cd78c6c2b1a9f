"""A penalty on the gradient of the loss in the pixels (Ross, Doshi-Velez 2018).

    python launch.py --config=configs/regimes/gradient_penalty.py --workdir=runs/gradient_penalty
    python launch.py --config=configs/regimes/gradient_penalty.py:fashion_mnist --workdir=runs/gradient_penalty_fmnist

No adversary; differentiated twice.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "gradient penalty",
        "A penalty on the gradient of the loss in the pixels.",
    )
    return regimes.after_standard(config, setting, {"name": "gradient_penalty"})
