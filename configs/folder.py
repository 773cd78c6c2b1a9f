"""Standard against adversarially trained networks on a folder of your own images: one folder a class, PNG or JPEG.

    python launch.py --config=configs/folder.py --config.data.data_dir=DIR --workdir=runs/my_images

DIR holds ``<class>/*.png``, or ``train/<class>/*.png`` with ``validation`` and ``test`` beside it where the splits are
given; else a tenth of every class is held out for each. Images are squeezed to 64 x 64 pixels and need no masks: what
is measured inside a mask is left out, with the reason. Batches are balanced by class.
"""

from configs import common


def get_config():
    config = common.default()
    config.title = "My images"
    config.description = "A folder of images, one folder a class, on clean or on attacked images."
    config.data.name = "folder"
    config.data.image_size = 64
    config.data.class_balanced = True
    config.data.batch_size = 32  # a small folder fills it too
    config.data.augment.flip = True  # not where left and right tell the classes apart
    config.data.augment.crop_padding = 4
    config.model.width = 32
    config.train.epochs = 20
    config.evaluation.num_examples = 512
    config.evaluation.attacks.linf.epsilon = 2 / 255
    config.robustness.epsilon = 2 / 255
    config.neurons.attack.epsilon = 2 / 255
    adversary = {"epochs": 8, "num_steps": 5}
    config.study.runs = (
        common.run("standard", "Trained on clean images."),
        common.adversarial_run(
            "linf", "Trained on the worst images within 2/255 a pixel.", norm="linf", epsilon=2 / 255, **adversary
        ),
        common.adversarial_run(
            "l2", "Trained on the worst images within a distance of 0.5.", norm="l2", epsilon=0.5, **adversary
        ),
    )
    return config
