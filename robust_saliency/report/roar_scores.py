"""What ``--mode=roar`` measured, as arrays: accuracy of every retraining, and by how much it is better than at random.

The gain of a map is the accuracy that it costs more than random pixels do where the most relevant are removed, and that
it keeps more than they do where those alone are kept: above 0 where the map is better. Gains are paired by image and
seed. The score is the area under the gain over the share of pixels, from 0 to 1, where both ends are 0 (Kim, Seo and
Jeon 2019, 1903.11626, for ROAR and KAR).
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robust_saliency import records, statistics

RANDOM = "random"
GAIN = {"remove": -1.0, "keep": 1.0, "mask": 1.0}  # sign of the accuracy over that at random, by mode
_SEED = 0
_FLIPS_A_CLAIM = 2000


@dataclass(frozen=True)
class Retrained:
    """Of one run: correct ``[S, N]`` (seeds, images) by (map, mode, fraction); id and group of each image; its facts.

    empty: by map how many of the train, validation and test maps said nothing, so that random pixels went. seconds: of
    training, by file; runs of a study share files.
    """

    about: dict
    correct: Mapping[tuple[str, str, float], np.ndarray]
    groups: np.ndarray
    empty: Mapping[str, list[int]]
    seconds: Mapping[str, float]
    ids: np.ndarray

    @property
    def maps(self) -> list[str]:
        return list(self.about["maps"])

    @property
    def seeds(self) -> int:
        return len(next(iter(self.correct.values())))

    @property
    def modes(self) -> list[str]:
        return [mode for mode in GAIN if any(mode == key[1] and key[2] for key in self.correct)]

    @property
    def whole(self) -> np.ndarray:
        """Of networks retrained on whole images."""
        return next(values for (_, _, fraction), values in self.correct.items() if not fraction)

    def fractions(self, mode: str) -> list[float]:
        return sorted({fraction for _, of, fraction in self.correct if of == mode and fraction})

    def gain(self, label: str, mode: str, fraction: float) -> np.ndarray:
        """``[S, N]``."""
        return GAIN[mode] * (self.correct[label, mode, fraction] - self.correct[RANDOM, mode, fraction])

    def score(self, label: str, mode: str) -> np.ndarray:
        """``[S, N]``: the trapezoid rule over the gains, image by image."""
        shares = np.array([0.0, *self.fractions(mode), 1.0])
        weights = (shares[2:] - shares[:-2]) / 2
        return sum(w * self.gain(label, mode, share) for w, share in zip(weights, shares[1:-1], strict=True))

    def attribution_quality(self, label: str) -> dict[float, np.ndarray]:
        """DiffROAR by share k ``[S, N]``: correct with the top k kept less correct with the bottom k kept."""
        pairs = {k: _close(1 - k, self.fractions("remove")) for k in self.fractions("keep")}
        return {
            k: self.correct[label, "keep", k] - self.correct[label, "remove", other]
            for k, other in pairs.items()
            if other is not None
        }

    def estimate(self, values: np.ndarray) -> statistics.Estimate:
        """Mean of ``[S, N]`` over seeds and images, an image's group being one in all seeds."""
        return statistics.bootstrap_mean(values.ravel(), np.tile(self.groups, len(values)), seed=_SEED)

    def interval(self, correct: np.ndarray) -> tuple[float, float]:
        """Of an accuracy."""
        return statistics.share_interval(self.estimate(correct))


def _close(share: float, shares: list[float]) -> float | None:
    return next((other for other in shares if abs(other - share) < 1e-9), None)


def read(folder: Path) -> list[Retrained]:
    """The runs of ``roar.json`` with what roar.csv and the files that it names say of them."""
    about, rows = records.read_json(folder / "roar.json"), records.read_csv(folder / "roar.csv")
    load = functools.cache(lambda name: records.read_npz(folder / name))
    return [_run(run, load, {name: column[rows["run"] == run["name"]] for name, column in rows.items()})
            for run in about["runs"]]  # fmt: skip


def _run(about: dict, load, rows: Mapping[str, np.ndarray]) -> Retrained:
    found: dict[tuple[str, str, float], list[np.ndarray]] = {}
    empty: dict[str, list[int]] = {}
    files = {str(name): load(str(name)) for name in rows["file"]}
    for label, mode, fraction, name in zip(rows["map"], rows["mode"], rows["fraction"], rows["file"], strict=True):
        held = files[str(name)]
        found.setdefault((str(label), str(mode), float(fraction)), []).append(held["correct"].astype(float))
        empty[str(label)] = held["empty_maps"].tolist()
    first = next(iter(files.values()))
    correct = {key: np.stack(values) for key, values in found.items()}
    seconds = {name: float(held["seconds"]) for name, held in files.items()}
    return Retrained(about, correct, first.get("group", first["id"]), empty, seconds, first["id"])


def claims(runs: list[Retrained]) -> dict[tuple[str, str, str], statistics.Verdict]:
    """Of each (run, method, mode) whether its score counts, after Holm's correction over all of them; no floors."""
    family = [
        (run, label, mode)
        for run in runs
        for mode in run.modes
        if mode != "mask"
        for label in run.maps
        if run.about["maps"][label]["kind"] == "method"
    ]
    draws = _FLIPS_A_CLAIM * max(len(family), 1)
    scores = [run.score(label, mode) for run, label, mode in family]
    p_values = [
        statistics.sign_flip_test(score.ravel(), np.tile(run.groups, len(score)), num_draws=draws, seed=_SEED)
        for (run, _, _), score in zip(family, scores, strict=True)
    ]
    verdicts = {}
    for (run, label, mode), score, p in zip(family, scores, statistics.holm(p_values), strict=True):
        estimate = run.estimate(score)
        seeds = [float(seed.mean()) for seed in score]
        limits = (estimate.low, estimate.high)
        verdicts[run.about["name"], label, mode] = statistics.difference_counts(
            seeds, limits, estimate.num_groups, float(p)
        )
    return verdicts
