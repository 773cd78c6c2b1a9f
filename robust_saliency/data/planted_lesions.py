"""Planted lesions: procedural dermoscopy-like images in which it is known where the class evidence lies.

Three classes after the clinical cues: a *nevus* has one colour and a smooth border, a *melanoma* several pigments in
patches and an irregular border, a *keratosis* dark and light dots and plaques (comedo-like openings, milia-like cysts).
Skin, lighting, lesion size, colour and place, hairs, rulers and gel bubbles carry no class. Nor do the area of the
lesion and its mean colour: the outline is scaled to the area of its ellipse, the pigments are shifted to a common mean.

Lesions lie off-centre, so that a map that never looks at the image and piles up in the middle scores badly.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import checks
from robust_saliency.data import lesion_drawing as drawing
from robust_saliency.data.lesion_drawing import Numbers
from robust_saliency.randomness import per_example_keys
from robust_saliency.types import Array, Key, Scalar, spec

CLASS_NAMES = ("nevus", "melanoma", "keratosis")
CONCEPTS = ("patch", "dots", "border", "hair", "ruler", "bubble")
ABOUT = (
    "A nevus has one colour and a smooth border, a melanoma patches of several pigments and an irregular border, a "
    "keratosis dark and light dots; colour, size, hairs and rulers tell nothing. The evidence is the pixels that tell "
    "the class: patches, border and dots as drawn, and for a nevus, which is known by their absence, the whole lesion"
)
SHORTCUTS = ("none", "ruler", "hair", "bubble")
SPLITS = ("train", "validation", "test")
NEVUS, MELANOMA, KERATOSIS = range(3)

REACH = 1.25  # how far a lesion keeps from the image edge, in radii: only the longest lobes are ever cut
CHUNK = 256  # images a compiled call; an example has a fixed place in its chunk, so its bits do not depend on num
NUM_DOTS = 10
DOT_CONTRAST = 0.24
ORDERS = range(2, 7)  # harmonics of an irregular border
NOISE = 0.02  # sensor noise, uniform in +- this
NUM_NUMBERS = 182  # random numbers of a picture besides its sensor noise
GRAINS = ((3.0, 8.0), (2.0, 8.0), (3.0, 12.0))  # half-periods an image of patch outlines, skin and lesion
PIGMENTS = np.array(  # added to the base colour: black-brown, blue-grey, red, white scar, tan
    [[-0.23, -0.22, -0.18], [-0.19, -0.08, 0.05], [0.13, -0.13, -0.09], [0.18, 0.21, 0.21], [0.18, 0.09, -0.08]],
    np.float32,
)


@spec
class PlantedLesions:
    """What is drawn. Lengths are in half image widths; rates are probabilities.

    ``min_offset``: the centre of a lesion is drawn uniformly from the square frame between this share and the whole of
    the way from the image centre to where the lesion would touch the edge. ``shortcut``: a distractor that
    ``shortcut_rate`` of ``shortcut_class`` carries and no other class does; its own rate is then not used.
    """

    size: int = 32
    min_cue_strength: Scalar = 0.7
    max_cue_strength: Scalar = 1.0
    min_radius: Scalar = 0.3
    max_radius: Scalar = 0.4
    min_offset: Scalar = 0.85
    hair_rate: Scalar = 0.35
    ruler_rate: Scalar = 0.2
    bubble_rate: Scalar = 0.25
    vignette_rate: Scalar = 0.3
    colour_cast_rate: Scalar = 0.3
    shortcut: str = "none"
    shortcut_class: int = 1
    shortcut_rate: Scalar = 1.0


class Lesion(NamedTuple):
    """A lesion's centre, its own coordinates (its ellipse is the unit circle), signed distances to its outlines."""

    x: Array
    y: Array
    u: Array
    v: Array
    outline: Array
    ellipse: Array


