"""Methods in words, for a reader who has never seen them: what they do, and with which settings."""

import dataclasses
import math

from robust_saliency import attacks, objectives, saliency
from robust_saliency.baselines import Baseline
from robust_saliency.config_fields import Method
from robust_saliency.threat import Threat

_NOT_SAID = ("bounds", "chunk_size", "max_images", "unroll")


def described(method: Method) -> str:
    """'The gradient of the score ... Here: gradient: score logit, sign abs.'"""
    definition = (type(method.spec).__doc__ or "").strip().splitlines()[0].replace("``", "")
    return f"{definition} Here: {sentence(method)}"


def sentence(method: Method) -> str:
    """A method's spec in words: 'pgd: norm linf, epsilon 4/255, step_size 0.5/255, num_steps 20.'"""
    return f"{method.name}: {', '.join(_words(method.spec)) or 'no settings'}."


def kind(method: Method) -> str:
    """Of a map: 'signed' or 'magnitude'."""
    return "signed" if getattr(method.spec, "sign", "abs") == "signed" else "magnitude"


def facts(method: Method) -> dict:
    """What a report says of a metric: title, direction, range, and its definition."""
    low, high = method.spec.range
    return {
        "title": method.spec.title,
        "direction": method.spec.direction,
        "low": low if math.isfinite(low) else None,
        "high": high if math.isfinite(high) else None,
        "description": described(method),
    }


def _words(spec) -> list[str]:
    words = []
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if dataclasses.is_dataclass(value):
            words += [f"{field.name} {_baseline(value)}"] if isinstance(value, Baseline) else _nested(field.name, value)
        elif field.name not in _NOT_SAID and value is not None and _is_read(spec, field.name):
            words.append(f"{field.name} {_number(value) if isinstance(value, float) else value}")
    return words


def _nested(field: str, spec) -> list[str]:
    """The settings of a spec in a spec; of a saliency method, which one it is too."""
    named = [f"{field} {name}" for name, (Spec, _) in saliency.SALIENCY.items() if type(spec) is Spec]
    return named + _words(spec)


def _baseline(baseline: Baseline) -> str:
    own = {"blur": f" of sigma {baseline.blur_sigma}", "constant": f" {baseline.value}"}
    return baseline.kind + own.get(baseline.kind, "")


def _is_read(spec, field: str) -> bool:
    """Whether the other settings leave this one a meaning."""
    if isinstance(spec, Threat):
        return field != "projection" or spec.norm != "linf"
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
