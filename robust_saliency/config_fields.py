"""Sections of plain values to dataclasses: each field checked against its type and range, each choice by its name.

One rule is the config's own: a section that names a method may hold the fields of all methods of its kind. Fields of
the others are ignored, so that ``--config.objective.name=...`` is enough to change the method; a field that no method
has is an error. A value of None means "the method's own default".
"""

import dataclasses
import importlib
import math
import types as _types
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

from robust_saliency import attacks, checks, metrics, models, objectives, saliency, types
from robust_saliency.baselines import Baseline
from robust_saliency.threat import Threat

# Lowest and highest value of a field of this package's own specs, wherever it stands. None = no bound.
RANGES = {
    "after": (0, 1), "ascent_step_size": (0, None), "ascent_steps": (0, None), "average_batches": (1, None),
    "average_decay": (0, 1), "batch_size": (1, None), "beta": (0, None), "blur_sigma": (0, None), "cells": (1, None),
    "checkpoint_every": (1, None), "clean_weight": (0, 1), "clip_norm": (0, None), "consistency_weight": (0, None),
    "curve_steps": (1, None), "distance_weight": (0, None), "divergence_weight": (0, None), "energy": (0, 1),
    "epochs": (0, None), "epsilon": (0, None), "factor": (0, None), "fraction": (0, 1), "gamma": (0, None),
    "guard_drop": (0, 1), "guard_steps": (1, None), "image_size": (0, None), "keep_best": (0, None),
    "keep_last": (1, None), "label_smoothing": (0, 1), "learning_rate": (0, None), "least_change": (0, None),
    "least_iou": (0, 1), "least_share": (0, 1), "log_every": (1, None), "max_distance": (0, 1), "max_sigma": (0, None),
    "momentum": (0, 1), "most_side": (1, None), "num_adversaries": (1, None), "num_attacked": (0, None),
    "num_classes": (2, None), "num_devices": (0, None), "num_examples": (0, None), "num_influential": (1, None),
    "num_mistakes": (0, None), "num_pictures": (0, None), "num_queries": (1, None), "num_samples": (1, None),
    "num_searches": (1, None), "num_shares": (1, None), "num_shown": (0, None), "num_shuffles": (0, None),
    "num_steps": (0, None), "num_targets": (1, None), "num_test": (0, None), "num_top": (1, None),
    "num_train": (0, None), "num_validation": (0, None), "patch": (1, None), "patience": (0, None),
    "plateau_factor": (0, 1), "plateau_patience": (0, None), "points": (2, None), "probe_steps": (1, None),
    "quantile": (0, 1), "relative_noise": (0, None), "relative_step": (0, None), "relative_step_size": (0, None),
    "repetitions": (1, None), "replays": (1, None), "retrainings": (1, None), "samples": (1, None), "scale": (0, None),
    "seed": (0, 2**31 - 1), "sigma": (0, None), "size": (8, None), "smoothing_sigma": (0, None), "step_size": (0, None),
    "steps": (1, None), "stride": (1, None), "tolerated": (0, None), "validate_every": (1, None),
    "validation_fraction": (0, 1), "visible": (0, 1), "warmup_fraction": (0, 1), "weight": (0, None),
    "weight_decay": (0, None), "width": (1, None), "window": (1, None),
}  # fmt: skip


class Method(NamedTuple):
    """A method chosen by name: its spec, its function, and for a metric the names of the arguments it needs."""

    name: str
    spec: Any
    function: Any
    needs: tuple[str, ...] = ()


def choose(kind: str, registry: dict, section: Mapping, where: str) -> Method:
    """The method that ``section['name']`` names in ``registry``, with its spec.

    'package.module:name' is imported and joins the registry, so that it can be used wherever a bundled one can.
    """
    if not isinstance(section, Mapping) or not isinstance(section.get("name"), str) or not section["name"]:
        raise ValueError(f"{where} needs a name. Choices: {', '.join(sorted(registry))}.")
    name = section["name"]
    if ":" in name and name not in registry:
        registry[name] = _imported(kind, name, where, registry)
    entry = checks.lookup(f"{kind} in {where}.name", name, registry)
    shared = {field for Spec, *_ in registry.values() for field in fields_of(Spec)}
    known = {*shared, *fields_of(entry[0])}
    for field in section:
        if field != "name":
            known_field(where, field, known)
    own = {field: value for field, value in section.items() if field in fields_of(entry[0])}
    return Method(name, build(entry[0], own, where), *entry[1:])


