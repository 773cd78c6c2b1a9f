"""What is drawn of units: the patches of their top examples, where they are active, and what they would like to see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import neurons, randomness, sharding
from robust_saliency.config_sections import Neurons
from robust_saliency.neuron_programs import STEPS_A_CALL
from robust_saliency.neuron_subject import Examples, Layer, Subject, masks_of
from robust_saliency.neuron_tracing import Traced, batches, seen_images
from robust_saliency.neuron_units import Units
from robust_saliency.neurons import ascent
from robust_saliency.randomness import key_of

NUM_PATCHES = 5  # top examples of a unit that are kept as pictures
NOISE = 0.1  # deviation, around grey, of the noise that an ascent begins with


def shown(units: Units, subject: Subject, wanted: int) -> list[tuple[str, int]]:
    """(concept, unit): the ``wanted`` units of highest IoU among those whose best concept it is; without masks (class,
    unit), by the share of the class among the top examples. Ties go to the smaller unit."""
    by_concept = bool(subject.concepts)
    names, of = (subject.concepts, units.concepts) if by_concept else (subject.class_names, units.classes)
    strength = units.best if by_concept else units.class_shares
    chosen = []
    for place, name in enumerate(names):
        own = np.flatnonzero(of == place)
        chosen += [(name, int(unit)) for unit in own[np.argsort(-strength[own], kind="stable")][:wanted]]
    return chosen


def of_layers(
    subject: Subject,
    settings: Neurons,
    examples: Examples,
    layers: list[Layer],
    shown: list[list[tuple[str, int]]],
    traced: Traced,
) -> dict[str, np.ndarray]:
    """The arrays of neurons.npz: those of each layer ('array/layer'), and the images of the page by ``picture_ids``,
    with the masks of their concepts where there are any."""
    found: dict[str, np.ndarray] = {}
    for layer, named in zip(layers, shown, strict=True):
        units = [unit for _, unit in named]
        parts = _arrays(subject, settings, examples, layer, units, traced)
        parts |= _wishes(subject, settings, examples, layer, units)
        found |= {f"{name}/{layer.name}": values for name, values in parts.items()}
    ids = np.unique(np.concatenate([found[f"seen/{layer.name}"][:, 0] for layer in layers]))
    rows = subject.split.gather(subject.indices[examples.places(ids)])
    found |= {"picture_ids": ids, "pictures": rows["image"]}
    return found | ({"picture_masks": masks_of(rows)} if subject.concepts else {})


def _arrays(
    subject: Subject, settings: Neurons, examples: Examples, layer: Layer, chosen: list[int], traced: Traced
) -> dict[str, np.ndarray]:
    """What is kept of one layer.

    ids, values ``[U, k]``, boxes ``[U, p, 4]``, patches ``[U, p, h, w, C]``: of the top examples of each unit. seen
    ``[Q, 2]``: example and unit of the pictures of the page (the top examples of the ``chosen`` units and of those that
    a traced prediction hangs on, and the traced images themselves), with active ``[Q, H, W]``, where the unit is above
    its threshold, and box ``[Q, 4]``, the receptive field of its highest place.
    """
    patches = min(NUM_PATCHES, settings.num_top)
    ids = layer.top.ids[:, :patches]
    fields = np.asarray(_fields(subject.classifier, subject.variables, layer.name, subject.image_shape))
    places = layer.top.places[:, :patches]
    boxes = fields[places[..., 0], places[..., 1], np.arange(len(ids))[:, None]]
    supporting = traced.influences[layer.name].supporting if traced.influences else np.zeros((0, 1), int)
    rows = zip(examples.ids[traced.places], supporting, strict=True)
    pairs = {(int(i), int(unit)) for i, units in rows for unit in units}
    pairs |= {(int(i), unit) for unit in {*chosen, *supporting.ravel().tolist()} for i in ids[unit]}
    seen = np.array(sorted(pair for pair in pairs if min(pair) >= 0), int).reshape(-1, 2)
    active, peaks = _active(subject, settings, examples, layer, seen)
    return {
        "ids": layer.top.ids,
        "values": layer.top.values,
        "boxes": boxes,
        "patches": _patches(subject, examples, ids, boxes, fields),
        "seen": seen,
        "active": active,
        "box": fields[peaks[:, 0], peaks[:, 1], seen[:, 1]],
    }


def _wishes(
    subject: Subject, settings: Neurons, examples: Examples, layer: Layer, units: list[int]
) -> dict[str, np.ndarray]:
    """What ``units`` would like to see, by optimisation; nothing where no steps are asked for.

    wish_units ``[V]``; wishes uint8 ``[V, 2, H, W, C]``, begun with noise and with the unit's top example; wish_before,
    wish_after: the mean of the unit's map, ``[V, 2]``; equal where the unit was silent, so that it has no gradient.
    """
    units = np.array([unit for unit in dict.fromkeys(units) if layer.top.ids[unit, 0] >= 0], int)
    if not len(units) or not settings.ascent_steps:
        return {}
    rows = subject.split.gather(subject.indices[examples.places(layer.top.ids[units, 0])])["image"]
    seeds = np.asarray(subject.programs.to_float(rows))
    keys = randomness.per_example_keys(key_of("wishes"), units.astype(np.int32))
    noise = np.asarray(randomness.draw(jax.random.normal, keys, seeds.shape))
    starts = np.concatenate([np.clip(0.5 + NOISE * noise, 0, 1), seeds]).astype(np.float32)
    reached, before, after = [], [], []
    for part in batches(np.arange(len(starts)), subject, settings.batch_size):
        held = {"image": starts[part], "unit": np.tile(units, 2)[part].astype(np.int32)}
        batch = sharding.put_batch(held, subject.mesh)
        images = _ascended(subject, settings, layer.name, batch)
        for collected, each in ((before, batch["image"]), (after, images)):
            seen = sharding.waited(subject.programs.look(subject.variables, each), subject.mesh)
            maps = np.asarray(seen["activations"][layer.name]).mean((1, 2))
            collected.append(maps[np.arange(len(part)), held["unit"]])
        reached.append(np.asarray(images))
    count = len(units)
    images, before, after = (
        np.concatenate(parts)[: 2 * count].reshape(2, count, *parts[0].shape[1:]).swapaxes(0, 1)
        for parts in (reached, before, after)
    )
    pixels = np.round(255 * images).astype(np.uint8)
    return {"wish_units": units, "wishes": pixels, "wish_before": before, "wish_after": after}


def _ascended(subject: Subject, settings: Neurons, layer: str, batch: dict) -> jax.Array:
    count = sharding.put_batch({"step": np.zeros(len(batch["unit"]), np.int32)}, subject.mesh)["step"]
    state = ascent.State(count, batch["image"], batch["image"])
    calls, rest = divmod(settings.ascent_steps, STEPS_A_CALL)
    for steps in [STEPS_A_CALL] * calls + [rest] * (rest > 0):
        state = subject.programs.ascend[layer](subject.variables, state, batch["unit"], steps)
        state = sharding.waited(state, subject.mesh)
    return state.images


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _fields(classifier, variables, layer: str, shape: tuple[int, int, int]) -> jax.Array:
    return neurons.receptive_fields(classifier.logits_fn(variables), layer, shape)


def _patches(subject: Subject, examples: Examples, ids, boxes, fields) -> np.ndarray:
    """The receptive fields of the top examples, in the size of the largest; black where there are no more examples."""
    size = tuple(int((fields[..., axis + 2] - fields[..., axis]).max(initial=1)) for axis in (0, 1))
    flat, known = ids.ravel(), ids.ravel() >= 0
    rows = subject.split.gather(subject.indices[examples.places(flat)])["image"]
    cut = np.asarray(neurons.crops(rows, jnp.asarray(boxes.reshape(-1, 4)), size))
    return np.where(known[:, None, None, None], cut, 0).astype(cut.dtype).reshape(*ids.shape, *cut.shape[1:])


def _active(subject: Subject, settings: Neurons, examples: Examples, layer: Layer, seen: np.ndarray) -> tuple:
    """Where in each picture its unit is above its threshold ``[Q, H, W]``, and its highest place ``[Q, 2]``."""
    height, width, _ = subject.image_shape
    if not len(seen):
        return np.zeros((0, height, width), bool), np.zeros((0, 2), int)
    ids, which = np.unique(seen[:, 0], return_inverse=True)
    places = examples.places(ids)
    found = []
    for part in batches(places, subject, settings.batch_size):
        answers = subject.programs.look(subject.variables, seen_images(subject, part))
        found.append(np.asarray(sharding.waited(answers, subject.mesh)["activations"][layer.name]))
    maps = np.concatenate(found)[which, ..., seen[:, 1]]
    large = np.asarray(neurons.upsample(maps[..., None], (height, width)))[..., 0]
    active = large > np.asarray(layer.thresholds.values)[seen[:, 1], None, None]
    peaks = np.where(np.isnan(maps), -np.inf, maps).reshape(len(maps), -1).argmax(1)
    return active, np.stack(np.divmod(peaks, maps.shape[2]), axis=-1)
