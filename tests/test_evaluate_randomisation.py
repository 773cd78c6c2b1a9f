"""Maps under fresh weights, in an evaluation: the pure function's curves, of the images that were evaluated first."""

import functools

import jax
import numpy as np
import pytest

from robust_saliency import data, evaluate, initialise, metrics, records, saliency, train
from robust_saliency.randomness import key_of, per_example_keys
from tests import tiny

WANTED = {"orders": ["cascading", "independent"], "num_examples": 20, "sign": "raw", "similarity": "ssim"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("run"))
    experiment = tiny.experiment(evaluation={"randomisation": WANTED, "maps": {"integrated_gradients": None}})
    train.train(experiment, workdir)
    evaluate.evaluate(experiment, workdir)
    return workdir, experiment


def test_the_curves_are_those_of_the_pure_function(run):
    workdir, experiment = run
    found = records.read_npz(f"{workdir}/evaluation/randomisation.npz")
    assert set(found) == {"ids", *(f"{order}/{m}" for order in WANTED["orders"] for m in ("gradient", "smoothgrad"))}
    split = data.load(experiment.data).test
    batch = data.to_float(split.gather(np.arange(20)))
    assert found["ids"].tolist() == batch["id"].tolist()
    classifier, variables, _ = initialise.load(workdir)
    fresh = classifier.init(key_of("parameter_randomisation"))
    spec = dict(experiment.evaluation.maps)["smoothgrad"].spec

    @jax.jit
    def explain(variables, keys, images, labels):
        return saliency.run(classifier.logits_fn(variables), keys, images, labels, spec)

    keys = per_example_keys(key_of("smoothgrad"), batch["id"])
    for order in WANTED["orders"]:
        expected = metrics.parameter_randomisation(
            lambda weights: functools.partial(explain, weights), variables, fresh, classifier.layers, keys,
            batch["image"], batch["label"], metrics.ParameterRandomisation(order=order, sign="raw", similarity="ssim"),
        )  # fmt: skip
        np.testing.assert_allclose(found[f"{order}/smoothgrad"], expected, atol=2e-4)
    np.testing.assert_allclose(found["cascading/gradient"][:, 0], 1, atol=1e-5)
    assert np.all(found["cascading/gradient"][:, 1:] < 0.999)


def test_the_summary_names_the_points_and_says_how_maps_are_compared(run):
    about = records.read_json(f"{run[0]}/evaluation/summary.json")["randomisation"]
    assert about["points"] == ["trained", "logits", "conv4", "conv3", "conv2", "conv1"]
    assert list(about["orders"]) == ["cascading", "independent"]
    assert about["orders"]["cascading"]["settings"] == {"sign": "raw", "similarity": "ssim", "order": "cascading"}


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"orders": ["cascade"]}, "Unknown order 'cascade'"),
        ({"num_examples": 257}, "between 1 and 256, got 257"),
        ({"similarity": "pearson"}, "Unknown similarity 'pearson'"),
        ({"sings": "abs"}, "config.evaluation.randomisation"),
    ],
)
def test_a_bad_setting_is_told_before_anything_is_trained(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny.experiment(evaluation={"randomisation": changes})
