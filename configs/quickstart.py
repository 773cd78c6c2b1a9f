"""How does an adversarially trained network explain itself, compared with a standard one? On planted lesions.

    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart
    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart --config.study.seeds=3

A study of three runs on the same images: standard training, then adversarial training from its weights in linf (4/255)
and in L2 (0.25). Expect clean accuracies of 0.96 to 0.99 (docs/results.md). Open report.html when it is done.
"""

from configs import common, data_sets


def get_config():
    config, setting = data_sets.begin("planted_lesions")
    config.title = "Quickstart: planted lesions"
    config.description = (
        "A small network learns to tell three kinds of drawn skin lesion, on clean or on attacked images."
    )
    adversary = {"epochs": setting.epochs, "num_steps": setting.num_steps}
    config.study.runs = (
        common.run("standard", "Trained on clean images."),
        common.adversarial_run(
            "linf", "Trained on the worst images within 4/255 a pixel.", norm="linf", epsilon=setting.linf, **adversary
        ),
        common.adversarial_run(
            "l2", "Trained on the worst images within a distance of 0.25.", norm="l2", epsilon=setting.l2, **adversary
        ),
    )
    return config
