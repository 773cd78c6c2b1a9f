"""How an explanation changes when the image is changed in order to change it, and the prediction stays."""

from collections.abc import Callable
from typing import ClassVar

from robust_saliency import checks, threat
from robust_saliency.metrics.alike import Alike, alike
from robust_saliency.metrics.shared import Shared
from robust_saliency.metrics.sparsity import by_option
from robust_saliency.types import Array, Images, Key, Labels, Maps, SaliencyFn, Scalar, spec

DISTANCES = ("top_k", "mass_centre")


@spec
class ExplanationAttack:
    """APGD on the gradient map of an image, its prediction kept: see :class:`robust_saliency.map_attacks.MapAttack`.

    norm, epsilon: how far the image may go, in pixels of [0, 1]. num_steps: of APGD. distance: 'top_k' takes the map's
    mass out of its k largest pixels, 'mass_centre' moves its centre. surrogate: the activation through which a map can
    be differentiated, see :func:`robust_saliency.models.with_activation`; '' = that of the network, which is enough
    where it is smooth: the map of a ReLU network has no gradient almost everywhere.
    """

    norm: str = "linf"
    epsilon: Scalar = 4 / 255
    num_steps: int = 20
    distance: str = "top_k"
    k: int = 100
    surrogate: str = "softplus10"

    def __post_init__(self):
        checks.one_of("norm", self.norm, threat.NORMS)
        checks.one_of("distance", self.distance, DISTANCES)
        checks.known_positive("ExplanationAttack.epsilon", self.epsilon)
        checks.at_least(1, num_steps=self.num_steps, k=self.k, where="ExplanationAttack")


@spec
class AttackStability(Alike):
    """How alike the map is to that of the image under an attack on its gradient map."""

    title = by_option(lambda self: f"Stability under attack, {self.similarity_title}")
    direction: ClassVar[str] = "higher"

    attack: ExplanationAttack = ExplanationAttack()


AttackedFn = Callable[[ExplanationAttack], Images]


def attack_stability(
    saliency_fn: SaliencyFn,
    attacked_fn: AttackedFn,
    map_key: Key,
    labels: Labels,
    maps: Maps,
    spec: AttackStability | None = None,
) -> Array:
    """``similarity(m(x), m(x'))``, ``x' = attacked_fn(spec.attack)``, ``[B]``: higher is more alike.

    x' is predicted as x is, and the class explained stays the label. The attack is on the *gradient* map, once for a
    network: for another method it is a transferred one, and what it does to that method is a lower bound of what could
    be done. map_key: that of m(x), so that a method with random numbers draws the same for m(x'), and only the image
    differs. similarity: as of :func:`noise_stability`. NaN where one of the maps is zero or not finite.

    Source: Ghorbani, Abid, Zou 2019 (1710.10547), who attack each method; the transfer is a reconstruction that makes
    methods of many passes affordable.
    """
    spec = spec or AttackStability()
    return alike(maps, _attacked_maps(saliency_fn, attacked_fn, map_key, labels, spec.attack), spec)


def _attacked_maps(
    saliency_fn: SaliencyFn, attacked_fn: AttackedFn, map_key: Key, labels: Labels, attack: ExplanationAttack
) -> Maps:
    images = attacked_fn(attack)
    checks.same_batch(images=images, labels=labels)
    return saliency_fn(map_key, images, labels)


SHARED = {
    AttackStability: Shared(
        needs=("saliency_fn", "attacked_fn", "map_key", "labels"),
        runs=lambda spec: (spec.attack,),
        make=_attacked_maps,
        read=lambda made, given, spec: alike(given["maps"], made[0], spec),
    )
}
