"""Dong et al. 2017, 2019 (1708.05493, 1901.09035): do units mean something, and does the consistent loss make them?

    python launch.py --mode=study --config=configs/papers/dong2017.py --workdir=runs/dong2017
    python launch.py --mode=study --config=configs/papers/dong2017.py:small:ham10000 --workdir=runs/dong2017_ham10000
    python launch.py --mode=study --config=configs/papers/dong2017.py:full --workdir=runs/dong2017_full
    python launch.py --mode=study --config=configs/papers/dong2017.py:smoke --workdir=runs/dong2017_smoke

Three architectures learn drawn lesions, of which every concept is known pixel by pixel (':ham10000': real ones, of
which the lesion is); each goes on with clean images alone, or with the consistent loss, which draws the activations of
an adversarial image to those of the real one. Of the last layer: which concepts units detect (dissection), of how close
classes their top images are (consistency level), of which classes their top adversarial images (CS1: as the real ones;
CS2: as the classes those are taken for), how far adversarial images are represented from what they show (r1, r2), and
whether predictions hang on the units that they are traced to. ``neurons.html`` of each run shows ten wrong predictions
beside ten right ones. Adversarial images are ten of each of some test images, each driven to another class by
optimisation against all networks of a seed together, before and after; all see the same ones. With
``--config.neurons.ensemble="()"`` each network has its own, by PGD.

Of the papers only abstracts, captions and reviews could be read: loss, measures and every setting are reconstructions,
and the networks are a small CNN for AlexNet, a VGG-style one for VGG-16, a narrow ResNet-18 for ResNet-18; drawn images
for ILSVRC-2012. That a prediction *loses* more without the units it was traced to than without others is so by their
choice, in untrained networks too; that it *changes* is not.
docs/papers has results.
"""

from typing import NamedTuple

from configs import common, data_sets, papers

LAST = {"cnn": "conv4", "vgg": "conv6", "resnet": "block4_2"}
VGG = ("conv{0}", "conv{0}", "max2", "conv{1}", "conv{1}", "max2", "conv{2}", "conv{2}", "gap", "dense{2}")


class Size(NamedTuple):
    networks: tuple[str, ...]
    num_train: int
    num_test: int
    num_attacked: int  # of the test images
    num_adversaries: int  # of each
    width: int
    start_epochs: int
    epochs: int  # of the consistent loss; of clean images as many passes
    seeds: int


SIZES = {
    "smoke": Size(("cnn",), 64, 48, 24, 2, 4, 1, 1, 1),
    "small": Size(tuple(LAST), 3072, 4096, 512, 10, 16, 16, 6, 3),
    "full": Size(tuple(LAST), 16384, 4096, 4096, 10, 32, 30, 20, 5),
}
PASSES = 3  # over an image, forward and backward, of the consistent loss with FGSM


