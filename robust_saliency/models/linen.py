"""Flax Linen networks as classifiers."""

import contextlib
from collections.abc import Iterable

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn

from robust_saliency.models import hooks
from robust_saliency.models.classifier import MODES, Classifier, Pass, build, missing_key
from robust_saliency.models.convolution import conv_general_dilated

_FEATURES = "robust_saliency_features"


def from_linen(
    module: nn.Module,
    image_shape: tuple[int, int, int],
    num_classes: int | None = None,
    layers: Iterable[str] | None = None,
) -> Classifier:
    """Any Linen ``module`` that maps images ``[B, H, W, C]`` in [0, 1] to logits ``[B, K]``.

    Its ``__call__`` may take ``train``, ``training``, ``is_training``, ``deterministic`` or ``use_running_average``,
    or none of them: ``nn.BatchNorm``, ``nn.Dropout`` and ``nn.MultiHeadDotProductAttention`` are put into the mode
    wherever they stand, whatever their constructor or caller said. A normalisation of the user's own follows the flag.
    ``nn.Conv`` takes the convolution of :mod:`robust_saliency.models.convolution` where it was given none of its own.

    Every submodule is a layer, named by its path ('block1/conv'); ``layers`` narrows them down to the names given.
    Collections other than 'params' make up the state, ``{"params": ..., "state": {"batch_stats": ...}}``; variables as
    ``module.init`` gives them, or as you trained them, are taken as they are. Random layers draw from ``key``.
    Submodules inside ``nn.scan`` and ``nn.vmap`` cannot be captured or edited and are not listed.

    Raises:
      ValueError: the module does not return logits ``[B, num_classes]``; unknown names in ``layers``.
    """
    call = type(module).__call__

    def init(key):
        settings = Pass(MODES["eval"], key, (), {})
        images = jnp.zeros((1, *image_shape), jnp.float32)
        with nn.intercept_methods(_interceptor(hooks.Visits(settings))):
            variables = module.init(key, images, **hooks.flags(call, settings.mode))
        state = nn.meta.unbox(flax.core.unfreeze(variables))
        return {"params": state.pop("params", {}), "state": state}

    def forward(variables, images, settings):
        visits = hooks.Visits(settings)
        state = dict(variables["state"])
        with nn.intercept_methods(_interceptor(visits)):
            logits, changed = module.apply(
                {"params": variables["params"], **state},
                images,
                rngs=_streams(settings.key),
                mutable=[*state, _FEATURES],
                **hooks.flags(call, settings.mode),
            )
        changed = flax.core.unfreeze(changed)
        kept = flax.traverse_util.flatten_dict(changed.pop(_FEATURES, {}))
        features = {path[-1].removeprefix("@"): value for path, (value,) in kept.items()}
        return logits, state | changed, features, visits.names

    def with_activation(function):
        return from_linen(module.clone(activation=function), image_shape, num_classes, layers)

    has_activation = callable(getattr(module, "activation", None))
    classifier = build(init, forward, image_shape, num_classes, layers)
    return classifier._replace(with_activation=with_activation if has_activation else None)


def _streams(key):
    if key is None:
        return {}
    # Linen falls back to 'params' for every stream that is not named, such as one for stochastic depth.
    return {"dropout": key, "params": jax.random.fold_in(key, 1)}


_SWITCH = {
    nn.BatchNorm: "use_running_average",
    nn.Dropout: "deterministic",
    nn.MultiHeadDotProductAttention: "deterministic",
}


def _interceptor(visits):
    switches = hooks.switches(visits.settings.mode)

    def intercept(next_fun, args, kwargs, context):
        module = context.module
        if isinstance(module, nn.Conv) and module.conv_general_dilated is module.conv_general_dilated_cls is None:
            next_fun = _with_our_convolution(module, next_fun)
        if context.method_name != "__call__":
            return next_fun(*args, **kwargs)
        name = next((name for kind, name in _SWITCH.items() if isinstance(module, kind)), None)
        try:
            if name is None:
                output = next_fun(*args, **kwargs)
            else:
                args, kwargs = hooks.with_argument(context.orig_method, args, kwargs, name, None)
                with _attribute(module, name, switches[name]):
                    output = next_fun(*args, **kwargs)
        except flax.errors.InvalidRngError:
            raise missing_key("/".join(module.path) or type(module).__name__) from None
        # sow and not a plain dict: it carries the value out of lifted transforms such as nn.remat.
        return visits.finish(module.path, output, lambda name, value: module.sow(_FEATURES, f"@{name}", value))

    return intercept


def _with_our_convolution(module, next_fun):
    def call(*args, **kwargs):
        with _attribute(module, "conv_general_dilated", conv_general_dilated):
            return next_fun(*args, **kwargs)

    return call


@contextlib.contextmanager
def _attribute(module, name, value):
    """Replaced for one call: a switch, which Linen refuses from both constructor and call, or what it computes with."""
    given = getattr(module, name)
    object.__setattr__(module, name, value)
    try:
        yield
    finally:
        object.__setattr__(module, name, given)
