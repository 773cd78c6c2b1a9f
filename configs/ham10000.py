"""Standard against adversarially trained networks on dermoscopy images: HAM10000, seven classes, with lesion masks.

    python launch.py --config=configs/ham10000.py:small --workdir=runs/ham10000_small
    python launch.py --config=configs/ham10000.py --workdir=runs/ham10000

Needs the data set in $TFDS_DATA_DIR, with the features image, label, mask and lesion_id. Batches are balanced by class,
splits and intervals grouped by lesion. ':small' works at 32 pixels for a laptop; without it, at 64 pixels with a wider
network. Expected scores: docs/results.md. The images are CC BY-NC 4.0 (Tschandl et al. 2018): not for commercial use.
"""

from configs import common, data_sets


def get_config(size="full"):
    config, setting = data_sets.begin(f"ham10000:{size}")
    config.description = "Seven kinds of pigmented skin lesion, on clean or on attacked images."
    adversary = {"epochs": setting.epochs, "num_steps": setting.num_steps}
    config.study.runs = (
        common.run("standard", "Trained on clean images."),
        common.adversarial_run(
            "linf", "Trained on the worst images within 2/255 a pixel.", norm="linf", epsilon=setting.linf, **adversary
        ),
        common.adversarial_run(
            "l2", "Trained on the worst images within a distance of 0.25.", norm="l2", epsilon=setting.l2, **adversary
        ),
    )
    return config
