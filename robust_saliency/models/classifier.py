"""What the library knows of a network: :class:`Classifier`, its four modes, and its named layers.

``apply(variables, images, *, mode='eval', key=None, capture=(), edit=None) -> Output``

| mode   | BatchNorm uses     | running statistics | dropout |
| ------ | ------------------ | ------------------ | ------- |
| eval   | running statistics | unchanged          | off     |
| train  | batch statistics   | updated            | on      |
| frozen | running statistics | unchanged          | on      |
| batch  | batch statistics   | unchanged          | off     |

In 'eval' the logits of an example depend on that example alone. ``capture`` names the layers whose activations come
back in ``Output.features``; ``edit={layer: fn}`` puts ``fn(activation)`` in the place of a layer's activation, and
``features`` then holds the edited one. Both can be differentiated: ``edit={layer: lambda _: a}`` makes the logits a
function of ``a``, which is the gradient that Grad-CAM takes.
"""

import dataclasses
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from robust_saliency import checks, randomness
from robust_saliency.types import Array, Images, Key

Variables = Mapping[str, Any]  # {'params': nested dict, 'state': nested dict}
Edit = Mapping[str, Callable[[Any], Any]]


class Output(NamedTuple):
    """``logits [B, K]`` of at least float32; the ``state`` after the pass; ``features`` by layer name."""

    logits: Array
    state: dict[str, Any]
    features: dict[str, Any]


class Classifier(NamedTuple):
    """A network as pure functions; a hand-written pair of functions will do as well as :func:`from_linen`.

    ``init(key) -> {'params', 'state'}``, plain nested dicts of arrays; ``apply`` as described in this module;
    ``layers``: the names that ``capture`` and ``edit`` accept, in the order in which the layers finish, so that a
    block follows its parts and the last name is the layer of the logits; ``image_shape``: ``(H, W, C)``;
    ``with_activation(function)``: the same network with another activation function, None where it is not known which
    functions are activations (see :func:`models.with_activation`).
    """

    init: Callable[[Key], Variables]
    apply: Callable[..., Output]
    layers: tuple[str, ...] = ()
    num_classes: int | None = None
    image_shape: tuple[int, int, int] | None = None
    with_activation: Callable[[Callable[[Array], Array]], "Classifier"] | None = None

    def logits_fn(
        self, variables: Variables, *, mode: str = "eval", key: Key | None = None, edit: Edit | None = None
    ) -> "NetworkLogits":
        """``images [B, H, W, C] -> logits [B, K]``, which also knows its network: see :class:`NetworkLogits`."""
        return NetworkLogits(self, variables, mode, key, edit)


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkLogits:
    """A ``logits_fn(images)`` whose network can be looked into, as Grad-CAM and guided backpropagation must.

    ``output(images, capture, edit)``: the :class:`Output` of the same network in the same mode; ``layers``: what
    capture and edit accept; ``with_activation(function)``: the same weights under another activation function.
    """

    classifier: Classifier
    variables: Variables
    mode: str = "eval"
    key: Key | None = None
    edit: Edit | None = None

    def __call__(self, images: Images) -> Array:
        return self.output(images).logits

    def output(self, images: Images, capture: Container[str] = (), edit: Edit | None = None) -> Output:
        edits = {**(self.edit or {}), **(edit or {})}
        return self.classifier.apply(
            self.variables, images, mode=self.mode, key=self.key, capture=capture, edit=edits or None
        )

    @property
    def layers(self) -> tuple[str, ...]:
        return self.classifier.layers

    def with_activation(self, activation: str | Callable[[Array], Array]) -> "NetworkLogits":
        from robust_saliency.models.surrogate import with_activation

        return dataclasses.replace(self, classifier=with_activation(self.classifier, activation))


def with_frozen_statistics(classifier: Classifier) -> Classifier:
    """The classifier whose mode 'train' is 'frozen': running statistics are used, and stay as they are."""

    def apply(variables, images, *, mode="eval", **options):
        return classifier.apply(variables, images, mode="frozen" if mode == "train" else mode, **options)

    return classifier._replace(apply=apply)


class Mode(NamedTuple):
    """What one of the four modes asks of the layers."""

    dropout: bool
    batch_statistics: bool
    update: bool


