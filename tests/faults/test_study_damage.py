"""Every file of a finished study truncated, emptied, changed by a bit or removed, and then the modes it concerns."""

import os
import shutil

import pytest

from tests.faults import damage, study_damage

HEAD = "seed0/phased/phases/1_head"
SAMPLE = [
    ("study.json", "flip", "study", "refuses"),
    ("study.json", "remove", "roar", "refuses"),
    ("roar/roar.csv", "truncate", "roar", "recovers"),
    ("robustness/transfer.csv", "flip", "robustness", "recovers"),
    ("seed0/plain/evaluation/examples.csv", "flip", "study", "recovers"),
    ("seed0/plain/evaluation/summary.json", "empty", "study", "recovers"),
    ("seed0/plain/neurons/units.csv", "flip", "neurons", "recovers"),
    ("seed0/plain/neurons/neurons.npz", "remove", "neurons", "recovers"),
    ("seed0/plain/robustness/transfer.npz", "truncate", "robustness", "refuses"),
    ("seed0/phased/manifest.json", "empty", "study", "refuses"),
    (f"{HEAD}/training.json", "remove", "study", "recovers"),
    (f"{HEAD}/metrics.jsonl", "flip", "study", "recovers"),
    (f"{HEAD}/manifest.json", "flip", "study", "refuses"),
]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The study, and what each mode ends with."""
    workdir = study_damage.finished(tmp_path_factory.mktemp("finished"))
    return workdir, {mode: study_damage.numbers(mode, workdir) for mode in study_damage.MODES}


def test_the_undamaged_study_ends_with_its_numbers_again(study, tmp_path):
    """Else the tests below could not tell damage from chance."""
    workdir, expected = study
    place = shutil.copytree(workdir, tmp_path / "study")
    for mode in study_damage.MODES:
        study_damage.run(mode, place)
        assert study_damage.numbers(mode, place) == expected[mode]


@pytest.mark.parametrize(("name", "kind", "mode", "expected"), SAMPLE)
def test_a_damaged_file_is_mended_or_named(study, name, kind, mode, expected):
    found, said = _outcome(study, study[0] / name, kind, mode)
    assert found == expected, said


@pytest.mark.slow
def test_every_file_in_every_way_in_the_modes_that_it_concerns(study):
    """$STUDY_DAMAGE_LOG: a file for the outcomes, as JSON."""
    found = {
        (name, kind, mode): _outcome(study, study[0] / relative, kind, mode)
        for name, relative in damage.names(study[0]).items()
        for kind in damage.KINDS
        for mode in study_damage.owners(relative)
    }
    damage.conclude(found, os.environ.get("STUDY_DAMAGE_LOG"))


def _outcome(study, path, kind, mode):
    workdir, numbers = study
    command, place = study_damage.command(mode), workdir.parent / "damaged"
    return damage.outcome(command, kind, workdir, path.relative_to(workdir), place, numbers[mode])
