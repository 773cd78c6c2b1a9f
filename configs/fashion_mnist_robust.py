"""A reference of adversarial robustness on Fashion-MNIST: linf 0.1, three seeds, 58,000 images, on two CPU cores.

    python launch.py --config=configs/fashion_mnist_robust.py --workdir=runs/fashion_mnist_robust
    python launch.py --mode=robustness --workdir=runs/fashion_mnist_robust

Needs the prepared data set in $TFDS_DATA_DIR. The first command trains and explains, the second attacks 1,000 test
images with AutoAttack and six others. Scores and hours: docs/results.md.
"""

from configs import common, fashion_mnist


def get_config():
    config = fashion_mnist.get_config()
    config.title = "Fashion-MNIST under attack"
    config.description = "How well a small network withstands linf 0.1, for others to compare with."
    config.data.augment.flip = False  # shoes face left, in training and in test
    config.model.width = 24
    config.train.epochs = 8
    config.train.validate_every = 2
    config.train.checkpoint_every = 2
    config.evaluation.num_examples = 1_000
    config.robustness.num_examples = 1_000
    config.study.seeds = 3
    config.study.runs = (
        common.run("standard", "Trained on clean images."),
        common.adversarial_run(
            "linf",
            "Trained on the worst images within 0.1 a pixel.",
            epochs=10,
            norm="linf",
            epsilon=0.1,
            num_steps=5,
            relative_step_size=0.3,
        ),
    )
    return config
