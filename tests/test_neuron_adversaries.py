"""Several adversarial images of each example, made against an ensemble, counted again in NumPy.

The planted network of ``test_neuron_report`` reads squares of three colours; the other member of the ensemble confuses
red and green, so that images which fool both do so less surely.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import (
    attacks,
    data,
    initialise,
    neuron_adversaries,
    neuron_report,
    records,
    study_neurons,
    study_runs,
)
from robust_saliency import report as report_lib
from robust_saliency.randomness import key_of, per_example_keys
from robust_saliency.threat import Threat
from tests import test_neuron_report as planted_network
from tests import tiny

COUNT = 3
OPTIMISATION = {
    "num_adversaries": COUNT, "num_steps": 3, "learning_rate": 0.05, "start_scale": 0.3, "distance_weight": 0.01
}  # fmt: skip
SETTINGS = {
    **planted_network.SETTINGS, "ensemble": ["../one", "../other"], "num_top": 4, "ascent_steps": 0, "num_mistakes": 0,
    "optimisation": {"norm": "linf", "epsilon": 1.0, **OPTIMISATION},
}  # fmt: skip
CONFUSED = planted_network.HEAD * 0.3 + planted_network.HEAD[:, [1, 0, 2]] * 0.2
OTHER = {**planted_network.VARIABLES, "params": {**planted_network.VARIABLES["params"], "head": jnp.asarray(CONFUSED)}}
SPEC = attacks.EnsembleOptimisation(threat=Threat(norm="linf", epsilon=1.0), **OPTIMISATION)


@pytest.fixture
def steps(monkeypatch):
    """The checkpoints by run; each folder but ``other`` holds the planted network."""
    found = {"one": 7, "other": 7, "run": 7}

    def load_described(workdir, step):
        name = pathlib.Path(workdir).name
        shape = [4, 4, 3] if name == "small" else [8, 8, 3]
        described = {"config": tiny.plain(), "image_shape": shape, "class_names": list(planted_network.CLASSES)}
        variables = OTHER if name == "other" else planted_network.VARIABLES
        return planted_network.CLASSIFIER, variables, described, found[name]

    monkeypatch.setattr(initialise, "load_described", load_described)
    monkeypatch.setattr(initialise, "step_of", lambda workdir, step: found[pathlib.Path(workdir).name])
    return found


def experiment(**changes):
    return tiny.experiment(neurons={**SETTINGS, **changes})


def report(place, **changes):
    place.mkdir(exist_ok=True)
    return pathlib.Path(
        neuron_report.neuron_report(experiment(**changes), str(place), planted_network.planted())
    ).parent


def counted():
    """Of each example and adversary: the class that the network takes it for, its units, and whether it fooled."""
    rows = planted_network.planted().test.arrays
    members = [planted_network.CLASSIFIER.logits_fn(held) for held in (planted_network.VARIABLES, OTHER)]
    keys = per_example_keys(key_of("neurons"), jnp.asarray(rows["id"]))
    with jax.default_matmul_precision("highest"):
        made = attacks.ensemble_optimisation(
            members, keys, jnp.asarray(rows["image"]), jnp.asarray(rows["label"]), SPEC
        ).images
    units = np.asarray(made).reshape(6, COUNT, 4, 2, 4, 2, 3).mean((3, 5)) @ planted_network.COLOURS
    real = rows["image"].reshape(6, 4, 2, 4, 2, 3).mean((2, 4)) @ planted_network.COLOURS
    taken_for = (units.mean((2, 3)) @ planted_network.HEAD).argmax(-1)
    right = (real.mean((1, 2)) @ planted_network.HEAD).argmax(-1) == rows["label"]
    return real, units, taken_for, right[:, None] & (taken_for != rows["label"][:, None])


def test_every_adversary_counts(tmp_path, steps):
    found = report(tmp_path / "run")
    real, units, taken_for, fooled = counted()
    assert 0 < fooled.sum() < 5 * COUNT and (fooled.sum(1) > 1).any(), "some, not all, and several of one image"
    examples = records.read_csv(found / "examples.csv")
    np.testing.assert_allclose(examples["fooled"], fooled.mean(1), rtol=1e-6)
    commonest = [np.bincount(row).argmax() for row in taken_for]
    np.testing.assert_array_equal(examples["adversarial_prediction"], commonest)

    labels = planted_network.LABELS
    means = np.stack([real[labels == label].reshape(-1, 80).mean(0) for label in range(3)])
    distance = np.linalg.norm
    expected = np.full((6, 2), np.nan)
    for image in np.flatnonzero(fooled.any(1)):
        pairs = []
        for which in np.flatnonzero(fooled[image]):
            here = units[image, which].ravel()
            target = distance(here - means[taken_for[image, which]])
            pairs.append((distance(here - means[labels[image]]), distance(here - real[image].ravel())) / target)
        expected[image] = np.mean(pairs, axis=0)
    np.testing.assert_allclose(np.stack([examples["r1:units"], examples["r2:units"]], 1), expected, rtol=1e-4)


def test_similarities_are_of_the_adversaries_that_raise_a_unit_most(tmp_path, steps):
    found = records.read_csv(report(tmp_path / "run") / "units.csv")
    real, units, taken_for, fooled = counted()
    labels = np.repeat(planted_network.LABELS, COUNT).reshape(6, COUNT)

    def shares(classes, maps):
        """Classes of the four highest images, of those that raise the unit above its rest."""
        order = np.argsort(-maps.max(1), kind="stable")[:4]
        activated = [place for place in order if maps[place].max() > maps.min()]
        return np.bincount(classes[activated], minlength=3) / len(activated)

    for unit in (0, 1, 2, 4):
        own = units[..., unit][fooled].reshape(fooled.sum(), -1)
        true = shares(planted_network.LABELS, real[..., unit].reshape(6, -1))
        for column, classes in (("cs1", labels[fooled]), ("cs2", taken_for[fooled])):
            other = shares(classes, own)
            cosine = true @ other / np.linalg.norm(true) / np.linalg.norm(other)
            assert found[column][unit] == pytest.approx(cosine, rel=1e-5), (unit, column)


@pytest.mark.parametrize("size", [2, 6])
def test_the_batch_size_does_not_matter(tmp_path, steps, size):
    one, other = report(tmp_path / "run"), report(tmp_path / "one", batch_size=size)
    assert (other / "units.csv").read_text() == (one / "units.csv").read_text()
    before, after = (records.read_csv(place / "examples.csv") for place in (one, other))
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, rtol=1e-5, err_msg=name)


def test_the_page_says_how_many_were_made_and_against_whom(tmp_path, steps):
    text = (report(tmp_path / "run") / "neurons.html").read_text()
    fooled = counted()[-1].sum()
    assert f"Of {6 * COUNT} adversarial images (optimised against ../one, ../other: norm linf, epsilon 1" in text
    assert f") {fooled} were made of an image that is classified correctly" in text


@pytest.mark.parametrize("size", [2, 4])
def test_of_some_examples_alone(tmp_path, steps, size):
    """Three of six, a choice over all of them, that no batch size divides."""
    some = records.read_csv(report(tmp_path / "run", num_attacked=3, batch_size=size) / "examples.csv")
    all_of_them = records.read_csv(report(tmp_path / "one") / "examples.csv")
    chosen = data.choose(6, 3)
    assert list(chosen) != [0, 1, 2], "data can be sorted by class"
    left = np.setdiff1d(np.arange(6), chosen)
    for name in ("fooled", "r1:units", "r2:units"):
        np.testing.assert_allclose(some[name][chosen], all_of_them[name][chosen], rtol=1e-5)
        assert np.isnan(some[name][left]).all()
    taken_for = some["adversarial_prediction"]
    np.testing.assert_array_equal(taken_for[chosen], all_of_them["adversarial_prediction"][chosen])
    np.testing.assert_array_equal(taken_for[left], -1)
    about = records.read_json(tmp_path / "run" / "neurons" / "neurons.json")
    assert about["num_adversaries"] == 3 * COUNT and about["num_fooled"] == counted()[-1][chosen].sum()


def test_the_next_network_is_shown_the_same_and_they_are_made_once(tmp_path, steps, monkeypatch):
    """Of one ensemble; another one, another checkpoint of a member, and what there is no room for are made anew."""
    kept = {}

    def looked(name, room=neuron_adversaries.MOST_KEPT, **changes):
        monkeypatch.setattr(neuron_adversaries, "MOST_KEPT", room)
        (tmp_path / name).mkdir(exist_ok=True)
        place, held = str(tmp_path / name), planted_network.planted()
        found = pathlib.Path(neuron_report.neuron_report(experiment(batch_size=4, **changes), place, held, kept)).parent
        return {table: (found / f"{table}.csv").read_bytes() for table in ("units", "examples")}

    def alone(name, **changes):
        found = report(tmp_path / name, batch_size=4, **changes)
        return {table: (found / f"{table}.csv").read_bytes() for table in ("units", "examples")}

    first, second = alone("run"), alone("other")
    assert looked("run") == first and looked("other") == second != first
    [(made_of, batches)] = kept.items()
    assert sorted(batches) == [0, 1]
    for number, images in batches.items():
        batches[number] = np.zeros_like(images)
    assert looked("other") != second, "they are not made again"
    steps["one"] = 8
    assert looked("other") == second and made_of not in kept
    one = ["../one"]
    assert looked("run", room=0, ensemble=one) == alone("run", ensemble=one) and list(kept.values()) == [{}]


def test_another_checkpoint_of_a_member_is_another_set(tmp_path, steps):
    report(tmp_path / "run")
    assert neuron_report.is_done(experiment(), str(tmp_path / "run"))
    steps["other"] = 8
    assert not neuron_report.is_done(experiment(), str(tmp_path / "run"))


def test_a_member_that_does_not_fit_is_named(tmp_path, steps, monkeypatch):
    steps["small"] = 7
    with pytest.raises(ValueError, match=r"^config.neurons.ensemble: The run was trained on images \(4, 4, 3\)"):
        report(tmp_path / "run", ensemble=["../one", "../small"])
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"^config.neurons: neurons.ensemble must name workdirs, got ''\.$"):
        experiment(ensemble=[""])
    with pytest.raises(ValueError, match=r"^config.neurons: neurons.ensemble names a run twice: ../one, ../one\.$"):
        experiment(ensemble=["../one", "../one"])


def test_of_a_study_the_ensemble_lacks_what_failed_and_is_never_empty(tmp_path, steps, monkeypatch, capsys):
    """One run diverged: the others are looked into all the same, against those that are there."""
    (tmp_path / "run").mkdir()
    failed = [{"label": "other", "seed": 0, "dir": "other", "why": "The loss is NaN."}]
    records.write_json(tmp_path / "study.json", {"runs": [], "failed": failed})
    found = study_runs.Run("run", {"dir": "run"}, experiment(), str(tmp_path / "run"), planted_network.planted())
    monkeypatch.setattr(study_runs, "finished", lambda plain, workdir: [found])
    monkeypatch.setattr(report_lib, "study_neurons_page", lambda workdir: workdir)
    study_neurons.study_neurons({}, str(tmp_path))
    assert records.read_json(tmp_path / "run" / "neurons" / "neurons.json")["settings"]["ensemble"] == ["../one"]
    assert "run: the ensemble lacks ../other, which failed" in capsys.readouterr().err
    study_neurons.study_neurons({}, str(tmp_path))
    assert "its report is there" in capsys.readouterr().err
    alone = found._replace(experiment=experiment(ensemble=["../other"]))
    monkeypatch.setattr(study_runs, "finished", lambda plain, workdir: [alone])
    with pytest.raises(ValueError, match=r"^config.neurons.ensemble: all of ../other failed for run\.$"):
        study_neurons.study_neurons({}, str(tmp_path))
