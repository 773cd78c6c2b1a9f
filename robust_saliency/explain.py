"""Maps and predictions for a user's own images, which need no labels."""

import os

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import data as data_lib
from robust_saliency import initialise, records, sharding, workdirs
from robust_saliency import report as report_lib
from robust_saliency.config import Experiment
from robust_saliency.progress import Progress, say
from robust_saliency.randomness import per_example_keys


def explain(experiment: Experiment, workdir: str, images_dir: str) -> str:
    """Explains the predicted class of every image in ``images_dir`` with every map of ``config.evaluation.maps``.

    Writes ``workdir/explanations/``: predictions.csv (file, class, confidence, one probability a class), maps.npz
    (file names, images as the network saw them, one ``[N, H, W]`` array a map) and maps.html, whose path it returns.
    """
    with workdirs.Workdir(workdir, create=False):
        return _explain(experiment, workdir, images_dir)


def _explain(experiment: Experiment, workdir: str, images_dir: str) -> str:
    settings = experiment.evaluation
    if not settings.maps:
        raise ValueError("config.evaluation.maps is empty: there is no map to draw.")
    classifier, variables, described, _ = initialise.load_described(workdir, settings.step)
    initialise.check_unchanged(described, experiment.plain)
    images, names = data_lib.load_images(images_dir, tuple(described["image_shape"]))
    where, for_samples = "config.evaluation.batch_size", experiment.devices_for_samples
    mesh = sharding.make_local_mesh(experiment.num_devices, settings.batch_size, where, for_samples)
    variables = sharding.put_replicated(variables, mesh)

    @jax.jit
    def explained(variables, batch):
        logits_fn, inputs = classifier.logits_fn(variables), data_lib.to_float(batch)["image"]
        logits = logits_fn(inputs)
        predictions = jnp.argmax(logits, axis=-1)
        keys = per_example_keys(jax.random.key(0), batch["id"])
        maps = {
            label: method.function(logits_fn, keys, inputs, predictions, method.spec) for label, method in settings.maps
        }
        return {"prediction": predictions, "probabilities": jax.nn.softmax(logits), **maps}

    explained, parts = sharding.on(mesh, explained), []
    with Progress("explained", -(-len(images) // settings.batch_size), 0, settings.batch_size) as progress:
        for first in range(0, len(images), settings.batch_size):
            places = np.arange(first, first + settings.batch_size)
            rows = {"image": images[np.minimum(places, len(images) - 1)], "id": places.astype(np.int32)}
            results = jax.device_get(explained(variables, sharding.put_batch(rows, mesh)))
            parts.append({name: values[: len(images) - first] for name, values in results.items()})
            progress.update()
    results = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _written(workdir, described["class_names"], names, images, results)


def _written(workdir: str, class_names: list[str], names: list[str], images: np.ndarray, results: dict) -> str:
    prediction, probabilities = results.pop("prediction"), results.pop("probabilities")
    folder = os.path.join(workdir, "explanations")
    columns = {"file": names, "class": [class_names[k] for k in prediction], "confidence": probabilities.max(axis=1)}
    columns |= {f"probability:{name}": probabilities[:, k] for k, name in enumerate(class_names)}
    records.write_csv(os.path.join(folder, "predictions.csv"), columns)
    records.write_npz(os.path.join(folder, "maps.npz"), {"file": np.array(names), "image": images, **results})
    page = report_lib.explanations_page(folder)
    say(f"{len(names)} images explained")
    return page
