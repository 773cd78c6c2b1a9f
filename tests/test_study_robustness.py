"""The robustness of a study of two tiny networks: every run, the matrix between them, what a kill and a mistake do."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from robust_saliency import checkpoint, data, records, robustness, study_robustness, study_runs, train, workdirs
from robust_saliency import study as study_lib
from tests import tiny

RUNS = [
    {"label": "short", "description": "one epoch"},
    {"label": "long", "overrides": {"train": {"epochs": 2}, "model": {"dtype": "bfloat16"}}},
]
SMALL = {"version": "fast", "steps": 2, "num_queries": 5, "num_targets": 1, "curve_steps": 1, "num_searches": 2,
         "num_examples": 10, "batch_size": 8, "epsilon": 0.05}  # fmt: skip


def plain(**changes):
    return tiny.plain(
        title="A tiny study",
        data={"image_size": 16},
        train={"epochs": 1},
        robustness={**SMALL, **changes},
        study={"runs": RUNS, "seeds": 1, "reference": "short"},
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study that is trained, and listed as evaluated."""
    workdir = tmp_path_factory.mktemp("robustness") / "study"
    workdir.mkdir()
    runs = []
    for (label, seed, directory, text), experiment in study_lib.parse(plain()):
        train.train(experiment, str(workdir / directory))
        runs.append({"label": label, "seed": seed, "dir": directory, "description": text})
    records.write_json(workdir / "config.json", plain())
    records.write_json(workdir / "study.json", {"title": "A tiny study", "reference": "short", "runs": runs})
    return workdir


@pytest.fixture(scope="module")
def interrupted(trained):
    """What is there when the second run is killed."""
    whole = robustness.robustness

    def killed(experiment, workdir, data):
        if workdir.endswith("long"):
            raise KeyboardInterrupt
        return whole(experiment, workdir, data)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(robustness, "robustness", killed)
        study_robustness.study_robustness(plain(), str(trained))
    return {path: path.stat().st_mtime_ns for path in trained.rglob("short/robustness/*")}


@pytest.fixture(scope="module")
def page(trained, interrupted):
    return pathlib.Path(study_robustness.study_robustness(plain(), str(trained)))


def test_the_network_that_is_attacked_is_that_which_an_evaluation_takes(trained):
    (_, experiment) = study_lib.parse(plain())[1]
    workdir = trained / "seed0" / "long"
    kept = checkpoint.steps(workdirs.checkpoints(workdir))
    assert len(kept) == 2
    for number in kept:
        settings = dataclasses.replace(experiment.evaluation, step=str(number))
        chosen = experiment._replace(evaluation=settings)
        assert robustness.subject_of(chosen, str(workdir), data.load(experiment.data))[1] == number


def test_a_killed_study_goes_on_and_a_finished_one_is_only_drawn_again(trained, interrupted, page, capfd):
    assert len(interrupted) > 8
    assert {path: path.stat().st_mtime_ns for path in interrupted} == interrupted
    text, before = page.read_text(), (trained / "robustness" / "transfer.csv").read_bytes()
    study_robustness.study_robustness(plain(), str(trained))
    said = capfd.readouterr().err
    assert "run 1 of 2: short: its report is there" in said and "run 2 of 2" in said
    assert "pgd" not in said and "transfer: apgd" not in said, "an attack ran again"
    assert (trained / "robustness" / "transfer.csv").read_bytes() == before
    assert page.read_text().split("How it was made")[0] == text.split("How it was made")[0]


def test_the_matrix_is_of_adversaries_that_did_all_their_steps_and_all_is_on_the_page(trained, page):
    about = records.read_json(trained / "robustness" / "robustness.json")
    rows = records.read_csv(trained / "robustness" / "transfer.csv")
    places = ["seed0/short", "seed0/long"]
    for t, target in enumerate(places):
        own = records.read_csv(trained / target / "robustness" / "examples.csv")
        np.testing.assert_array_equal(rows["id"], own["id"])
        made = records.read_npz(trained / target / "robustness" / "transfer.npz")
        assert (made["backwards"] == SMALL["steps"]).all(), "also of those fooled, and of those wrong before"
        np.testing.assert_array_equal(rows[f"{target} -> {target}"], made["margin"] < 0)
        for s, source in enumerate(places):
            assert about["transfer"][s][t] == rows[f"{source} -> {target}"].sum()
    assert [check["name"] for check in about["checks"]] == ["white box beats transfer"]
    text = page.read_text()
    for part in ("A tiny study", "short", "long", "autoattack", "white box beats transfer", "data:image/png",
                 'href="../seed0/long/robustness/robustness.html"', "unchanged images", "linf 12.75/255"):  # fmt: skip
        assert part in text, part
    assert "http" not in text.replace("http-equiv", ""), "the page needs another file"


