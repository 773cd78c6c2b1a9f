"""Llorente et al. 2023 (2309.12913): maps of pixels to brighten and to darken, and after adversarial training too.

    python launch.py --mode=study --config=configs/papers/llorente2023.py --workdir=runs/llorente2023
    python launch.py --mode=study --config=configs/papers/llorente2023.py:small:fashion_mnist --workdir=runs/llorente_f
    python launch.py --mode=study --config=configs/papers/llorente2023.py:full --workdir=runs/llorente2023_full
    python launch.py --mode=study --config=configs/papers/llorente2023.py:smoke --workdir=runs/llorente2023_smoke

A basic CNN and a ResNet-18 on CIFAR-10 (or ':fashion_mnist'). Five maps of the predicted class: original, positive and
negative (the sign of the gradient), active and inactive (where no other class gains more, or less). Judged as they do:
how many images keep their predicted class as the first pixels of a map are painted black, or white. And what the paper
leaves open: the same of both networks after adversarial training in linf, which begins with the standard weights. It is
claimed that all holds of these too, though active and inactive maps did not in docs/results.md (small, Fashion-MNIST).
docs/papers has results of both data sets.

Theirs: the CNN layer by layer, AdamW, learning rate, weight decay, batch size, pixels in [0, 1] without normalisation
or augmentation, the last epoch, maps and metric. Ours: all that is adversarial; seeds; a validation set that decides
nothing; one layer of logits on ResNet-18, theirs had 1000 outputs and a linear layer behind them; in ':small' a narrow
ResNet-18, fewer images and epochs. Their Imagenette, ConvNeXt and pretrained networks are left out. ':smoke' is drawn,
with a small network in ResNet-18's place.
"""

from typing import NamedTuple

from configs import common, papers

NETWORKS = ("cnn", "resnet18")
COLOUR = {"positive": "black", "active": "black", "negative": "white", "inactive": "white"}
OTHER = {"black": "white", "white": "black"}
MEANING = {
    "positive": "where brighter raises the class",
    "active": "where brighter raises the class more than any other",
    "negative": "where darker raises the class",
    "inactive": "where darker raises the class more than any other",
}


class Size(NamedTuple):
    layers: tuple[str, ...]  # of the CNN
    network: str  # called resnet18
    width: int  # of it; theirs 64
    epochs: int
    robust_epochs: int
    num_steps: int  # of the adversary
    seeds: int


BASIC_CNN = (
    *("conv32k7s2", "max3s2"),
    *("conv32", "conv32s2", "conv32"),
    *("conv64", "conv64s2", "conv64"),
    *("conv128", "conv128s2", "conv128"),
    "gap",
)
SIZES = {
    "smoke": Size(("conv8k7s2", "max3s2", "conv8s2", "gap"), "small_cnn", 4, 4, 1, 2, 1),
    "small": Size(BASIC_CNN, "resnet18", 16, 16, 6, 5, 3),
    "full": Size(BASIC_CNN, "resnet18", 64, 50, 30, 10, 5),
}
EPSILON = {"cifar10": 4 / 255, "fashion_mnist": 0.1, "planted_lesions": 4 / 255}


def get_config(size="small"):
    size, data_set = papers.size_and_data(size, "cifar10", "fashion_mnist")
    settings = SIZES[size]
    config = common.default()
    config.title = "Llorente et al. 2023: pixels to brighten and pixels to darken"
    config.description = "Do maps with a sign beat those without, and do they so after adversarial training too?"
    _data(config.data, data_set, size)
    config.model.update(name="plain_cnn", layers=settings.layers, mean=(0.0,), std=(1.0,))
    config.optimizer.update(schedule="constant", learning_rate=1e-3, weight_decay=0.01, clip_norm=0.0)
    config.train.update(epochs=settings.epochs, validate_every=1, checkpoint_every=1)
    _evaluation(config.evaluation, EPSILON[data_set])
    resnet18 = {"name": settings.network, "width": settings.width, "stem": "imagenet"}
    attack = {"norm": "linf", "epsilon": EPSILON[data_set], "num_steps": settings.num_steps}
    config.study.runs = (
        common.run("cnn", "The basic CNN, on clean images."),
        _robust("cnn", "Then against PGD in linf.", attack, settings),
        common.run("resnet18", "ResNet-18, on clean images.", model=resnet18),
        _robust("resnet18", "Then against PGD in linf.", attack, settings, model=resnet18),
    )
    config.study.reference = "cnn"
    config.study.seeds = settings.seeds
    config.study.claims = _claims()
    return config