MODES = {
    "eval": Mode(dropout=False, batch_statistics=False, update=False),
    "train": Mode(dropout=True, batch_statistics=True, update=True),
    "frozen": Mode(dropout=True, batch_statistics=False, update=False),
    "batch": Mode(dropout=False, batch_statistics=True, update=False),
}


class Pass(NamedTuple):
    """The checked arguments of one forward pass, as an adapter sees them."""

    mode: Mode
    key: Key | None
    capture: Container[str]
    edit: Edit


# (variables, images, a pass) -> raw logits, state after the pass, features, names called in execution order
Forward = Callable[[Variables, Images, Pass], tuple[Array, dict[str, Any], dict[str, Any], list[str]]]


def build(
    init: Callable[[Key], Variables],
    forward: Forward,
    image_shape: tuple[int, int, int],
    num_classes: int | None,
    layers: Iterable[str] | None,
) -> Classifier:
    """The classifier of an adapter's ``init`` and ``forward``; one abstract pass finds its layers and classes."""
    image_shape = check_image_shape(image_shape)
    found, classes = _look_through(init, forward, image_shape, num_classes)
    chosen = found if layers is None else {checks.one_of("layer", name, found) for name in layers}
    layers = tuple(name for name in found if name in chosen)

    def apply(variables, images, *, mode="eval", key=None, capture=(), edit=None):
        _check_images(images, image_shape)
        if key is not None and randomness.is_per_example(key):
            raise ValueError(f"apply takes one key a batch, got an array of {key.shape[0]} keys.")
        if isinstance(capture, str):
            raise ValueError(f"capture must be a tuple of layer names, got the string {capture!r}.")
        edit = dict(edit or {})
        for name in (*capture, *edit):
            checks.one_of("layer", name, layers)
        settings = checks.lookup("mode", mode, MODES)
        variables = _with_state(variables)
        logits, state, features, called = forward(variables, images, Pass(settings, key, tuple(capture), edit))
        for name in (*capture, *edit):
            if name not in called:
                raise ValueError(f"Layer {name!r} is not called in mode {mode!r}.")
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return Output(logits, state if settings.update else variables["state"], {n: features[n] for n in capture})

    return Classifier(init, apply, layers, classes, image_shape)


def _with_state(variables: Variables) -> Variables:
    """Those of a Linen module's own ``init`` too, whose collections stand beside 'params'."""
    if "params" not in variables:
        raise ValueError(f"variables must hold 'params', got {', '.join(map(repr, variables)) or 'nothing'}.")
    if "state" in variables:
        return variables
    return {"params": variables["params"], "state": {name: variables[name] for name in variables if name != "params"}}


def missing_key(layer: str) -> ValueError:
    """The error of a pass that draws random numbers in ``layer`` and was given no key."""
    return ValueError(
        f"Layer {layer!r} draws random numbers (dropout) in this mode: give apply(..., key=jax.random.key(seed))."
    )


def check_image_shape(image_shape: Iterable[int]) -> tuple[int, int, int]:
    """``image_shape`` as a tuple, or ValueError unless it is ``(height, width, channels)``."""
    shape = tuple(image_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"image_shape must be (height, width, channels), all positive, got {shape}.")
    return shape


def _check_images(images, image_shape):
    checks.floating("images", images)
    if images.ndim != 4 or images.shape[-1] != image_shape[-1]:
        raise ValueError(f"images must be [B, height, width, {image_shape[-1]}], got shape {tuple(images.shape)}.")


class _Everything:
    def __contains__(self, name):
        return True


def _look_through(init, forward, image_shape, num_classes):
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    layers = []

    def record(variables, images):
        logits, _, features, called = forward(variables, images, Pass(MODES["eval"], None, _Everything(), {}))
        layers.extend(name for name in called if name in features)
        return logits

    variables = jax.eval_shape(init, jax.random.key(0))
    logits = jax.eval_shape(record, variables, images)
    if not hasattr(logits, "shape") or len(logits.shape) != 2 or num_classes not in (None, logits.shape[-1]):
        expected = "K" if num_classes is None else num_classes
        got = jax.tree.map(lambda leaf: leaf.shape, logits)
        raise ValueError(f"The network must return logits [B, {expected}], got shape {got} for one image.")
    return tuple(layers), logits.shape[-1]
