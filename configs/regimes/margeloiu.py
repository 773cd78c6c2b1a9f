"""The recipe of Margeloiu et al. 2020 (2012.01166): head, then the whole network robust in L2, then its later layers.

    python launch.py --config=configs/regimes/margeloiu.py --workdir=runs/margeloiu
    python launch.py --config=configs/regimes/margeloiu.py:ham10000 --workdir=runs/margeloiu_ham10000

Optimiser, learning rates, plateau and patience are theirs (from their code): Adam with L2 decay 5e-4; head 1e-3; whole
network 3e-4; later layers 1e-5 on clean images, the first ones robust and frozen, which here includes BatchNorm. They
began with ImageNet weights: give those of a run of your own as --config.init_from.workdir=../pretrained, and
--config.init_from.exclude=logits where its classes are others; without, the head is trained on random features.
Also :fashion_mnist and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import common, regimes

EPOCHS = 50  # at most: patience ends a phase


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "Margeloiu et al.",
        "A head, a robust network, and then its later layers tuned on clean images.",
    )
    config.evaluation.step = "best"  # of the validation loss that patience watches
    config.objective.attack.update(regimes.margeloiu_attack(setting.l2))
    later = regimes.LATER_LAYERS[config.model.name]
    regimes.write(config, _settings(1e-5, "loss", trainable=later, batch_norm="frozen"))
    config.phases = (
        common.phase("head", **_settings(1e-3, "loss", epochs=10, trainable=("^params/logits",))),
        common.phase("robust", objective={"name": "adversarial"}, **_settings(3e-4, "robust_loss")),
        common.phase("tuned"),
    )
    return config


def _settings(learning_rate, best_metric, epochs=EPOCHS, **train):
    return regimes.margeloiu_training(learning_rate, best_metric, epochs, **{**regimes.WHOLE_NETWORK, **train})
