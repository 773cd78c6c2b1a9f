"""Kim, Seo and Jeon 2019 (1903.11626): the stronger the attack in training, the better the maps by ROAR; the yardstick.

    python launch.py --mode=study --config=configs/papers/kim2019.py --workdir=runs/kim2019
    python launch.py --mode=study --config=configs/papers/kim2019.py:full --workdir=runs/kim2019_full
    python launch.py --mode=study --config=configs/papers/kim2019.py:smoke --workdir=runs/kim2019_smoke

Networks trained on clean images and against PGD in linf of growing epsilon; of each the gradient, and the gradient
times the input; the pixels that a map calls most relevant give way to the mean colour, in training and test images; a
new network is trained on what is left. Score: the area between the accuracies after random removal and after the map's.

Theirs: network, optimiser, loss on adversarial images alone, PGD without random start, epsilons (0.002 i of 2 in their
unit, 0.001 i of 1 in ours), the loss of the predicted class as what is explained, images in [-1, 1] for the product
with the input, the correlation over networks of score and strength (ours has the network of clean images too, and the
steps from one network to the next). Ours in ':small': 8,000 images and 8 epochs for 20, 5 steps for 40, four of twenty
strengths, two of five shares, one retraining of each. ':full' has all of it, and L2, and KAR. ':smoke' is drawn.
docs/papers has results.
"""

import itertools
from typing import NamedTuple

from configs import common, papers

MAPS = ("gradient", "input_x_gradient")
LAYERS = ("conv32", "conv32", "max2", "conv64", "conv64", "max2", "flatten", "dense512")


class Size(NamedTuple):
    layers: tuple[str, ...]
    num_train: int  # 0: all
    epochs: int
    num_steps: int
    strengths: tuple[int, ...]  # epsilon in thousandths
    fractions: tuple[float, ...]
    l2: bool
    seeds: int


SIZES = {
    "smoke": Size(("conv4", "max2", "conv8", "max2", "flatten", "dense16"), 96, 1, 2, (5, 20), (0.3, 0.7), False, 1),
    "small": Size(LAYERS, 8_000, 8, 5, (5, 10, 15, 20), (0.3, 0.7), False, 3),
    "full": Size(LAYERS, 0, 20, 40, tuple(range(1, 21)), (0.1, 0.3, 0.5, 0.7, 0.9), True, 3),
}


def get_config(size="small"):
    papers.check_size(size)
    settings = SIZES[size]
    config = common.default()
    config.title = "Kim et al. 2019: attack strength and the ROAR score"
    config.description = "Do maps find more of what a class is told by, the stronger the attack in training?"
    if size == "smoke":
        config.data.num_validation, config.data.num_test, config.data.batch_size = 24, 48, 24
    else:
        config.data.name, config.data.batch_size = "cifar10", 100
        config.data.validation_fraction = 0.02
        config.data.num_test = 2_000 if size == "small" else 0
    config.data.num_train = settings.num_train
    config.model.update(name="plain_cnn", layers=settings.layers, mean=(0.5,), std=(0.5,))
    config.optimizer.update(name="adam", schedule="constant", learning_rate=1e-3, weight_decay=0.0, clip_norm=0.0)
    config.train.update(epochs=settings.epochs, validate_every=settings.epochs, checkpoint_every=1)
    config.evaluation.step = "last"
    _evaluation(config.evaluation, size)
    config.roar.update(methods=MAPS, fractions=settings.fractions, retrainings=1 if size != "full" else 3)
    config.roar.mode = "both" if size == "full" else "remove"
    linf = [(f"linf_{i}", "linf", i / 1000) for i in settings.strengths]
    l2 = [(f"l2_{i}", "l2", i * 0.04) for i in settings.strengths] if settings.l2 else []
    config.study.runs = (
        common.run("standard", "Trained on clean images."),
        *(_robust(label, norm, epsilon, settings.num_steps) for label, norm, epsilon in (*linf, *l2)),
    )
    config.study.seeds = settings.seeds
    config.study.modes = ("roar",)
    ladders = {"linf": linf, "L2": l2} if settings.l2 else {"linf": linf}
    config.study.claims = _claims({norm: _strengths(networks) for norm, networks in ladders.items()})
    return config


def _strengths(networks):
    """Epsilon of each network of a norm, that of clean images among them."""
    return {"standard": 0.0, **{label: epsilon for label, _, epsilon in networks}}


def _robust(label, norm, epsilon, num_steps):
    attack = {"norm": norm, "epsilon": epsilon, "num_steps": num_steps, "start": "none"}
    description = f"Trained on the worst images within {epsilon:g} in {norm}."
    return common.run(label, description, objective={"name": "adversarial", "attack": attack})


def _evaluation(evaluation, size):
    evaluation.explained = "predicted"
    evaluation.num_examples = 500 if size == "small" else 0
    evaluation.randomisation.orders = ()
    evaluation.attacks = {"linf": common.evaluated_attack(epsilon=0.01, num_steps=20, relative_step_size=1 / 8)}
    middle = {"kind": "constant", "value": 0.5}
    evaluation.maps = {
        "gradient": common.saliency("gradient", score="loss"),
        "input_x_gradient": common.saliency(
            "input_x_gradient", score="loss", sign="abs", channels="sum_abs", baseline=middle
        ),
    }
    evaluation.metrics = {"gini": common.metric("gini"), "total_variation": common.metric("total_variation")}


def _claims(ladders):
    """``ladders``: epsilon by network, of each norm. What rises does so from each network of ':small' to the next."""
    rungs = ["standard", *(f"linf_{i}" for i in SIZES["small"].strengths if f"linf_{i}" in ladders["linf"])]
    strongest = rungs[-1]
    steps = list(itertools.pairwise(rungs))

    def roar(run, **changes):
        return common.expected("roar", run, **changes)

    return (
        common.claim(
            "score_rises",
            "Adversarial training raises the ROAR score: the strongest against none.",
            *(roar(strongest, map=each, than_run="standard") for each in MAPS),
        ),
        *(
            common.claim(
                f"score_follows_{each}",
                f"The stronger the attack, the higher the ROAR score of {each.replace('_', ' ')}.",
                *(roar(stronger, map=each, than_run=weaker) for weaker, stronger in steps),
            )
            for each in MAPS
        ),
        common.claim(
            "correlates",
            "As theirs, the score goes with the strength: their correlation over networks is above 0.9.",
            correlated=[
                common.correlation("roar", f"epsilon in {norm}", strengths, map=each, beyond=0.9)
                for norm, strengths in ladders.items()
                for each in MAPS
            ],
        ),
        common.claim(
            "accuracy_falls",
            "The stronger the attack, the lower the accuracy.",
            *(common.expected("accuracy", weaker, than_run=stronger) for weaker, stronger in steps),
        ),
        common.claim(
            "input_helps",
            "The gradient times the input has a higher score than the gradient, with and without an adversary.",
            *(roar(run, map="input_x_gradient", than_map="gradient") for run in ("standard", strongest)),
            source="ours",
        ),
        common.claim(
            "over_random",
            "Both maps find more than random pixels do, with and without an adversary.",
            *(roar(run, map=each, than_map="random") for run in ("standard", strongest) for each in MAPS),
            source="ours",
        ),
        common.claim(
            "over_edges",
            "Both maps find more than the edges of the image do, which are there without any network.",
            *(roar(run, map=each, than_map="sobel") for run in ("standard", strongest) for each in MAPS),
            source="ours",
        ),
    )