def render(key: Key, label: Array, spec: PlantedLesions) -> dict[str, Array]:
    """One example of class ``label`` (an int32 scalar).

    Returns:
      ``image`` float32 ``[size, size, 3]`` in [0, 1]; ``lesion_mask`` and ``evidence_mask`` float32 ``[size, size]``,
      0 or 1; ``concepts`` float32 ``[size, size, 6]``, 0 or 1, in the order of ``CONCEPTS``. The evidence is what
      tells the class: the union of its own cues (melanoma: patches and border zone; keratosis: dots), and for a
      nevus, which is known by the absence of cues, the whole lesion. Masks say where a thing was drawn, also where a
      hair drawn later covers it.
    """
    numbers = Numbers(key, NUM_NUMBERS, num_words=spec.size**2)
    y, x = jnp.meshgrid(drawing.ticks(spec.size), drawing.ticks(spec.size), indexing="ij")
    strength = numbers.draw(cue=(spec.min_cue_strength, spec.max_cue_strength)).cue
    melanoma, keratosis = (jnp.where(label == cls, strength, 0.0) for cls in (MELANOMA, KERATOSIS))

    lesion = _lesion(numbers, x, y, melanoma, spec)
    warp, skin_grain, lesion_grain = drawing.smooth_fields(numbers, spec.size, GRAINS)
    patch_tone, patches = _patches(numbers, lesion, warp)
    dot_tone, dots = _dots(numbers, lesion)
    tone = melanoma * patch_tone + keratosis * dot_tone[:, :, None]
    image = _pigmented(numbers, _skin(numbers, skin_grain), tone, lesion_grain, lesion)
    image, distractors = _distracted(numbers, image, x, y, lesion, label, spec)
    image = _lit(numbers, image, x, y, spec)

    inside = lesion.outline < 0
    cues = [
        (label == MELANOMA) & inside & patches,
        (label == KERATOSIS) & inside & dots,
        (label == MELANOMA) & _between(lesion.outline, lesion.ellipse, margin=1 / spec.size),
    ]
    evidence = jnp.where(label == NEVUS, inside, cues[0] | cues[1] | cues[2])
    return {
        "image": jnp.clip(image, 0.0, 1.0),
        "lesion_mask": inside.astype(jnp.float32),
        "evidence_mask": evidence.astype(jnp.float32),
        "concepts": jnp.stack([*cues, *distractors], axis=-1).astype(jnp.float32),
    }


def _lesion(numbers: Numbers, x: Array, y: Array, irregularity: Array, spec: PlantedLesions) -> Lesion:
    """The outline r(t) = 1 + sum_k a_k cos(k t + p_k) about its ellipse, scaled to the area of the ellipse."""
    body = numbers.draw(
        radius=(spec.min_radius, spec.max_radius),
        aspect=(1.0, 1.25),
        offset=(spec.min_offset**2, 1.0),
        along=(-1.0, 1.0),
        side=(0.0, 4.0),
    )
    out = (1 - REACH * body.radius) * jnp.sqrt(body.offset)
    side = jnp.floor(body.side)
    sign = jnp.where(side % 2 == 0, 1.0, -1.0)
    cx, cy = jnp.where(side < 2, sign, body.along) * out, jnp.where(side < 2, body.along, sign) * out

    dx, dy, stretch = x - cx, y - cy, jnp.sqrt(body.aspect)
    long_x, long_y = numbers.directions()
    u = (dx * long_x + dy * long_y) / (body.radius * stretch)
    v = (dy * long_x - dx * long_y) * stretch / body.radius
    rho = drawing.length(u, v)

    heights = numbers.draw((len(ORDERS),), height=(0.05, 0.13)).height * (0.1 + 0.9 * irregularity)
    cos_phase, sin_phase = numbers.directions((len(ORDERS),))
    cosine, sine = u / jnp.maximum(rho, 1e-6), v / jnp.maximum(rho, 1e-6)
    reach, cos_k, sin_k = 1.0, cosine, sine
    for i in range(len(ORDERS)):
        cos_k, sin_k = cos_k * cosine - sin_k * sine, sin_k * cosine + cos_k * sine
        reach = reach + heights[i] * (cos_k * cos_phase[i] - sin_k * sin_phase[i])
    reach = reach * jax.lax.rsqrt(1 + jnp.sum(heights**2) / 2)
    return Lesion(cx, cy, u, v, (rho - reach) * body.radius, (rho - 1) * body.radius)


def _patches(numbers: Numbers, lesion: Lesion, warp: Array) -> tuple[Array, Array]:
    """Colour added by patches of the five pigments ``[size, size, 3]``, and where they are ``[size, size]``."""
    num = len(PIGMENTS)
    u = lesion.u + 0.12 * warp
    centres = drawing.scattered(numbers, num, reach=0.8, jitter=0.1)
    radii = numbers.draw((num,), radius=(0.26, 0.42)).radius
    covers = drawing.discs(u, lesion.v, centres, radii, softness=0.2)
    order = numbers.draw(first=(0.0, num), step=(1.0, num))
    order = (order.first.astype(jnp.int32) + order.step.astype(jnp.int32) * np.arange(num)) % num
    tone = jnp.einsum("nyx,nc->yxc", covers, jnp.asarray(PIGMENTS)[order])
    return tone, drawing.union(covers) > 0.5