def get_config(size="small"):
    size, data_set = papers.size_and_data(size, "planted_lesions", "ham10000")
    config, settings, epsilon = _begin(size, data_set)
    config.title = "Dong et al. 2017: what units mean, before and after the consistent loss"
    config.description = "Do units detect concepts, and do adversarial images look alike to them?"
    config.evaluation.step = "last"
    config.evaluation.randomisation.orders = ()
    config.evaluation.num_examples = 512 if data_set == "planted_lesions" else 0
    config.evaluation.attacks = {
        "linf": common.evaluated_attack(epsilon=epsilon, num_steps=20, relative_step_size=1 / 8)
    }
    config.evaluation.maps = {"gradient": common.saliency("gradient")}
    config.evaluation.metrics = {
        "gini": common.metric("gini"),
        "lesion_mass": common.metric("relevance_mass", mask="lesion"),
        "evidence_given_lesion": common.metric("evidence_given_lesion", mask="evidence", within="lesion"),
    }  # the last of drawn lesions alone
    config.neurons.update(num_mistakes=10, num_shown=1)
    config.neurons.attack.epsilon = epsilon
    config.neurons.optimisation.epsilon = 2 * epsilon
    config.neurons.num_attacked = settings.num_attacked
    config.neurons.optimisation.num_adversaries = settings.num_adversaries
    networks = {
        "cnn": {"name": "small_cnn", "width": settings.width},
        "vgg": {"name": "plain_cnn", "layers": _vgg(settings.width)},
        "resnet": {"name": "resnet18", "width": settings.width // 2},
    }
    config.study.runs = tuple(
        run for label in settings.networks for run in _runs(label, networks[label], settings, epsilon)
    )
    config.neurons.ensemble = tuple(f"../{run.label}" for run in config.study.runs)
    config.study.reference = "cnn"
    config.study.seeds = settings.seeds
    config.study.modes = ("neurons",)
    config.study.claims = _claims(settings.networks)
    return config


def _begin(size, data_set):
    """The config of the data, the size with what these need else, and epsilon."""
    settings = SIZES[size]
    if data_set == "ham10000":
        config, setting = data_sets.begin("ham10000" if size == "full" else "ham10000:small")
        config.neurons.quantile = 0.1  # a lesion has a third of the pixels, of which 0.005 is an IoU of 0.014 at most
        return config, settings._replace(start_epochs=settings.start_epochs // 2, num_attacked=256), setting.linf
    config = common.default()
    config.data.num_train, config.data.num_test = settings.num_train, settings.num_test
    config.data.num_validation = 384 if size != "smoke" else 24
    config.data.batch_size = 128 if size != "smoke" else 32
    config.data.augment.update(flip=True, transpose=True)
    return config, settings, 4 / 255


def _vgg(width):
    return tuple(token.format(width, 2 * width, 4 * width) for token in VGG)


def _runs(label, model, settings, epsilon):
    """Both from the same weights, so that a unit of one is that unit of the other, and with as many passes."""
    rate = 1e-2 if label == "cnn" else 3e-3
    first = common.phase("start", optimizer={"learning_rate": rate}, train=_train(settings.start_epochs))
    on = {"optimizer": {"schedule": "cosine", "learning_rate": 3e-3}}
    clean = common.phase("on", init_step="last", train=_train(PASSES * settings.epochs), **on)
    attack = {"name": "fgsm", "norm": "linf", "epsilon": epsilon}
    consistent = {"name": "consistent", "attack": attack, "layers": (LAST[label],), "consistency_weight": 1.0}
    return (
        common.run(label, f"{label}: clean images.", model=model, phases=(first, clean)),
        common.run(
            f"{label}_consistent",
            f"{label}: clean and adversarial images shall have like activations in {LAST[label]}.",
            model=model,
            init_from={"workdir": f"../{label}/phases/1_start", "step": "last"},
            objective=consistent,
            train=_train(settings.epochs),
            **on,
        ),
    )


def _train(epochs):
    return {"epochs": epochs, "validate_every": epochs, "checkpoint_every": 1}


def _claims(labels):
    def units(column, run, direction="higher", **changes):
        layer = LAST[run.partition("_")[0]]
        return common.expected(f"neurons:{column}:{layer}", run, direction, **changes)

    def after(column, direction="higher"):
        """Each network: after the consistent loss against before."""
        return [units(column, f"{label}_consistent", direction, than_run=label) for label in labels]

    def without_traced(column, **changes):
        runs = (*labels, *(f"{one}_consistent" for one in labels))
        return [units(column, run, map="traced", than_map="random", **changes) for run in runs]

    return (
        common.claim(
            "not_distributed_codes",
            "Adversarial images that raise a unit are of the classes that the network takes them for, not of those "
            "that they show: CS1 below CS2 in networks trained on clean images.",
            *(
                units("cs1", label, "lower", than_metric=f"neurons:cs2:{layer}")
                for label, layer in LAST.items()
                if label in labels
            ),
        ),
        common.claim(
            "consistent_units",
            "After training with the consistent loss a unit's adversarial top images show what its real ones do (CS1 "
            "higher), and less what they are taken for (CS2 lower).",
            *after("cs1"),
            *after("cs2", "lower"),
        ),
        common.claim(
            "consistency_level",
            "After it, the classes of a unit's top images are closer: the level of consistency rises.",
            *after("consistency"),
        ),
        common.claim("concepts", "After it, units match concepts better: the best IoU rises.", *after("iou")),
        common.claim(
            "representations",
            "After it, adversarial images are represented nearer to what they show: r1 and r2 fall.",
            *after("r1", "lower"),
            *after("r2", "lower"),
        ),
        common.claim(
            "accuracy_kept",
            "Accuracy falls by five points at most.",
            *(common.expected("accuracy", f"{label}_consistent", than_run=label, by=-0.05) for label in labels),
        ),
        common.claim(
            "robust",
            "Networks trained with the consistent loss withstand more.",
            *(common.expected("robust:linf", f"{label}_consistent", than_run=label) for label in labels),
        ),
        common.claim(
            "traced",
            "A prediction hangs on the units that it is traced to: without them another class is named in a tenth of "
            "the cases more, at least, than without as many random units that matter to it.",
            *without_traced("flipped", by=0.1),
            source="ours",
        ),
        common.claim(
            "traced_at_all",
            "Without the units that a wrong prediction is traced to another class is named more often than without as "
            "many random ones.",
            *without_traced("flipped_wrong"),
            source="ours",
        ),
        common.claim(
            "traced_at_all_right",
            "Without the units that a right prediction is traced to another class is named more often than without as "
            "many random ones.",
            *without_traced("flipped_right"),
            source="ours",
        ),
    )
