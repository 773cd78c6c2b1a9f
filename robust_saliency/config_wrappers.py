"""What stands around an objective: ``config.objective.wrappers`` and a section for each wrapper."""

import dataclasses
from collections.abc import Mapping, Sequence

from robust_saliency import checks
from robust_saliency.config_fields import Method, build, choose, convert, fields_of, known_field
from robust_saliency.objectives import OBJECTIVES, WRAPPERS

WHERE = "config.objective"


def objective_of(section: Mapping, trained: Sequence[str] = ()) -> Method:
    """The objective that ``section`` names, inside the wrappers that it names, the first innermost.

    trained: the patterns of the parameters that train, for wrappers with a field ``trainable`` that names none.
    """
    own = {name: value for name, value in section.items() if name != "wrappers" and name not in WRAPPERS}
    method = choose("objective", OBJECTIVES, own, WHERE)
    settings = {name: _settings(name, section.get(name)) for name in WRAPPERS}
    for name, given in settings.items():
        if "trainable" in fields_of(WRAPPERS[name][0]):
            given["trainable"] = given.get("trainable") or list(trained)
    names = convert(section.get("wrappers") or (), tuple[str, ...], f"{WHERE}.wrappers")
    for place, name in enumerate(names):
        _, wrap = checks.lookup(f"wrapper in {WHERE}.wrappers", name, WRAPPERS)
        if name in names[:place]:
            raise ValueError(f"{WHERE}.wrappers: each may stand there once, got {name!r} twice in {list(names)}.")
        spec = _around(method.spec, name, settings[name])
        try:
            method = method._replace(spec=spec, function=wrap(method.function))
        except ValueError as error:
            raise ValueError(f"{WHERE}.wrappers: {error}") from error
    return method


def _settings(name: str, section) -> dict:
    """The fields of a wrapper's section; those of a wrapper that is not used are looked at too."""
    section = {} if section is None else section
    if not isinstance(section, Mapping):
        raise ValueError(f"{WHERE}.{name} must be a section, got {section!r}.")
    for field in section:
        known_field(f"{WHERE}.{name}", field, fields_of(WRAPPERS[name][0]) - {"inner"})
    return dict(section)


def _around(inner, name: str, settings: dict):
    spec = build(WRAPPERS[name][0], settings, f"{WHERE}.{name}")
    try:
        return dataclasses.replace(spec, inner=inner)
    except ValueError as error:
        raise ValueError(f"{WHERE}.wrappers: {error}") from error
