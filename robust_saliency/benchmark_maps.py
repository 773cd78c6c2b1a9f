"""What each map and each metric costs, beside the forward and gradient passes that it needs by definition."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from robust_saliency import initialise, metrics, saliency, sharding, timing
from robust_saliency.config import Experiment
from robust_saliency.progress import say
from robust_saliency.randomness import key_of, per_example_keys

COLUMNS = ("kind", "name", "batch", "compile_seconds", "seconds", "forwards", "gradients", "ratio")
# Passes of each sort that are timed for the ratio; where more are needed, their time is multiplied.
MOST_TIMED = 10

Passes = Callable[[Any, tuple[int, int, int], int], tuple[int, int]]


def _gradients(count: Callable[[Any, int], int]) -> Passes:
    return lambda spec, shape, classes: (0, count(spec, classes))


def _forwards(count: Callable[[Any, tuple[int, int, int]], int]) -> Passes:
    return lambda spec, shape, classes: (count(spec, shape), 0)


def _windows(spec: saliency.Occlusion, shape: tuple[int, int, int]) -> int:
    rows, columns = (1 - -(side - spec.window) // spec.stride for side in shape[:2])
    return rows * columns


def _patches(spec: metrics.Monotonicity, shape: tuple[int, int, int]) -> int:
    return -(-shape[0] // spec.patch) * -(-shape[1] // spec.patch)


_ONE = _gradients(lambda spec, classes: 1)
_STEPS = _gradients(lambda spec, classes: spec.num_steps)
_SAMPLES = _gradients(lambda spec, classes: spec.num_samples)
_CLASSES = _gradients(lambda spec, classes: classes)
_NOISY = _gradients(lambda spec, classes: spec.noise.num_samples)
_POINTS = _forwards(lambda spec, shape: spec.points)
_NONE = _forwards(lambda spec, shape: 0)
_RELATIVE: Passes = lambda spec, shape, classes: (spec.noise.num_samples + 1, spec.noise.num_samples)  # noqa: E731

# (spec, image shape, classes) -> (forward passes, gradients in the image) that one image needs by definition.
SALIENCY_PASSES = dict.fromkeys(saliency.SALIENCY, _ONE) | {
    "active": _CLASSES,
    "inactive": _CLASSES,
    "blur_ig": _STEPS,
    "guided_ig": _STEPS,
    "integrated_gradients": _STEPS,
    "expected_gradients": _SAMPLES,
    "smoothgrad": _SAMPLES,
    "occlusion": _forwards(lambda spec, shape: 1 + _windows(spec, shape)),
    "rise": _forwards(lambda spec, shape: spec.num_samples),
}
METRIC_PASSES = dict.fromkeys(metrics.METRICS, _NONE) | {
    "accuracy": _forwards(lambda spec, shape: 1),
    "confidence": _forwards(lambda spec, shape: 1),
    "margin": _forwards(lambda spec, shape: 1),
    "deletion_auc": _POINTS,
    "insertion_auc": _POINTS,
    "effective_complexity": _POINTS,
    "road": _forwards(lambda spec, shape: (1 + spec.points) * (2 if spec.order == "combined" else 1)),
    "allegiance_auc": _forwards(lambda spec, shape: len(metrics.curve_fractions(spec, shape[0] * shape[1]))),
    "infidelity": _forwards(lambda spec, shape: 1 + spec.num_samples),
    "faithfulness_correlation": _forwards(lambda spec, shape: spec.num_samples),
    "monotonicity": _forwards(lambda spec, shape: 1 + spec.num_samples * _patches(spec, shape)),
    "completeness": _forwards(lambda spec, shape: 2),
    "mask_reliance": _forwards(lambda spec, shape: 2),
    "alignment": _ONE,
    "noise_stability": _NOISY,
    "attack_stability": _ONE,
    "max_sensitivity": _NOISY,
    "average_sensitivity": _NOISY,
    "relative_input_stability": _RELATIVE,
    "relative_output_stability": _RELATIVE,
    "random_logit": _ONE,
}


def rows(experiment: Experiment, mesh) -> list[dict]:
    """One a name of ``SALIENCY`` and of ``METRICS``, at their defaults, on the network of the config.

    seconds: the median of a batch. forwards, gradients: what an image needs by definition; metrics that explain again
    do it with the gradient. ratio: the seconds over those of as many passes, bare, in the same run; None where none are
    needed. 'class_maps': the maps of all classes, over as many single gradients.
    """
    settings = experiment.benchmark
    shape = (settings.image_size, settings.image_size, settings.channels)
    classifier = initialise.classifier_of(experiment.model, shape, settings.num_classes)
    problem = _problem(classifier, settings, shape, mesh)
    found = []
    for name, program, passes in _programs(classifier, shape, settings.num_classes):
        kind, label = name
        say(f"benchmark: {kind} {label}")
        found.append(
            {"kind": kind, "name": label, "batch": settings.batch_size, **_timed(program, passes, problem, settings)}
        )
    return found


def _problem(classifier, settings, shape, mesh) -> tuple:
    """(variables, batch) on the devices, and the bare passes compiled for them."""
    rng, size = np.random.default_rng(0), settings.batch_size
    variables = sharding.put_replicated(classifier.init(jax.random.key(0)), mesh)
    masks = np.zeros((2, size, *shape[:2]), np.float32)
    masks[0, :, 2:-2, 2:-2], masks[1, :, 4:-4, 4:-4] = 1, 1
    batch = {
        "images": rng.random((size, *shape), np.float32),
        "labels": rng.integers(0, settings.num_classes, size).astype(np.int32),
        "maps": rng.normal(size=(size, *shape[:2])).astype(np.float32),
        "lesion": masks[0],
        "evidence": masks[1],
    }
    batch = sharding.put_batch(batch, mesh)
    batch["keys"] = sharding.put_batch(
        {"keys": per_example_keys(key_of("benchmark"), np.arange(size, dtype=np.int32))}, mesh
    )["keys"]

    def forward(variables, batch):
        return classifier.logits_fn(variables)(batch["images"])

    def gradient(variables, batch):
        return _gradient(classifier.logits_fn(variables), batch["keys"], batch["images"], batch["labels"])

    bare = [timing.compiled(program, variables, batch)[0] for program in (forward, gradient)]
    return variables, batch, bare


def _gradient(logits_fn, keys, images, labels):
    return saliency.gradient(logits_fn, keys, images, labels, saliency.Gradient())


def _programs(classifier, shape: tuple[int, int, int], classes: int):
    """``((kind, name), program(variables, batch), passes)`` of every row."""
    for name, (Spec, method) in saliency.SALIENCY.items():
        if name not in SALIENCY_PASSES:  # a user's own, of which it is not known what it needs
            continue
        spec = Spec()

        def explain(variables, batch, method=method, spec=spec):
            return method(classifier.logits_fn(variables), batch["keys"], batch["images"], batch["labels"], spec)

        yield ("map", name), explain, SALIENCY_PASSES[name](spec, shape, classes)

    def all_classes(variables, batch):
        return saliency.class_maps(classifier.logits_fn(variables), batch["images"], saliency.ClassMaps())

    yield ("map", "class_maps"), all_classes, (0, classes)
    for name, (Spec, _, _) in metrics.METRICS.items():
        if name not in METRIC_PASSES:
            continue
        spec = Spec()

        def measure(variables, batch, spec=spec):
            logits_fn = classifier.logits_fn(variables)
            return metrics.run(
                spec,
                logits_fn=logits_fn,
                saliency_fn=lambda keys, images, labels: _gradient(logits_fn, keys, images, labels),
                attacked_fn=lambda attack: 1 - batch["images"],
                key=batch["keys"],
                map_key=batch["keys"],
                masks={"lesion": batch["lesion"], "evidence": batch["evidence"]},
                **{part: batch[part] for part in ("images", "labels", "maps")},
            )

        yield ("metric", name), measure, METRIC_PASSES[name](spec, shape, classes)


def _timed(program: Callable, passes: tuple[int, int], problem: tuple, settings) -> dict:
    variables, batch, bare = problem
    run, compile_seconds = timing.compiled(program, variables, batch)
    timed = [min(count, MOST_TIMED) for count in passes]

    def work():
        run(variables, batch)

    described = {"compile_seconds": compile_seconds, "forwards": passes[0], "gradients": passes[1]}
    if not any(passes):
        seconds, _ = timing.in_turns(work, lambda: None, settings.repetitions)
        return described | {"seconds": seconds, "ratio": None}

    def bare_passes():
        for one, count in zip(bare, timed, strict=True):
            for _ in range(count):
                one(variables, batch)

    seconds, ratio = timing.in_turns(work, bare_passes, settings.repetitions)
    return described | {"seconds": seconds, "ratio": ratio * _share(passes, timed, bare, variables, batch)}


def _share(passes, timed, bare, variables, batch) -> float:
    """Seconds of the timed passes over those of all: 1 where all were timed."""
    if list(passes) == list(timed):
        return 1.0
    each = [timing.in_turns(lambda one=one: one(variables, batch), lambda: None, 5)[0] for one in bare]
    return sum(n * t for n, t in zip(timed, each, strict=True)) / sum(n * t for n, t in zip(passes, each, strict=True))
