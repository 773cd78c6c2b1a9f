"""From a ConfigDict, or plain JSON, to frozen specs: the sections of a config and what they become."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from robust_saliency import (
    attacks,
    checks,
    metrics,
    models,
    neurons,
    objectives,
    optimizer,
    phases,
    saliency,
    schedules,
)
from robust_saliency.baselines import Baseline
from robust_saliency.config_fields import Method, build, choose, convert, known_field
from robust_saliency.config_wrappers import objective_of
from robust_saliency.data import DataSpec, planted_lesions
from robust_saliency.threat import Threat

SPLITS = ("test", "train", "validation")
EXPLAINED = ("predicted", "true")
# Labels that results use themselves: blind maps, arrays of explanations, columns that say which row this is.
RESERVED = {
    "attacks": (),
    "maps": (
        "centre_gaussian", "file", "fractions", "image", "prediction", "probabilities", "random", "sobel",
    ),
    "metrics": ("flaw", "group", "id", "label", "method", "run", "seed"),
}  # fmt: skip
# Fields of a metric's spec that name a mask of the data; and the masks that data may have: of the lesion, of the
# evidence, and of the concepts of planted lesions.
MASK_FIELDS = ("mask", "within")
MASKS = ("lesion", "evidence", *planted_lesions.CONCEPTS)
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

    def __post_init__(self):
        checks.one_of("train.batch_norm", self.batch_norm, ("frozen", "train"))
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
    """What is timed: ``attack`` on every bundled network, and a training step of every objective with it.

    repetitions: pairs of the work and as many plain gradients.
    """

    batch_size: int = 128
    image_size: int = 32
    channels: int = 3
    num_classes: int = 10
    repetitions: int = 3
    attack: Any = None


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
    alone; sigma: see :class:`robust_saliency.neurons.Affinity`. attack: makes the adversarial images of CS1, CS2, r1
    and r2. score: see :class:`robust_saliency.neurons.Tracing`; removed: a unit that is taken away becomes 'zero', or
    its 'mean' over the images. num_mistakes: the most confident wrong predictions that are traced, and as many right
    ones, to num_influential units each. num_shown: units of a concept, or else of a class, that are drawn.
    ascent_steps, ascent_step_size: of their visualisation, see :class:`robust_saliency.neurons.Ascent`.
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
    attack: attacks.PGD = dataclasses.field(default_factory=attacks.PGD)
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
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"neurons.layers names a layer twice: {', '.join(self.layers)}.")
        neurons.Tracing(score=self.score)
        neurons.Affinity(sigma=self.sigma)

    @property
    def dissection(self) -> neurons.Dissection:
        return neurons.Dissection(quantile=self.quantile, least_iou=self.least_iou)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roar:
    """Whose maps take which pixels away, and how new networks are trained on what is left (``robust_saliency.roar``).

    methods: labels of evaluation.maps; () = all. fractions: shares of the pixels, the default as published. mode:
    'remove' the most relevant (ROAR), 'keep' those alone (KAR), or 'both' (and with them DiffROAR). sign: what of a map
    is relevance. baseline: of removed pixels; None = the mean of the training images by channel, as published.
    explained: the class whose maps are taken; with 'true' a map may carry the label into test images. masks_alone: also
    on images of nothing but which pixels were removed.
    retrainings: of each, with the seeds 0, 1, ...; objective: of all of them, within the run's own settings; epochs: 0
    = the run's own.
    """

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


class Experiment(NamedTuple):
    """A parsed config. ``plain`` is what config.json holds.

    phases: the folder and the experiment of every phase before the last, which is this one. place: which phase this
    is, for errors; '' where there are none.
    """

    plain: dict
    seed: int
    num_devices: int
    data: DataSpec
    model: Method
    objective: Method
    ramps: tuple[schedules.Ramp, ...]
    optimizer: optimizer.Optimizer
    train: Train
    evaluation: Evaluation
    init_from: InitFrom
    benchmark: Benchmark
    robustness: Robustness
    neurons: Neurons
    roar: Roar
    phases: tuple[tuple[str, "Experiment"], ...] = ()
    place: str = ""

    @property
    def attack(self) -> Any:
        """The attack that the objective trains against; None where it trains against none."""
        return getattr(objectives.innermost(self.objective.spec), "attack", None)


SECTIONS = {
    "title", "description", "seed", "mesh", "data", "model", "objective", "schedules", "optimizer", "train",
    "evaluation", "init_from", "study", "benchmark", "robustness", "neurons", "roar", "phases",
}  # fmt: skip


def parse(config: Mapping) -> Experiment:
    """The specs of ``config``; ValueError with the dotted field, what came in and what is expected."""
    plain = to_plain(config)
    for name in plain:
        known_field("config", name, SECTIONS)
    parts = enumerate(phases.unfolded(plain))
    *earlier, (_, last) = [(folder, _parse_at(phases.place(plain, number), part)) for number, (folder, part) in parts]
    return last._replace(plain=plain, phases=tuple(earlier))


def _parse_at(place: str, plain: dict) -> Experiment:
    try:
        return _with_best_metric(_parse(plain)._replace(place=place))
    except ValueError as error:
        if not place:
            raise
        raise ValueError(f"{place}: {error}") from error


def _with_best_metric(experiment: Experiment) -> Experiment:
    """With the name of the metric that '' stands for; ValueError for rules that need an attack where there is none."""
    settings, attacked = experiment.train, experiment.attack is not None
    if settings.guard_drop and not attacked:
        raise ValueError(
            f"config.train.guard_drop guards adversarial training; {experiment.objective.name!r} has no attack."
        )
    accuracies = ["accuracy", "robust_accuracy"] if attacked else ["accuracy"]
    balanced = [f"balanced_{name}" for name in accuracies]
    measured = ["loss", *(["robust_loss"] if attacked else []), *accuracies, *balanced]
    usual = (balanced if experiment.data.class_balanced else accuracies)[-1]
    metric = checks.one_of("config.train.best_metric", settings.best_metric or usual, measured)
    return experiment._replace(train=dataclasses.replace(settings, best_metric=metric))


def _parse(plain: dict) -> Experiment:
    section = {name: _section(plain, name, "config") for name in SECTIONS - {"title", "description", "seed", "phases"}}
    data = build(DataSpec, section["data"], "config.data")
    model = choose("model", models.MODELS, section["model"], "config.model")
    train = build(Train, section["train"], "config.train")
    evaluation = _evaluation(section["evaluation"])
    objective = objective_of(section["objective"], train.trainable)
    return Experiment(
        plain=plain,
        seed=convert(plain.get("seed", 0), int, "config.seed"),
        num_devices=convert(section["mesh"].get("num_devices", 0), int, "config.mesh.num_devices"),
        data=data,
        model=model,
        objective=objective,
        ramps=_ramps(section["schedules"], objective.spec),
        optimizer=build(optimizer.Optimizer, section["optimizer"], "config.optimizer"),
        train=train,
        evaluation=evaluation,
        init_from=build(InitFrom, section["init_from"], "config.init_from"),
        benchmark=_benchmark(section["benchmark"]),
        robustness=build(Robustness, section["robustness"], "config.robustness"),
        neurons=build(Neurons, section["neurons"], "config.neurons"),
        roar=_roar(section["roar"], evaluation),
    )


def _section(holder: Mapping, name: str, where: str) -> Mapping:
    section = holder.get(name) or {}
    if not isinstance(section, Mapping):
        raise ValueError(f"{where}.{name} must be a section, got {section!r}.")
    return section


def to_plain(config: Any) -> Any:
    """Nested dicts, lists and scalars, as JSON gives them back."""
    if hasattr(config, "to_dict"):
        config = config.to_dict()
    return json.loads(json.dumps(config, default=lambda value: value.to_dict()))


def _ramps(section: Mapping, objective_spec: Any) -> tuple[schedules.Ramp, ...]:
    ramps = {label: build(schedules.Ramp, ramp, f"config.schedules.{label}") for label, ramp in section.items()}
    used = {label: _fitting(ramp, objective_spec) for label, ramp in sorted(ramps.items()) if ramp.used}
    for label, ramp in used.items():
        try:
            schedules.check(objective_spec, ramp)
        except ValueError as error:
            raise ValueError(f"config.schedules.{label}.fields: {error}") from error
    return tuple(used.values())


def _fitting(ramp: schedules.Ramp, objective_spec: Any) -> schedules.Ramp:
    """Without the step size, which grows with epsilon, where the attack has none (fgsm, apgd): a default names both."""
    attack = getattr(objectives.innermost(objective_spec), "attack", None)
    if attack is None or hasattr(attack, "step_size") or "attack.threat.epsilon" not in ramp.fields:
        return ramp
    return dataclasses.replace(ramp, fields=tuple(field for field in ramp.fields if field != "attack.step_size"))


def _evaluation(section: Mapping) -> Evaluation:
    def methods(name, kind, registry):
        return tuple(
            (label, choose(kind, registry, entry, f"config.evaluation.{name}.{label}"))
            for label, entry in sorted(_section(section, name, "config.evaluation").items())
            if entry is not None
        )

    for name in RESERVED:
        labels = _section(section, name, "config.evaluation")
        check_labels(labels, f"config.evaluation.{name}", (*RESERVED[name], *_made_of(labels, name)))

    plain = {name: value for name, value in section.items() if name not in ("attacks", "maps", "metrics")}
    parsed = dataclasses.replace(
        build(Evaluation, plain, "config.evaluation"),
        attacks=methods("attacks", "attack", attacks.ATTACKS | attacks.DECISIONS),
        maps=methods("maps", "saliency method", saliency.SALIENCY),
        metrics=methods("metrics", "metric", metrics.METRICS),
    )
    for label, method in parsed.attacks:
        if getattr(method.spec, "eot_samples", 0) and getattr(method.spec, "version", "rand") == "rand":
            raise ValueError(
                f"config.evaluation.attacks.{label} attacks a network that is random, which a network of a config is "
                "not; in code: robust_saliency.attacks.untargeted, with a logits_fn(images, keys)."
            )
    for label, method in parsed.maps:
        if getattr(method.spec, "channels", None) == "none":
            raise ValueError(
                f"config.evaluation.maps.{label}.channels is 'none', but a map that is measured and drawn is "
                "[height, width]; choose how channels become one: sum_abs, max_abs, l2, sum or max."
            )
    for label, method in parsed.metrics:
        _check_metric(method, f"config.evaluation.metrics.{label}")
        _check_label(method, f"config.evaluation.metrics.{label}", parsed.explained)
    return parsed


def _made_of(labels: Iterable[str], kind: str) -> list[str]:
    """Labels of maps that an evaluation adds by itself: the average of each method, and a map of each mask."""
    if kind != "maps":
        return []
    return [f"average of {label}" for label in labels] + [label for label in labels if label.endswith("_mask")]


def check_labels(labels: Iterable[str], where: str, reserved: Iterable[str] = ()) -> None:
    """Raises ValueError for a label that stands for something else in a result, or that is no name of a file."""
    for label in labels:
        if label in reserved:
            raise ValueError(f"{where}: the label {label!r} is taken; these are: {', '.join(sorted(reserved))}.")
        if not label or label.startswith(".") or set(label) & set("/\\"):
            raise ValueError(f"{where}: a label must not be empty, start with a dot or hold a slash, got {label!r}.")


def _check_metric(method: Method, where: str) -> None:
    """A user's own metric is told before a network is trained what an evaluation needs of it."""
    lacking = [fact for fact in ("title", "direction", "range") if not hasattr(method.spec, fact)]
    if lacking:
        raise ValueError(f"{where}: the spec of {method.name!r} has no {' and no '.join(lacking)}.")
    checks.one_of(f"direction of {method.name!r} in {where}", method.spec.direction, ("higher", "lower", "none"))
    for field in MASK_FIELDS:
        if "masks" in method.needs and hasattr(method.spec, field) and ":" not in method.name:
            checks.one_of(f"mask in {where}.{field}", getattr(method.spec, field), MASKS)
    for need in method.needs:
        checks.one_of(f"argument of {method.name!r} in {where}", need, metrics.ARGUMENTS)


def _check_label(method: Method, where: str, explained: str) -> None:
    """Of the predicted class nothing can be wrong."""
    judges_label = isinstance(method.spec, metrics.Accuracy | metrics.Margin)
    if explained == "predicted" and (judges_label or getattr(method.spec, "score", "") == "accuracy"):
        raise ValueError(
            f"{where} asks whether the label is met, but config.evaluation.explained is 'predicted', so the label is "
            "the prediction itself; choose score='allegiance', or explained='true'."
        )


def _roar(section: Mapping, evaluation: Evaluation) -> Roar:
    labels = [label for label, _ in evaluation.maps]
    parsed = build(Roar, section, "config.roar")
    for label in parsed.methods:
        checks.one_of("map in config.roar.methods", label, labels)
    return dataclasses.replace(parsed, methods=parsed.methods or tuple(labels))


def _benchmark(section: Mapping) -> Benchmark:
    plain = {name: value for name, value in section.items() if name != "attack"}
    attack = choose("attack", attacks.ATTACKS, section.get("attack") or {"name": "pgd"}, "config.benchmark.attack")
    return dataclasses.replace(build(Benchmark, plain, "config.benchmark"), attack=attack)
