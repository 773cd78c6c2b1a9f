"""Evaluation: rows that can be recomputed by hand, paired by id, the same for every batch size."""

import shutil

import jax
import numpy as np
import pandas
import pytest

from robust_saliency import (
    attacks,
    checkpoint,
    config,
    data,
    evaluate,
    evaluate_blind,
    initialise,
    load,
    losses,
    map_attacks,
    metrics,
    models,
    records,
    saliency,
    sharding,
    threat,
    train,
)
from robust_saliency.data import planted_lesions
from robust_saliency.evaluate_blind import average
from robust_saliency.evaluate_programs import make_programs
from robust_saliency.randomness import key_of, per_example_keys
from tests import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    experiment = tiny.experiment()
    train.train(experiment, str(workdir))
    evaluate.evaluate(experiment, str(workdir))
    return workdir, experiment


def tables(workdir):
    folder = workdir / "evaluation"
    return pandas.read_csv(folder / "examples.csv"), pandas.read_csv(folder / "maps.csv")


def test_rows_agree_with_the_pure_functions(run):
    workdir, experiment = run
    examples, maps = tables(workdir)
    classifier, variables, _ = initialise.load(str(workdir))
    split = data.load(experiment.data).test
    batch = data.to_float(split.gather(np.arange(len(split))))
    logits_fn = classifier.logits_fn(variables)
    logits = logits_fn(batch["image"])
    assert examples["id"].tolist() == batch["id"].tolist()
    assert examples["label"].tolist() == batch["label"].tolist()
    assert examples["correct"].tolist() == (losses.margin(logits, batch["label"]) < 0).astype(float).tolist()
    np.testing.assert_allclose(examples["confidence"], jax.nn.softmax(logits).max(axis=1), rtol=1e-5)
    spec = dict(experiment.evaluation.maps)["gradient"].spec
    expected = saliency.gradient(logits_fn, jax.random.key(0), batch["image"], batch["label"], spec)
    gradient = maps[maps["method"] == "gradient"]
    np.testing.assert_allclose(gradient["gini"], metrics.gini(expected), rtol=1e-4)
    evidence = metrics.relevance_mass(expected, batch["evidence_mask"])
    np.testing.assert_allclose(gradient["evidence_mass"], evidence, rtol=1e-4)