def _data(data, data_set, size):
    data.name = data_set
    if size == "smoke":
        data.num_train, data.num_validation, data.num_test, data.batch_size = 128, 32, 48, 32
    else:
        data.validation_fraction = 0.02
    if size == "small":
        data.num_train, data.num_validation, data.num_test = 30_000, 500, 1_000


def _evaluation(evaluation, epsilon):
    evaluation.step = "last"
    evaluation.explained = "predicted"
    evaluation.randomisation.orders = ()
    evaluation.num_pictures = 10
    evaluation.attacks = {"linf": common.evaluated_attack(epsilon=epsilon, num_steps=20, relative_step_size=1 / 8)}
    evaluation.maps = {name: common.saliency(name) for name in ("original", *COLOUR)}
    evaluation.metrics = {
        "gini": common.metric("gini"),
        "black": common.metric("allegiance_auc", colour="black"),
        "white": common.metric("allegiance_auc", colour="white"),
    }


def _robust(network, description, attack, settings, **overrides):
    return common.run(
        f"{network}_linf",
        description,
        objective={"name": "adversarial", "attack": attack},
        schedules={"epsilon": {"until": 0.4}},
        train={"epochs": settings.robust_epochs},
        init_from={"workdir": f"../{network}", "step": "last"},
        **overrides,
    )


def _claims():
    standard = _claims_of("", "", NETWORKS)
    robust = _claims_of("_robust", ", of an adversarially trained network", [f"{each}_linf" for each in NETWORKS])
    return (
        *standard,
        *robust,
        common.claim(
            "accuracy",
            "ResNet-18 is more accurate than the basic CNN.",
            common.expected("accuracy", "resnet18", than_run="cnn"),
        ),
        common.claim(
            "robust",
            "Adversarial training makes both robust.",
            *(common.expected("robust:linf", f"{each}_linf", than_run=each) for each in NETWORKS),
            source="ours",
        ),
    )


def _claims_of(suffix, of, runs):
    def than(colour, other, direction, maps):
        return [
            common.expected(colour[each], run, direction, map=each, than_map=other) for each in maps for run in runs
        ]

    own, wrong = COLOUR, {each: OTHER[colour] for each, colour in COLOUR.items()}
    for each, colour in own.items():
        yield common.claim(
            f"{each}{suffix}",
            f"Painted {colour}, the pixels {MEANING[each]} cost the prediction sooner than those of the original "
            f"map{of}.",
            *than(own, "original", "lower", [each]),
        )
    yield common.claim(
        f"wrong_colour{suffix}",
        f"Painted in the colour that it is not made for, a map costs it later than the original one{of}.",
        *than(wrong, "original", "higher", own),
    )
    for colour in OTHER:
        maps = [each for each in own if own[each] == colour]
        yield common.claim(
            f"over_floors_{colour}{suffix}",
            f"Under {colour}, {' and '.join(maps)} maps beat maps that never look at the network{of}.",
            *than(own, "floors", "lower", maps),
            source="ours",
        )
        yield common.claim(
            f"original_over_floors_{colour}{suffix}",
            f"Under {colour}, original maps beat maps that never look at the network{of}.",
            *than({"original": colour}, "floors", "lower", ["original"]),
            source="ours",
        )
