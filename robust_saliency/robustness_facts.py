"""What a robustness report rests on: the adversaries run on one network, and what the checklist asks of it."""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from robust_saliency import attacks, models, sharding, survivors
from robust_saliency import data as data_lib
from robust_saliency.attacks import minimal, stages
from robust_saliency.config_sections import Robustness
from robust_saliency.progress import Progress
from robust_saliency.randomness import key_of, per_example_keys
from robust_saliency.robustness_checks import THROUGH_FLOAT32, Budget, Facts
from robust_saliency.robustness_programs import Programs, make_programs
from robust_saliency.types import Array, Key, LogitsFn

NUM_RESTARTS = 5
WIDTH = 0.015  # of the smallest epsilon, or of the report's where that is larger: what the search leaves open


class Subject(NamedTuple):
    """A network, the examples ``indices`` of ``split``, and where to compute and to keep what is known.

    identity: says what the split is, see :func:`robust_saliency.survivors.attack`; folder: '' keeps nothing. wide: the
    same network computed in float32, where ``classifier`` computes in a narrower type. network: says what network it
    is, apart from its weights.
    """

    classifier: models.Classifier
    variables: Any
    split: data_lib.Split
    indices: np.ndarray
    num_classes: int
    mesh: Mesh
    folder: str = ""
    identity: Any = None
    wide: models.Classifier | None = None
    network: Any = None


def measure(subject: Subject, settings: Robustness) -> tuple[dict[str, survivors.Found], Facts]:
    """Runs every adversary; what each of them found, by name, and the facts that the checklist judges."""
    if np.ndim(settings.threat.epsilon):
        raise ValueError(f"A robustness report needs one epsilon, got shape {np.shape(settings.threat.epsilon)}.")
    planned = plans(settings, subject.num_classes)
    found = {
        name: _attacked(subject, settings, name, plan, subject.classifier.logits_fn) for name, plan in planned.items()
    }
    if subject.wide:
        plan, logits_of = planned["apgd-ce"], _through_float32(subject.classifier, subject.wide)
        found[THROUGH_FLOAT32] = _attacked(subject, settings, THROUGH_FLOAT32, plan, logits_of)
    columns = _columns(subject, settings)
    clean = found["autoattack"].fooled_by != survivors.BEFORE
    robust = {"clean": clean, "noise": clean & ~columns.pop("noise")}
    robust |= {name: each.robust for name, each in found.items()}
    epsilon = float(settings.threat.epsilon)
    robust["search"] = ~columns["fooled_once"] & (columns["smallest_epsilon"] > epsilon)
    robust["all"] = np.all(list(robust.values()), axis=0)
    # What any adversary fooled within epsilon, the search may have lost sight of on its way down.
    found_so_far = np.where(robust["all"], np.inf, np.where(clean, epsilon, 0.0))
    lost = found_so_far < columns["smallest_epsilon"]
    columns["smallest_epsilon"] = np.where(lost, found_so_far, columns["smallest_epsilon"])
    columns["epsilon_width"] = np.where(lost, found_so_far, columns["epsilon_width"])
    return found, Facts(robust=robust, epsilon=epsilon, budget=budget(settings, subject.num_classes), **columns)


def budget(settings: Robustness, num_classes: int) -> Budget:
    """How hard the report attacks."""
    return Budget(
        version=settings.version,
        steps=settings.steps,
        num_queries=settings.num_queries,
        num_targets=min(settings.num_targets, num_classes - 1),
        wrong_classes=num_classes - 1,
        curve_steps=settings.curve_steps,
        num_searches=settings.num_searches,
    )


def transferable(subject: Subject, settings: Robustness) -> survivors.Found:
    """Adversaries to be shown to other networks: APGD on cross-entropy, every step of it, on every example.

    It goes on where the network is fooled, and also attacks what was wrong before: an adversary that only just fools
    its own network says little of others. Kept as transfer.npz, and made only once.
    """
    plan = plans(settings, subject.num_classes)["apgd-ce"]
    return _attacked(subject, settings, "transfer", plan, subject.classifier.logits_fn, spare_the_fooled=False)


def plans(settings: Robustness, num_classes: int) -> dict[str, tuple[stages.Stage, ...]]:
    """The stages of every adversary, by name."""
    model = settings.threat
    apgd = attacks.APGD(threat=model, num_steps=settings.steps)
    cascade = attacks.AutoAttack(
        threat=model,
        version=settings.version,
        steps=settings.steps,
        num_queries=settings.num_queries,
        num_targets=settings.num_targets,
    )

    def plan(spec: Any) -> tuple[stages.Stage, ...]:
        return stages.stages(spec, num_classes)

    def pgd(num_steps: int) -> attacks.Untargeted:
        step_size = 2.5 / num_steps * model.epsilon
        return attacks.Untargeted(attack=attacks.PGD(threat=model, num_steps=num_steps, step_size=step_size))

    return {
        "pgd-10": plan(pgd(10)),
        "pgd-50": plan(pgd(50)),
        f"pgd-50 x {NUM_RESTARTS}": plan(pgd(50)) * NUM_RESTARTS,
        "apgd-ce": plan(attacks.Untargeted(attack=apgd)),
        "apgd-dlr": plan(attacks.Untargeted(attack=apgd, loss="dlr")),
        "square": plan(attacks.Square(threat=model, num_steps=settings.num_queries)),
        "autoattack": plan(cascade),
    }


