"""Margeloiu et al. 2020 (2012.01166): adversarial training and the saliency of skin lesions, claim by claim.

    python launch.py --mode=study --config=configs/papers/margeloiu2020.py --workdir=runs/margeloiu2020
    python launch.py --mode=study --config=configs/papers/margeloiu2020.py:small:seven_classes --workdir=runs/seven
    python launch.py --mode=study --config=configs/papers/margeloiu2020.py:full --workdir=runs/margeloiu2020_full
    python launch.py --mode=study --config=configs/papers/margeloiu2020.py:smoke --workdir=runs/margeloiu2020_smoke

A ResNet-18 tells nevi, melanomas and keratoses of HAM10000 apart, each as often. Pretrained (on CIFAR-10; theirs on
ImageNet), then its head alone, then the whole network: on clean images, or against PGD in L2 with their epsilons times
the side of the image over 224, or in linf. Then the robust network goes on with clean images at a small learning rate,
the first 1, 2, 3 or 4 of its groups of layers as they are; at thirty times that rate too (`unlearnt_2`, `unlearnt_3`).
Maps: gradient, integrated gradients, SmoothGrad squared. ':small:seven_classes': all images, batches balanced by class;
fewer networks, and of the claims those that they can answer. ':full:folder' (or small) with --config.data.data_dir=DIR:
the originals in 224 pixels, DIR/nv/*.jpg and so on. A folder has no masks and no lesions: no claim of what lies within,
and photographs of one lesion can be in two splits.

Theirs: optimiser, learning rates, patience, plateau, attack, augmentation, which class is explained. Ours: size of
images and network, pretraining, batch size, fewer epochs in ':small', and every number of a map: the paper has
pictures. ':smoke' is drawn. Other weights to begin from, such as those of ImageNet in ':full', which has their width:
examples/pretrained.py writes them to a workdir, and "--config.study.runs[1].overrides.init_from.workdir=DIR" (a full
path) begins with them; with "--config.study.runs[0].overrides.train.epochs=1" the run they replace is short.
docs/papers has results.
"""

import itertools
from typing import NamedTuple

from configs import common, papers, regimes

FIRST = ("2", "3", "4", "5")
ROBUST = "l2_3"
MAPS = ("gradient", "integrated_gradients", "smoothgrad_squared")
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Size(NamedTuple):
    network: str
    side: int
    width: int
    epochs: int  # of the whole network, at most
    head_epochs: int
    tuning_epochs: int
    batch_size: int
    epsilons: tuple[float, ...]  # at 224 pixels
    first: tuple[str, ...]  # groups of layers from which on is tuned; 5 is the head
    unlearnt: tuple[str, ...]  # and at thirty times the rate
    num_steps: int  # of integrated gradients and SmoothGrad
    seeds: int
    claims: tuple[str, ...] = ()  # labels; () = all


OF_SEVEN = (
    "sharper",
    "sharper_linf",
    "smooth_as_published",
    "coherent",
    "over_floors",
    "colours",
    "colours_over_random",
    "colours_of_standard",
    "fine_tuning_sharpens",
    "fine_tuning_coheres",
    "first_layers_1",
    "costs_accuracy",
    "tuning_repays",
)
SIZES = {
    "smoke": Size("small_cnn", 32, 4, 2, 1, 1, 32, (3,), FIRST[:2], ("2",), 4, 1),
    "small": Size("resnet18", 64, 16, 20, 4, 8, 32, (1, 3, 5), FIRST, ("2", "3"), 24, 3),
    "full": Size("resnet18", 64, 64, 50, 10, 50, 16, (3, 4, 5, 7), FIRST, ("2", "3"), 50, 5),
}


