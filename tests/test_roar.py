"""ROAR on images of which it is known where the class stands: what must fall falls, what must not does not.

Two classes: one has four bright pixels on the left, the other on the right, in noise. A linear network.
"""

import dataclasses
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_saliency import config, data, models, records, retraining, roar, roar_images, study, train
from robust_saliency.types import spec
from tests import tiny
from tests.interruptions import killed_at

SIDE, NUM_TEST = 8, 200
PATCHES = (np.s_[2:4, 1:3], np.s_[4:6, 5:7])


@spec
class Linear:
    width: int = 2


def make(settings, image_shape, num_classes):
    def init(key):
        return {"params": {"w": jnp.zeros((int(np.prod(image_shape)), num_classes))}, "state": {}}

    def apply(variables, images, **_):
        return models.Output(images.reshape(len(images), -1) @ variables["params"]["w"], {}, {})

    return models.Classifier(init, apply)


LINEAR = (Linear, make)


def drawn(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=count).astype(np.int32)
    images, masks = rng.uniform(0.3, 0.7, (count, SIDE, SIDE, 1)), np.zeros((count, SIDE, SIDE), np.uint8)
    for image, mask, label in zip(images, masks, labels, strict=True):
        image[PATCHES[label]], mask[PATCHES[label]] = 0.95, 1
    images = np.round(255 * images).astype(np.uint8)
    ids = np.arange(count, dtype=np.int32)
    return data.MemorySplit({"image": images, "label": labels, "id": ids, "evidence_mask": masks})


PLANTED = data.Data(drawn(256, 0), drawn(64, 1), drawn(NUM_TEST, 2), ("left", "right"), (SIDE, SIDE, 1), (), "planted")


def plain(seeds=1, **settings):
    changes = tiny.plain(
        title="Left or right",
        data={"batch_size": 64},
        train={"epochs": 10, "validate_every": 10, "checkpoint_every": 5, "log_every": 40},
        optimizer={"learning_rate": 0.05},
        evaluation={"maps": {"integrated_gradients": None, "smoothgrad": None}, "batch_size": 64},
        roar={"fractions": [0.25], "retrainings": seeds, **settings},
    )
    return changes | {"model": {"name": f"{__name__}:LINEAR"}}


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    monkeypatch.setattr(data, "load", lambda spec: PLANTED)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("roar") / "run"
    train.train(config.parse(plain()), str(workdir), PLANTED)
    return workdir


@pytest.fixture(scope="module")
def retrained(trained):
    """Killed in the first retraining, then in the second, then let go on."""
    asked = plain(masks_alone=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda spec: PLANTED)
        for _ in range(2):
            with killed_at(20):
                roar.roar(asked, str(trained))
        first = {path: path.stat().st_mtime_ns for path in trained.glob("roar/retrainings/*.npz")}
        assert not (trained / "roar" / "roar.csv").exists()
        page = pathlib.Path(roar.roar(asked, str(trained)))
    rows = records.read_csv(trained / "roar" / "roar.csv")
    return first, page, rows


def accuracy(rows, label, mode="remove"):
    (found,) = rows["accuracy"][(rows["map"] == label) & (rows["mode"] == mode)]
    return found


CHANCE = (0.38, 0.62)  # of 200 images, beyond three deviations


def test_a_right_map_takes_the_class_away_and_a_random_one_does_not(retrained):
    *_, rows = retrained
    assert accuracy(rows, roar.WHOLE) == 1.0
    assert CHANCE[0] < accuracy(rows, "gradient") < CHANCE[1]
    assert accuracy(rows, "random") > 0.95 and accuracy(rows, "centre_gaussian") > 0.95
    assert CHANCE[0] < accuracy(rows, "evidence_mask") < CHANCE[1]


def test_the_shape_of_what_was_removed_tells_the_class_only_where_it_follows_the_class(retrained):
    *_, rows = retrained
    assert accuracy(rows, "evidence_mask", "mask") > 0.95, "the patch lies left or right, as the class does"
    for label in ("gradient", "random", "centre_gaussian"):
        assert CHANCE[0] < accuracy(rows, label, "mask") < CHANCE[1], label


