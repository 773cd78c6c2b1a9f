"""A robust network that goes on with clean images at a tenth of the learning rate (Margeloiu et al. 2020).

    python launch.py --config=configs/regimes/fine_tuned.py --workdir=runs/fine_tuned
    python launch.py --config=configs/regimes/fine_tuned.py:fashion_mnist --workdir=runs/fine_tuned_fmnist

Three phases: standard, robust, fine-tuned.
Also :ham10000 and :cifar10, each with ':small' behind it for a laptop. Expected scores: docs/results.md.
"""

from configs import common, regimes


def get_config(data_set="planted_lesions"):
    config, setting = regimes.begin(
        data_set,
        "robust, then fine-tuned",
        "Trained on the worst images, then on clean ones at a small learning rate.",
    )
    start = regimes.standard_phase(config)
    robust = regimes.phase(setting, "robust", {"name": "adversarial", "attack": regimes.linf(setting)})
    regimes.teach(config, setting, {"name": "standard"}, learning_rate=3e-4)
    config.phases = (start, robust, common.phase("tuned"))
    return config