def _dots(numbers: Numbers, lesion: Lesion) -> tuple[Array, Array]:
    """Lightness added by dark and light dots ``[size, size]``, and where they are."""
    centres = drawing.scattered(numbers, NUM_DOTS, reach=0.85, jitter=0.08)
    dot = numbers.draw((NUM_DOTS,), radius=(0.12, 0.26), sign=(-1.0, 1.0))
    covers = drawing.discs(lesion.u, lesion.v, centres, dot.radius, softness=0.15)
    heights = DOT_CONTRAST * jnp.where(dot.sign > 0, 1.0, -1.0)
    return jnp.einsum("nyx,n->yx", covers, heights), drawing.union(covers) > 0.5


def _between(outline: Array, ellipse: Array, margin: float) -> Array:
    """Where the irregular outline and the smooth one disagree, grown by ``margin``."""
    return (jnp.minimum(outline, ellipse) < margin) & (jnp.maximum(outline, ellipse) > -margin)


def _skin(numbers: Numbers, grain: Array) -> Array:
    tone = numbers.draw(depth=(0.0, 1.0), red=(-0.03, 0.03), blue=(-0.03, 0.03))
    pale, dark = np.array([0.92, 0.77, 0.69], np.float32), np.array([0.62, 0.46, 0.38], np.float32)
    colour = pale + tone.depth * (dark - pale) + jnp.stack([tone.red, jnp.zeros(()), tone.blue])
    return colour[None, None, :] + 0.015 * grain[:, :, None]


def _pigmented(numbers: Numbers, skin: Array, tone: Array, grain: Array, lesion: Lesion) -> Array:
    """``skin`` under the lesion, whose mean colour is a share of the skin's whatever the cues in ``tone``."""
    colour = numbers.draw(
        depth=(0.55, 0.72), red=(0.0, 0.08), blue=(-0.06, 0.02), softness=(0.04, 0.1), grain=(0.01, 0.03)
    )
    share = colour.depth + jnp.stack([colour.red, jnp.zeros(()), colour.blue])
    opacity = drawing.cover(lesion.outline, colour.softness)
    inside = (lesion.outline < 0) / jnp.maximum(jnp.sum(lesion.outline < 0), 1)
    change = opacity[:, :, None] * (skin * (share - 1)[None, None, :] + tone + colour.grain * grain[:, :, None])
    wanted = 0.9 * (share - 1) * jnp.einsum("yxc,yx->c", skin, inside)
    shift = (wanted - jnp.einsum("yxc,yx->c", change, inside)) / jnp.sum(opacity * inside)
    return skin + change + opacity[:, :, None] * shift[None, None, :]


def _distracted(
    numbers: Numbers, image: Array, x: Array, y: Array, lesion: Lesion, label: Array, spec: PlantedLesions
) -> tuple[Array, list[Array]]:
    """``image`` under bubbles, a ruler and hairs, and the masks of hair, ruler and bubble."""
    pixel = 2 / spec.size
    rates = {"hair": spec.hair_rate, "ruler": spec.ruler_rate, "bubble": spec.bubble_rate}
    if spec.shortcut != "none":
        rates[spec.shortcut] = jnp.where(label == spec.shortcut_class, spec.shortcut_rate, 0.0)
    draws = numbers.draw(hair=(0.0, 1.0), ruler=(0.0, 1.0), bubble=(0.0, 1.0))
    present = {name: getattr(draws, name) < rate for name, rate in rates.items()}

    ink = numbers.draw(hair=(0.05, 0.25), ruler=(0.1, 0.3))
    bubble, bright = drawing.bubbles(numbers, x, y, pixel)
    ruler = drawing.ruler(numbers, x, y, pixel, lesion.x, lesion.y)
    hair = drawing.hairs(numbers, x, y, pixel)
    for name, opacity, colour in (
        ("bubble", 0.12 * bubble + 0.5 * bright, 1.0),
        ("ruler", 0.85 * ruler, ink.ruler),
        ("hair", 0.8 * hair, ink.hair),
    ):
        opacity = jnp.where(present[name], opacity, 0.0)[:, :, None]
        image = image + opacity * (colour - image)
    masks = {"hair": hair > 0.3, "ruler": ruler > 0.3, "bubble": bubble > 0.5}
    return image, [present[name] & masks[name] for name in rates]


