"""The study of the regimes is fair: every run makes as many passes over an image, counted in what is computed."""

import jax
import jax.numpy as jnp
import pytest

from configs import study_regimes
from robust_saliency import config, initialise, study

BATCH = 4


def convolutions(jaxpr) -> int:
    """Of the bundled networks, forward and backward; those of a loop as often as it runs."""
    found = 0
    for equation in jaxpr.eqns:
        assert equation.primitive.name != "while"
        found += equation.primitive.name.startswith("robust_saliency_convolution")
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found += times * convolutions(inner)
    return found


def convolutions_of_a_step(experiment) -> int:
    objective, spec = experiment.objective.function, experiment.objective.spec
    classifier = initialise.classifier_of(experiment.model, (32, 32, 3), 3)
    variables = jax.eval_shape(classifier.init, jax.random.key(0))
    batch = {
        "image": jax.ShapeDtypeStruct((BATCH, 32, 32, 3), jnp.float32),
        "label": jax.ShapeDtypeStruct((BATCH,), jnp.int32),
        "id": jax.ShapeDtypeStruct((BATCH,), jnp.int32),
        "valid": jax.ShapeDtypeStruct((BATCH,), bool),
    }

    def gradient(variables, batch):
        key = jax.random.key(0)
        batch = objective.perturb(classifier, variables, key, batch, spec)

        def loss_fn(params):
            carry = objective.start(batch, spec)
            return objective.loss(classifier, {**variables, "params": params}, carry, key, batch, spec)[0]

        return jax.grad(loss_fn)(variables["params"])

    return convolutions(jax.make_jaxpr(gradient)(variables, batch).jaxpr)


def runs_of(data_set):
    plain = config.to_plain(study_regimes.get_config(data_set))
    plain["study"]["seeds"] = 1
    return {label: experiment for (label, *_), experiment in study.parse(plain)}


def spent(experiment):
    """Epochs of the run after the start that all share, and convolutions."""
    parts = [part for folder, part in experiment.phases if not folder.endswith("_start")] + [experiment]
    return [(part.train.epochs, convolutions_of_a_step(part)) for part in parts]


@pytest.mark.parametrize("data_set", ["planted_lesions", "ham10000", "repairs"])
def test_every_run_costs_as_much_as_the_standard_one_and_no_more(data_set):
    """A pass of an attack needs no gradient in the weights, so the adversarial runs compute a little less."""
    runs = runs_of(data_set)
    standard = sum(epochs * count for epochs, count in spent(runs["standard"]))
    shares = {label: sum(e * n for e, n in spent(run)) / standard for label, run in runs.items()}
    assert shares["standard"] == 1
    assert all(0.7 < share <= 1.06 for share in shares.values()), shares
