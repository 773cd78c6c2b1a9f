"""Every file of a finished run truncated, emptied, changed by a bit or removed, and then each mode: it recovers with
the numbers of the undamaged run, or refuses with one message that names the file and changes none."""

import os
import shutil

import pytest

from robust_saliency import config, config_fields, evaluate, records, train, workdirs
from tests.faults import damage

LAST, BEST = "checkpoints/12", "checkpoints/4"  # a folder stands for its largest file
SAMPLE = [
    ("manifest.json", "truncate", "train", "refuses"),
    ("manifest.json", "empty", "explain", "refuses"),
    ("manifest.json", "remove", "report", "recovers"),
    ("config.json", "flip", "train", "recovers"),
    ("config.json", "remove", "evaluate", "refuses"),
    ("metrics.jsonl", "flip", "train", "recovers"),
    ("metrics.jsonl", "truncate", "train", "recovers"),
    ("metrics.jsonl", "flip", "report", "refuses"),
    ("metrics.jsonl", "remove", "report", "refuses"),
    ("training.json", "remove", "train", "recovers"),
    ("training.json", "truncate", "report", "refuses"),
    (records.LOCK, "flip", "evaluate", "recovers"),
    ("attacks/l2.npz", "flip", "evaluate", "recovers"),
    ("evaluation/examples.csv", "flip", "report", "refuses"),
    ("evaluation/summary.json", "empty", "evaluate", "recovers"),
    ("report/maps.parquet", "truncate", "report", "recovers"),
    (f"{LAST}/variables", "flip", "train", "recovers"),
    (f"{LAST}/trainer", "truncate", "train", "recovers"),
    (f"{LAST}/variables/_sharding", "flip", "train", "recovers"),
    (f"{LAST}/record", "remove", "evaluate", "refuses"),
    (f"{BEST}/variables", "flip", "evaluate", "refuses"),
    (f"{BEST}/variables", "remove", "explain", "refuses"),
    (f"{BEST}/config", "flip", "explain", "refuses"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run, and what each mode ends with."""
    workdir = damage.finished_run(tmp_path_factory.mktemp("finished"))
    return workdir, {mode: damage.numbers(mode, workdir) for mode in damage.MODES}


def test_the_undamaged_run_ends_with_its_numbers_again(run, tmp_path):
    """Else the tests below could not tell damage from chance."""
    workdir, expected = run
    shutil.copytree(workdir.parent, tmp_path, dirs_exist_ok=True)
    for mode in damage.MODES:
        damage.run(mode, tmp_path / "run")
        assert damage.numbers(mode, tmp_path / "run") == expected[mode]


@pytest.mark.parametrize(("name", "kind", "mode", "expected"), SAMPLE)
def test_a_damaged_file_is_mended_or_named(run, name, kind, mode, expected):
    workdir, numbers = run
    path = workdir / name
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        path = max(files, key=lambda file: (file.stat().st_size, file.name))
    place = workdir.parent / "damaged"
    found, said = damage.outcome(damage.command(mode), kind, workdir, path.relative_to(workdir), place, numbers[mode])
    assert found == expected, said


def test_a_digit_of_the_log_of_a_run_that_was_killed_is_mended_from_its_checkpoint(tmp_path):
    """A loss that was changed would change when the learning rate falls, and when patience is over."""
    experiment = config.parse(damage.PLAIN)
    train.train(experiment, str(tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    log = records.MetricsLog(tmp_path / "killed")
    (tmp_path / "killed" / "manifest.json").unlink()  # as training is under way: no line of the log is final
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "12")
    good = log.path.read_text()
    at = good.index('"accuracy": 0.') + len('"accuracy": 0.')
    log.path.write_text(good[:at] + str((int(good[at]) + 1) % 10) + good[at + 1 :])
    train.train(experiment, str(tmp_path / "killed"))
    rows = [[{**row, "images_per_second": 0} for row in records.MetricsLog(tmp_path / name).read()]
            for name in ("whole", "killed")]  # fmt: skip
    assert rows[0] == rows[1]


def test_without_a_manifest_a_run_is_read_as_it_is_and_listed_again(run, tmp_path):
    """What the message of a damaged manifest advises."""
    place = shutil.copytree(run[0], tmp_path / "run")
    (place / "manifest.json").unlink()
    with workdirs.Workdir(place):
        assert records.read_json(place / "evaluation" / "summary.json")["checkpoint_step"] == 4
    evaluate.evaluate(config.parse(damage.PLAIN), str(place))
    damage.damage(place / "evaluation" / "maps.csv", "flip")
    with pytest.raises(ValueError, match=r"maps\.csv has changed since it was written"):
        damage.run("report", place)


def test_a_config_that_was_lost_is_not_replaced_by_another(run, tmp_path):
    place = shutil.copytree(run[0], tmp_path / "run")
    (place / "config.json").unlink()
    changed = config_fields.merge(damage.PLAIN, {"optimizer": {"learning_rate": 0.5}})
    with pytest.raises(ValueError, match=r"holds a run of another config[^\n]*\n  optimizer\.learning_rate: "):
        train.train(config.parse(changed), str(place))


@pytest.mark.slow
def test_every_file_in_every_way_in_every_mode(run):
    """$DAMAGE_LOG: a file for the outcomes, as JSON."""
    workdir, numbers = run
    found = {}
    for name, relative in damage.names(workdir).items():
        for kind in damage.KINDS:
            for mode in damage.MODES:
                place = workdir.parent / "damaged"
                found[name, kind, mode] = damage.outcome(
                    damage.command(mode), kind, workdir, relative, place, numbers[mode]
                )
    damage.conclude(found, os.environ.get("DAMAGE_LOG"))
