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
    objectives,
    optimizer,
    phases,
    saliency,
    schedules,
    sharding,
)
from robust_saliency.config_fields import Method, build, choose, convert, known_field
from robust_saliency.config_sections import (
    Benchmark,
    Evaluation,
    InitFrom,
    Neurons,
    Roar,
    Robustness,
    Train,
)
from robust_saliency.config_wrappers import objective_of
from robust_saliency.data import DataSpec, planted_lesions

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


class Experiment(NamedTuple):
    """A parsed config. ``plain`` is what config.json holds.

    phases: the folder and the experiment of every phase before the last, which is this one. place: which phase this
    is, for errors; '' where there are none.
    """

    plain: dict
    seed: int
    num_devices: int
    devices_for_samples: int
    parameters: str
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
        devices_for_samples=convert(section["mesh"].get("samples", 1), int, "config.mesh.samples"),
        parameters=checks.one_of(
            "config.mesh.parameters", section["mesh"].get("parameters", "replicated"), sharding.PARAMETERS
        ),
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
    if isinstance(method.spec, metrics.AttackStability) and method.spec.attack.surrogate:
        models.activation(method.spec.attack.surrogate, f"{where}.attack.surrogate")
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
    where = "config.benchmark"
    attack = section.get("attack") or {"name": "pgd"}
    named = section.get("attacks") or (attack["name"],)
    for name in section.get("models") or ():
        checks.one_of(f"network in {where}.models", name, models.MODELS)
    for dtype in section.get("dtypes") or ():
        checks.one_of(f"dtype in {where}.dtypes", dtype, models.DTYPES)
    plain = {name: value for name, value in section.items() if name not in ("attack", "attacks")}
    return dataclasses.replace(
        build(Benchmark, plain, where),
        attack=choose("attack", attacks.ATTACKS, attack, f"{where}.attack"),
        attacks=tuple(
            choose("attack", attacks.ATTACKS, {**attack, "name": name}, f"{where}.attacks") for name in named
        ),
    )