def build(cls: type, section: Mapping, where: str) -> Any:
    """An instance of the dataclass ``cls`` from plain values, each checked against its field's type and range."""
    if not isinstance(section, Mapping):
        raise ValueError(
            f"{where} must be a section with the fields {', '.join(sorted(fields_of(cls)))}, got {section!r}."
        )
    hints = typing.get_type_hints(cls)
    given = {name: value for name, value in section.items() if not _is_left_out(value)}
    for name in given:
        known_field(where, name, fields_of(cls))
    if "threat" in hints:
        given = _with_threat(cls, given, where)
    values = {}
    for name, value in given.items():
        place = f"{where}.{name}"
        if kind := _kind_of_method(hints[name]):
            values[name] = choose(*kind, value, place).spec
        else:
            default = getattr(cls, name, None)
            if isinstance(value, Mapping) and types.is_spec(default):
                value = _over(default, value)  # what is given of a section, over the method's own default
            values[name] = convert(value, hints[name], place, ranges=RANGES if _is_own(cls) else {})
    if cls is Baseline and values.get("kind") == "array":
        raise ValueError(f"{where}.kind: the images of an 'array' cannot be given in a config, only in code.")
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _over(default: Any, section: Mapping) -> dict:
    known = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
    given = {name: value for name, value in section.items() if not _is_left_out(value)}
    return {name: value for name, value in known.items() if value is not None} | given


def _is_left_out(value: Any) -> bool:
    """True for None, which stands for the method's own default, and for a section of nothing else."""
    return value is None or (isinstance(value, Mapping) and bool(value) and all(map(_is_left_out, value.values())))


def merge(base: Mapping, changes: Mapping, where: str = "config") -> dict:
    """``base`` with ``changes`` laid over it, section by section; a field that ``base`` lacks is an error."""
    merged = dict(base)
    for name, value in changes.items():
        known_field(where, name, base)
        nested = isinstance(base[name], Mapping) and value is not None
        if nested and not isinstance(value, Mapping):
            raise ValueError(f"{where}.{name} must be a section, got {value!r}.")
        merged[name] = merge(base[name], value, f"{where}.{name}") if nested else value
    return merged


def _with_threat(cls: type, given: Mapping, where: str) -> dict:
    threat_fields = fields_of(Threat)
    values = {name: value for name, value in given.items() if name not in threat_fields}
    threat = build(Threat, {name: value for name, value in given.items() if name in threat_fields}, where)
    _check_epsilon_is_of_its_norm(threat, "epsilon" in given, where)
    if "step_size" in (field.name for field in dataclasses.fields(cls)):
        relative = values.pop("relative_step_size", None)
        if relative is not None and "step_size" in values:
            raise ValueError(f"{where}: give step_size (pixels) or relative_step_size (times epsilon), not both.")
        num_steps = convert(values.get("num_steps", getattr(cls, "num_steps", 1)), int, f"{where}.num_steps")
        relative = 2.5 / max(num_steps, 1) if relative is None else relative
        relative = convert(relative, float, f"{where}.relative_step_size")
        values.setdefault("step_size", relative * threat.epsilon)
    return {**values, "threat": threat}


def _check_epsilon_is_of_its_norm(threat: Threat, is_given: bool, where: str) -> None:
    """A radius of one norm is nonsense in another, and a norm is easily changed without its radius."""
    if threat.norm == "linf":
        if threat.epsilon > 1:
            raise ValueError(
                f"{where}.epsilon: in norm 'linf' it is a change of each pixel of [0, 1], such as 8/255 = 0.031, got "
                f"{threat.epsilon}. Give a smaller one, or {where}.norm."
            )
    elif not is_given or threat.epsilon <= LARGEST_LINF_DEFAULT:
        got = f"got {threat.epsilon:.3g}, a radius for linf" if is_given else "none was given; the default is of linf"
        length = "length of the whole change" if threat.norm == "l2" else "sum of all changes"
        raise ValueError(f"{where}.epsilon: in norm {threat.norm!r} it is the {length} in pixels, such as 0.5; {got}.")


def fields_of(cls: type) -> set[str]:
    names = {field.name for field in dataclasses.fields(cls)}
    if "threat" in names:
        names = (names - {"threat"}) | fields_of(Threat)
        names |= {"relative_step_size"} if "step_size" in names else set()
    return names


