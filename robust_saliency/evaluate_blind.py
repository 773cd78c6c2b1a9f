"""The maps that an evaluation measures beside those of its methods: floors, which never look, and true masks."""

from typing import NamedTuple

import numpy as np

from robust_saliency import metrics
from robust_saliency.config_sections import AVERAGED, Evaluation


def average_label(method: str) -> str:
    """What the average map of a method is called in the results."""
    return f"average of {method}"


class Averages(NamedTuple):
    """By method the sum ``[H, W]`` of ``|m| / sum |m|`` over the first images, and their number; and their ids."""

    sums: dict[str, np.ndarray]
    counts: dict[str, int]
    ids: np.ndarray

    def of(self, ids: np.ndarray, maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """For each of the examples ``ids [B]`` the mean over the *other* images, ``[B, H, W]`` by label.

        What a method finds anywhere, the middle for one, without having seen the image. ``maps``: those of the
        examples. Zero where there is no other image.
        """
        found = {}
        for method, total in self.sums.items():
            own, known = _shares(maps[method])
            known &= np.isin(ids, self.ids)
            left = total[None] - own * known[:, None, None]
            count = np.broadcast_to((self.counts[method] - known)[:, None, None], left.shape)
            mean = np.divide(left, count, out=np.zeros_like(left), where=count > 0)
            found[average_label(method)] = np.maximum(mean, 0).astype(np.float32)
        return found


def average(batches: list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]) -> Averages:
    """Of the first ``AVERAGED`` valid examples of batches ``(ids, valid, maps by method)``.

    Maps without relevance do not count.
    """
    ids, valid = (np.concatenate([batch[part] for batch in batches]) for part in (0, 1))
    chosen = np.flatnonzero(valid)[:AVERAGED]
    sums, counts = {}, {}
    for method in batches[0][2]:
        shares, known = _shares(np.concatenate([maps[method] for _, _, maps in batches])[chosen])
        sums[method], counts[method] = shares.sum(0), int(known.sum())
    return Averages(sums, counts, ids[chosen])


def _shares(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``|m| / sum |m|`` in float64, zero where that says nothing, and where it says something ``[B]``."""
    values = np.abs(np.asarray(maps), dtype=np.float64)
    sums = values.sum((1, 2), keepdims=True)
    known = np.isfinite(sums[:, 0, 0]) & (sums[:, 0, 0] > 0)
    return np.divide(values, sums, out=np.zeros_like(values), where=known[:, None, None]), known


def blind_maps(masks: tuple[str, ...], methods: tuple[str, ...], keys, batch: dict) -> dict:
    """By label ``[B, H, W]``: random, the centre, edges, the averages of ``methods``, and the true masks.

    The averages and the masks are fields of the batch.
    """
    images = batch["image"]
    shape = images.shape[:3]
    maps = {
        "random": metrics.blind.random_map(keys, shape),
        # Zeros of each example keep the map on the devices of its images.
        "centre_gaussian": metrics.blind.centre_gaussian(shape, sigma=0.125) + 0 * images[..., 0],
        "sobel": metrics.blind.sobel(images),
    }
    maps |= {average_label(method): batch[average_label(method)] for method in methods}
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
        text = f"The mean of the {method} maps of the first {AVERAGED} images without this one, as shares without sign."
        kinds[average_label(method)] = {"kind": "blind", "description": text, "of": method}
    return kinds | {
        f"{name}_mask": {"kind": "oracle", "description": f"The true {name} mask as a map."} for name in masks
    }
