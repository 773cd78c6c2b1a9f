"""A study of two runs, so small that it takes seconds, on one device: what it ends with does not depend on kills."""

from configs import common, quickstart


def get_config():
    config = quickstart.get_config()
    config.mesh.num_devices = 1
    config.data.num_train, config.data.num_validation, config.data.num_test = 64, 24, 24
    config.data.batch_size, config.model.width = 16, 4
    config.train.epochs, config.train.validate_every, config.train.checkpoint_every = 6, 2, 1
    config.study.runs = (
        common.run("standard", "Trained on clean images."),
        common.adversarial_run(
            "linf", "Trained on the worst images.", norm="linf", epsilon=4 / 255, num_steps=2, epochs=4
        ),
    )
    config.evaluation.batch_size = 8
    config.evaluation.maps = {"gradient": common.saliency("gradient")}
    config.evaluation.attacks.linf.num_steps = config.evaluation.attacks.l2.num_steps = 2
    return config
