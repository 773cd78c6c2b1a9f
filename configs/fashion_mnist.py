"""Standard against adversarially trained networks on Fashion-MNIST (28 x 28, grey, ten classes; no masks).

    python launch.py --config=configs/fashion_mnist.py:small --workdir=runs/fashion_mnist_small
    python launch.py --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

Needs the prepared data set in $TFDS_DATA_DIR. ':small' trains on 6,000 images for a laptop; without it, on 58,000,
with 2,000 for validation.
Expected scores: docs/results.md.
"""

from configs import common, data_sets


def get_config(size="full"):
    config, setting = data_sets.begin(f"fashion_mnist:{size}")
    config.description = "Ten kinds of clothing, on clean or on attacked images."
    adversary = {"epochs": setting.epochs, "num_steps": setting.num_steps}
    config.study.runs = (
        common.run("standard", "Trained on clean images."),
        common.adversarial_run(
            "linf", "Trained on the worst images within 0.1 a pixel.", norm="linf", epsilon=setting.linf, **adversary
        ),
        common.adversarial_run(
            "l2", "Trained on the worst images within a distance of 1.", norm="l2", epsilon=setting.l2, **adversary
        ),
    )
    return config
