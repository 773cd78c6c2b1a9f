"""The maps that an evaluation measures beside those of its methods: floors, which never look, and true masks."""

import jax
import numpy as np

from robust_saliency import metrics
from robust_saliency.config import Evaluation

# Examples whose maps an average is taken over: it is then known before most of the examples are measured.
AVERAGED = 256


def average_label(method: str) -> str:
    """What the average map of a method is called in the results."""
    return f"average of {method}"


def average_maps(maps: list[dict], valid: list[np.ndarray]) -> dict[str, np.ndarray]:
    """``[H, W]`` by method, the mean over all valid examples of ``|m| / sum |m|``; of batches of maps by method.

    The same for every image: what a method finds anywhere, the middle for one, without having seen the image. A map
    without relevance is left out; where all are, the average is zero.
    """
    chosen = np.concatenate(valid)
    averages = {}
    for method in maps[0]:
        values = np.abs(np.concatenate([np.asarray(batch[method]) for batch in maps]), dtype=np.float64)[chosen]
        sums = values.sum((1, 2), keepdims=True)
        known = np.isfinite(sums[:, 0, 0]) & (sums[:, 0, 0] > 0)
        shares = np.divide(values, sums, out=np.zeros_like(values), where=known[:, None, None])
        averages[method] = (shares.sum(0) / max(known.sum(), 1)).astype(np.float32)
    return averages


def blind_maps(masks: tuple[str, ...], keys, batch: dict, averages: dict[str, jax.Array]) -> dict:
    """By label ``[B, H, W]``: random, the centre, edges, the averages of :func:`average_maps`, and the true masks."""
    images = batch["image"]
    shape = images.shape[:3]
    # Zeros of each example keep a map on the devices of its images.
    own = 0 * images[..., 0]
    maps = {
        "random": metrics.blind.random_map(keys, shape),
        "centre_gaussian": metrics.blind.centre_gaussian(shape, sigma=0.125) + own,
        "sobel": metrics.blind.sobel(images),
    }
    maps |= {average_label(method): average[None] + own for method, average in averages.items()}
    return maps | {f"{name}_mask": metrics.blind.mask_map(batch[f"{name}_mask"]) for name in masks}


def blind_kinds(settings: Evaluation, masks: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Kind and description of every map that does not look at the image, by label; 'of': the method of an average."""
    floors = {
        "random": "Independent uniform pixels; its curves are the random-order baseline.",
        "centre_gaussian": "A Gaussian at the image centre, deviation an eighth of the side.",
        "sobel": "Edges of the image itself.",
    }
    kinds = {label: {"kind": "blind", "description": text} for label, text in floors.items()}
    for method, _ in settings.maps:
        text = f"The mean of the {method} maps of the first {AVERAGED} images, the same for every image."
        kinds[average_label(method)] = {"kind": "blind", "description": text, "of": method}
    return kinds | {
        f"{name}_mask": {"kind": "oracle", "description": f"The true {name} mask as a map."} for name in masks
    }
