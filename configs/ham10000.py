"""Standard against adversarially trained networks on dermoscopy images: HAM10000, seven classes, with lesion masks.

    python launch.py --config=configs/ham10000.py:small --workdir=runs/ham10000_small
    python launch.py --config=configs/ham10000.py --workdir=runs/ham10000

Needs the data set in $TFDS_DATA_DIR, with the features image, label, mask and lesion_id. Batches are balanced by class,
splits and intervals grouped by lesion. ':small' works at 32 pixels for a laptop; without it, at 64 pixels with a wider
network. Expected scores: docs/results.md. The images are CC BY-NC 4.0 (Tschandl et al. 2018): not for commercial use.
"""

from configs import common


def get_config(size="full"):
    common.check_size(size)
    small = size == "small"
    config = common.default()
    config.title = "HAM10000"
    config.description = "Seven kinds of pigmented skin lesion, on clean or on attacked images."
    config.data.name = "ham10000"
    config.data.image_size = 32 if small else 64
    config.data.mask_field = "mask"
    config.data.group_field = "lesion_id"
    config.data.class_balanced = True
    config.data.validation_fraction = 0.15
    config.data.num_test = 500 if small else 0
    config.data.augment.flip = True
    config.data.augment.vertical_flip = True
    config.data.augment.transpose = True
    config.data.augment.colour = True
    config.data.augment.brightness = 0.1
    config.data.augment.contrast = 0.1
    config.model.width = 16 if small else 32
    config.model.mean = (0.76, 0.55, 0.57)
    config.model.std = (0.14, 0.15, 0.17)
    config.train.epochs = 8 if small else 30
    config.train.validate_every = 2
    config.train.checkpoint_every = 2
    config.evaluation.num_pictures = 7
    config.evaluation.attacks.linf.epsilon = 2 / 255
    config.robustness.epsilon = 2 / 255
    config.evaluation.attacks.l2.epsilon = 0.25
    adversary = {"epochs": 4, "num_steps": 5} if small else {"epochs": 20, "num_steps": 10}
    config.study.runs = (
        common.run("standard", "Trained on clean images."),
        common.adversarial_run(
            "linf", "Trained on the worst images within 2/255 a pixel.", norm="linf", epsilon=2 / 255, **adversary
        ),
        common.adversarial_run(
            "l2", "Trained on the worst images within a distance of 0.25.", norm="l2", epsilon=0.25, **adversary
        ),
    )
    return config
