"""The sections of a config as frozen dataclasses: what can be said in each, checked when it is said."""

import dataclasses
from typing import Any

from robust_saliency import attacks, checks, metrics, neurons, objectives
from robust_saliency.baselines import Baseline
from robust_saliency.threat import Threat

SPLITS = ("test", "train", "validation")
EXPLAINED = ("predicted", "true")
BENCHMARK_PARTS = ("attacks", "training", "maps")
# Examples whose maps an evaluation holds at a time: the first, which averages are taken over.
AVERAGED = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """epochs; validate_every, checkpoint_every: epochs between; keep_last, keep_best: checkpoints that stay.

    best_metric: the validation metric that 'best' means; '' = robust_accuracy where the objective has an attack, else
    accuracy; of these the balanced ones, means over classes, where data.class_balanced. Of a loss, which is loss or
    robust_loss, the lowest is best, of an accuracy the highest.
    log_every: steps between rows of metrics.jsonl.
    trainable: regular expressions on names such as 'params/conv1/kernel'; what none of them matches stays as it is;
    () = all are trained. batch_norm: in training, 'train' (statistics of the batch, running ones updated) or 'frozen'.
    patience: validations in a row without a better best_metric after which training ends; 0 = never.
    plateau_patience, plateau_factor: such validations after which the learning rate is multiplied by the factor.
    average_decay: of the running average of the weights, which is then what is validated, kept and evaluated; 0 = none.
    average_batches: training batches on which BatchNorm's statistics are estimated anew for the average.
    guard_drop: training ends when the accuracy on a training batch under PGD with ``guard_steps`` steps has fallen by
    more than this since its best epoch; every epoch before has a checkpoint, that one has none. 0 = no guard.
    accumulate: parts that a batch goes through in, one after the other, for the memory of one; the gradient is the mean
    over them; what depends on a whole batch, such as BatchNorm, sees the parts.
    remat: gradients keep the results of convolutions and matrix products alone and compute the rest again, for less
    memory.
    """

    epochs: int = 10
    validate_every: int = 1
    checkpoint_every: int = 1
    keep_last: int = 2
    keep_best: int = 1
    best_metric: str = ""
    log_every: int = 10
    trainable: tuple[str, ...] = ()
    batch_norm: str = "train"
    patience: int = 0
    plateau_patience: int = 0
    plateau_factor: float = 0.1
    average_decay: float = 0.0
    average_batches: int = 50
    guard_drop: float = 0.0
    guard_steps: int = 5
    accumulate: int = 1
    remat: bool = False

    def __post_init__(self):
        checks.one_of("train.batch_norm", self.batch_norm, ("frozen", "train"))
        checks.at_least(1, accumulate=self.accumulate, where="train")
        for pattern in self.trainable:
            checks.regular_expression("train.trainable", pattern)
        if not 0 < self.plateau_factor < 1:
            raise ValueError(f"train.plateau_factor must lie strictly between 0 and 1, got {self.plateau_factor}.")
        short, long = sorted((self.checkpoint_every, self.validate_every))
        if long % short:
            raise ValueError(
                f"train.checkpoint_every is {self.checkpoint_every}, train.validate_every {self.validate_every}: one "
                "must be a multiple of the other, since a checkpoint that was not validated can never be the best."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Randomisation:
    """Of which images maps are made again with fresh weights, and how they are compared.

    orders: of :data:`robust_saliency.metrics.randomisation.ORDERS`; () = none. similarity, sign: see
    :class:`robust_saliency.metrics.ParameterRandomisation`. num_examples: the first of those evaluated, at most as many
    as an average map is made of.
    """

    orders: tuple[str, ...] = ("cascading",)
    similarity: str = "spearman"
    sign: str = "abs"
    num_examples: int = 64

    def __post_init__(self):
        for order in ("cascading", *self.orders):
            metrics.ParameterRandomisation(order=order, similarity=self.similarity, sign=self.sign)
        if not 1 <= self.num_examples <= AVERAGED:
            raise ValueError(f"num_examples must lie between 1 and {AVERAGED}, got {self.num_examples}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is measured, on what. attacks, maps, metrics: pairs of a label and a :class:`Method`, by label."""

    split: str = "test"
    step: str = "best"
    num_examples: int = 0
    batch_size: int = 128
    explained: str = "true"
    num_pictures: int = 9
    randomisation: Randomisation = Randomisation()
    attacks: tuple[tuple[str, Any], ...] = ()
    maps: tuple[tuple[str, Any], ...] = ()
    metrics: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self):
        checks.one_of("evaluation.split", self.split, SPLITS)
        checks.one_of("evaluation.explained", self.explained, EXPLAINED)
        if not self.step.isdecimal():
            checks.one_of("evaluation.step", self.step, ("best", "last"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitFrom:
    """workdir of the run whose weights start this one ('' = none), relative to this run's; include, exclude: regular
    expressions on parameter paths such as 'params/conv1/kernel'; what is not taken keeps its random start."""

    workdir: str = ""
    step: str = "best"
    include: str = ".*"
    exclude: str = ""

    def __post_init__(self):
        for name in ("include", "exclude"):
            checks.regular_expression(f"init_from.{name}", getattr(self, name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What is timed: attacks on bundled networks, a training step of every objective with ``attack``, maps and metrics.

    parts: of :data:`BENCHMARK_PARTS`. repetitions: pairs of the work and as many plain gradients. attacks: each as
    ``attack`` but for its name, on each of models (names; () = all), with each of batch_sizes (() = batch_size) images,
    computed in each of dtypes.
    """

    parts: tuple[str, ...] = BENCHMARK_PARTS
    batch_size: int = 128
    image_size: int = 32
    channels: int = 3
    num_classes: int = 10
    repetitions: int = 3
    attack: Any = None
    attacks: tuple[Any, ...] = ()
    models: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ("float32",)

    def __post_init__(self):
        for part in self.parts:
            checks.one_of("part", part, BENCHMARK_PARTS)
        checks.at_least(1, batch_size=self.batch_size, repetitions=self.repetitions, where="benchmark")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Robustness:
    """How a robustness report attacks: on the test split, within ``threat``.

    version, steps, num_queries, num_targets: see :class:`robust_saliency.attacks.AutoAttack`. curve_steps: of APGD
    at each epsilon that the smallest one is searched with, at most ``num_searches`` of them.
    """

    threat: Threat = dataclasses.field(default_factory=Threat)
    version: str = "standard"
    steps: int = 100
    num_queries: int = 5000
    num_targets: int = 9
    curve_steps: int = 20
    num_searches: int = 12
    num_examples: int = 256
    batch_size: int = 128

    def __post_init__(self):
        checks.one_of("robustness.version", self.version, ("fast", "standard"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neurons:
    """What is asked of the units of a trained network, on ``num_examples`` images of ``split`` (0 = all).

    layers: whose units; () = the last layer whose activation is a map. quantile, least_iou: see
    :class:`robust_saliency.neurons.Dissection`; num_shuffles: times that the masks are those of other images. num_top:
    the k of :func:`robust_saliency.neurons.top`; hierarchy: JSON file {child: parent} of the classes, '' = each stands
    alone; sigma: see :class:`robust_saliency.neurons.Affinity`. num_attacked: of so many of the examples, drawn from
    all, adversarial images are made, for CS1, CS2, r1 and r2; 0 = of all: by attack, one an image, or else, where there
    is an ensemble (workdirs of runs, from the run's own), by optimisation, several, against all of these together.
    score: see :class:`robust_saliency.neurons.Tracing`; removed: a unit that is taken away becomes 'zero', or its
    'mean' over the images. num_mistakes: the most confident wrong predictions that are traced, and as many right ones,
    to num_influential units each. num_shown: units of a concept, or else of a class, that are drawn. ascent_steps,
    ascent_step_size: of their visualisation, see :class:`robust_saliency.neurons.Ascent`.
    """

    layers: tuple[str, ...] = ()
    split: str = "test"
    num_examples: int = 0
    batch_size: int = 128
    quantile: float = 0.005
    least_iou: float = 0.04
    num_shuffles: int = 5
    num_top: int = 20
    hierarchy: str = ""
    sigma: float = 1.0
    num_attacked: int = 0
    attack: attacks.PGD = dataclasses.field(default_factory=attacks.PGD)
    ensemble: tuple[str, ...] = ()
    optimisation: attacks.EnsembleOptimisation = dataclasses.field(default_factory=attacks.EnsembleOptimisation)
    score: str = "log_odds"
    removed: str = "zero"
    num_mistakes: int = 32
    num_influential: int = 3
    num_shown: int = 2
    ascent_steps: int = 40
    ascent_step_size: float = 0.5

    def __post_init__(self):
        checks.one_of("neurons.split", self.split, SPLITS)
        checks.one_of("neurons.removed", self.removed, ("mean", "zero"))
        for name, what in (("layers", "layer"), ("ensemble", "run")):
            if len(set(named := getattr(self, name))) < len(named):
                raise ValueError(f"neurons.{name} names a {what} twice: {', '.join(named)}.")
        if "" in self.ensemble:
            raise ValueError("neurons.ensemble must name workdirs, got ''.")
        neurons.Tracing(score=self.score)
        neurons.Affinity(sigma=self.sigma)

    @property
    def dissection(self) -> neurons.Dissection:
        return neurons.Dissection(quantile=self.quantile, least_iou=self.least_iou)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roar:
    """Whose maps take which pixels away, and how new networks are trained on what is left (``robust_saliency.roar``).

    runs: labels of a study's runs; () = all. methods: labels of evaluation.maps; () = all. fractions: shares of the
    pixels, the default as published. mode: 'remove' the most relevant (ROAR), 'keep' those alone (KAR), or 'both' (and
    with them DiffROAR). sign: what of a map is relevance. baseline: of removed pixels; None = the mean of the training
    images by channel, as published. explained: the class whose maps are taken; with 'true' a map may carry the label
    into test images. masks_alone: also on images of nothing but which pixels were removed. retrainings: of each, with
    the seeds 0, 1, ...; objective: of all of them, within the run's own settings; epochs: 0 = the run's own.
    """

    runs: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    fractions: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    mode: str = "remove"
    sign: str = "abs"
    baseline: Baseline | None = None
    explained: str = "predicted"
    masks_alone: bool = False
    retrainings: int = 3
    objective: str = "standard"
    epochs: int = 0

    def __post_init__(self):
        checks.one_of("roar.mode", self.mode, (*metrics.REMOVALS, "both"))
        checks.one_of("roar.explained", self.explained, EXPLAINED)
        checks.one_of("roar.sign", self.sign, metrics.Removal.signs)
        checks.one_of("roar.objective", self.objective, objectives.OBJECTIVES)
        if not self.fractions or not all(0 < fraction < 1 for fraction in self.fractions):
            raise ValueError(f"roar.fractions must lie strictly between 0 and 1, got {self.fractions}.")
        if list(self.fractions) != sorted(set(self.fractions)):
            raise ValueError(f"roar.fractions must ascend, got {self.fractions}.")