@functools.lru_cache(maxsize=8)
def _through_float32(narrow: models.Classifier, wide: models.Classifier) -> Callable[[Any], LogitsFn]:
    """Logits of the network as it is, gradients of it in float32; one function a network, so one program."""
    return lambda variables: models.backward_through(narrow.logits_fn(variables), wide.logits_fn(variables))


def _attacked(
    subject: Subject,
    settings: Robustness,
    name: str,
    plan: tuple[stages.Stage, ...],
    logits_of: Callable[[Any], LogitsFn],
    spare_the_fooled: bool = True,
) -> survivors.Found:
    return survivors.attack(
        logits_of,
        subject.variables,
        subject.split.gather,
        subject.indices,
        plan,
        key=key_of(name),
        mesh=subject.mesh,
        batch_size=settings.batch_size,
        title=name,
        path=os.path.join(subject.folder, f"{name.replace(' ', '_')}.npz") if subject.folder else "",
        identity=subject.identity,
        network=[subject.network, name == THROUGH_FLOAT32],
        spare_the_fooled=spare_the_fooled,
    )


def _columns(subject: Subject, settings: Robustness) -> dict[str, np.ndarray]:
    """Noise, smallest epsilons, and what the checklist asks of gradients, losses and logits; one entry an example."""
    size, rows = settings.batch_size, []
    programs = make_programs(subject.classifier, settings)
    batches = data_lib.eval_batches(subject.split, batch_size=size, indices=subject.indices)
    with Progress("noise and smallest epsilons", -(-len(subject.indices) // size), 0, size) as progress:
        for held in batches:
            batch = sharding.put_batch({name: held[name] for name in ("image", "label", "id")}, subject.mesh)
            keys = per_example_keys(key_of("smallest epsilon"), batch["id"])
            values = sharding.waited(programs.facts(subject.variables, keys, batch), subject.mesh)
            outputs = (sharding.waited(programs.logits(subject.variables, batch), subject.mesh) for _ in range(2))
            values |= {"is_random": _differ(*outputs)}
            values |= _at_epsilons(programs, subject, keys, batch, settings)
            rows.append({name: value[held["valid"]] for name, value in jax.device_get(values).items()})
            progress.update()
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _at_epsilons(
    programs: Programs, subject: Subject, keys: Key, batch: dict, settings: Robustness
) -> dict[str, Array]:
    """Who is fooled at epsilon, at twice epsilon and in the whole box, and the smallest epsilon: one program for all.

    The search starts from the first two, so its brackets are small against epsilon, whatever the size of the box.
    """

    def attacked(epsilon: Array) -> attacks.AttackResult:
        placed = sharding.put_batch({"epsilon": np.asarray(epsilon, np.float32)}, subject.mesh)["epsilon"]
        return sharding.waited(programs.attacked(subject.variables, keys, batch, placed), subject.mesh)

    least = float(settings.threat.epsilon)
    highest = _box_radius(settings, batch["image"].shape[1:])
    ones = np.ones(len(batch["label"]), np.float32)
    once, twice, boxed = (attacked(epsilon * ones) for epsilon in (least, 2 * least, highest))
    bracket = minimal.seeded([(least * ones, once), (2 * least * ones, twice)])
    for _ in range(settings.num_searches):
        if not np.asarray(minimal.is_open(bracket, highest, least, WIDTH)).any():
            break
        epsilon = minimal.following(bracket, highest)
        bracket = minimal.tightened(bracket, attacked(epsilon), epsilon)
    smallest = jnp.where(jnp.isinf(bracket.high) & boxed.success, boxed.distance, bracket.high)
    return {
        "smallest_epsilon": smallest,
        "epsilon_width": smallest - bracket.low,
        "fooled_once": once.success,
        "fooled_twice": twice.success,
        "fooled_in_box": boxed.success,
    }


def _differ(first: Array, second: Array) -> Array:
    """Whether two outputs of each example differ, ``[B]``; NaN is equal to NaN."""
    return jnp.any((first != second) & ~(jnp.isnan(first) & jnp.isnan(second)), axis=-1)


def _box_radius(settings: Robustness, shape: tuple[int, ...]) -> float:
    """The least epsilon whose ball around any image holds the whole box: there a working attack fools everybody."""
    low, high = settings.threat.bounds
    values = float(np.prod(shape))
    return (high - low) * {"l1": values, "l2": values**0.5, "linf": 1.0}[settings.threat.norm]