def _kind_of_method(hint: Any) -> tuple[str, dict] | None:
    """Of a field that holds the spec of an attack or a saliency method: what it is called, and its registry.

    Such a field is a section that names the method; the fields of a threat model stand beside an attack's own.
    """
    parts = [part for part in (hint, *typing.get_args(hint)) if isinstance(part, type) and types.is_spec(part)]
    for kind, registry in (("attack", attacks.ATTACKS), ("saliency method", saliency.SALIENCY)):
        if any(issubclass(Spec, part) for Spec, _ in registry.values() for part in parts):
            return kind, registry
    return None


def _is_own(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]


def convert(value: Any, hint: Any, where: str, ranges: Mapping = RANGES) -> Any:
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, where)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, _types.UnionType):
        scalar = next((part for part in parts if part in (float, int, str)), parts[0])
        return convert(value, scalar, where, ranges)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, got {value!r}.")
        inner = [parts[0]] * len(value) if parts[-1] is Ellipsis else list(parts)
        if len(inner) != len(value):
            raise ValueError(f"{where} must have {len(inner)} entries, got {value!r}.")
        return tuple(
            convert(v, part, f"{where}[{i}]", ranges) for i, (v, part) in enumerate(zip(value, inner, strict=True))
        )
    accepted = {float: (int, float), int: (int,), bool: (bool,), str: (str,)}.get(hint)
    if accepted is None:
        raise ValueError(f"{where} cannot be set in a config, only in code.")
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where} must be {TYPE_NAMES[hint]}, got {value!r}.")
    try:
        return _in_range(hint(value), where, ranges)
    except OverflowError:
        raise ValueError(f"{where} must be finite, got a whole number of {len(str(value))} digits.") from None


# What configs use in linf; nobody means so small a radius of another norm.
LARGEST_LINF_DEFAULT = 8 / 255

TYPE_NAMES = {float: "a number", int: "a whole number", bool: "True or False", str: "a text"}


def _in_range(value: Any, where: str, ranges: Mapping) -> Any:
    low, high = ranges.get(where.rpartition(".")[2], (None, None))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} must be finite, got {value}.")
    if (low is not None and value < low) or (high is not None and value > high):
        bound = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"{where} must be {bound}, got {value}.")
    return value


def type_of(name: str) -> type:
    """The plain type of the field ``name`` of any method: what a value that was left out (None) may become."""
    regimes = objectives.OBJECTIVES | objectives.WRAPPERS
    for registry in (attacks.ATTACKS, metrics.METRICS, models.MODELS, regimes, saliency.SALIENCY):
        for Spec, *_ in registry.values():
            for owner in (Spec, Threat, Baseline):
                hint = typing.get_type_hints(owner).get(name)
                plain = {float, int, bool, str} & {hint, *typing.get_args(hint)}
                if plain:
                    return plain.pop()
                if typing.get_origin(hint) is tuple:
                    return tuple
    return float


def known_field(where: str, name: str, choices) -> None:
    try:
        checks.one_of("field", name, choices)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _imported(kind: str, name: str, where: str, registry: Mapping) -> tuple:
    module, _, attribute = name.partition(":")
    try:
        entry = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{where}.name: {name!r} cannot be imported: {error}.") from error
    Spec = entry[0] if isinstance(entry, tuple) and len(entry) > 1 else None
    if not (isinstance(Spec, type) and dataclasses.is_dataclass(Spec)):
        raise ValueError(f"{where}.name: {name!r} must be a tuple (Spec, function), got {entry!r}.")
    if len(entry) != (3 if kind == "metric" else 2):
        expected = "(Spec, function, needs)" if kind == "metric" else "(Spec, function)"
        raise ValueError(f"{where}.name: {name!r} must be a tuple {expected}, got {len(entry)} entries.")
    if kind == "objective" and not isinstance(entry[1], objectives.Objective):
        raise ValueError(
            f"{where}.name: an objective is a tuple (Spec, Objective(perturb, loss)), see robust_saliency.objectives; "
            f"the second of {name!r} is {entry[1]!r}."
        )
    if kind != "objective" and not callable(entry[1]):
        raise ValueError(
            f"{where}.name: the {kind} {name!r} must be a tuple of a spec and a function, got {entry[1]!r} second."
        )
    taken = next((known for known, (other, *_) in registry.items() if other is Spec), None)
    if taken:
        raise ValueError(
            f"{where}.name: the spec {Spec.__name__} of {name!r} is that of {taken!r}; give the method one of its own."
        )
    return entry
