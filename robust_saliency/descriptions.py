"""Methods in words, for a reader who has never seen them: what they do, and with which settings."""

import dataclasses
import math

from robust_saliency import attacks, metrics, objectives, saliency
from robust_saliency.baselines import Baseline
from robust_saliency.config import Experiment
from robust_saliency.config_fields import Method
from robust_saliency.threat import Threat

# Of their attack training takes the threat model alone.
_STEPS_OF_THEIR_OWN = (objectives.FGSMRS, objectives.Free, objectives.GradAlign, objectives.NFGSM)
_NOT_SAID = ("bounds", "chunk_size", "max_images", "unroll")


def described(method: Method) -> str:
    """'The gradient of the score ... Here: gradient: score logit, sign abs.'"""
    return f"{_definition(method.spec)} Here: {sentence(method)}"


def training(experiment: Experiment) -> str:
    """What a network was trained for: the objective of each phase, with what stands around it."""
    labels = [phase["label"] for phase in experiment.plain.get("phases") or ()]
    parts = [part.objective for _, part in experiment.phases] + [experiment.objective]
    if len(parts) == 1:
        return _objective(parts[0])
    return " ".join(f"Phase {label}: {_objective(part)}" for label, part in zip(labels, parts, strict=True))


def _objective(method: Method) -> str:
    wrappers, spec = [], method.spec
    while hasattr(spec, "wrapper"):
        own = [words for field in dataclasses.fields(spec) if field.name != "inner" for words in _field(spec, field)]
        wrappers.append(f" Inside {spec.wrapper}: {_definition(spec)} Here: {', '.join(own)}.")
        spec = spec.inner
    return described(method._replace(spec=spec)) + "".join(reversed(wrappers))


def sentence(method: Method) -> str:
    """A method's spec in words: 'pgd: norm linf, epsilon 4/255, step_size 0.5/255, num_steps 20.'"""
    return f"{method.name}: {', '.join(_words(method.spec)) or 'no settings'}."


def kind(method: Method) -> str:
    """Of a map: 'signed' or 'magnitude'."""
    return "signed" if getattr(method.spec, "sign", "abs") == "signed" else "magnitude"


def facts(method: Method) -> dict:
    """What a report says of a metric: title, direction, range, definition, its name in the registry and its settings,
    what becomes of tied pixels ('' where no order is read), and whether it judges a map or a network."""
    low, high = method.spec.range
    return {
        "title": method.spec.title,
        "direction": method.spec.direction,
        "low": low if math.isfinite(low) else None,
        "high": high if math.isfinite(high) else None,
        "description": _definition(method.spec),
        "name": method.name,
        "settings": settings(method.spec),
        "ties": getattr(method.spec, "ties", ""),
        "of_map": "maps" in method.needs,
    }


def settings(spec) -> dict[str, str]:
    """Every field of a spec as it was used, in words, by its name: {'sign': 'abs', 'baseline': 'blur of sigma 4'}.

    Fields left at their defaults too; without those to which the others leave no meaning.
    """
    found = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if isinstance(value, Baseline | metrics.Noise):
            found[field.name] = _baseline(value) if isinstance(value, Baseline) else _noise(value)
        elif dataclasses.is_dataclass(value):
            found |= {f"{field.name}.{name}": words for name, words in settings(value).items()}
        elif _is_read(spec, field.name):
            found[field.name] = _number(value) if isinstance(value, float) else str(value)
    return found


def _definition(spec) -> str:
    return (type(spec).__doc__ or "").strip().splitlines()[0].replace("``", "")


def _words(spec) -> list[str]:
    return [words for field in dataclasses.fields(spec) for words in _field(spec, field)]


def _field(spec, field: dataclasses.Field) -> list[str]:
    value = getattr(spec, field.name)
    if isinstance(value, Baseline):
        return [f"{field.name} {_baseline(value)}"]
    if isinstance(value, metrics.Noise):
        return [_noise(value)]
    if field.name == "attack" and isinstance(spec, _STEPS_OF_THEIR_OWN):
        return [*_words(value.threat), f"validated with an attack of {getattr(value, 'num_steps', 1)} steps"]
    if dataclasses.is_dataclass(value):
        return _nested(field.name, value)
    if field.name in _NOT_SAID or value is None or value == () or not _is_read(spec, field.name):
        return []
    return [f"{field.name} {_number(value) if isinstance(value, float) else value}"]


def _nested(field: str, spec) -> list[str]:
    """The settings of a spec in a spec; of a saliency method, which one it is too."""
    named = [f"{field} {name}" for name, (Spec, _) in saliency.SALIENCY.items() if type(spec) is Spec]
    return named + _words(spec)


def _baseline(baseline: Baseline) -> str:
    own = {"blur": f" of sigma {baseline.blur_sigma}", "constant": f" {baseline.value}"}
    return baseline.kind + own.get(baseline.kind, "")


def _noise(noise: metrics.Noise) -> str:
    return f"{noise.num_samples} draws of {noise.kind} noise of scale {_number(noise.scale)}"


def _is_read(spec, field: str) -> bool:
    """Whether the other settings leave this one a meaning."""
    if isinstance(spec, Threat):
        return field != "projection" or spec.norm != "linf"
    if field == "clean_weight":
        return getattr(spec, "include_clean", True)
    if isinstance(spec, metrics.Infidelity):
        return {"sigma": spec.perturbation == "noise", "most_side": spec.perturbation == "squares"}.get(field, True)
    if field in ("eot_samples", "num_restarts", "rule", "shrink_epsilon") and not isinstance(spec, attacks.AutoAttack):
        return getattr(spec, field) not in (0, 1, False, "steepest")
    if isinstance(spec, objectives.SCAAT):
        return {"quantile": spec.protect == "rank", "energy": spec.protect == "energy"}.get(field, True)
    if isinstance(spec, attacks.AutoAttack):
        return field != "eot_samples" or spec.version == "rand"
    if isinstance(spec, attacks.PGD | attacks.APGD):
        unread = {"sparsity": spec.threat.norm != "l1", "start_scale": spec.start != "gaussian"}
        unread["schedule"] = getattr(spec, "schedule", "") == "constant"
        return not unread.get(field, False)
    return True


def _number(value: float) -> str:
    """A short decimal as it is, a multiple of a hundredth of 1/255 as '4/255', else four digits."""
    short = f"{value:.4g}"
    if float(short) == value:
        return short
    levels = round(255 * value, 2)
    return f"{levels:g}/255" if levels and math.isclose(levels / 255, value, rel_tol=1e-6) else short