def _lit(numbers: Numbers, image: Array, x: Array, y: Array, spec: PlantedLesions) -> Array:
    """``image`` under a lighting gradient, perhaps a vignette and a colour cast, with sensor noise."""
    light = numbers.draw(slope=(0.0, 0.08), vignette=(0.0, 1.0), corner=(0.2, 0.5), cast=(0.0, 1.0))
    light_x, light_y = numbers.directions()
    gain = 1 + light.slope * (x * light_x + y * light_y)
    fall = jnp.square(jnp.clip((drawing.length(x, y) - 0.7) / 0.7, 0.0, 1.0))
    gain = gain * (1 - jnp.where(light.vignette < spec.vignette_rate, light.corner, 0.0) * fall)
    tint = jnp.where(light.cast < spec.colour_cast_rate, numbers.draw((3,), gain=(0.93, 1.07)).gain, 1.0)
    words = numbers.words.reshape(spec.size, spec.size, 1)
    noise = ((words >> np.array([[[8, 16, 24]]], np.uint32)) & 255).astype(jnp.float32) / 255 - 0.5
    return image * gain[:, :, None] * tint[None, None, :] + 2 * NOISE * noise


def generate(spec: PlantedLesions, seed: int, num: int, split: str) -> dict[str, np.ndarray]:
    """The first ``num`` examples of ``split`` ('train', 'validation' or 'test').

    Each three examples hold every class once, in random order. Example ``i`` depends on ``spec``, ``seed``, ``split``
    and ``i`` alone, bit by bit on one machine: it is drawn on the CPU even where there is an accelerator, unless
    JAX_PLATFORMS leaves the CPU out.

    Returns:
      ``image`` uint8 ``[num, size, size, 3]``, ``label`` and ``id`` (its place in the split) int32 ``[num]``,
      ``lesion_mask`` and ``evidence_mask`` uint8 ``[num, size, size]``, ``concepts`` uint8 ``[num, size, size, 6]``.

    Raises:
      ValueError: an unknown split or shortcut, or a number out of range.
    """
    checks.one_of("split", split, SPLITS)
    _check(spec, seed, num)
    stream = SPLITS.index(split)
    ids = np.arange(-(-num // CHUNK) * CHUNK, dtype=np.int32)
    labels = _labels([seed, stream], len(ids))
    drawn = {"label": labels[:num], "id": ids[:num]}
    with jax.default_device(_drawing_device()):
        key = jax.random.fold_in(jax.random.key(seed), stream)
        for start in range(0, num, CHUNK):
            chunk = _draw_chunk(key, ids[start : start + CHUNK], labels[start : start + CHUNK], spec)
            for name, array in chunk.items():
                whole = drawn.setdefault(name, np.empty((num, *array.shape[1:]), array.dtype))
                whole[start : start + CHUNK] = array[: num - start]
    return drawn


def _drawing_device() -> jax.Device | None:
    """The CPU; None, which stands for the default device, where JAX was started without one (JAX_PLATFORMS=cuda)."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def _labels(seed: list[int], num: int) -> np.ndarray:
    orders = np.array(list(itertools.permutations(range(len(CLASS_NAMES)))), np.int32)
    blocks = np.random.default_rng(seed).integers(len(orders), size=-(-num // len(CLASS_NAMES)))
    return orders[blocks].reshape(-1)[:num]


@jax.jit
def _draw_chunk(key: Key, ids: Array, labels: Array, spec: PlantedLesions) -> dict[str, Array]:
    examples = jax.vmap(render, (0, 0, None))(per_example_keys(key, ids), labels, spec)
    image = jnp.round(examples.pop("image") * 255).astype(jnp.uint8)
    return {"image": image, **{name: mask.astype(jnp.uint8) for name, mask in examples.items()}}


def _check(spec: PlantedLesions, seed: int, num: int) -> None:
    checks.one_of("planted_lesions.shortcut", spec.shortcut, SHORTCUTS)
    rates = [name for name in spec.__data_fields__ if name.endswith("_rate")]
    for name, value, low, high in (
        ("num", num, 1, np.inf),
        ("seed", seed, 0, np.inf),
        ("planted_lesions.size", spec.size, 16, np.inf),
        ("planted_lesions.shortcut_class", spec.shortcut_class, 0, len(CLASS_NAMES) - 1),
        ("planted_lesions.min_cue_strength", spec.min_cue_strength, 0, spec.max_cue_strength),
        ("planted_lesions.max_cue_strength", spec.max_cue_strength, spec.min_cue_strength, 1),
        ("planted_lesions.min_radius", spec.min_radius, 0.1, spec.max_radius),
        ("planted_lesions.max_radius", spec.max_radius, spec.min_radius, 0.7),
        ("planted_lesions.min_offset", spec.min_offset, 0, 1),
        *((f"planted_lesions.{name}", getattr(spec, name), 0, 1) for name in rates),
    ):
        if not low <= value <= high:
            raise ValueError(f"{name} must lie in [{low}, {high}], got {value}.")
