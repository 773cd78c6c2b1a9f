"""What an attack costs, in gradients that it cannot do without, and how near the machine's own speed that is."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import losses, models, sharding, timing
from robust_saliency.config import Experiment
from robust_saliency.config_fields import Method
from robust_saliency.progress import say

COLUMNS = (
    "network", "attack", "batch", "dtype", "steps", "images_per_second", "gradients_per_second", "ratio", "share",
    "trace_seconds", "compile_seconds", "warm_seconds", "mebibytes",
)  # fmt: skip


def rows(experiment: Experiment, mesh) -> list[dict]:
    """One an attack, network, batch and dtype of the config.

    ratio: seconds over those of as many plain gradients. share: floating-point operations a second, of one gradient as
    XLA counts them times the steps, over those of a product of large matrices on the same devices in the same run.
    For the rest see :class:`robust_saliency.timing.Costs`.
    """
    settings, found = experiment.benchmark, []
    shape = (settings.image_size, settings.image_size, settings.channels)
    fastest = {dtype: product_rate(mesh, dtype) for dtype in settings.dtypes}
    for network, dtype in itertools.product(settings.models or models.MODELS, settings.dtypes):
        Spec, make = models.MODELS[network]
        classifier = make(dataclasses.replace(Spec(), dtype=dtype), shape, settings.num_classes)
        for batch, attack in itertools.product(settings.batch_sizes or (settings.batch_size,), settings.attacks):
            say(f"benchmark: {attack.name} on {network}, {batch} images of {shape}, {dtype}")
            row = _timed(classifier, attack, batch, shape, settings, mesh, fastest[dtype])
            found.append({"network": network, "attack": attack.name, "batch": batch, "dtype": dtype, **row})
    return found


def _timed(classifier, attack: Method, batch: int, shape, settings, mesh, fastest: float) -> dict:
    key, rng = jax.random.key(0), np.random.default_rng(0)
    variables = sharding.put_replicated(classifier.init(key), mesh)
    labels = rng.integers(0, settings.num_classes, batch).astype(np.int32)
    placed = sharding.put_batch({"image": rng.random((batch, *shape), np.float32), "label": labels}, mesh)
    steps = getattr(attack.spec, "num_steps", 1) * getattr(attack.spec, "num_restarts", 1)

    def loss_fn(variables, images, labels):
        return losses.cross_entropy(classifier.logits_fn(variables)(images), labels)

    def attacked(variables, key, images, labels):
        return attack.function(lambda x: loss_fn(variables, x, labels), key, images, attack.spec)

    def gradient(variables, images, labels):
        return jax.grad(lambda x: jnp.sum(loss_fn(variables, x, labels)))(images)

    run_attack, costs = timing.compiled_with_costs(attacked, variables, key, *placed.values())
    run_gradient, _ = timing.compiled(gradient, variables, *placed.values())
    operations = timing.operations(gradient, variables, *placed.values())

    def gradients():
        for _ in range(steps):
            run_gradient(variables, *placed.values())

    seconds, ratio = timing.in_turns(
        lambda: run_attack(variables, key, *placed.values()), gradients, settings.repetitions
    )
    return {
        "steps": steps,
        "images_per_second": batch / seconds,
        "gradients_per_second": batch * steps / seconds,
        "ratio": ratio,
        "share": operations * steps / seconds / fastest,
        **costs._asdict(),
    }


def product_rate(mesh, dtype: str) -> float:
    """Floating-point operations a second of a product of large square matrices, one on each device."""
    side = 1024 if mesh.devices.flat[0].platform == "cpu" else 8192
    rows = np.ones((mesh.size * side, side), np.float32)
    left = sharding.put_batch({"rows": rows}, mesh)["rows"].astype(dtype)
    right = sharding.put_replicated(jnp.ones((side, side), dtype), mesh)
    product, _ = timing.compiled(jnp.matmul, left, right)
    seconds, _ = timing.in_turns(lambda: product(left, right), lambda: None, 9)
    return 2 * mesh.size * side**3 / seconds
