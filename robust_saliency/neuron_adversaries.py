"""What the layers of a network make of adversarial images: which raise a unit most, and how they are represented."""

from collections.abc import Mapping

import jax
import numpy as np

from robust_saliency import neurons, sharding
from robust_saliency.config_sections import Neurons
from robust_saliency.neuron_subject import Examples, Subject
from robust_saliency.randomness import key_of, per_example_keys

NONE = -1  # class of an adversarial image that was not made
# Of one device: they join the examples of a batch.
top_of = jax.jit(neurons.top, static_argnames="k")
_representation_ratios = jax.jit(neurons.representation_ratios)


class Adversaries:
    """Collects, batch by batch, the A adversarial images of each of the first ``num_attacked`` examples.

    top: of each layer, of those that fooled; its ids count them, A an example, in the order of the examples.
    """

    def __init__(self, subject: Subject, settings: Neurons, examples: Examples, class_means: Mapping[str, np.ndarray]):
        self._subject, self._settings, self._examples, self._means = subject, settings, examples, class_means
        self.top: dict[str, neurons.Top] = {}
        self._ratios: dict[str, list[np.ndarray]] = {name: [] for name in class_means}
        self._taken_for: list[np.ndarray] = []
        self._fooled: list[np.ndarray] = []
        self._count = settings.optimisation.num_adversaries if settings.ensemble else 1
        self._done = 0

    def add(self, batch: Mapping[str, jax.Array], images: jax.Array, real: Mapping, valid: np.ndarray) -> None:
        """Those of ``images``, the examples ``valid`` that come next, whose activations are ``real``."""
        subject = self._subject
        labels, places = np.asarray(batch["label"]), self._done + np.cumsum(valid) - 1
        wanted = valid & (places < (self._settings.num_attacked or len(self._examples.ids)))
        right = wanted & (self._examples.predictions == self._examples.labels)[places]
        self._done += int(valid.sum())
        if not wanted.any():
            self._add_none(int(valid.sum()))
            return
        keys = per_example_keys(key_of("neurons"), batch["id"])
        made = subject.programs.attacked(subject.variables, subject.ensemble, keys, images, batch["label"])
        made = sharding.waited(made, subject.mesh)
        rows = []
        for which in range(self._count):
            looks = sharding.waited(subject.programs.look(subject.variables, made[:, which]), subject.mesh)
            seen = jax.device_get(looks)
            taken_for = seen["logits"].argmax(-1).astype(labels.dtype)
            fooled = right & (taken_for != labels)
            ids = places * self._count + which
            ratios = self._of_layers(seen["activations"], real, labels, taken_for, fooled, ids)
            rows.append((np.where(wanted, taken_for, NONE), fooled, ratios))
        taken_for, fooled = (np.stack([row[part] for row in rows], axis=1)[valid] for part in range(2))
        self._taken_for.append(taken_for)
        self._fooled.append(fooled)
        for name, collected in self._ratios.items():
            ratios = np.stack([row[2][name] for row in rows], axis=1)[valid]
            collected.append(np.where(fooled[..., None], ratios, np.nan))

    def _add_none(self, count: int) -> None:
        shape = (count, self._count)
        self._taken_for.append(np.full(shape, NONE))
        self._fooled.append(np.zeros(shape, bool))
        for collected in self._ratios.values():
            collected.append(np.full((*shape, 2), np.nan, np.float32))

    def _of_layers(self, activations: Mapping, real: Mapping, labels, taken_for, fooled, ids) -> dict[str, np.ndarray]:
        """r1 and r2 of each layer ``[B, 2]``; joins what raises units most."""
        found = {}
        for name, values in activations.items():
            top = top_of(values, ids, k=self._settings.num_top, valid=fooled)
            self.top[name] = neurons.merge(self.top[name], top) if name in self.top else top
            ratios = _representation_ratios(values, real[name], labels, taken_for, self._means[name])
            found[name] = np.stack([ratios.r1, ratios.r2], axis=-1)
        return found

    @property
    def taken_for(self) -> np.ndarray:
        """The classes ``[N, A]`` that they are taken for; -1 = none was made."""
        return np.concatenate(self._taken_for)

    @property
    def fooled(self) -> np.ndarray:
        """Bool ``[N, A]``: the example was right before, and is taken for another class."""
        return np.concatenate(self._fooled)

    def ratios(self, layer: str) -> tuple[np.ndarray, np.ndarray]:
        """r1 and r2 ``[N]``, means over those that fooled; NaN of an example that has none."""
        values = np.concatenate(self._ratios[layer])
        known = np.isfinite(values)
        counts = known.sum(1)
        sums = np.where(known, values, 0).sum(1, dtype=np.float64)
        means = np.where(counts, sums / np.maximum(counts, 1), np.nan).astype(np.float32)
        return means[:, 0], means[:, 1]
