"""Every paper's page says what its summary holds, and its summary what the committed config claims; each smoke runs."""

import importlib.util
import json
import pkgutil
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import configs.papers
from robust_saliency import config, config_file, data, records, report, study, study_claims
from robust_saliency.report import stated_table
from tests import tiny

PAPERS = [module.name for module in pkgutil.iter_modules(configs.papers.__path__)]
SUMMARIES = sorted((tiny.ROOT / "docs" / "papers").glob("*.json"))
SIZES = configs.papers.SIZES


def plain(paper, size):
    return config.to_plain(config_file.load(f"{tiny.ROOT}/configs/papers/{paper}.py:{size}"))


def of_docs(name):
    where = importlib.util.spec_from_file_location(name, tiny.ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(where)
    where.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fill():
    return of_docs("fill")


@pytest.fixture(scope="module")
def ask():
    return of_docs("ask")


@pytest.fixture(scope="module")
def draw_maps():
    return of_docs("draw_maps")


@pytest.fixture(scope="module")
def draw_claims():
    return of_docs("draw_claims")


def test_there_are_papers():
    assert PAPERS


@pytest.mark.parametrize("paper", PAPERS)
def test_every_size_states_the_same_claims_but_for_the_ladder_that_it_has(paper):
    labels = [[claim["label"] for claim in study_claims.parse(plain(paper, size))] for size in SIZES]
    assert labels[0] == labels[1] == labels[2]
    assert plain(paper, "small")["study"]["seeds"] >= 3


def test_the_pages_say_what_their_summaries_hold(fill):
    assert {path: path.read_text() for path in fill.pages()} == fill.pages()


@pytest.mark.parametrize("path", SUMMARIES, ids=[path.stem for path in SUMMARIES])
def test_a_page_has_its_figure_and_the_command_of_its_summary(path):
    paper, _, _ = path.stem.partition(".")
    page = path.with_name(f"{paper}.md").read_text()
    assert f"]({paper}.png)" in page and path.with_name(f"{paper}.png").stat().st_size > 10_000
    assert json.loads(path.read_text())["command"] in page and "TODO" not in page


@pytest.mark.parametrize("path", SUMMARIES, ids=[path.stem for path in SUMMARIES])
def test_a_summary_is_of_the_claims_of_the_committed_config(path):
    summary = json.loads(path.read_text())
    assert len(summary["seeds"]) >= 3
    [file] = [word for word in summary["command"].split() if word.startswith("--config=")]
    paper, _, part = path.stem.partition(".")
    assert file == f"--config=configs/papers/{paper}.py" + (f":small:{part}" if part else "")
    stated = study_claims.parse(plain(paper, f"small:{part}" if part else "small"))
    for found, claim in zip(summary["claims"], stated, strict=True):
        assert (found["label"], found["sentence"]) == (claim["label"], claim["sentence"])
        correlated = zip(found.get("correlations", ()), claim["correlated"], strict=True)
        pairs = [*_matched(found, claim), *((each, _listed(expected)) for each, expected in correlated)]
        measured = [{name: each[name] for name in expected} for each, expected in pairs]
        assert measured == [expected for _, expected in pairs]


def _listed(expected):
    """As JSON has it."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in expected.items()}


def _matched(found, claim):
    """Each difference with what was expected; where all floors were, with that for its own floor."""
    pairs, differences = [], iter(found["differences"])
    for expected in claim["expected"]:
        if expected["than_map"] != "floors":
            pairs.append((next(differences), expected))
            continue
        same = ("metric", "run", "map")
        of = [each for each in found["differences"] if all(each[name] == expected[name] for name in same)]
        pairs += [(next(differences), {**expected, "than_map": each["than_map"]}) for each in of]
    assert next(differences, None) is None
    return pairs


@pytest.mark.parametrize("paper", PAPERS)
def test_the_smoke_of_a_paper_trains_attacks_explains_and_reports(paper, tmp_path, fill, ask, draw_maps, draw_claims):
    file = f"--config={tiny.ROOT}/configs/papers/{paper}.py:smoke"
    command = tiny.launch("--mode=study", file, f"--workdir={tmp_path / 'study'}", cwd=tmp_path)
    _, err = command.communicate(timeout=900)
    assert command.returncode == 0, err
    settings = plain(paper, "smoke")
    summary = fill.summarised(tmp_path / "study")
    assert next(iter(summary["means"])) == settings["study"]["reference"]
    assert set(summary["means"]) == {run["label"] for run in settings["study"]["runs"] if run.get("evaluated", True)}
    read = report.load.read_study(tmp_path / "study")
    kinds = np.array([kind for kind, _ in read.first.scores.columns])

    def outcomes(run):
        return run.scores.values[:, kinds == "accuracy"]

    for run in read.runs:
        maps = records.read_csv(run.folder / "maps.csv")
        for metric in (name for name, value in settings["evaluation"]["metrics"].items() if value is not None):
            assert np.isfinite(maps[metric]).mean() > 0.5, f"{run.label}: {metric}"
        assert np.isfinite(outcomes(run)).all()
    losses = [outcomes(run)[:, 0].mean() - outcomes(run)[:, 1:].mean(axis=0).min() for run in read.runs]
    assert max(losses) > 0, "no attack fooled any network"
    table = stated_table.markdown(summary)
    assert all(claim["label"] in table for claim in summary["claims"])
    labels = [claim["label"] for claim in summary["claims"] if claim["differences"]]
    assert len(draw_claims.of_claims(summary, labels).axes) == len(labels)
    runs = {run.label: run.label for run in read.runs}
    shown = draw_maps.of_maps(tmp_path / "study", next(iter(settings["evaluation"]["maps"])), runs, with_images=True)
    assert len(shown.axes) == (1 + len(runs)) * settings["evaluation"]["num_pictures"]
    _what_is_asked_is_measured_as_what_is_claimed(ask, tmp_path / "study", summary)
    before = (tmp_path / "study" / "report" / "claims.json").read_bytes()
    page = report.report(tmp_path / "study")
    assert (tmp_path / "study" / "report" / "claims.json").read_bytes() == before and page.exists()


def _what_is_asked_is_measured_as_what_is_claimed(ask, study, summary):
    """Of the first difference between two runs the same means and interval, and of what is not there a sentence."""
    differences = (each for claim in summary["claims"] for each in claim["differences"])
    claimed = next(each for each in differences if each["than_run"] and not each["than_metric"])
    names = {"metric": "metric", "run": "runs", "map": "maps", "than_run": "than_run", "than_map": "than_map"}
    words = {name: claimed[field] for field, name in names.items()}
    found = ask.asked(str(study), **words)[0]
    measured = (found.mean, found.other_mean, found.difference.mean, found.difference.low, found.difference.high)
    stated = [claimed[name] for name in ("mean", "other_mean", "difference", "low", "high")]
    assert stated == [pytest.approx(value, rel=1e-4, abs=1e-6) if np.isfinite(value) else None for value in measured]
    assert ask.line(found).startswith(f"{claimed['metric']}: {claimed['run']}")
    for wrong, message in (({"runs": "standart"}, "Unknown run"), ({"metric": "ginni"}, "Unknown metric")):
        with pytest.raises(ValueError, match=message):
            ask.asked(str(study), **words | wrong)


@pytest.mark.parametrize("path", SUMMARIES, ids=[path.stem for path in SUMMARIES])
def test_a_summary_names_no_folder_of_a_machine(path):
    assert re.findall(r"(?<![\w.~:/])/\w+/[\w/.]*", path.read_text()) == []


def test_a_page_elsewhere_is_refused_and_left_as_it_is(fill, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- claims -->\n<!-- end -->\n")
    monkeypatch.setattr("sys.argv", ["fill.py", "--study=none", f"--page={page}"])
    with pytest.raises(SystemExit) as ended:
        fill.main()
    assert ended.value.code == 2 and "--page must be a Markdown file in" in capsys.readouterr().err
    assert page.read_text() == "<!-- claims -->\n<!-- end -->\n" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("smal", "Unknown size 'smal'. Did you mean 'small'?"),
        ("smoke:fashion_mnits", "Unknown data set 'fashion_mnits'. Did you mean 'fashion_mnist'?"),
        ("smoke:fashion_mnist", "smoke is of drawn images alone, got 'smoke:fashion_mnist'"),
    ],
)
def test_a_size_or_data_set_that_is_not_there(words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        configs.papers.size_and_data(words, "cifar10", "fashion_mnist")


def test_of_originals_in_a_folder_nothing_is_claimed_within_a_mask(tmp_path):
    """Three of their classes, at the paper's size and with its epsilon; the weights are of another data set."""
    for name in ("bkl", "df", "mel", "nv"):
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.new("RGB", (30, 20), (40 * number, 60, 80)).save(tmp_path / name / f"{number}.png")
    settings = plain("margeloiu2020", "small:folder")
    settings["data"]["data_dir"] = str(tmp_path)
    runs = {label: run for (label, seed, *_), run in study.parse(settings) if seed == 0}
    loaded = data.load(runs["l2_3"].data)
    assert (loaded.image_shape, tuple(loaded.class_names)) == ((224, 224, 3), ("nv", "mel", "bkl"))
    assert runs["l2_3"].plain["objective"]["attack"]["epsilon"] == 3.0
    assert (runs["pretrained"].data.name, runs["pretrained"].data.data_dir) == ("cifar10", "")
    measured_in_masks = {name for name, metric in settings["evaluation"]["metrics"].items() if metric.get("mask")}
    claimed = {expected["metric"] for claim in study_claims.parse(settings) for expected in claim["expected"]}
    assert measured_in_masks and claimed and not claimed & measured_in_masks


def test_of_seven_classes_every_claim_is_one_of_three_classes_too():
    seven, three = (
        {claim["label"]: claim for claim in study_claims.parse(plain("margeloiu2020", f"small{words}"))}
        for words in (":seven_classes", "")
    )
    assert seven and seven == {label: three[label] for label in seven}
    settings = plain("margeloiu2020", "small:seven_classes")
    assert settings["data"]["class_balanced"] and not settings["data"]["classes"]
    assert not settings["study"]["runs"][0]["overrides"]["data"]["class_balanced"]


def test_the_hollow_mark_of_a_figure_stands_where_the_claim_begins(draw_claims):
    """By how much a difference was claimed at least: beside the other mean, upwards or downwards."""
    each = {"finding": "shown", "mean": 0.9, "other_mean": 0.5, "low": 0.3, "high": 0.5, "by_seed": {"0": 0.4}}
    for direction, least in (("higher", 0.6), ("lower", 0.4)):
        panel = Figure().subplots()
        draw_claims._draw(panel, 0, {**each, "direction": direction, "by": 0.1})
        hollow = [line for line in panel.lines if line.get_markerfacecolor() == "white"]
        assert [float(np.ravel(line.get_xdata())[0]) for line in hollow] == [pytest.approx(least)]
        assert [list(line.get_xdata()) for line in panel.lines if line.get_alpha()] == [pytest.approx([0.8, 1.0])]


def test_a_page_can_be_of_several_studies(fill, tmp_path, monkeypatch):
    """The second study has blocks of its own, and the figures of neither stand in the other's."""
    folder = tmp_path / "papers"
    folder.mkdir()
    source = SUMMARIES[0].read_text()
    other = json.loads(source)
    other["claims"] = other["claims"][:1]
    (folder / "one.json").write_text(source)
    (folder / "one.cifar10.json").write_text(json.dumps(other))
    blocks = "".join(
        f"<!-- {name} -->\n<!-- end -->\n" for name in ("claims", "means", "claims cifar10", "means cifar10")
    )
    (folder / "one.md").write_text(blocks)
    (tmp_path / "results.md").write_text("<!-- papers -->\n<!-- end -->\n")
    monkeypatch.setattr(fill, "DOCS", tmp_path)
    pages = fill.pages()
    first, _, second = pages[folder / "one.md"].partition("<!-- claims cifar10 -->")
    rows = [f"{claim['verdict']}.** {claim['sentence']} |" for claim in json.loads(source)["claims"]]
    assert all(row in first for row in rows) and rows[0] in second and rows[1] not in second
    table = pages[tmp_path / "results.md"]
    assert table.count("[one](papers/one.md)") == len(rows) and table.count("[one.cifar10](papers/one.md)") == 1