def get_config(size="small"):
    size, images = papers.size_and_data(size, "three_classes", "seven_classes", "folder")
    settings = SIZES[size]
    if images == "seven_classes":
        settings = _of_seven(settings)
    if images == "folder":
        settings = settings._replace(side=224)
    config = common.default()
    config.title = "Margeloiu et al. 2020: adversarial training and the saliency of skin lesions"
    config.description = "Are the maps of robust networks sharper, and do they show the lesion and its colours?"
    _data(config.data, settings, images)
    config.model.update(name=settings.network, width=settings.width, stem="imagenet", **IMAGENET)
    config.evaluation.step = "best"  # of the validation loss that patience watches
    _evaluation(config.evaluation, settings)
    l2 = {f"l2_{epsilon:g}": _l2(settings, epsilon) for epsilon in settings.epsilons}
    config.evaluation.attacks = {
        "l2": common.evaluated_attack(
            **l2[ROBUST] | {"num_steps": 30 if size != "smoke" else 3, "relative_step_size": 2.5 / 30}
        ),
        "linf": common.evaluated_attack(epsilon=2 / 255, num_steps=20, relative_step_size=1 / 8),
    }
    linf = {"norm": "linf", "epsilon": 2 / 255, "num_steps": 7, "keep_best": True}
    config.study.runs = (
        _pretrained(size, images),
        common.start("head", "Its head, trained alone.", **_clean(1e-3, settings.head_epochs, "^params/logits"),
                     init_from={"workdir": "../pretrained", "exclude": "logits"}),
        _run("standard", "The whole network on clean images.", "head", _clean(3e-4, settings.epochs)),
        *(_run(label, f"Against PGD in L2, epsilon {attack['epsilon']:.2f}.", "head", _robust(attack, settings))
          for label, attack in l2.items()),
        _run("linf", "Against PGD in linf, epsilon 2/255.", "head", _robust(linf, settings)),
        *(_run(f"tuned_{first}", f"{ROBUST}, then groups {first} to 5 on clean images.", ROBUST,
               _tuned(1e-5, settings, first))
          for first in settings.first),
        *(_run(f"unlearnt_{first}", f"{ROBUST}, then groups {first} to 5 on clean images, at thirty times the rate.",
               ROBUST, _tuned(3e-4, settings, first))
          for first in settings.unlearnt),
    )  # fmt: skip
    config.study.seeds = settings.seeds
    claims = [each for each in _claims(settings) if not settings.claims or each.label in settings.claims]
    if images == "folder":
        in_masks = {name for name, metric in config.evaluation.metrics.items() if metric.get("mask")}
        claims = [each for each in claims if not any(expected.metric in in_masks for expected in each.expected)]
    config.study.claims = tuple(claims)
    return config


