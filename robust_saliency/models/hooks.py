"""What the two adapters share: the flags a network's call may take, and the visit of each submodule call."""

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

from robust_saliency.models.classifier import Mode, Pass


def switches(mode: Mode) -> dict[str, bool]:
    """The two switches of Flax's own layers (dropout and attention; BatchNorm) in ``mode``."""
    return {"deterministic": not mode.dropout, "use_running_average": not mode.batch_statistics}


def flags(call: Callable, mode: Mode) -> dict[str, bool]:
    """The keyword arguments that put a user's network into ``mode``, as far as its ``call`` has them."""
    known = switches(mode) | dict.fromkeys(("train", "training", "is_training"), mode.dropout)
    parameters = inspect.signature(call).parameters
    return {name: value for name, value in known.items() if name in parameters}


def with_argument(call: Callable, args: tuple, kwargs: dict, name: str, value: Any) -> tuple[tuple, dict]:
    """The arguments of ``call`` with the argument ``name`` replaced, however it was given."""
    bound = inspect.signature(call).bind(*args, **kwargs)
    bound.arguments[name] = value
    return bound.args, bound.kwargs


class Visits:
    """The submodule calls of one pass, in the order in which they finish.

    A submodule is named by its path, the network itself 'output', the second call of a submodule 'path#2'. The
    network's own call is no layer where it returns what its last submodule returned.
    """

    def __init__(self, settings: Pass):
        self.settings = settings
        self.names: list[str] = []
        self._calls = Counter()
        self._last = None

    def finish(self, path: tuple, output: Any, keep: Callable[[str, Any], None]) -> Any:
        """The activation of the call that just finished, edited where asked, and given to ``keep`` where captured."""
        if not path and self.names and output is self._last:
            return output
        name = "/".join(map(str, path)) or "output"
        self._calls[name] += 1
        if self._calls[name] > 1:
            name = f"{name}#{self._calls[name]}"
        self.names.append(name)
        if name in self.settings.edit:
            output = self.settings.edit[name](output)
        if name in self.settings.capture:
            keep(name, output)
        self._last = output
        return output
