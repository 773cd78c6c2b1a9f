"""The page is one file, the same for the same input, works with pieces missing, and names a damaged file."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from robust_saliency import records
from robust_saliency.report import load, markdown, report
from robust_saliency.report.compare import compare
from robust_saliency.workdirs import Workdir
from tests.report.fabricated_study import METHODS, METRICS, write_study
from tests.report.read_page import Page


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), seeds=(0,), runs=("standard", "linf"), num_examples=40)


@pytest.fixture(scope="module")
def page(study):
    return report(study).read_text()


@pytest.fixture
def copy(study, tmp_path):
    return shutil.copytree(study, tmp_path / "copy")


def test_one_file_that_loads_nothing_and_is_the_same_twice(study, page):
    assert not re.search(r"(src|href|action|url)\s*[=(]\s*[\"']?(https?:|//|[\w./-]+\.(js|css|png|svg))", page)
    assert re.findall(r"<script[^>]*>", page) == ["<script>"] and "@import" not in page and "http-equiv" not in page
    drawn = re.findall(r'<image [^>]*href="([^"]*)"', page) + re.findall(r'src="([^"]*)"', page)
    assert drawn and all(source.startswith("data:image/png;base64,") for source in drawn)
    targets = re.findall(r'<(?:a|use) [^>]*href="([^"]*)"', page)
    assert len(targets) + len(re.findall(r"<image ", page)) == len(re.findall(r"\bhref=", page))
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(set(ids)) == len(ids)
    assert {target[0] for target in targets} == {"#"} and {target[1:] for target in targets} <= set(ids)
    assert set(re.findall(r'aria-labelledby="([^"]*)"', page)) <= set(ids)
    assert all(re.search(r'alt="[^"]+"', tag) for tag in re.findall(r"<img [^>]*>", page))
    assert all('aria-label="' in tag for tag in re.findall(r'<[^>]*role="img"[^>]*>', page))
    unnamed = [tag for tag in re.findall(r"<svg [^>]*>", page) if 'role="img"' not in tag]
    assert unnamed == ['<svg class="drawn" aria-hidden="true">']
    assert report(study).read_text() == page
    assert len(page) < 6_000_000


def test_one_seed_is_no_claim(study, page):
    assert "One seed was trained, so no difference here is a claim" in page
    body = page.split("</style>")[1]
    assert "better?" in body
    cells = re.findall(r'<td class="([^"]*)"', body)
    assert "better" in cells and not any("counts" in cell.split() for cell in cells)
    assert "One seed was trained" in markdown(study)


def test_work_that_metrics_share_is_counted(page):
    assert "of each map the metrics read 5 runs of changed images, of which 3 were made" in page


def test_the_glossary_defines_every_metric_and_method(page):
    for title, _, description in METRICS.values():
        assert f"<dt>{title} " in page and f"<dd>{description}</dd>" in page
    for name, about in METHODS.items():
        assert f"<dt>{name} " in page and about["description"].replace("'", "&#39;") in page


def test_the_glossary_says_every_setting_of_a_metric(study, page, copy):
    assert '<dd class="settings">gini: sign abs.</dd>' in page
    settings = "deletion_auc: sign abs, order morf, baseline blur of sigma 4, ties in random order."
    assert f'<dd class="settings">{settings}</dd>' in page
    help = "Area under the score while the highest pixels are replaced by a blur."
    assert f'<th scope="col" title="{help} {settings}">' in page
    for path in copy.rglob("summary.json"):  # as an older evaluation wrote it
        summary = json.loads(path.read_text())
        for about in summary["metrics"].values():
            del about["settings"], about["ties"], about["name"]
        path.write_text(json.dumps(summary))
    assert "<dd>Area under the score" in report(copy).read_text()


def test_a_workdir_of_one_run(study):
    page = report(study / "seed0" / "linf").read_text()
    assert "<h1>adversarial: one run</h1>" in page
    assert "One network was evaluated" in page
    assert "Differences at a glance" not in page and "Every difference" not in page
    assert 'data-name="maps gradient"' in page and "objective.threat.norm" in page


def test_weights_that_were_evaluated_and_are_gone_are_told(copy):
    for kept, said in (("960", False), ("1200", True)):
        checkpoints = copy / "seed0" / "linf" / "checkpoints"
        shutil.rmtree(checkpoints, ignore_errors=True)
        (checkpoints / kept).mkdir(parents=True)
        gone = "checkpoint of step 960, which is no longer kept: training went on since, so evaluate again"
        assert report(copy).read_text().count(gone) == said


def test_a_run_in_phases_shows_all_of_its_training(copy):
    run = copy / "seed0" / "linf"
    config = json.loads((run / "config.json").read_text())
    changes = [{"train": {"epochs": 3}}, {"train": {"epochs": 4, "trainable": ["^params/logits"]}}]
    listed = [{"label": label, "overrides": each} for label, each in zip(("head", "whole"), changes, strict=True)]
    (run / "config.json").write_text(json.dumps(config | {"phases": listed}))
    head = run / "phases" / "1_head"
    head.mkdir(parents=True)
    shutil.copy(run / "metrics.jsonl", head)
    for folder, seconds in ((head, 65.0), (run, 5.0)):
        facts = {"command": "train", "steps": 9, "timed_steps": 9, "seconds": seconds}
        (folder / "training.json").write_text(json.dumps(facts))
    page = report(copy).read_text()
    assert "a bar where a phase ends" in page
    assert "head: trained in 1 min 5 s, whole: trained in 5 s" in page
    settings = {header[0]: cells[1]["value"] for _, header, cells in Page(page).rows("config", "plain")}
    assert settings["head: train.epochs"] == "3" and settings["train.epochs"] == "4"
    assert settings["train.trainable"] == '["^params/logits"]' and "phases" not in settings


def test_without_masks_attacks_history_curves_and_pictures(tmp_path):
    study = write_study(
        tmp_path, seeds=(0,), attacks={}, classes=[f"digit {k}" for k in range(10)], channels=1, masks=False,
        num_examples=40,
    )  # fmt: skip
    page = report(study).read_text()
    assert "Outlines:" not in page and "evidence_mask" not in page and "no attack was run" in page
    assert "digit 7" in page and 'id="pictures"' in page and 'id="curves"' in page
    for run in ("standard", "linf", "l2"):
        (study / "seed0" / run / "metrics.jsonl").unlink()
        (study / "seed0" / run / "evaluation" / "curves.npz").unlink()
        np.savez(study / "seed0" / run / "evaluation" / "pictures.npz")
    about = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps(about | {"title": "<script>alert(1)</script> & more"}))
    page = report(study).read_text()
    assert not re.search(r'id="(pictures|curves|training)"', page)
    assert 'data-name="maps gradient"' in page
    assert page.count("<script") == 1 and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page


def test_runs_on_partly_different_images_are_paired_by_id(copy):
    path = copy / "seed0" / "linf" / "evaluation"
    for name in ("examples.csv", "maps.csv"):
        header, *rows = (path / name).read_text().splitlines()
        kept = [row for row in rows if int(row.split(",")[0]) >= 10]
        (path / name).write_text("\n".join([header, *reversed(kept)]) + "\n")
    ours = load.read_study(copy)
    difference = compare(ours)["linf"]["gradient", "gini"].difference
    a, b = (run.scores.values[:, run.scores.columns.index(("gradient", "gini"))] for run in ours.runs[::-1])
    assert (difference.n, difference.num_groups) == (30, 15)
    assert difference.mean == pytest.approx(np.mean(a - b[10:]))


@pytest.mark.parametrize("kind", ["patient", "code"])
@pytest.mark.parametrize("with_pandas", [True, False])
def test_groups_that_a_user_puts_in_may_be_text_and_an_example_without_one_is_alone(copy, kind, with_pandas):
    """evaluate writes int codes; pandas makes floats of them where one is missing."""
    groups = [f"{kind}_{i // 4}" if kind == "patient" else str(i // 4) for i in range(38)] + ["", ""]
    for path in copy.rglob("examples.csv"):
        if with_pandas:
            groups_or_nan = pd.Series(groups).replace("", np.nan)
            column = groups_or_nan if kind == "patient" else groups_or_nan.astype(float)
            pd.read_csv(path).assign(group=column).to_csv(path, index=False)
        else:
            with Workdir(path.parent.parent):
                records.write_csv(path, records.read_csv(path) | {"group": groups})
    found = load.read_study(copy).first.scores.groups
    together = found[:, None] == found[None, :]
    expected = [[i == j or (i // 4 == j // 4 and max(i, j) < 38) for j in range(40)] for i in range(40)]
    np.testing.assert_array_equal(together, expected)


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def replace(old, new):
    return lambda path: path.write_text(re.sub(old, new, path.read_text(), flags=re.M))


def repeat_first_row(new_id):
    def damage(path):
        row = path.read_text().splitlines()[1]
        path.write_text(path.read_text() + new_id + row.removeprefix("0") + "\n")

    return damage


DAMAGES = [
    ("study.json", cut, r"study\.json is damaged JSON"),
    ("study.json", lambda p: p.write_text("{}"), r"study\.json is damaged: it has no 'runs'"),
    ("summary.json", lambda p: p.unlink(), r"summary\.json is missing; run --mode=evaluate on"),
    ("summary.json", lambda p: p.write_text("{}"), r"summary\.json is damaged: it has no 'split'"),
    ("maps.csv", cut, r"maps\.csv is a damaged CSV file"),
    ("maps.csv", replace("gini", "x"), r"maps\.csv is damaged: it has no 'gini'"),
    ("maps.csv", repeat_first_row("999"), r"maps\.csv is damaged: it holds an example id that examples\.csv lacks"),
    ("maps.csv", replace(r"(,gradient,,)[\d.]+", r"\1high"), r"maps\.csv is damaged: column 'gini' holds text"),
    ("examples.csv", repeat_first_row("0"), r"examples\.csv is damaged: an example id occurs twice"),
    ("curves.npz", lambda p: p.write_bytes(p.read_bytes()[:200]), r"curves\.npz is a damaged npz file"),
    ("pictures.npz", lambda p: np.savez(p, ids=[1], image=[2]), r"pictures\.npz is damaged: it has no 'label'"),
    ("metrics.jsonl", lambda p: p.write_text("{\n"), r"metrics\.jsonl is damaged: line 1"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGES, ids=[message for _, _, message in DAMAGES])
def test_a_damaged_file_is_named_in_one_sentence(copy, name, damage, message):
    (path,) = [path for path in copy.rglob(name) if "linf" in str(path) or name == "study.json"]
    damage(path)
    (copy / "report.html").write_text("the old report")
    with pytest.raises(ValueError, match=message) as caught:
        report(copy)
    assert "\n" not in str(caught.value)
    assert (copy / "report.html").read_text() == "the old report"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("split", "train", "(split: train instead of test)"),
        ("explained", "predicted", "(explained: predicted instead of None)"),
        ("attacks", {"linf 4/255": "PGD-20, linf, epsilon 1/255", "L2 0.5": "PGD-20, L2, epsilon 0.5"},
         "(attacks 'linf 4/255': PGD-20, linf, epsilon 1/255 instead of"),
    ],
)  # fmt: skip
def test_runs_that_were_measured_otherwise_are_not_compared(copy, key, value, message):
    path = copy / "seed0" / "linf" / "evaluation" / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps(summary | {key: value}))
    with pytest.raises(ValueError, match=re.escape(message)):
        report(copy)


def test_a_metric_may_have_had_other_words_but_not_other_settings(copy):
    path = copy / "seed0" / "linf" / "evaluation" / "summary.json"
    summary = json.loads(path.read_text())
    summary["metrics"]["gini"]["title"] = "Sparsity (Gini)"
    path.write_text(json.dumps(summary))
    assert report(copy).exists()
    summary["metrics"]["gini"]["settings"] = {"power": "3"}
    path.write_text(json.dumps(summary))
    with pytest.raises(ValueError, match="metrics 'gini'"):
        report(copy)


def test_other_mistakes_are_named(copy, tmp_path):
    with pytest.raises(ValueError, match="is no directory"):
        report(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds neither study\.json nor evaluation/"):
        report(tmp_path / "empty")
    about = json.loads((copy / "study.json").read_text())
    (copy / "study.json").write_text(json.dumps(about | {"reference": "baseline"}))
    with pytest.raises(ValueError, match="the reference 'baseline' is none of the runs: standard, linf"):
        report(copy)
    (copy / "study.json").write_text(json.dumps(about))
    path = copy / "seed0" / "linf" / "evaluation" / "summary.json"
    summary = json.loads(path.read_text())
    del summary["metrics"]["gini"]
    path.write_text(json.dumps(summary))
    with pytest.raises(ValueError, match="linf seed 0 was evaluated with other attacks, methods or metrics"):
        report(copy)
