"""Are the maps of a run truer than those of the reference, or only sparser?

    python benchmarks/truer_or_sparser.py --study=runs/regimes --run=scaat

The control, 'sharpened', knows nothing new: the reference's own maps, raised to the power that makes them as sparse as
the run's (equal mean Gini index). What a run is truer by must show against it. Prints JSON: by score the means, and
paired differences with 95 % intervals over images, seeds pooled. Scores whose mask the images lack are left out.
"""

import argparse
import json
import os

import jax
import jax.numpy as jnp
import numpy as np

from robust_saliency import checks, config, data, environment, load, metrics, randomness, records, statistics

EVIDENCE = metrics.RelevanceMass(mask="evidence")
SCORES = {
    "gini": ((), lambda maps, masks: metrics.gini(maps)),
    "lesion mass": (("lesion",), lambda maps, masks: metrics.relevance_mass(maps, masks)),
    "evidence mass": (("evidence",), lambda maps, masks: metrics.relevance_mass(maps, masks, EVIDENCE)),
    "evidence given lesion": (("lesion", "evidence"), metrics.relevance_mass_given),
    "pointing game": (("lesion",), metrics.pointing_game),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--method", default="gradient")
    words = parser.parse_args()
    try:
        described = judged(words.study, words.run, words.method)
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps(described, indent=2))


def judged(study: str, run: str, method: str) -> dict:
    """Everything that is printed. ValueError where the study has no such run, or the run no such map or masks."""
    about = records.read_json(os.path.join(study, "study.json"))
    folders = {(entry["label"], entry["seed"]): os.path.join(study, entry["dir"]) for entry in about["runs"]}
    checks.one_of(f"run of {study}", run, {label for label, _ in folders})
    pairs = [[(label, seed) for label in (run, about["reference"])] for seed in {seed for _, seed in folders}]
    pairs = sorted(pair for pair in pairs if set(pair) <= set(folders))
    found = [compared(*(folders[one] for one in pair), method) for pair in pairs]
    ids = np.concatenate([values.pop("ids") for values in found])
    scores = {
        name: {kind: [values[kind][name] for values in found] for kind in ("run", "reference", "sharpened")}
        for name in found[0]["run"]
    }
    return {
        "run": run,
        "reference": about["reference"],
        "method": method,
        "seeds": [seed for (_, seed), _ in pairs],
        "powers": [values["power"] for values in found],
        "scores": {name: summary(by_kind, ids) for name, by_kind in scores.items()},
        "hardware": environment.hardware(),
        "versions": environment.versions(),
    }


def compared(run: str, reference: str, method: str) -> dict:
    """Scores of both runs' maps and of the control, each ``[N]``, on the test images of ``run``."""
    (own, ids, masks), (theirs, _, _) = explained(run, method), explained(reference, method)

    def scores(maps):
        return {
            name: np.asarray(score(maps, masks)) for name, (need, score) in SCORES.items() if set(need) <= set(masks)
        }

    goal = scores(own)
    power = where_equal(lambda p: np.nanmean(metrics.gini(theirs**p)), np.nanmean(goal["gini"]), 0.2, 5.0)
    return {
        "ids": ids,
        "run": goal,
        "reference": scores(theirs),
        "sharpened": scores(theirs**power),
        "power": power,
    }


def explained(workdir: str, method: str):
    """``maps, ids, masks`` of the network in ``workdir``: magnitudes, of the test images that its evaluation used."""
    experiment = config.parse(records.read_json(os.path.join(workdir, "config.json")))
    settings, maps = experiment.evaluation, dict(experiment.evaluation.maps)
    chosen = checks.lookup("map", method, maps)
    classifier, variables, _ = load(workdir, step=settings.step)
    test = data.load(experiment.data).test
    held = data.to_float(test.gather(data.choose(len(test), settings.num_examples)))
    masks = {name: held[f"{name}_mask"] for name in ("lesion", "evidence") if f"{name}_mask" in held}
    if not masks:
        raise ValueError(f"{workdir}: a mask of lesion or evidence is needed, and its images have none.")

    @jax.jit
    def explain(images, labels, ids):
        keys = randomness.per_example_keys(jax.random.key(0), ids)
        logits_fn = classifier.logits_fn(variables)
        if settings.explained == "predicted":
            labels = logits_fn(images).argmax(-1)
        return jnp.abs(chosen.function(logits_fn, keys, images, labels, chosen.spec))

    return explain(held["image"], held["label"], held["id"]), np.asarray(held["id"]), masks


def where_equal(score, goal: float, low: float, high: float) -> float:
    """Where the growing ``score`` is ``goal``, by bisection; the nearer end where it is nowhere."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if score(middle) < goal else (low, middle)
    return (low + high) / 2


def summary(by_kind: dict, ids) -> dict:
    pooled = {kind: np.concatenate(values) for kind, values in by_kind.items()}
    found = {"means": {kind: float(np.nanmean(values)) for kind, values in pooled.items()}}
    for control in ("reference", "sharpened"):
        difference = statistics.paired_difference(pooled["run"], pooled[control], ids, seed=0)
        p = statistics.sign_flip_test(pooled["run"] - pooled[control], ids, seed=0)
        by_seed = [float(np.nanmean(a - b)) for a, b in zip(by_kind["run"], by_kind[control], strict=True)]
        verdict = statistics.difference_counts(by_seed, (difference.low, difference.high), difference.num_groups)
        found[f"run - {control}"] = {
            "difference": difference.mean,
            "interval": [difference.low, difference.high],
            "by seed": by_seed,
            "p": float(p),
            "reading": verdict.reason,
        }
    return found


if __name__ == "__main__":
    main()
