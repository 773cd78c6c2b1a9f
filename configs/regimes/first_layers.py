"""Robust first layers, kept; the later ones go on with clean images (Margeloiu et al. 2020).

    python launch.py --config=configs/regimes/first_layers.py --workdir=runs/first_layers
    python launch.py --config=configs/regimes/first_layers.py:fashion_mnist --workdir=runs/first_layers_fmnist

Three phases: standard, robust, and what follows the first two blocks tuned on clean images, BatchNorm as it is.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import common, regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "robust first layers",
        "The first layers of a robust network, and later ones trained on clean images.",
    )
    later = regimes.LATER_LAYERS[config.model.name]
    start = regimes.standard_phase(config)
    robust = regimes.phase(setting, "robust", {"name": "adversarial", "attack": regimes.linf(setting)})
    regimes.teach(config, setting, {"name": "standard"}, learning_rate=3e-4, trainable=later, batch_norm="frozen")
    config.phases = (start, robust, common.phase("tuned"))
    return config
