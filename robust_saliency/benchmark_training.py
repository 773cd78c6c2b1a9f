"""What a training step of each objective costs, in gradients that it cannot do without."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import data as data_lib
from robust_saliency import initialise, losses, objectives, optimizer, sharding, timing
from robust_saliency.config import Experiment
from robust_saliency.config_wrappers import objective_of
from robust_saliency.progress import say
from robust_saliency.train_step import TrainState, make_train_step

COLUMNS = ("objective", "batch", "compile_seconds", "images_per_second", "gradients", "ratio")
TOTAL_STEPS = 100


def rows(experiment: Experiment, mesh) -> list[dict]:
    """One a name of ``OBJECTIVES``, at its defaults but for ``config.benchmark.attack``; all parameters train.

    gradients: seconds of the step, with augmentation and optimiser, over those of one gradient of the training loss in
        the parameters.
    ratio: the same over those of as many gradients in the images as the attack has steps, and that one in the
        parameters; at most 1.05 means that adversarial training costs its gradients and nothing beside.
    """
    settings = experiment.benchmark
    shape = (settings.image_size, settings.image_size, settings.channels)
    classifier = initialise.classifier_of(experiment.model, shape, settings.num_classes)
    batch = sharding.put_batch(_batch(settings, shape), mesh)
    floor = _gradients(classifier, batch, mesh)
    attack = experiment.plain.get("benchmark", {}).get("attack", {})
    whole = dataclasses.replace(experiment.train, average_decay=0.0, trainable=())
    found = []
    for name in objectives.OBJECTIVES:
        try:
            objective = objective_of({"name": name, "attack": attack})
        except ValueError as error:  # such as for a divergence, which needs an attack with a random start
            say(f"benchmark: no training step of {name}: {error}")
            continue
        say(f"benchmark: a training step of {name}")
        one = experiment._replace(objective=objective, ramps=(), train=whole)
        found.append({"objective": name, **_timed(classifier, one, batch, floor, mesh)})
    return found


def _batch(settings, shape) -> dict:
    rng, size = np.random.default_rng(0), settings.batch_size
    return {
        "image": rng.integers(0, 256, (size, *shape), np.uint8),
        "label": rng.integers(0, settings.num_classes, size).astype(np.int32),
        "id": np.arange(size, dtype=np.int32),
        "valid": np.ones(size, bool),
        "lesion_mask": rng.integers(0, 2, (size, *shape[:2]), np.uint8),
    }


def _gradients(classifier, batch, mesh):
    """``(in_images, in_parameters)``: one gradient of the cross-entropy of ``batch`` each, compiled."""
    variables = sharding.put_replicated(classifier.init(jax.random.key(0)), mesh)
    images = data_lib.to_float(batch)["image"]

    def in_images(variables, images, labels):
        logits_fn = classifier.logits_fn(variables)
        return jax.grad(lambda x: jnp.sum(losses.cross_entropy(logits_fn(x), labels)))(images)

    def in_parameters(variables, images, labels):
        def loss_fn(params):
            output = classifier.apply({**variables, "params": params}, images, mode="train", key=jax.random.key(0))
            return jnp.mean(losses.cross_entropy(output.logits, labels)), output.state

        return jax.grad(loss_fn, has_aux=True)(variables["params"])

    arguments = (variables, images, batch["label"])
    programs = [timing.compiled(program, *arguments)[0] for program in (in_images, in_parameters)]
    return [lambda program=program: program(*arguments) for program in programs]


def _timed(classifier, experiment: Experiment, batch, floor, mesh) -> dict:
    settings, objective = experiment.benchmark, experiment.objective
    transformation, schedule = optimizer.make(experiment.optimizer, TOTAL_STEPS)
    step = make_train_step(classifier, experiment, transformation, schedule, TOTAL_STEPS)
    variables = classifier.init(jax.random.key(0))
    params, carry = variables["params"], objective.function.start(data_lib.to_float(batch), objective.spec)
    state = TrainState(jnp.int32(0), params, variables["state"], transformation.init(params), (), ())
    state = sharding.put_replicated(state, mesh)._replace(carry=carry)
    arguments = (state, batch, jax.random.key(0), sharding.put_replicated(jnp.float32(1), mesh))
    run_step, compile_seconds = timing.compiled(step, *arguments)
    in_images, in_parameters = floor
    attack_steps = getattr(settings.attack.spec, "num_steps", 1)

    def as_many_gradients():
        for _ in range(attack_steps):
            in_images()
        in_parameters()

    seconds, ratio = timing.in_turns(lambda: run_step(*arguments), as_many_gradients, settings.repetitions)
    _, gradients = timing.in_turns(lambda: run_step(*arguments), in_parameters, settings.repetitions)
    return {
        "batch": settings.batch_size,
        "compile_seconds": compile_seconds,
        "images_per_second": settings.batch_size / seconds,
        "gradients": gradients,
        "ratio": ratio if experiment.attack is not None else None,
    }
