"""Robust first layers, kept; the later ones go on with clean images (Margeloiu et al. 2020).

    python launch.py --config=configs/regimes/first_layers.py --workdir=runs/first_layers
    python launch.py --config=configs/regimes/first_layers.py:fashion_mnist --workdir=runs/first_layers_fmnist

Three phases: standard, robust, and what follows the first two blocks tuned on clean images.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import common, regimes

LATER_LAYERS = {
    "resnet18": ("^params/block[34]", "^params/logits"),
    "small_cnn": ("^params/conv[34]", "^params/logits"),
}


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "robust first layers",
        "The first layers of a robust network, and later ones trained on clean images.",
    )
    later = LATER_LAYERS[config.model.name]
    robust = {"name": "adversarial", "attack": regimes.linf(setting)}
    config.phases = (
        common.phase("standard"),
        regimes.phase(setting, "robust", robust),
        regimes.phase(setting, "tuned", {"name": "standard"}, learning_rate=3e-4, trainable=later),
    )
    return config