def test_the_network_in_bfloat16_is_attacked_with_gradients_in_float32_too(trained, page):
    narrow, wide = trained / "seed0" / "long" / "robustness", trained / "seed0" / "short" / "robustness"
    found = records.read_csv(narrow / "examples.csv")
    assert "apgd-ce in float32" in found and "apgd-ce in float32" not in records.read_csv(wide / "examples.csv")
    assert (found["all"] <= found["apgd-ce in float32"]).all()
    checks = {check["name"]: check["sentence"] for check in records.read_json(narrow / "robustness.json")["checks"]}
    assert "of the same weights in float32" in checks["gradients are precise"]
    assert "apgd-ce in float32" in (narrow / "robustness.html").read_text()
    checks = {check["name"]: check["sentence"] for check in records.read_json(wide / "robustness.json")["checks"]}
    assert checks["gradients are precise"] == "The network computes in float32."


def test_other_settings_attack_again(trained, page, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "study")
    done = [study_robustness._is_done(run) for run in study_runs.finished(plain(), str(copy))]
    other = [study_robustness._is_done(run) for run in study_runs.finished(plain(steps=3), str(copy))]
    assert (done, other) == ([True, True], [False, False])


def test_adversaries_for_others_that_are_of_other_settings_or_missing_are_made_again(trained, page, tmp_path, capfd):
    copy = shutil.copytree(trained, tmp_path / "study")
    short, long = (copy / "seed0" / name / "robustness" / "transfer.npz" for name in ("short", "long"))
    expected = records.read_npz(long)
    records.write_npz(long, {**expected, "identity": np.array("other settings")})
    short.unlink()
    study_robustness.study_robustness(plain(), str(copy))
    assert "run 2 of 2: long: its report is there" in capfd.readouterr().err
    np.testing.assert_array_equal(records.read_npz(long)["images"], expected["images"])
    assert records.read_npz(long)["identity"] == expected["identity"] and short.exists()


def test_the_page_of_a_run_says_how_hard_it_attacked_and_how_well_epsilons_are_known(trained, page):
    text = (trained / "seed0" / "short" / "robustness" / "robustness.html").read_text()
    assert "<title>Robustness of short, seed 0: A tiny study</title>" in text
    assert "<h1>Robustness of short, seed 0: A tiny study</h1>" in text
    assert "AutoAttack in its fast version; 2 steps; 5 queries; 1 of " in text
    assert "FAB-T" not in text
    found = records.read_csv(trained / "seed0" / "short" / "robustness" / "examples.csv")
    assert np.isfinite(found["epsilon_width"][np.isfinite(found["smallest_epsilon"])]).all()
    assert "between the largest epsilon that failed and the smallest that fooled lie" in text
    assert "the budget is the standard one" in text


def test_runs_on_other_examples_are_told_and_keep_their_own_reports(trained, page, tmp_path, monkeypatch, capfd):
    copy = shutil.copytree(trained, tmp_path / "study")
    monkeypatch.setattr(study_robustness.transfer, "different_examples", lambda _: "long saw other examples.")
    text = pathlib.Path(study_robustness.study_robustness(plain(), str(copy))).read_text()
    assert "No adversaries were shown to other networks. long saw other examples." in text
    assert "No transfer between the networks: long saw other examples." in capfd.readouterr().err
    assert records.read_json(copy / "robustness" / "robustness.json")["transfer"] is None
    assert not (copy / "robustness" / "transfer.csv").exists()


def test_settings_of_one_run_only_are_refused(trained):
    one = plain()
    one["study"]["runs"] = [RUNS[0], {**RUNS[1], "overrides": {"robustness": {"epsilon": 0.1, "batch_size": 4}}}]
    with pytest.raises(ValueError, match=r"must be the same for every run .*\n  epsilon: 0.05 -> 0.1$"):
        study_robustness.study_robustness(one, str(trained))


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


MISTAKES = {
    "no_finished_run": (lambda study: (study / "study.json").unlink(), "study.json names none); run --mode=study"),
    "unknown_run": (
        lambda study: records.write_json(study / "study.json", {"runs": [{"label": "lnog", "seed": 0, "dir": "x"}]}),
        "names the run 'lnog'; config.study.runs has short, long.",
    ),
    "lost_run": (lambda study: shutil.rmtree(study / "seed0" / "long"), "names the run seed0/long; "),
    "damaged_adversaries": (
        lambda study: damage(study / "seed0" / "long" / "robustness" / "transfer.npz"),
        "transfer.npz has changed since it was written: its SHA-256 differs from manifest.json's. To attack long",
    ),
}


def files_in(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("[!.]*")) if path.is_file()}


def test_every_mistake_is_one_sentence_and_loses_nothing(trained, page, tmp_path):
    copies = {name: shutil.copytree(trained, tmp_path / name) for name in MISTAKES}
    for name, (make, _) in MISTAKES.items():
        make(copies[name])
    before = {name: files_in(copy) for name, copy in copies.items()}
    running = {name: tiny.launch("--mode=robustness", f"--workdir={copy}") for name, copy in copies.items()}
    for name, (_, message) in MISTAKES.items():
        _, err = running[name].communicate(timeout=300)
        assert (running[name].returncode, "Traceback" in err) == (2, False), f"{name}: {err}"
        assert message in err and len(err.strip().splitlines()) == 1, f"{name}: {err}"
        assert files_in(copies[name]) == before[name], name


def test_the_command_line_knows_a_study_and_goes_on(trained, page, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "study")
    process = tiny.launch("--mode=robustness", f"--workdir={copy}")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.strip() == str(copy / "robustness" / "robustness.html")
    assert err.count("its report is there") == 2
