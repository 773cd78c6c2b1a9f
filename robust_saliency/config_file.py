"""The config that a command line names: 'file.py' or 'file.py:argument', and the fields set on top of it."""

import difflib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

from robust_saliency.config_fields import TYPE_NAMES, known_field, type_of


def load(value: str) -> Any:
    """What ``get_config`` of the file returns, called with the text after the colon where there is one.

    Raises ValueError, one sentence: no such file (with the near match), no ``get_config``, an argument too many or
    too few, or what went wrong inside the file and in which line.
    """
    file, colon, argument = value.partition(":")
    get_config = getattr(_module(file), "get_config", None)
    if not callable(get_config):
        raise ValueError(f"{file} is no config: it has no function get_config().")
    arguments = [argument] if colon else []
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError:
        problem = f"takes no argument, got {argument!r} after the colon" if colon else f"needs an argument: {file}:NAME"
        raise ValueError(f"--config={value}: get_config of {file} {problem}.") from None
    try:
        config = get_config(*arguments)
    except Exception as error:
        raise ValueError(f"--config={value}: {_said(error, file)}") from error
    if not hasattr(config, "to_dict"):
        raise ValueError(f"--config={value}: get_config of {file} must return a ConfigDict, got {config!r}.")
    return config


def check_overrides(config: Mapping, words: Iterable[str]) -> None:
    """Raises ValueError, naming the near match and the choices, for a field ``--config.a.b`` that is not there."""
    for name in overrides(words):
        _owner(config, name)


def overrides(words: Iterable[str]) -> list[str]:
    """The fields ``config.a.b`` that are set on a command line."""
    names = [word.lstrip("-").partition("=")[0].removeprefix("no") for word in words if word.startswith("-")]
    return [name for name in names if name.startswith(("config.", "config["))]


def wrong_value(config: Mapping, message: str) -> str:
    """What the ``message`` of a flag that could not be read says, with the type that its field has."""
    flag = re.match(r"flag --(config\.[^=]+)=(.*?): ", message, re.DOTALL)
    if flag is None:
        return message
    name, value = flag.groups()
    section, field = _owner(config, name)
    now = section[field]
    if isinstance(now, Mapping):
        return f"{name} is a section with the fields {', '.join(sorted(now))}; set one of them, not the whole."
    kind = type_of(str(field)) if now is None else type(now)
    return f"{name} must be {TYPE_NAMES[kind]}, got {value!r}." if kind in TYPE_NAMES else message


def _owner(config: Mapping, name: str) -> tuple[Any, Any]:
    """The section, or list, that holds the field ``config.a.b[0].c``, and the field's name or index in it."""
    section, field, done = {"config": config}, "config", "config"
    for dot, index, following in re.findall(r"(\.)?(?:\[(\d+)\]|([^.\[\]]+))", name.removeprefix("config")):
        section, field = section[field], following or int(index)
        if not isinstance(section, Mapping if following else list):
            raise ValueError(f"{done} is no {'section' if following else 'list'}: {name} cannot be set.")
        if following:
            known_field(done, field, section)
        elif field >= len(section):
            raise ValueError(f"{done} has {len(section)} entries: {name} cannot be set.")
        done += f"{dot}{field}" if following else f"[{field}]"
    return section, field


def _module(file: str) -> Any:
    if not os.path.isfile(file):
        folder = os.path.dirname(file) or "."
        there = [os.path.join(folder, name) for name in os.listdir(folder)] if os.path.isdir(folder) else []
        near = difflib.get_close_matches(file, there, n=1)
        raise ValueError(f"--config={file}: there is no such file.{f' Did you mean {near[0]}?' if near else ''}")
    spec = importlib.util.spec_from_file_location("_config_file", file)
    if spec is None:
        raise ValueError(f"--config={file}: a config is a Python file, its name ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"--config={file}: {_said(error, file)}") from error
    return module


def _said(error: Exception, file: str) -> str:
    """A sentence raised on purpose as it is; any other error with its kind and its line in the config."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(file)]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    if isinstance(error, ValueError) and str(error).endswith("."):
        return str(error)
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {getattr(error, 'msg', None) or error}."