def _of_seven(settings):
    # An epoch, balanced, has 20,000 images: nine times as many as of three classes.
    epochs = {name: max(1, getattr(settings, name) // 9) for name in ("epochs", "head_epochs", "tuning_epochs")}
    return settings._replace(**epochs, epsilons=(3,), first=("2",), unlearnt=(), claims=OF_SEVEN)


def _data(data, settings, images):
    data.batch_size = settings.batch_size
    if images == "planted_lesions":
        data.num_train, data.num_validation, data.num_test = 96, 32, 48
    else:
        data.name = "ham10000"
        data.image_size = settings.side
        data.mask_field, data.group_field = "mask", "lesion_id"
        data.validation_fraction = 0.15
    if images == "folder":
        data.name, data.mask_field, data.group_field = "folder", "", ""
    if images in ("three_classes", "folder"):
        data.classes = ("nv", "mel", "bkl")
        data.equal_classes = ("train", "validation", "test")
    if images == "seven_classes":
        data.class_balanced = True
    data.augment.update(flip=True, vertical_flip=True, rotate=True, rotation=50.0)
    data.augment.update(colour=True, brightness=0.2, contrast=0.2, saturation=0.2)


def _l2(settings, epsilon):
    return regimes.margeloiu_attack(epsilon * settings.side / 224)


def _pretrained(size, images):
    """Theirs was of ImageNet. Drawn lesions in the smoke test, so that it needs no download."""
    data = {"augment": {"crop_padding": 4, "vertical_flip": False, "rotate": False, "rotation": 0.0}}
    if size != "smoke":
        data |= {"name": "cifar10", "mask_field": "", "group_field": "", "classes": (), "equal_classes": ()}
        data |= {"class_balanced": False, "validation_fraction": 0.04, "batch_size": 128}
    data |= {"num_train": 20_000} if size == "small" else {}
    data |= {"data_dir": ""} if images == "folder" else {}
    epochs = {"smoke": 1, "small": 6, "full": 60}[size]
    return common.start(
        "pretrained",
        "From random weights, on CIFAR-10.",
        data=data,
        optimizer={"schedule": "one_cycle", "learning_rate": 3e-3},
        train={"epochs": epochs, "validate_every": 1, "checkpoint_every": 1},
    )


def _run(label, description, start, settings):
    return common.run(label, description, init_from={"workdir": f"../{start}"}, **settings)


def _from_group(network, first):
    """Regular expressions of the parameters of the groups ``first`` to 5."""
    prefix = {"resnet18": "block", "small_cnn": "conv"}[network]
    own = {"2": "[234]", "3": "[34]", "4": "4"}.get(first)
    return (f"^params/{prefix}{own}", "^params/logits") if own else ("^params/logits",)


def _clean(learning_rate, epochs, *trainable, **train):
    return regimes.margeloiu_training(learning_rate, "loss", epochs, trainable=trainable, **train)


def _tuned(learning_rate, settings, first):
    groups = _from_group(settings.network, first)
    return _clean(learning_rate, settings.tuning_epochs, *groups, batch_norm="frozen")


def _robust(attack, settings):
    objective = {"name": "adversarial", "attack": attack}
    return {"objective": objective} | regimes.margeloiu_training(3e-4, "robust_loss", settings.epochs)


def _evaluation(evaluation, settings):
    evaluation.num_pictures = 6
    evaluation.randomisation.orders = ()
    black = {"kind": "black"}
    evaluation.maps = {
        "gradient": common.saliency("gradient"),
        "integrated_gradients": common.saliency("integrated_gradients", num_steps=settings.num_steps, baseline=black),
        "smoothgrad_squared": common.saliency(
            "smoothgrad", num_samples=settings.num_steps, sigma=0.2, relative_to="image_range", statistic="squared"
        ),
    }
    evaluation.metrics = {
        "gini": common.metric("gini"),
        "total_variation": common.metric("total_variation"),
        "smoothness": common.metric("smoothness"),
        "smoothness_published": common.metric("smoothness", unit="map"),
        "pointing_game": common.metric("pointing_game", mask="lesion"),
        "lesion_mass": common.metric("relevance_mass", mask="lesion"),
        "best_iou": common.metric("best_iou", mask="lesion"),
        "colour_agreement": common.metric("colour_agreement", mask="lesion"),
    }


def _claims(settings):
    def over_random(run):
        others = [each for each in MAPS if each != "gradient"]
        return [common.expected("colour_agreement", run, map=each, than_map="random") for each in others]

    def than(run, other, *metrics, direction="higher", maps=MAPS):
        return [
            common.expected(metric, run, direction, map=each, than_run=other) for each in maps for metric in metrics
        ]

    def accuracy(one, other):
        return common.expected("accuracy", one, than_run=other)

    def sharper(run, other):
        return [*than(run, other, "gini"), *than(run, other, "total_variation", direction="lower")]

    floors = [
        common.expected(metric, ROBUST, map="gradient", than_map="floors") for metric in ("lesion_mass", "best_iou")
    ]
    tuned = [f"tuned_{first}" for first in settings.first]
    unlearnt = [f"unlearnt_{first}" for first in settings.unlearnt]
    ladder = ["standard", *tuned]
    return (
        common.claim(
            "sharper", "Maps of a robust network are sharper: sparser, and smoother.", *sharper(ROBUST, "standard")
        ),
        common.claim("sharper_linf", "The same in linf.", *sharper("linf", "standard"), source="ours"),
        common.claim(
            "smooth_as_published",
            "By the measure in the authors' code, which counts the size of the gradient, they are smoother.",
            *than(ROBUST, "standard", "smoothness_published", direction="lower"),
        ),
        common.claim(
            "coherent",
            "More of a map lies in the lesion, and it outlines the lesion better.",
            *than(ROBUST, "standard", "lesion_mass", "best_iou"),
        ),
        common.claim(
            "over_floors",
            "More of a robust network's gradient lies in the lesion, and it outlines the lesion better, than of maps "
            "that never look at the network.",
            *floors,
            source="ours",
        ),
        common.claim(
            "colours",
            "Within the lesion, maps of a robust network follow the variation of colour: more than a random map, and "
            "than those of a standard network.",
            common.expected("colour_agreement", ROBUST, map="gradient", than_map="random"),
            *than(ROBUST, "standard", "colour_agreement"),
        ),
        common.claim(
            "colours_over_random",
            "The other maps of a robust network do follow the variation of colour more than a random map.",
            *over_random(ROBUST),
        ),
        common.claim(
            "colours_of_standard",
            "The maps of a standard network follow the variation of colour more than a random map already.",
            *over_random("standard"),
            source="ours",
        ),
        common.claim(
            "stronger",
            "The stronger the attack, the sparser the gradient, and the more of it lies in the lesion.",
            *(
                each
                for weaker, stronger in itertools.pairwise(
                    ["standard", *(f"l2_{each:g}" for each in settings.epsilons)]
                )
                for each in than(stronger, weaker, "gini", "lesion_mass", maps=("gradient",))
            ),
            source="ours",
        ),
        common.claim(
            "fine_tuning_sharpens",
            "A robust network, tuned on clean images at a small learning rate, has sharper maps still.",
            *sharper("tuned_2", ROBUST),
        ),
        common.claim(
            "fine_tuning_coheres",
            "So tuned, more of its maps lies in the lesion.",
            *than("tuned_2", ROBUST, "lesion_mass", "best_iou", maps=("gradient",)),
            source="ours",
        ),
        *(
            common.claim(
                f"first_layers_{count}",
                f"Robust first layers, {count} of 5 groups, are enough for coherent maps: the network withstands less.",
                common.expected("robust:l2", f"tuned_{count + 1}", "lower", than_run=ROBUST),
                *than(f"tuned_{count + 1}", "standard", "lesion_mass", "best_iou", maps=("gradient",)),
                *than(f"tuned_{count + 1}", "standard", "total_variation", direction="lower", maps=("gradient",)),
            )
            for count in (1, 2)
        ),
        common.claim(
            "first_layers_alone_at_a_high_rate",
            "At thirty times the learning rate the network withstands less.",
            *(common.expected("robust:l2", run, "lower", than_run=ROBUST) for run in unlearnt),
            source="ours",
        ),
        common.claim(
            "first_layers_are_enough",
            "Tuned so, with robust first layers alone left as they are, maps are coherent still, and smoother than "
            "those of a standard network.",
            *(
                each
                for run in unlearnt
                for each in (
                    *than(run, "standard", "lesion_mass", "best_iou", maps=("gradient",)),
                    *than(run, "standard", "total_variation", direction="lower", maps=("gradient",)),
                )
            ),
            source="ours",
        ),
        common.claim(
            "later_layers_matter",
            "Tuned so, less of the gradient lies in the lesion than in the robust network, and it outlines the lesion "
            "less well.",
            *(
                each
                for run in unlearnt
                for each in than(run, ROBUST, "lesion_mass", "best_iou", direction="lower", maps=("gradient",))
            ),
            source="ours",
        ),
        common.claim("costs_accuracy", "A robust network is less accurate.", accuracy("standard", ROBUST)),
        common.claim(
            "costs_accuracy_at_all_strengths",
            "A robust network is less accurate at each strength of the attack.",
            *(accuracy("standard", f"l2_{epsilon:g}") for epsilon in settings.epsilons),
            source="ours",
        ),
        common.claim(
            "ladder",
            "The fewer layers are tuned, the less accurate: standard, groups 2-5, 3-5, 4-5, 5.",
            *(accuracy(one, other) for one, other in itertools.pairwise(ladder)),
        ),
        common.claim("tuning_repays", "Tuning gives some of the accuracy back.", accuracy("tuned_2", ROBUST)),
    )