def test_the_predicted_class_is_explained_and_measured_alike(run, tmp_path):
    """Deletion and insertion follow the class that the map explains, on images that are classified wrongly too."""
    workdir, _ = run
    copy = shutil.copytree(workdir, tmp_path / "copy")
    experiment = tiny.experiment(evaluation={"explained": "predicted"})
    evaluate.evaluate(experiment, str(copy))
    examples, maps = tables(copy)
    assert (examples["prediction"] != examples["label"]).sum() >= 3
    classifier, variables, _ = initialise.load(str(copy))
    split = data.load(experiment.data).test
    batch = data.to_float(split.gather(np.arange(len(split))))
    logits_fn = classifier.logits_fn(variables)
    predicted = np.argmax(logits_fn(batch["image"]), -1).astype(np.int32)
    spec = dict(experiment.evaluation.maps)["gradient"].spec
    gradient = saliency.gradient(logits_fn, jax.random.key(0), batch["image"], predicted, spec)
    deletion = dict(experiment.evaluation.metrics)["deletion"]
    keys = per_example_keys(key_of("metrics"), batch["id"])
    expected = deletion.function(logits_fn, keys, batch["image"], predicted, gradient, deletion.spec)
    of_true = deletion.function(logits_fn, keys, batch["image"], batch["label"], gradient, deletion.spec)
    found = maps[maps["method"] == "gradient"]["deletion"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert np.abs(np.asarray(expected) - np.asarray(of_true)).max() > 0.01


def test_images_that_may_have_been_trained_on_are_not_evaluated(run):
    workdir, _ = run
    before = (workdir / "evaluation" / "summary.json").read_bytes()
    with pytest.raises(ValueError, match=r"trained on other splits of planted_lesions \(data.seed 0 -> 1\)"):
        evaluate.evaluate(tiny.experiment(data={"seed": 1}), str(workdir))
    assert (workdir / "evaluation" / "summary.json").read_bytes() == before


def test_a_field_that_only_training_reads_cannot_be_changed_afterwards(run):
    workdir, _ = run
    with pytest.raises(ValueError, match=r"cannot be changed afterwards(.|\n)*  model.width: 4 -> 64"):
        evaluate.evaluate(tiny.experiment(model={"width": 64}), str(workdir))


def test_an_attack_that_decides_itself_counts_whom_it_fooled(run, tmp_path):
    workdir, _ = run
    copy = shutil.copytree(workdir, tmp_path / "copy")
    attack = {"name": "autoattack", "steps": 10, "num_queries": 20, "version": "fast", "epsilon": 8 / 255}
    deepfool = {"name": "deepfool", "norm": "l2", "epsilon": 0.5, "num_steps": 3}
    evaluate.evaluate(tiny.experiment(evaluation={"attacks": {"linf": attack, "l2": deepfool}}), str(copy))
    examples, _ = tables(copy)
    assert (examples["robust:linf"] <= examples["correct"]).all()
    assert (examples["robust:l2"] <= examples["correct"]).all()
    found = records.read_npz(copy / "attacks" / "linf.npz")
    classifier, variables, _ = initialise.load(str(copy))
    margin = losses.margin(classifier.logits_fn(variables)(found["images"]), examples["label"].to_numpy())
    np.testing.assert_array_equal(examples["robust:linf"] == 1, np.asarray(margin) < 0)
    # What was found on the images of one split is not taken for those of another.
    attacks = {"linf": attack, "l2": deepfool}
    evaluate.evaluate(tiny.experiment(evaluation={"attacks": attacks, "split": "validation"}), str(copy))
    again = records.read_npz(copy / "attacks" / "linf.npz")
    assert not np.array_equal(again["images"], found["images"])
    said = records.read_json(copy / "evaluation" / "summary.json")["attacks"]["linf"]
    assert said.startswith("autoattack: norm linf, epsilon 8/255, version fast, steps 10")


def test_every_example_has_a_row_for_every_method_and_floor(run):
    workdir, experiment = run
    examples, maps = tables(workdir)
    explained = {label for label, _ in experiment.evaluation.maps}
    floors = {"random", "centre_gaussian", "sobel", "lesion_mask", "evidence_mask"}
    assert set(maps["method"]) == floors | explained | {f"average of {label}" for label in explained}
    assert (maps.groupby("method")["id"].apply(list).map(lambda ids: ids == examples["id"].tolist())).all()
    oracle = maps[maps["method"] == "evidence_mask"]
    assert (oracle["evidence_mass"] == 1).all()
    assert (oracle["evidence_given_lesion"] == 1).all()
    lesion = maps[maps["method"] == "lesion_mask"]
    assert (lesion["lesion_rank"] == 1).all()
    assert (lesion["pointing_game"] == 1).all()


def test_the_accuracies_are_said(run, tmp_path, capfd):
    place = shutil.copytree(run[0], tmp_path / "again")
    evaluate.evaluate(run[1], str(place))
    examples, _ = tables(place)
    shares = [f"{examples[name].mean():.3f}" for name in ("correct", "robust:l2", "robust:linf")]
    expected = f"again: right on {shares[0]} of 24 images; under l2 {shares[1]}, linf {shares[2]}"
    assert expected in capfd.readouterr().err


def test_the_average_of_a_method_is_that_of_the_other_images(run):
    """Its scores are those of the mean of the others' shares, computed here from the network."""
    workdir, experiment = run
    _, maps = tables(workdir)
    classifier, variables, _ = initialise.load(str(workdir))
    split = data.load(experiment.data).test
    batch = data.to_float(split.gather(np.arange(len(split))))
    spec = dict(experiment.evaluation.maps)["gradient"].spec
    own = saliency.gradient(classifier.logits_fn(variables), None, batch["image"], batch["label"], spec)
    shares = np.abs(own) / np.abs(own).sum((1, 2), keepdims=True)
    others = (shares.sum(0, keepdims=True) - shares) / (len(shares) - 1)
    of_average = maps[maps["method"] == "average of gradient"]
    np.testing.assert_allclose(of_average["gini"], metrics.gini(others), rtol=1e-4)
    np.testing.assert_allclose(
        of_average["lesion_mass"], metrics.relevance_mass(others, batch["lesion_mask"]), rtol=1e-4
    )


def test_maps_that_say_nothing_and_padding_do_not_enter_an_average():
    maps = np.zeros((5, 2, 2), np.float32)
    maps[0], maps[1, 0, 0] = [[1, 0], [0, -1]], np.nan
    maps[3], maps[4] = [[0, 0], [4, 0]], 7  # the last of a padded row
    ids, valid = np.array([5, 6, 7, 8, 8]), np.array([True, True, True, True, False])
    found = average([(ids[:2], valid[:2], {"own": maps[:2]}), (ids[2:], valid[2:], {"own": maps[2:]})])
    np.testing.assert_array_equal(found.sums["own"], [[0.5, 0], [1, 0.5]])
    own = found.of(np.array([5, 6, 8, 9]), {"own": maps[[0, 1, 3, 0]]})["average of own"]
    both = np.array([[0.25, 0], [0.5, 0.25]])
    np.testing.assert_array_equal(own, [[[0, 0], [1, 0]], both, [[0.5, 0], [0, 0.5]], both])
    alone = average([(ids[:1], valid[:1], {"own": maps[:1]})])
    np.testing.assert_array_equal(alone.of(ids[:1], {"own": maps[:1]})["average of own"], np.zeros((1, 2, 2)))


def test_an_average_is_of_so_many_images_whatever_the_batches(monkeypatch):
    monkeypatch.setattr(evaluate_blind, "AVERAGED", 5)
    maps = np.random.default_rng(0).random((12, 2, 2)).astype(np.float32)
    ids, valid = np.arange(12), np.ones(12, bool)
    found = [
        average([(ids[i : i + n], valid[i : i + n], {"own": maps[i : i + n]}) for i in range(0, 12, n)])
        for n in (1, 4, 12)
    ]
    for one in found:
        assert one.ids.tolist() == [0, 1, 2, 3, 4] and one.counts == {"own": 5}
        np.testing.assert_allclose(one.sums["own"], found[0].sums["own"], rtol=1e-12)


def test_rows_say_how_much_of_the_image_a_mask_covers_and_what_is_wrong_with_a_map(run):
    workdir, experiment = run
    examples, maps = tables(workdir)
    split = data.load(experiment.data).test
    rows = split.gather(np.arange(len(split)))
    for name in ("lesion", "evidence"):
        np.testing.assert_allclose(examples[f"mask:{name}"], (rows[f"{name}_mask"] > 0).mean((1, 2)), rtol=1e-6)
    empty = ~rows["evidence_mask"].any((1, 2))
    flaw = maps.set_index("method")["flaw"].fillna("")
    np.testing.assert_array_equal(flaw["evidence_mask"] == "zero", empty)
    assert (flaw[["gradient", "random"]] == "").all()


def test_an_attack_never_repairs_a_wrong_prediction(run):
    examples, _ = tables(run[0])
    for attack in ("robust:linf", "robust:l2"):
        assert set(examples[attack]) <= {0.0, 1.0}
        assert (examples[attack] <= examples["correct"]).all()


def test_the_attack_of_an_evaluation_is_the_attack(run):
    workdir, experiment = run
    classifier, variables, _, _ = initialise.load_described(str(workdir))
    programs = make_programs(classifier, experiment.evaluation, ("lesion", "evidence"))
    method = dict(experiment.evaluation.attacks)["linf"]
    assert method.spec.num_steps == 12
    variables, batch = on_two_devices(variables, experiment)
    keys = per_example_keys(jax.random.key(3), batch["id"])
    logits_fn = classifier.logits_fn(variables)
    whole = method.function(
        lambda images: losses.cross_entropy(logits_fn(images), batch["label"]), keys, batch["image"], method.spec
    )
    found = programs.attacks["linf"](variables, keys, batch)
    assert np.mean(np.abs(np.asarray(whole) - np.asarray(found)) < 1e-5) >= 0.999


def test_an_attack_is_one_program_for_all_batches_and_weights(run):
    experiment = tiny.experiment(evaluation={"attacks": {"linf": {"name": "apgd", "num_steps": 30}}})
    classifier, variables, _, _ = initialise.load_described(str(run[0]))
    variables, batch = on_two_devices(variables, experiment)
    programs = make_programs(classifier, experiment.evaluation, ("lesion",))
    keys = per_example_keys(jax.random.key(3), batch["id"])
    first = programs.attacks["linf"](variables, keys, batch)
    again = programs.attacks["linf"](jax.tree.map(lambda leaf: 2 * leaf, variables), keys, {**batch, "image": first})
    assert first.shape == again.shape and programs.attacks["linf"]._cache_size() == 1


def on_two_devices(variables, experiment):
    mesh = sharding.make_mesh(2, 8, "batch_size")
    rows = data.to_float(data.load(experiment.data).test.gather(np.arange(8)))
    return sharding.put_replicated(variables, mesh), sharding.put_batch(rows, mesh)


def test_curves_pictures_and_summary_say_what_the_report_needs(run):
    workdir, experiment = run
    folder = workdir / "evaluation"
    curves, pictures = records.read_npz(folder / "curves.npz"), records.read_npz(folder / "pictures.npz")
    summary = records.read_json(folder / "summary.json")
    examples, maps = tables(workdir)
    np.testing.assert_allclose(curves["fractions/deletion"], [0, 0.5, 1])
    assert curves["gradient/deletion"].shape == (24, 3)
    area = metrics.auc(curves["gradient/deletion"], 32 * 32)
    np.testing.assert_allclose(maps[maps["method"] == "gradient"]["deletion"], area, rtol=1e-5)
    # Deletion of nothing and insertion of everything show the same image.
    np.testing.assert_allclose(curves["gradient/deletion"][:, 0], curves["random/insertion"][:, -1], rtol=1e-4)
    assert pictures["image"].shape == (3, 32, 32, 3)
    assert sorted(pictures["label"].tolist()) == [0, 1, 2]
    assert pictures["map/gradient"].shape == (3, 32, 32)
    assert set(summary["metrics"]) == {label for label, _ in experiment.evaluation.metrics}
    assert summary["metrics"]["gini"]["direction"] == "higher"
    assert summary["objective"].startswith("CE(f(x), y) on the clean images")
    assert summary["num_examples"] == len(examples) == 24
    assert summary["runs"] == {"read": 2, "made": 2}
    assert evaluate.is_done(experiment, str(workdir))
    for changes in ({"evaluation": {"num_pictures": 2}}, {"data": {"planted": {"shortcut": "ruler"}}}):
        assert not evaluate.is_done(tiny.experiment(**changes), str(workdir))


def test_every_metric_of_one_map_can_be_asked_for_and_a_mask_may_be_a_concept(run, tmp_path):
    copy = shutil.copytree(run[0], tmp_path / "copy")
    own = {name: {"name": name} for name, (*_, needs) in metrics.METRICS.items() if "saliency_fn" not in needs}
    asked = {**own, "ruler": {"name": "relevance_mass", "mask": "ruler"}}
    asked["deletion_of_logit"] = {"name": "deletion_auc", "score": "logit"}
    plain = tiny.plain()
    plain["evaluation"] |= {"metrics": asked, "maps": {"gradient": {"name": "gradient"}}, "attacks": {}}
    evaluate.evaluate(config.parse(plain), str(copy))
    summary = records.read_json(copy / "evaluation" / "summary.json")
    assert (set(summary["metrics"]), summary["not_measured"]) == (set(asked), {})
    assert summary["runs"]["made"] < summary["runs"]["read"]
    rows = tables(copy)[1].set_index("method")
    split = data.load(tiny.experiment().data).test
    ruler = split.gather(np.arange(len(split)))["concepts"][..., planted_lesions.CONCEPTS.index("ruler")]
    shown = ruler.any(axis=(1, 2))
    assert 0 < shown.sum() < len(shown)
    np.testing.assert_array_equal(rows.loc["gradient", "ruler"].notna(), shown)
    assert (rows.loc["ruler_mask", "ruler"].dropna() == 1).all()
    finite = rows.loc["gradient"].drop(columns=["ruler"]).select_dtypes("number").notna().all()
    assert finite[list(own)].all(), finite[~finite].index.tolist()


def test_maps_under_attack_are_those_that_the_attack_itself_finds(run, tmp_path):
    copy = shutil.copytree(run[0], tmp_path / "copy")
    attack = {"epsilon": 0.1, "num_steps": 3, "k": 20}
    asked = {
        "spearman": {"name": "attack_stability", "attack": attack},
        "kendall": {"name": "attack_stability", "attack": attack, "similarity": "kendall"},
        "weaker": {"name": "attack_stability", "attack": attack | {"epsilon": 1e-6}},
    }
    drawn = {name: {"name": name, "num_samples": 3} for name in ("smoothgrad", "rise")}
    maps = {"gradient": {"name": "gradient"}, **drawn}
    plain = tiny.plain()
    plain["evaluation"] |= {"metrics": asked, "maps": maps, "attacks": {}, "num_examples": 6}
    evaluate.evaluate(config.parse(plain), str(copy))
    told = records.read_json(copy / "evaluation" / "summary.json")["metrics"]["spearman"]
    assert told["title"] == "Stability under attack, Spearman rank correlation" and told["settings"]["attack.k"] == "20"
    rows = tables(copy)[1].set_index("method")
    same_draws = ["gradient", "smoothgrad", "rise", "random"]
    assert (rows.loc[same_draws, "weaker"] > 0.98).all(), "only the image differs, and hardly"
    assert (rows.loc[["lesion_mask", "random"], "spearman"] > 1 - 1e-6).all()

    classifier, variables, _ = load(str(copy))
    examples = data.to_float(data.load(tiny.experiment().data).test.gather(rows.loc["gradient", "id"].to_numpy()))
    logits_fn = classifier.logits_fn(variables)
    spec = map_attacks.MapAttack(
        attack=attacks.APGD(threat=threat.Threat(epsilon=0.1), num_steps=3), k=20, scores=("spearman", "kendall")
    )
    found = jax.jit(map_attacks.map_attack, static_argnums=(0, 5))(
        logits_fn,
        per_example_keys(key_of("map attack"), examples["id"]),
        examples["image"],
        examples["label"],
        spec,
        models.with_activation(classifier, "softplus10").logits_fn(variables),
    )
    for name in ("spearman", "kendall"):
        np.testing.assert_allclose(rows.loc["gradient", name], found.scores[name], atol=2e-3)
    assert (rows.loc["gradient", "spearman"] < 0.95).all()


def test_an_evaluation_killed_while_it_is_written_again_is_not_finished(run, tmp_path, monkeypatch):
    copy = shutil.copytree(run[0], tmp_path / "copy")
    write_csv = records.write_csv

    class Killed(BaseException):
        pass

    def killed_after_the_first(path, columns):
        write_csv(path, columns)
        raise Killed

    monkeypatch.setattr(records, "write_csv", killed_after_the_first)
    with pytest.raises(Killed):
        evaluate.evaluate(run[1], str(copy))
    assert not evaluate.is_done(run[1], str(copy))


def test_what_was_attacked_is_told_as_it_was_used(run):
    attacks = records.read_json(run[0] / "evaluation" / "summary.json")["attacks"]
    assert attacks["l2"] == "fgsm: norm l2, epsilon 0.5, projection exact."
    assert attacks["linf"].startswith("pgd: norm linf, epsilon 4/255, step_size 0.5/255, num_steps 12")


def test_batch_size_and_device_count_change_no_row(run, tmp_path):
    workdir, _ = run
    before = tables(workdir)
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    evaluate.evaluate(tiny.experiment(evaluation={"batch_size": 5}, mesh={"num_devices": 1}), str(copy))
    for was, now in zip(before, tables(copy), strict=True):
        assert was["id"].tolist() == now["id"].tolist()
        for column in was.columns:
            if column not in ("method", "flaw"):
                np.testing.assert_allclose(was[column], now[column], rtol=2e-3, atol=2e-4, err_msg=column)


def test_metrics_without_their_mask_are_left_out_and_said(tmp_path):
    usable, skipped = evaluate.usable_metrics(tiny.experiment().evaluation, ("lesion",))
    assert skipped == {
        "evidence_mass": "the data has no evidence mask",
        "evidence_given_lesion": "the data has no evidence mask",
    }
    assert "lesion_mass" in dict(usable)


def test_weights_that_are_not_finite_are_refused_though_the_outputs_look_sound(run, monkeypatch):
    """XLA on CPU turns NaN into 0 where it fuses bias, ReLU and pool, so the logits would be finite."""
    found = checkpoint.load_variables(run[0] / "checkpoints", step="last")
    kernel = found[0]["params"]["conv1"]["conv"]["kernel"]
    found[0]["params"]["conv1"]["conv"]["kernel"] = np.full_like(kernel, np.nan)
    monkeypatch.setattr(checkpoint, "load_variables", lambda *args, **kwargs: found)
    message = r"in the checkpoint of step 8 params/conv1/conv/kernel holds NaN or infinity; take another step"
    with pytest.raises(ValueError, match=message):
        initialise.load(str(run[0]))


def test_a_run_of_other_images_is_refused(run):
    workdir, _ = run
    other = tiny.experiment(data={"planted": {"size": 24}})
    with pytest.raises(ValueError, match=r"trained on images \(32, 32, 3\).*the data holds images \(24, 24, 3\)"):
        evaluate.evaluate(other, str(workdir))


def test_stability_of_every_method_and_floor_for_any_batch_size_and_device_count(run, tmp_path):
    workdir, _ = run
    plain = tiny.plain()["evaluation"]
    metric = dict.fromkeys(plain["metrics"]) | {"gini": {"name": "noise_stability", "sigma": 0.05, "num_samples": 2}}
    settings = {"metrics": metric, "attacks": dict.fromkeys(plain["attacks"]), "maps": {"smoothgrad": None}}
    found = []
    for name, batch_size, num_devices in (("two", 16, 2), ("one", 5, 1)):
        copy = shutil.copytree(workdir, tmp_path / name)
        changes = {"evaluation": {**settings, "batch_size": batch_size}, "mesh": {"num_devices": num_devices}}
        evaluate.evaluate(tiny.experiment(**changes), str(copy))
        found.append(tables(copy)[1].set_index(["method", "id"])["gini"])
    two, one = found
    np.testing.assert_allclose(two, one[two.index], atol=2e-3)
    by_method = two.groupby("method")
    blind = ["centre_gaussian", "lesion_mask", "evidence_mask", "average of gradient"]
    assert by_method.min()[blind].min() > 1 - 1e-5
    assert abs(by_method.mean()["random"]) < 0.03
    assert 0.03 < by_method.mean()["gradient"] < by_method.mean()["integrated_gradients"] < 1
