"""Flax NNX networks as classifiers."""

import contextlib
import contextvars
import functools
import inspect
import operator
from collections.abc import Callable, Iterable

import flax
import jax
import jax.numpy as jnp
from flax import nnx

from robust_saliency.models import hooks
from robust_saliency.models.classifier import Classifier, build, missing_key
from robust_saliency.models.convolution import conv_general_dilated

_KINDS = (nnx.Param, nnx.RngState, ...)


def from_nnx(
    make_model: Callable[[nnx.Rngs], nnx.Module],
    image_shape: tuple[int, int, int],
    num_classes: int | None = None,
    layers: Iterable[str] | None = None,
) -> Classifier:
    """Any NNX network, given as ``make_model(rngs) -> module``, that maps images ``[B, H, W, C]`` to logits ``[B, K]``.

    A ``module`` that is trained already is given as ``lambda rngs: module``; ``init`` then returns its weights.

    Its ``__call__`` may take ``rngs`` (an ``nnx.Rngs`` made of ``key``), and ``train``, ``training``, ``is_training``,
    ``deterministic`` or ``use_running_average``, or none of them: ``nnx.BatchNorm``, ``nnx.Dropout`` and
    ``nnx.MultiHeadAttention`` are put into the mode wherever they stand, whatever their caller said, and so are the
    attributes ``deterministic`` and ``use_running_average`` of the user's own modules. ``nnx.Conv`` takes the
    convolution of :mod:`robust_saliency.models.convolution` where it was given none of its own.

    Every submodule is a layer, named by its path ('blocks/0/conv'); ``layers`` narrows them down to the names given.
    ``nnx.Param`` are the params, other variables the state. Streams of random numbers are in neither: they are made
    afresh from ``key`` in each pass. Submodules called inside ``nnx.remat``, ``nnx.scan`` and ``nnx.vmap`` cannot be
    captured or edited and are not listed.

    Raises:
      ValueError: the network does not return logits ``[B, num_classes]``; unknown names in ``layers``.
    """
    abstract = nnx.eval_shape(lambda: make_model(nnx.Rngs(0)))
    graph, *templates = nnx.split(abstract, *_KINDS)
    call = type(abstract).__call__

    def init(key):
        params, _, state = nnx.state(make_model(nnx.Rngs(key)), *_KINDS)
        return {"params": _to_dict(params), "state": _to_dict(state)}

    def forward(variables, images, settings):
        params, streams, state = templates
        parts = _fill(params, variables["params"]), _streams(streams, settings.key), _fill(state, variables["state"])
        # A merged copy: variables may only be written in the trace in which they were made.
        model = nnx.merge(graph, *parts, copy=True)
        arguments = hooks.flags(call, settings.mode)
        if "rngs" in inspect.signature(call).parameters:
            arguments["rngs"] = nnx.Rngs(jax.random.key(0) if settings.key is None else settings.key)
        if settings.key is None:
            _take_keys_away((model, arguments.get("rngs")))
        visits, features = hooks.Visits(settings), {}
        with _visiting(model, visits, features):
            logits = model(images, **arguments)
        _, _, changed = nnx.state(model, *_KINDS)
        return logits, _to_dict(changed, like=state), features, visits.names

    def with_activation(function):
        def make_with_activation(rngs):
            model = make_model(rngs)
            for module in _with_own_activation(model):
                module.activation = function
            return model

        return from_nnx(make_with_activation, image_shape, num_classes, layers)

    classifier = build(init, forward, image_shape, num_classes, layers)
    return classifier._replace(with_activation=with_activation if _with_own_activation(abstract) else None)


def _with_own_activation(model):
    return [module for _, module in nnx.iter_modules(model) if callable(getattr(module, "activation", None))]


_SWITCH = {
    nnx.BatchNorm: "use_running_average",
    nnx.Dropout: "deterministic",
    nnx.MultiHeadAttention: "deterministic",
}
_VISIT = contextvars.ContextVar("visit", default=None)


@contextlib.contextmanager
def _visiting(model, visits, features):
    """Puts ``model`` into the mode and sends the calls of its submodules through ``visits``.

    Each submodule gets a subclass with a ``__call__`` of its own, which leaves the paths of the state as they are. The
    copies that nnx.remat, scan and vmap make of a submodule are not in ``paths``: nothing is captured inside those.
    """
    switches, paths = hooks.switches(visits.settings.mode), {}
    for path, module in list(nnx.iter_modules(model)):
        for name, value in switches.items():
            if hasattr(module, name):
                setattr(module, name, value)
        if isinstance(module, nnx.Conv) and module.conv_general_dilated is jax.lax.conv_general_dilated:
            module.conv_general_dilated = conv_general_dilated
        if callable(module):
            paths[id(module)] = path
            module.__class__ = _visited(type(module))

    def visit(module, call, args, kwargs):
        for kind, name in _SWITCH.items():
            if isinstance(module, kind):
                args, kwargs = hooks.with_argument(call, args, kwargs, name, switches[name])
        if id(module) not in paths:
            return call(*args, **kwargs)
        path = paths[id(module)]
        try:
            output = call(*args, **kwargs)
        except _NoKey:
            raise missing_key("/".join(map(str, path)) or type(module).__name__) from None
        return visits.finish(path, output, features.__setitem__)

    token = _VISIT.set(visit)
    try:
        yield
    finally:
        _VISIT.reset(token)


@functools.cache
def _visited(kind):
    def __call__(self, *args, **kwargs):
        call, visit = functools.partial(kind.__call__, self), _VISIT.get()
        return call(*args, **kwargs) if visit is None else visit(self, call, args, kwargs)

    return type(kind)(kind.__name__, (kind,), {"__call__": __call__})


class _NoKey(Exception):
    pass


class _KeylessStream(nnx.RngStream):
    def __call__(self):
        raise _NoKey


def _take_keys_away(nodes):
    for _, node in list(nnx.iter_graph(nodes)):
        if isinstance(node, nnx.RngStream):
            node.__class__ = _KeylessStream


def _streams(template, key):
    """The model's streams of random numbers, each with a key of its own and its count at zero."""
    key = jax.random.key(0) if key is None else key
    fresh = {}
    for index, (path, leaf) in enumerate(nnx.to_flat_state(template)):
        shape = leaf.get_value().shape
        if isinstance(leaf, nnx.RngKey):
            fresh[path] = leaf.replace(jax.random.split(jax.random.fold_in(key, index), shape))
        else:
            fresh[path] = leaf.replace(jnp.zeros(shape, leaf.get_value().dtype))
    return nnx.from_flat_state(fresh)


def _to_dict(state, like=None):
    """A plain nested dict with string keys of the variables of ``state``, or of those that ``like`` has too."""
    paths = None if like is None else {path for path, _ in nnx.to_flat_state(like)}
    flat = {tuple(map(str, p)): v.get_value() for p, v in nnx.to_flat_state(state) if paths is None or p in paths}
    return flax.traverse_util.unflatten_dict(flat)


def _fill(template, values):
    """The state ``template`` with the arrays of the plain nested dict ``values``."""
    filled = {
        path: leaf.replace(functools.reduce(operator.getitem, map(str, path), values))
        for path, leaf in nnx.to_flat_state(template)
    }
    return nnx.from_flat_state(filled)
