"""Which pixels should be brighter, which darker: signed and per-class maps judged by black and white deletion.

    python launch.py --config=configs/signed_maps.py --workdir=runs/signed_maps
    python launch.py --config=configs/signed_maps.py:cifar10:small --workdir=runs/signed_maps_cifar10

The maps and the protocol of Llorente et al. 2023, of networks trained on clean and on attacked images, which the paper
does not have: deletion with black of original, positive and active maps, with white of original, negative and inactive
ones; lower is better, and the colour that a map is not made for should hurt less. With the Gini index of integrated
gradients, which Chalasani et al. 2020 found higher after adversarial training. Expected scores: docs/results.md.
"""

from configs import common, data_sets

MAPS = ("original", "positive", "negative", "active", "inactive")


def get_config(data_set="fashion_mnist:small"):
    config, setting = data_sets.begin(data_set)
    config.title = f"{config.title}: signed and per-class maps"
    config.description = "Maps of pixels to brighten and to darken, judged by painting them black and white."
    config.evaluation.explained = "predicted"
    config.evaluation.maps = {name: common.saliency(name) for name in MAPS} | {
        "integrated_gradients": common.saliency("integrated_gradients", num_steps=16, baseline={"kind": "black"})
    }
    config.evaluation.metrics = {
        "gini": common.metric("gini"),
        "black": common.metric("allegiance_auc", colour="black"),
        "white": common.metric("allegiance_auc", colour="white"),
    }
    adversary = {"epochs": setting.epochs, "num_steps": setting.num_steps}
    config.study.seeds = 3
    config.study.runs = (
        common.run("standard", "Trained on clean images."),
        common.adversarial_run(
            "linf", "Trained on the worst images within a box.", norm="linf", epsilon=setting.linf, **adversary
        ),
    )
    return config
