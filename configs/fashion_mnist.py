"""Standard against adversarially trained networks on Fashion-MNIST (28 x 28, grey, ten classes; no masks).

    python launch.py --config=configs/fashion_mnist.py:small --workdir=runs/fashion_mnist_small
    python launch.py --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

Needs the prepared data set in $TFDS_DATA_DIR. ':small' trains on 6,000 images for a laptop; without it, on 58,000,
with 2,000 for validation.
Expected scores: docs/results.md.
"""

from configs import common


def get_config(size="full"):
    common.check_size(size)
    small = size == "small"
    config = common.default()
    config.title = "Fashion-MNIST"
    config.description = "Ten kinds of clothing, on clean or on attacked images."
    config.data.name = "fashion_mnist"
    config.data.num_train = 6_000 if small else 0
    config.data.num_validation = 500 if small else 0
    config.data.validation_fraction = 0.1 if small else 1 / 30
    config.data.num_test = 500 if small else 0
    config.data.augment.flip = True
    config.model.mean = (0.29,)
    config.model.std = (0.35,)
    config.model.width = 16 if small else 32
    config.train.epochs = 15 if small else 30
    config.evaluation.num_pictures = 10
    config.evaluation.attacks.linf.epsilon = 0.1
    config.evaluation.attacks.l2.epsilon = 1.0
    config.robustness.epsilon = 0.1
    for metric in ("deletion", "insertion"):
        config.evaluation.metrics[metric].baseline.kind = "black"
    config.evaluation.maps.integrated_gradients.baseline.kind = "black"
    adversary = {"epochs": 6, "num_steps": 5} if small else {"epochs": 20, "num_steps": 10}
    config.study.runs = (
        common.run("standard", "Trained on clean images."),
        common.adversarial_run(
            "linf", "Trained on the worst images within 0.1 a pixel.", norm="linf", epsilon=0.1, **adversary
        ),
        common.adversarial_run(
            "l2", "Trained on the worst images within a distance of 1.", norm="l2", epsilon=1.0, **adversary
        ),
    )
    return config