def test_a_leak_can_hide_that_the_evidence_is_gone(trained, tmp_path):
    """Rong et al.: removed pixels that stand out carry the class themselves; with the mean they do not, see above."""
    experiment = config.parse(plain(baseline={"kind": "black"}))
    subject = roar_images.subject_of(experiment, str(trained), PLANTED)
    images = roar_images.changed(subject, roar_images.maps_of(subject, "evidence_mask"), "remove", 0.25)
    masks, removed = PLANTED.test.arrays["evidence_mask"] > 0, images.test.arrays["image"][..., 0]
    assert (removed[masks] == 0).all() and ((removed == 0).sum((1, 2)) == 16).all()
    like = retraining.experiment_of(experiment, experiment, 0)
    retraining.tested(like, images, str(tmp_path / "training"), str(tmp_path / "found.npz"), {})
    assert records.read_npz(tmp_path / "found.npz")["correct"].mean() > 0.95
    assert not (tmp_path / "training").exists()


def test_what_a_kill_left_is_kept_and_the_rest_goes_on(trained, retrained, capfd):
    first, page, rows = retrained
    assert len(first) == 1 and {path: path.stat().st_mtime_ns for path in first} == first
    assert len(rows["map"]) == len(list(trained.glob("roar/retrainings/*.npz"))) == 1 + 5 * 2
    assert not (trained / "roar" / "training").exists()
    before = page.read_bytes()
    roar.roar(plain(masks_alone=True), str(trained))
    assert "11 retrainings, of which 11 are there" in capfd.readouterr().err
    assert page.read_bytes() == before


def test_another_process_finds_what_is_there(trained, retrained):
    """Once a name held the address of a function: a study that went on trained all networks of its maps again."""
    again = (
        "import sys; from robust_saliency import data, roar; from tests import test_roar as asked\n"
        "data.load = lambda spec: asked.PLANTED\n"
        "roar.roar(asked.plain(masks_alone=True), sys.argv[1])"
    )
    command = [sys.executable, "-c", again, str(trained)]
    found = subprocess.run(command, cwd=tiny.ROOT, env=tiny.environment(), capture_output=True, text=True, timeout=300)
    assert "11 retrainings, of which 11 are there" in found.stderr, found.stderr


def test_results_are_of_these_images_and_these_weights(trained):
    """Another folder behind the same config, or a network trained again to the same step, has results of its own."""
    subject = roar_images.subject_of(config.parse(plain()), str(trained), PLANTED)
    images, weights = roar_images.fingerprints(subject)
    assert (images, weights) == roar_images.fingerprints(subject)
    other = subject._replace(data=subject.data._replace(test=drawn(NUM_TEST, 3)))
    assert roar_images.fingerprints(other)[0] != images and roar_images.fingerprints(other)[1] == weights
    moved = subject._replace(variables=jax.tree.map(lambda leaf: leaf + 1e-3, subject.variables))
    assert roar_images.fingerprints(moved)[0] == images and roar_images.fingerprints(moved)[1] != weights


def test_with_nothing_left_a_balanced_training_names_any_class(trained):
    subject = roar_images.subject_of(config.parse(plain()), str(trained), PLANTED)
    commonest = np.bincount(PLANTED.train.labels).argmax()
    assert subject.chance == np.mean(PLANTED.test.labels == commonest) != 0.5
    balanced = subject.experiment._replace(data=dataclasses.replace(subject.experiment.data, class_balanced=True))
    assert subject._replace(experiment=balanced).chance == 0.5


def test_a_network_of_other_images_is_refused(trained):
    smaller = PLANTED._replace(image_shape=(SIDE, SIDE + 1, 1))
    with pytest.raises(ValueError, match=r"was trained on images \(8, 8, 1\)"):
        roar_images.subject_of(config.parse(plain()), str(trained), smaller)


def test_a_kill_behind_the_last_checkpoint_costs_the_time_alone(tmp_path):
    assert retraining._seconds(str(tmp_path)) == 0
    records.write_json(tmp_path / "training.json", {"seconds": 2.5})
    assert retraining._seconds(str(tmp_path)) == 2.5


