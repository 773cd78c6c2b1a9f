"""A sanity check of an evaluation's maps: what becomes of them as layer after layer gets fresh weights."""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import descriptions, metrics, models, sharding
from robust_saliency.config_fields import Method
from robust_saliency.config_sections import Randomisation
from robust_saliency.evaluate_programs import Explained, Programs
from robust_saliency.metrics import randomisation
from robust_saliency.randomness import key_of, per_example_keys

NAME = "parameter_randomisation"


def measure(
    classifier: models.Classifier,
    programs: Programs,
    variables: dict,
    explained: Iterable[Explained],
    settings: Randomisation,
    mesh,
) -> dict[str, np.ndarray]:
    """'<order>/<method>': how alike the map of each example stays ``[N, points]``; and their 'ids' ``[N]``.

    Of the first ``settings.num_examples`` examples. The fresh weights are one draw of what a network has before
    training, the same for every run. The programs are those of the maps that were measured: nothing is compiled again.
    """
    fresh = sharding.put_replicated(classifier.init(key_of(NAME)), mesh)
    curves = {order: _curve(method.spec) for order, method in methods(settings).items()}
    found, left = [], settings.num_examples
    for part in explained:
        chosen = np.flatnonzero(part.rows["valid"])[:left]
        left -= len(chosen)
        if not len(chosen):
            continue
        columns = {"ids": part.rows["id"]}
        for order, curve in curves.items():
            mixed = randomisation.mixtures(variables, fresh, classifier.layers, order)[1:]
            for label, first in part.maps.items():
                keys = per_example_keys(key_of(label), part.batch["id"])
                maps = [first, *(programs.maps[label](weights, keys, part.batch) for weights in mixed)]
                columns[f"{order}/{label}"] = curve(jnp.stack(maps, axis=1))
        found.append({name: values[chosen] for name, values in jax.device_get(columns).items()})
    return {name: np.concatenate([columns[name] for columns in found]) for name in found[0]} if found else {}


@functools.lru_cache(maxsize=8)
def _curve(spec: metrics.ParameterRandomisation):
    return jax.jit(functools.partial(metrics.parameter_randomisation_of, spec=spec))


def summary(classifier: models.Classifier, variables: dict, settings: Randomisation) -> dict:
    """What a report says of it: the names of the points, and by order what was measured."""
    return {
        "points": randomisation.points(variables, classifier.layers),
        "orders": {order: descriptions.facts(method) for order, method in methods(settings).items()},
    }


def methods(settings: Randomisation) -> dict[str, Method]:
    """By order."""
    return {
        order: Method(
            NAME,
            metrics.ParameterRandomisation(order=order, similarity=settings.similarity, sign=settings.sign),
            metrics.parameter_randomisation_of,
            ("maps",),
        )
        for order in settings.orders
    }
