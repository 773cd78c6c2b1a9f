"""How does an adversarially trained network explain itself, compared with a standard one? On planted lesions.

    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart
    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart --config.study.seeds=3

A study of three runs on the same images: standard training, then adversarial training from its weights in linf (4/255)
and in L2 (0.25). Expect clean accuracies of 0.96 to 0.99 (docs/results.md). Open report.html when it is done.
"""

from configs import common


def get_config():
    config = common.default()
    config.title = "Quickstart: planted lesions"
    config.description = (
        "A small network learns to tell three kinds of drawn skin lesion, on clean or on attacked images."
    )
    config.data.num_train = 3072
    config.data.num_validation = 384
    config.data.num_test = 256
    config.data.augment.flip = True
    config.data.augment.transpose = True
    config.train.epochs = 16
    config.optimizer.learning_rate = 1e-2  # with 3e-3 two of three seeds had not converged after 16 epochs
    config.evaluation.attacks.l2.epsilon = 0.25
    config.evaluation.maps.smoothgrad.num_samples = 8
    # A lesion covers a tenth of the image: 0.5 in L2 would be 7/255 on each of its values, too much to learn against.
    adversary = {"epochs": 6, "num_steps": 5}
    config.study.runs = (
        common.run("standard", "Trained on clean images."),
        common.adversarial_run(
            "linf", "Trained on the worst images within 4/255 a pixel.", norm="linf", epsilon=4 / 255, **adversary
        ),
        common.adversarial_run(
            "l2", "Trained on the worst images within a distance of 0.25.", norm="l2", epsilon=0.25, **adversary
        ),
    )
    return config