def test_images_that_are_right_are_kept_one_by_one_with_the_interval_of_their_share(trained, retrained):
    *_, rows = retrained
    for name, share, low, high in zip(rows["file"], rows["accuracy"], rows["low"], rows["high"], strict=True):
        found = records.read_npz(trained / "roar" / str(name))
        np.testing.assert_array_equal(found["id"], np.arange(NUM_TEST))
        assert found["correct"].dtype == bool and found["correct"].mean() == share
        assert low <= share <= high and high - low < 0.15
        assert found["empty_maps"].tolist() == [0, 0, 0]


def test_the_page_says_what_was_found_and_warns_of_the_leak(retrained):
    _, page, rows = retrained
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.read_text()))
    assert "Left or right" in text and "on whole images" in text.lower()
    assert f"{accuracy(rows, 'gradient'):.3f}" in text
    assert "better than random pixels, which is no claim (the interval excludes zero, but one seed" in text
    assert "What the shape of the removed region tells alone" in text and "Rong et al. 2022" in text
    assert "the mean of the training images by channel" in text and "explain the predicted class" in text
    assert "http" not in page.read_text(), "the page needs another file"


@pytest.mark.parametrize("explained", ["predicted", "true"])
def test_maps_are_of_the_class_asked_for(trained, explained):
    experiment = config.parse(plain(explained=explained))
    signed = {"gradient": {"name": "gradient", "sign": "signed", "channels": "sum"}}
    chosen = config.parse({**experiment.plain, "evaluation": {**experiment.plain["evaluation"], "maps": signed}})
    wrong = PLANTED._replace(test=data.MemorySplit({**PLANTED.test.arrays, "label": 1 - PLANTED.test.labels}))
    subject = roar_images.subject_of(chosen, str(trained), wrong)
    maps = roar_images.maps_of(subject, "gradient")["test"]
    w = np.asarray(subject.variables["params"]["w"]).reshape(SIDE, SIDE, 2)
    labels = wrong.test.labels if explained == "true" else PLANTED.test.labels
    np.testing.assert_allclose(maps, np.moveaxis(w, -1, 0)[labels], rtol=1e-5)


def test_a_run_is_retrained_from_random_weights_without_what_only_its_own_regime_needs():
    changes = {"objective": {"name": "adversarial", "wrappers": ["awp"]}, "schedules": {"epsilon": {"until": 0.5}},
               "init_from": {"workdir": "../standard"}, "optimizer": {"learning_rate": 0.5},
               "train": {"guard_drop": 0.1, "trainable": ["^params/logits"], "best_metric": "balanced_robust_accuracy"},
               "phases": [{"label": "a", "init_step": "best", "overrides": {"train": {"epochs": 9}}},
                          {"label": "b", "init_step": "best", "overrides": {}}]}  # fmt: skip
    run = tiny.experiment(**changes, roar={"epochs": 3})
    made = retraining.experiment_of(run, run, seed=7)
    assert (made.objective.name, made.train.epochs, made.seed, made.optimizer.learning_rate) == ("standard", 3, 7, 0.5)
    assert (made.phases, made.ramps, made.init_from.workdir, made.train.trainable) == ((), (), "", ())
    assert (made.train.best_metric, made.train.guard_drop) == ("accuracy", 0.0)
    changes = {"objective": {"attack": {"epsilon": 0.01}}, "optimizer": {"learning_rate": 0.5}, "train": {"epochs": 3}}
    other = tiny.experiment(**changes)
    same = retraining.experiment_of(other, other, seed=7)
    assert retraining.identity(made) == retraining.identity(same), "floors could not be shared"
    assert retraining.identity(made) != retraining.identity(retraining.experiment_of(run, run, seed=8))


