"""Adversarial training with a consistent loss: an adversary shall be represented like its clean image."""

import jax
import jax.numpy as jnp

from robust_saliency import attacks, checks, losses
from robust_saliency.objectives.adversarial import ATTACK_MODES
from robust_saliency.objectives.attack_checks import check_steps
from robust_saliency.objectives.feature_distances import FEATURE_DISTANCES
from robust_saliency.objectives.types import Objective, accuracy, mean
from robust_saliency.types import Scalar, spec

TARGETS = ("least_likely", "untargeted")
GRADIENTS = ("adversarial", "both", "clean")


@spec
class Consistent:
    """``a CE(f(x), y) + (1 - a) CE(f(x'), y) + b sum_l w_l d(phi_l(x), phi_l(x'))``, phi_l the activation of layer l.

    Source: Dong et al. 2017 (1708.05493), figure 1, and 2019 (1901.09035): clean and adversarial image go through the
    same network, whose class scores and last convolutional block enter the loss; their adversaries are FGSM and the
    iterative least-likely class. The equation and every number are a reconstruction:

    attack: who makes x'; one step of FGSM by default, PGD with target='least_likely' is the iterative one.
    target: 'untargeted' raises ``CE(f(x'), y)``; 'least_likely' lowers ``CE(f(x'), k)``, k the class of the clean
        image's smallest logit (Kurakin et al. 2017, 1607.02533, equation 4).
    attack_mode: what BatchNorm does while the adversary and its target are sought: 'eval' or 'batch'.
    clean_weight: a. 0 trains on adversarial images only.
    consistency_weight: b. 0 is adversarial training with clean images.
    layers: the layers l; () = the last one whose activation is a map, such as the last block of convolutions.
    layer_weights: w_l, at least 0, one a layer; () = 1 each.
    feature_distance: d, averaged over examples: 'l2' the mean squared difference, 'l2_sum' its sum over the layer,
        'normalised' by the squared lengths, 'cosine'; see :mod:`robust_saliency.objectives.feature_distances`. Smaller
        activations lower the first two: with a large b they starve the classes; the last two do not reward them.
    gradient_into: the pass that d teaches: 'both', 'adversarial' (the clean activation is a constant) or 'clean'.
    """

    attack: attacks.PGD | attacks.FGSM = attacks.FGSM()
    target: str = "untargeted"
    attack_mode: str = "eval"
    clean_weight: Scalar = 0.5
    consistency_weight: Scalar = 1.0
    layers: tuple[str, ...] = ()
    layer_weights: tuple[float, ...] = ()
    feature_distance: str = "l2"
    gradient_into: str = "both"

    def __post_init__(self):
        check_steps(self)
        checks.one_of("target", self.target, TARGETS)
        checks.one_of("attack_mode", self.attack_mode, ATTACK_MODES)
        checks.one_of("feature_distance", self.feature_distance, FEATURE_DISTANCES)
        checks.one_of("gradient_into", self.gradient_into, GRADIENTS)
        if isinstance(self.layers, str):
            raise ValueError(f"Consistent.layers must be a tuple of layer names, got the string {self.layers!r}.")
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"Consistent.layers names a layer twice: {', '.join(self.layers)}.")
        count = max(len(self.layers), 1)
        if len(self.layer_weights) not in (0, count):
            raise ValueError(
                f"Consistent.layer_weights must hold one number a layer, {count}, got {self.layer_weights}."
            )
        if not all(weight >= 0 for weight in self.layer_weights):
            raise ValueError(f"Consistent.layer_weights must be at least 0, got {self.layer_weights}.")


def check(classifier, spec):
    """Raises ValueError for layers that the network does not have, or whose activations are no arrays."""
    for name in spec.layers:
        checks.one_of("layer of the network in objective.layers", name, classifier.layers)
    if classifier.image_shape is not None:
        images = jax.ShapeDtypeStruct((1, *classifier.image_shape), jnp.float32)
        _compared(classifier, jax.eval_shape(classifier.init, jax.random.key(0)), images, spec)


def perturb(classifier, variables, key, batch, spec):
    """Adds ``adversarial`` images to the batch."""
    logits_fn, labels = classifier.logits_fn(variables, mode=spec.attack_mode), batch["label"]
    sign = 1
    if spec.target == "least_likely":
        sign, labels = -1, jnp.argmin(logits_fn(batch["image"]), axis=-1).astype(labels.dtype)

    def loss_fn(images):
        return sign * losses.cross_entropy(logits_fn(images), labels)

    return {**batch, "adversarial": attacks.run(loss_fn, key, batch["image"], spec.attack)}


def loss(classifier, variables, carry, key, batch, spec):
    """Clean and adversarial images pass separately, each with its own batch statistics; the latter's are kept."""
    layers = _compared(classifier, variables, batch["image"], spec)

    def pass_of(images):
        output = classifier.apply(variables, images, mode="train", key=key, capture=layers)
        return output, mean(losses.cross_entropy(output.logits, batch["label"]), batch)

    output, value = pass_of(batch["adversarial"])
    clean, clean_value = pass_of(batch["image"])
    inconsistency = mean(_inconsistency(clean.features, output.features, layers, spec), batch)
    value = (1 - spec.clean_weight) * value + spec.clean_weight * clean_value
    value = value + spec.consistency_weight * inconsistency
    metrics = {
        "loss": value,
        "robust_accuracy": accuracy(output.logits, batch),
        "accuracy": accuracy(clean.logits, batch),
        "inconsistency": inconsistency,
    }
    return value, (output.state, metrics)


def _inconsistency(clean, adversarial, layers, spec):
    """``sum_l w_l d(phi_l(x), phi_l(x'))`` per example, ``[B]``."""
    if spec.gradient_into == "adversarial":
        clean = jax.lax.stop_gradient(clean)
    if spec.gradient_into == "clean":
        adversarial = jax.lax.stop_gradient(adversarial)
    distance, weights = FEATURE_DISTANCES[spec.feature_distance], spec.layer_weights or (1.0,) * len(layers)
    pairs = zip(layers, weights, strict=True)
    return sum(weight * distance(clean[name], adversarial[name]) for name, weight in pairs)


def _compared(classifier, variables, images, spec):
    """The layers of ``spec``; of none the last one whose activation is a map (a block follows its parts)."""

    def features(variables, images):
        return classifier.apply(variables, images, capture=spec.layers or classifier.layers).features

    shapes = jax.eval_shape(features, variables, images)
    axes = {name: len(getattr(shape, "shape", ())) for name, shape in shapes.items()}
    bad = [name for name in spec.layers if not axes[name]]
    if bad:
        raise ValueError(f"objective.layers: {bad[0]!r} gives {type(shapes[bad[0]]).__name__}, not one array.")
    maps = [name for name in classifier.layers if axes.get(name) == 4]
    if not (spec.layers or maps):
        known = ", ".join(classifier.layers) or "none"
        raise ValueError(f"No layer of this network is a map: name objective.layers, out of {known}.")
    return spec.layers or maps[-1:]


consistent = Objective(perturb, loss, check=check)
