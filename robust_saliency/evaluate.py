"""Evaluation of one run: clean and attacked accuracy, maps, metrics; one row an example on disk, paired by id."""

import dataclasses
import functools
import itertools
import os
import time

import jax
import numpy as np

from robust_saliency import data as data_lib
from robust_saliency import (
    descriptions,
    environment,
    evaluate_randomisation,
    flaws,
    initialise,
    metrics,
    processes,
    records,
    sharding,
    survivors,
    workdirs,
)
from robust_saliency.attacks import stages
from robust_saliency.config import MASK_FIELDS, Experiment
from robust_saliency.config_sections import AVERAGED
from robust_saliency.evaluate_blind import Averages, average, blind_kinds
from robust_saliency.evaluate_programs import Explained, Programs, make_programs, own_metrics, usable_metrics
from robust_saliency.progress import Progress, say
from robust_saliency.randomness import key_of, per_example_keys

# Of the files that an evaluation writes; those of another number are made again.
FORMAT = 3
# Fields of config.data that decide which images are evaluated, and how they look.
SHOWN = (
    *data_lib.MEMBERSHIP,
    "equal_classes",
    "num_test",
    "num_validation",
    "num_train",
    "image_size",
    "channels",
    "planted",
)


def evaluate(experiment: Experiment, workdir: str, data: data_lib.Data | None = None) -> str:
    """Measures the run in ``workdir``; returns the folder ``workdir/evaluation`` that holds the results.

    examples.csv: one row an example: id, label, group, prediction, confidence, correct, one 0/1 column an attack, and
    by mask the share of the image that it covers. maps.csv: one row an example and method: id, label, group, method,
    flaw of the map (:mod:`robust_saliency.flaws`), one column a metric; empty = NaN.
    curves.npz, pictures.npz: curves ``[N, points]`` by 'method/metric' with the shares of pixels at their points by
    'fractions/metric', and some maps; randomisation.npz: how alike maps stay under fresh weights, by 'order/method';
    summary.json: what every column means.
    """
    began = time.monotonic()
    settings = experiment.evaluation
    with workdirs.Workdir(workdir, create=False):
        classifier, variables, described, step = initialise.load_described(workdir, settings.step)
        processes.check_same("checkpoint", step)
        data = data or data_lib.load(experiment.data)
        initialise.check_fits(described, data)
        initialise.check_unchanged(described, experiment.plain)
        data_lib.check_unseen(described["config"]["data"], experiment.plain["data"])
        split = getattr(data, settings.split)
        indices = data_lib.choose(len(split), settings.num_examples)
        # No example needs another: each process measures its part with its own devices, as if it were alone.
        share = _share(len(indices))
        own = indices[share]
        where, for_samples = "config.evaluation.batch_size", experiment.devices_for_samples
        mesh = sharding.make_local_mesh(experiment.num_devices, settings.batch_size, where, for_samples)
        masks = _masks(split, data.concept_names, settings)
        programs = sharding.on(mesh, make_programs(classifier, settings, masks))
        results = _Results(_picture_ids(split, indices, settings.num_pictures), _fractions(settings, masks, data))
        variables = sharding.put_replicated(variables, mesh)
        batches = data_lib.eval_batches(split, batch_size=settings.batch_size, indices=own)
        name = os.path.basename(os.path.abspath(workdir))
        staged = _staged(settings, len(data.class_names))
        for label, plan in staged.items():
            results.robust[label] = survivors.attack(
                classifier.logits_fn,
                variables,
                split.gather,
                own,
                plan,
                key=key_of(label),
                mesh=mesh,
                batch_size=settings.batch_size,
                title=f"{name}, {label}",
                path=os.path.join(workdir, "attacks", f"{label}.npz") if processes.count() == 1 else "",
                identity=[settings.split, experiment.plain["data"]],
                network=described["config"]["model"],
            ).robust
        batches = (_with_concepts(rows, data.concept_names, masks) for rows in batches)
        explained = (_explained(programs, settings, variables, rows, mesh) for rows in batches)
        first = list(itertools.islice(explained, -(-AVERAGED // settings.batch_size)))
        left = max(0, settings.randomisation.num_examples - share.start)
        randomisation = dataclasses.replace(settings.randomisation, num_examples=left)
        results.randomised = evaluate_randomisation.measure(classifier, programs, variables, first, randomisation, mesh)
        seen = [(one.rows["id"], one.rows["valid"], jax.device_get(one.maps)) for one in first]
        averages = average(list(itertools.chain.from_iterable(processes.gathered(seen))))
        with Progress(f"{name} evaluated", -(-len(own) // settings.batch_size), 0, settings.batch_size) as progress:
            for one in itertools.chain(first, explained):
                one = _with_averages(one, averages, mesh)
                results.add(one.rows, _measured(programs, settings, staged, variables, one))
                progress.update()
        summary = _summary(experiment, data, step, len(indices), masks) | {
            "randomisation": evaluate_randomisation.summary(classifier, variables, settings.randomisation),
            "seconds": time.monotonic() - began,
        }
        results = functools.reduce(_Results.followed_by, processes.gathered(results))
        return processes.on_first(lambda: results.write(workdir, summary))


def _share(num_examples: int) -> slice:
    if num_examples < processes.count():
        raise ValueError(f"{num_examples} examples are too few for {processes.count()} processes to share.")
    return processes.share(num_examples)


def _fractions(settings, masks: tuple[str, ...], data: data_lib.Data) -> dict[str, np.ndarray]:
    """'fractions/<metric>': the shares of the pixels at the points of each curve."""
    pixels = data.image_shape[0] * data.image_shape[1]
    shares = {label: metrics.curve_fractions(m.spec, pixels) for label, m in own_metrics(settings, masks).items()}
    return {f"fractions/{label}": value for label, value in shares.items() if value is not None}


def _staged(settings, classes: int) -> dict:
    """The attacks that run on all examples before anything else is measured: their stages by label."""
    plans = {label: stages.stages(method.spec, classes) for label, method in settings.attacks}
    return {label: plan for label, plan in plans.items() if plan}


def _explained(programs: Programs, settings, variables: dict, rows: dict, mesh) -> Explained:
    batch = programs.to_float(sharding.put_batch(rows, mesh))
    example = dict(programs.predict(variables, batch))
    true = settings.explained == "true"
    batch["explained"] = batch["label"] if true else example["prediction"].astype(batch["label"].dtype)
    maps = {}
    for label, _ in settings.maps:
        maps[label] = programs.maps[label](variables, per_example_keys(key_of(label), batch["id"]), batch)
    return Explained(rows, batch, example, maps)


def _with_averages(one: Explained, averages: Averages, mesh) -> Explained:
    own = averages.of(one.rows["id"], jax.device_get(one.maps))
    return one._replace(batch=one.batch | sharding.put_batch(own, mesh))


def _measured(programs: Programs, settings, staged, variables: dict, one: Explained) -> dict:
    """All that is measured on one batch, as host arrays: 'example', 'maps', and by map 'measured' (values, curves)."""
    batch, example = one.batch, dict(one.example)
    for label, _ in settings.attacks:
        keys = per_example_keys(key_of(label), batch["id"])
        if label in programs.attacks:
            withstood = programs.correct(variables, programs.attacks[label](variables, keys, batch), batch["label"])
        elif label not in staged:
            withstood = ~programs.decisions[label](variables, keys, batch)
        else:
            continue
        example[f"robust:{label}"] = example["correct"] * withstood
    blind_keys = per_example_keys(key_of("blind"), batch["id"])
    maps = one.maps | programs.blind(blind_keys, batch)
    keys = per_example_keys(key_of("metrics"), batch["id"])
    measured = {label: programs.measure(variables, keys, batch, values) for label, values in maps.items()}
    attack_keys = per_example_keys(key_of("map attack"), batch["id"])
    attacked = [attack(variables, attack_keys, batch) for attack in programs.map_attacks.values()]
    for label, program in programs.explain_again.items():
        map_keys = per_example_keys(key_of(label), batch["id"]) if label in one.maps else blind_keys
        measured[label][0].update(program(variables, keys, map_keys, batch, maps[label], attacked))
    return jax.device_get({"example": example, "maps": maps, "measured": measured})


class _Results:
    """Columns that grow batch by batch."""

    def __init__(self, pictures: set[int], fractions: dict[str, np.ndarray]):
        self._pictures = pictures
        self._fractions = fractions
        self._examples: list[dict] = []
        self._measured: dict[str, list[dict]] = {}
        self._curves: dict[str, list] = {}
        self._shown: list[dict] = []
        self.robust: dict[str, np.ndarray] = {}
        self.randomised: dict[str, np.ndarray] = {}

    def add(self, rows: dict, results: dict) -> None:
        valid = rows["valid"]
        identity = {"id": rows["id"], "label": rows["label"], "group": rows.get("group", rows["id"])}
        identity = {name: values[valid] for name, values in identity.items()}
        example = {name: values[valid] for name, values in results["example"].items()}
        covered = {
            f"mask:{name.removesuffix('_mask')}": (rows[name][valid] > 0).mean(axis=(1, 2), dtype=np.float32)
            for name in rows
            if name.endswith("_mask")
        }
        self._examples.append({**identity, **example, **covered})
        for label, (values, curves) in results["measured"].items():
            of_map = {"method": np.full(valid.sum(), label), "flaw": flaws.of_maps(results["maps"][label][valid])}
            columns = {name: value[valid] for name, value in values.items()}
            self._measured.setdefault(label, []).append({**identity, **of_map, **columns})
            for curve, value in curves.items():
                self._curves.setdefault(f"{label}/{curve}", []).append(value[valid])
        self._add_pictures(rows, results)

    def followed_by(self, other: "_Results") -> "_Results":
        """With the examples of ``other`` behind its own."""
        self._examples += other._examples
        self._shown += other._shown
        for own, more in ((self._measured, other._measured), (self._curves, other._curves)):
            for label, parts in more.items():
                own.setdefault(label, []).extend(parts)
        self.robust = _joined([self.robust, other.robust])
        self.randomised = _joined([part for part in (self.randomised, other.randomised) if part])
        return self

    def _add_pictures(self, rows: dict, results: dict) -> None:
        chosen = np.array(
            [valid and int(i) in self._pictures for i, valid in zip(rows["id"], rows["valid"], strict=True)]
        )
        if not chosen.any():
            return
        columns = {"ids": rows["id"], "image": rows["image"]}
        columns |= {name: rows[name] for name in rows if name == "label" or name.endswith("_mask")}
        columns |= {name: results["example"][name] for name in ("prediction", "confidence")}
        columns |= {f"map/{label}": maps for label, maps in results["maps"].items()}
        self._shown.append({name: values[chosen] for name, values in columns.items()})

    def write(self, workdir: str, summary: dict) -> str:
        examples = _joined(self._examples)
        examples |= {f"robust:{label}": robust.astype(np.float32) for label, robust in self.robust.items()}
        maps = _joined([_joined(parts) for parts in self._measured.values()])
        curves = {name: np.concatenate(parts) for name, parts in self._curves.items()}
        folder = os.path.join(workdir, "evaluation")
        # A folder with a summary is a finished evaluation: the old one goes first, the new one comes last.
        records.remove(os.path.join(folder, "summary.json"))
        records.write_csv(os.path.join(folder, "examples.csv"), examples)
        records.write_csv(os.path.join(folder, "maps.csv"), maps)
        records.write_npz(os.path.join(folder, "curves.npz"), {**self._fractions, "ids": examples["id"], **curves})
        records.write_npz(os.path.join(folder, "pictures.npz"), _joined(self._shown))
        records.write_npz(os.path.join(folder, "randomisation.npz"), self.randomised)
        records.write_json(os.path.join(folder, "summary.json"), summary)
        say(f"{os.path.basename(os.path.abspath(workdir))}: {_accuracies(examples)}")
        return folder


def _accuracies(examples: dict) -> str:
    """``right on 0.712 of 250 images; under l2 0.344, linf 0.301``."""
    attacked = [
        f"{name.removeprefix('robust:')} {np.mean(of):.3f}" for name, of in examples.items() if "robust:" in name
    ]
    clean = f"right on {np.mean(examples['correct']):.3f} of {len(examples['id'])} images"
    return f"{clean}; under {', '.join(attacked)}" if attacked else clean


def is_done(experiment: Experiment, workdir: str) -> bool:
    """True where ``workdir`` holds a whole evaluation of its present weights by the present config, on its data."""
    folder = os.path.join(workdir, "evaluation")
    path = os.path.join(folder, "summary.json")
    if not os.path.exists(path) or not records.is_whole(folder):
        return False
    summary = records.read_json(path)
    step = initialise.step_of(workdir, experiment.evaluation.step)
    if summary.get("format") != FORMAT:
        return False
    done = (summary["checkpoint_step"], summary["evaluation"], summary.get("data_config"))
    return done == (step, experiment.plain.get("evaluation"), experiment.plain.get("data"))


def _summary(experiment: Experiment, data: data_lib.Data, step: int, num_examples: int, masks: tuple[str, ...]) -> dict:
    settings = experiment.evaluation
    plain = experiment.plain.get("evaluation", {})
    specs, skipped = usable_metrics(settings, masks)
    methods = {
        label: {"kind": descriptions.kind(method), "description": descriptions.described(method)}
        for label, method in settings.maps
    }
    methods |= blind_kinds(settings, masks)
    return {
        "format": FORMAT,
        "split": settings.split,
        "num_examples": num_examples,
        "class_names": list(data.class_names),
        "data": data.description,
        "data_config": experiment.plain.get("data"),
        "images": {name: experiment.plain["data"].get(name) for name in SHOWN},
        "checkpoint_step": step,
        "explained": settings.explained,
        "evaluation": plain,
        "objective": descriptions.training(experiment),
        "attacks": {label: descriptions.sentence(method) for label, method in settings.attacks},
        "methods": methods,
        "metrics": {label: descriptions.facts(method) for label, method in specs},
        "not_measured": skipped,
        "runs": dict(zip(("read", "made"), metrics.count_runs(method.spec for _, method in specs), strict=True)),
        "command": environment.command(),
        "hardware": environment.hardware(),
        "versions": environment.versions(),
    }


def _picture_ids(split, indices: np.ndarray, wanted: int) -> set[int]:
    """Ids of the examples shown: the classes in turn, in the order of the split."""
    labels = split.labels[indices]
    place_in_class = np.zeros(len(labels), int)
    for label in np.unique(labels):
        place_in_class[labels == label] = np.arange((labels == label).sum())
    chosen = indices[np.lexsort((labels, place_in_class))[:wanted]]
    return {int(i) for i in split.gather(chosen)["id"]} if len(chosen) else set()


def _masks(split, concept_names: tuple[str, ...], settings) -> tuple[str, ...]:
    """Names of the masks of a split: lesion and evidence, where it has them, and the concepts that a metric names."""
    fields = split.gather(np.arange(1))
    own = [name for name in ("lesion", "evidence") if f"{name}_mask" in fields]
    named = {getattr(method.spec, field, None) for _, method in settings.metrics for field in MASK_FIELDS}
    return (*own, *(concept for concept in concept_names if concept in named and "concepts" in fields))


def _with_concepts(rows: dict, concept_names: tuple[str, ...], masks: tuple[str, ...]) -> dict:
    """The rows with a field '<concept>_mask' ``[B, H, W]`` for each concept among ``masks``, and without the others."""
    shown = {
        f"{name}_mask": rows["concepts"][..., concept_names.index(name)] for name in masks if name in concept_names
    }
    return {name: value for name, value in rows.items() if name != "concepts"} | shown


def _joined(parts: list[dict]) -> dict:
    names = parts[0] if parts else {}
    return {name: np.concatenate([part[name] for part in parts]) for name in names}