def test_the_runs_of_a_study_share_what_does_not_depend_on_them(tmp_path, monkeypatch):
    runs = [{"label": "standard", "description": ""},
            {"label": "long", "overrides": {"train": {"epochs": 5, "validate_every": 5}}}]  # fmt: skip
    asked = plain() | {"study": {"runs": runs, "seeds": 1, "reference": "standard"}}
    entries = []
    for (label, seed, directory, text), experiment in study.parse(asked):
        train.train(experiment, str(tmp_path / directory), PLANTED)
        entries.append({"label": label, "seed": seed, "dir": directory, "description": text})
    records.write_json(tmp_path / "config.json", asked)
    records.write_json(tmp_path / "study.json", {"runs": entries})
    made = []

    def tested(experiment, images, place, path, kept):
        made.append((pathlib.Path(path).name.split("_seed")[0], experiment.train.epochs, experiment.seed))
        correct = np.random.default_rng(len(made)).uniform(size=NUM_TEST) < 0.8
        records.write_npz(path, {"id": np.arange(NUM_TEST), "correct": correct, "seconds": 1.0, **kept})

    monkeypatch.setattr(retraining, "tested", tested)
    page = pathlib.Path(roar.roar(asked, str(tmp_path)))
    assert len(made) == len(set(made)) + 1 == 7, "one map of each run; whole images and four floors once"
    assert {epochs for _, epochs, _ in made} == {10}, "all are retrained as the reference run was trained"
    assert len(records.read_csv(tmp_path / "roar" / "roar.csv")["run"]) == 12
    more = asked | {"roar": {**asked["roar"], "retrainings": 2, "mode": "both", "fractions": [0.25, 0.75]}}
    roar.roar(more, str(tmp_path))
    assert len(made) == 2 + 6 * 2 * 2 * 2, "two seeds of whole images; six maps, two modes, two shares, two seeds"
    text = page.read_text()
    one = asked | {"roar": {**asked["roar"], "runs": ["long"]}}
    count = len(made)
    roar.roar(one, str(tmp_path))
    assert len(made) == count, "what is there is not done again"
    assert {str(run) for run in records.read_csv(tmp_path / "roar" / "roar.csv")["run"]} == {"long"}
    with pytest.raises(ValueError, match=r"^Unknown run in config.roar.runs 'lnog'\. Did you mean 'long'\?"):
        roar.roar(asked | {"roar": {**asked["roar"], "runs": ["lnog"]}}, str(tmp_path))
    assert "<h2>standard</h2>" in text and "<h2>long</h2>" in text and "Attribution quality (DiffROAR)" in text
    assert "k = 25" in text and "k = 75" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ["gradeint"]}, r"Unknown map in config.roar.methods 'gradeint'. Did you mean 'gradient'\?"),
        ({"mode": "retain"}, "Unknown roar.mode 'retain'.*Choices: both, keep, remove"),
        ({"fractions": [0.5, 1.0]}, r"roar.fractions must lie strictly between 0 and 1, got \(0.5, 1.0\)"),
        ({"fractions": []}, "roar.fractions must lie strictly between 0 and 1"),
        ({"fractions": [0.5, 0.25]}, "roar.fractions must ascend"),
        ({"retrainings": 0}, "config.roar.retrainings must be at least 1, got 0"),
        ({"explained": "label"}, "Unknown roar.explained 'label'"),
        ({"objective": "standrad"}, "Unknown roar.objective 'standrad'. Did you mean 'standard'"),
        ({"baseline": {"kind": "grey"}}, "config.roar.baseline.*Unknown baseline 'grey'"),
    ],
)
def test_bad_settings_are_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        config.parse(plain(**settings))


def test_without_a_trained_network_there_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        roar.roar(plain(), str(tmp_path / "nowhere"))
    records.write_json(tmp_path / "study.json", {"runs": []})
    with pytest.raises(ValueError, match=r"has no finished run \(.*study\.json names none\); run --mode=study first"):
        roar.roar(plain(), str(tmp_path))


def test_eight_bit_images_stay_what_they_are_where_nothing_is_removed(trained):
    subject = roar_images.subject_of(config.parse(plain()), str(trained), PLANTED)
    maps = roar_images.maps_of(subject, "random")
    found = roar_images.changed(subject, maps, "remove", 0.25).test.arrays["image"]
    before = PLANTED.test.arrays["image"]
    gone = jax.vmap(lambda values: values >= jnp.sort(values.ravel())[-16])(maps["test"])
    np.testing.assert_array_equal(found[~np.asarray(gone)], before[~np.asarray(gone)])
    mean = np.round(PLANTED.train.arrays["image"].mean())
    assert (found[np.asarray(gone)] == mean).all() and found.dtype == np.uint8
    assert dataclasses.asdict(config.parse(plain()).roar)["methods"] == ("gradient",)
