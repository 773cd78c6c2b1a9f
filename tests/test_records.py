"""Records: what is read back is what was written, and a damaged file is named."""

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest

from robust_saliency import records, workdirs


@pytest.fixture
def workdir(tmp_path):
    with workdirs.Workdir(tmp_path / "run") as path:
        yield path


def test_a_written_file_is_listed(workdir):
    records.write_json(workdir / "a" / "b.json", {})
    listed = json.loads((workdir / "manifest.json").read_text())["a/b.json"]
    # sha256 of b"{}\n", from sha256sum
    assert listed == {"bytes": 3, "sha256": "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"}
    assert sorted(path.name for path in (workdir / "a").iterdir()) == ["b.json"]


READERS = {
    "a.json": (lambda path: records.write_json(path, {"saliency": [1, 2, 3]}), records.read_json),
    "a.csv": (lambda path: records.write_csv(path, {"id": [1, 2], "x": [0.5, 1.5]}), records.read_csv),
    "a.npz": (lambda path: records.write_npz(path, {"x": np.arange(3)}), records.read_npz),
}


@pytest.mark.parametrize("name", READERS)
def test_a_truncated_changed_or_missing_file_is_named_and_not_believed(workdir, name):
    write, read = READERS[name]
    path = workdir / "evaluation" / name
    write(path)
    good = path.read_bytes()
    read(path)
    for bad, message in (
        (good[:-1], f"is truncated: {len(good) - 1} of {len(good)} bytes; write it again"),
        (good + b" ", "has changed since it was written"),
        (good[:-5] + bytes([good[-5] ^ 1]) + good[-4:], "has changed since it was written"),
    ):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=f"{name} {message}"):
            read(path)
    path.unlink()
    with pytest.raises(ValueError, match=f"{name} does not exist"):
        read(path)
    write(path)
    read(path)


def test_every_single_flipped_bit_is_noticed(workdir):
    path = workdir / "data.json"
    records.write_json(path, 123)
    good = path.read_bytes()
    for bit in range(8 * len(good)):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(ValueError, match="has changed"):
            records.read_json(path)


def test_a_kill_between_file_and_manifest_leaves_a_file_that_is_read(workdir, monkeypatch):
    path = workdir / "a.json"
    records.write_json(path, 1)
    replace = records.os.replace

    class Killed(BaseException):
        pass

    def killed_after_the_file(source, target):
        replace(source, target)
        if Path(target).name == "a.json":
            raise Killed

    monkeypatch.setattr(records.os, "replace", killed_after_the_file)
    with pytest.raises(Killed):
        records.write_json(path, 2)
    monkeypatch.undo()
    assert records.read_json(path) == 2


def test_a_file_of_another_writer_is_read_unlisted(workdir):
    (workdir / "notes.json").write_text("[1]")
    assert records.read_json(workdir / "notes.json") == [1]


def test_a_file_is_listed_in_its_own_run_not_in_the_study_above(workdir):
    with workdirs.Workdir(workdir / "seed0") as run:
        records.write_json(run / "evaluation" / "summary.json", {})
    assert list(json.loads((run / "manifest.json").read_text())) == ["evaluation/summary.json"]
    assert not (workdir / "manifest.json").exists()


def test_no_foreign_manifest_is_touched(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "another program"}')
    records.write_json(tmp_path / "out" / "a.json", 1)
    assert (tmp_path / "manifest.json").read_text() == '{"name": "another program"}'


def test_threads_lose_no_entry(workdir):
    threads = [
        threading.Thread(target=records.write_atomic, args=(workdir / f"{i}.txt", str(i) * 100)) for i in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listed = json.loads((workdir / "manifest.json").read_text())
    assert sorted(listed) == sorted(f"{i}.txt" for i in range(20))


def test_a_write_that_fails_keeps_the_old_file(workdir, monkeypatch):
    records.write_atomic(workdir / "a.txt", "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", full)
    with pytest.raises(ValueError, match=r"a\.txt cannot be written: No space left on device\.$"):
        records.write_atomic(workdir / "a.txt", "new")
    monkeypatch.undo()
    assert (workdir / "a.txt").read_text() == "old"
    assert not (workdir / ".a.txt.tmp").exists()


def test_json_round_trip_with_numpy_values(workdir):
    records.write_json(workdir / "a.json", {"n": np.int64(3), "x": np.float32(0.5), "v": np.arange(3), "t": (1, "ö")})
    assert records.read_json(workdir / "a.json") == {"n": 3, "x": 0.5, "v": [0, 1, 2], "t": [1, "ö"]}


def test_json_errors_name_file_and_place(workdir):
    (workdir / "a.json").write_text('{"a": 1,\n "b": }')
    with pytest.raises(ValueError, match=r"a\.json is damaged JSON: Expecting value at line 2, column 7\.$"):
        records.read_json(workdir / "a.json")
    (workdir / "a.json").write_bytes(b'"\xff"')
    with pytest.raises(ValueError, match=r"a\.json is damaged: no UTF-8 text at byte 1\.$"):
        records.read_json(workdir / "a.json")
    with pytest.raises(ValueError, match=r"missing\.json does not exist\.$"):
        records.read_json(workdir / "missing.json")
    with pytest.raises(ValueError, match=r"JSON cannot hold .* of type PosixPath"):
        records.write_json(workdir / "a.json", {"path": Path("x")})


def test_npz_round_trip_and_equal_bytes(workdir, rng):
    arrays = {
        "maps": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "file": np.array(["a", "bc"]),
        "empty": np.zeros((0, 2)),
        "flag": np.array(True),
    }
    records.write_npz(workdir / "a.npz", arrays)
    records.write_npz(workdir / "b.npz", arrays)
    back = records.read_npz(workdir / "a.npz")
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)
    assert (workdir / "a.npz").read_bytes() == (workdir / "b.npz").read_bytes()
    with np.load(workdir / "a.npz") as archive:
        np.testing.assert_array_equal(archive["maps"], arrays["maps"])


def test_npz_damage_is_one_sentence_without_a_manifest_too(tmp_path, rng):
    path = tmp_path / "a.npz"
    records.write_npz(path, {"x": rng.normal(size=100)})
    good = path.read_bytes()
    for bad in (good[:-30], good[:200], b"", good[:400] + bytes([good[400] ^ 4]) + good[401:]):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"^\S*a\.npz is a damaged npz file: [^\n]*$"):
            records.read_npz(path)
    with pytest.raises(ValueError, match="'x' holds Python objects"):
        records.write_npz(path, {"x": np.array([{}])})


def test_metrics_log_round_trip(workdir):
    log = records.MetricsLog(workdir)
    assert log.read() == []
    log.write(1, split="train", loss=np.float32(0.5), n=np.int32(3))
    log.write(2, split="train", loss=math.nan, norm=math.inf)
    assert log.path.read_text().splitlines()[1] == '{"step": 2, "split": "train", "loss": null, "norm": null}'
    first, second = log.read()
    assert first == {"step": 1, "split": "train", "loss": 0.5, "n": 3}
    assert math.isnan(second["loss"]) and second["step"] == 2


@pytest.mark.parametrize("tail", ["", '{"step": 4, "lo', '{"step": 4, "loss": 1.0}'])
def test_cut_back_keeps_the_checkpoints_past(workdir, tail):
    log = records.MetricsLog(workdir)
    for step in (1, 2, 3):
        log.write(step, loss=1 / step, gap=math.nan)
    before = log.path.read_text().splitlines(keepends=True)
    with log.path.open("a") as file:
        file.write(tail)
    assert [row["step"] for row in log.read()] == [1, 2, 3]
    log.cut_back(2)
    assert log.path.read_text() == "".join(before[:2])
    log.write(3, loss=0.0)
    assert [row["loss"] for row in log.read()] == [1.0, 0.5, 0.0]


def test_a_damaged_metrics_line_is_named(workdir):
    (workdir / "metrics.jsonl").write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged: line 2 is no JSON object\.$"):
        records.MetricsLog(workdir).read()


def test_a_file_that_was_taken_away_is_missed_and_one_that_never_was_is_not(tmp_path):
    with workdirs.Workdir(str(tmp_path)):
        path = tmp_path / "evaluation" / "pictures.npz"
        assert not records.is_there(path)
        records.write_npz(path, {"a": np.zeros(2)})
        assert records.is_there(path)
        path.unlink()
        with pytest.raises(
            ValueError, match=r"pictures\.npz is missing, though it was written once: manifest\.json lists"
        ):
            records.is_there(path)
        records.remove(path)
        assert not records.is_there(path)


def test_the_log_of_a_training_that_has_ended_is_compared_until_a_line_follows(workdir):
    log = records.MetricsLog(workdir)
    log.write(1, loss=0.25)
    log.seal()
    good = log.path.read_text()
    for bad, message in ((good.replace("2", "3"), "has changed since it was written"), ("", "is truncated: 0 of")):
        log.path.write_text(bad)
        with pytest.raises(ValueError, match=rf"metrics\.jsonl {message}"):
            log.read()
    log.path.unlink()
    with pytest.raises(ValueError, match=r"metrics\.jsonl is missing, though it was written once"):
        log.read()
    log.path.write_text(good)
    log.cut_back(1)
    log.write(2, loss=0.5)
    assert [row["step"] for row in log.read()] == [1, 2]


def test_a_damaged_log_begins_again_with_the_rows_that_a_checkpoint_remembers(workdir, caplog):
    log = records.MetricsLog(workdir)
    for step in (1, 2):
        log.write(step, split="train", loss=step / 4, gap=math.nan)
    rows, good = log.rows(), log.path.read_text()
    assert rows[0] == {"step": 1, "split": "train", "loss": 0.25, "gap": None}
    log.write(3, loss=1.0)
    log.mend(rows)
    assert [row["step"] for row in log.read()] == [1, 2, 3] and not caplog.records
    damages = [good.replace("0.25", "0.35"), good[: len(good) // 2], "", good + "}\n", good.replace("step", "stop", 1)]
    for damaged in damages:
        log.path.write_text(damaged)
        log.mend(rows)
        assert log.path.read_text() == good
    log.path.unlink()
    log.mend(rows)
    assert log.path.read_text() == good
    assert len(caplog.records) == len(damages) + 1 and all("metrics.jsonl" in one.message for one in caplog.records)


def test_a_damaged_manifest_is_answered_with_what_to_do(tmp_path):
    with workdirs.Workdir(tmp_path) as workdir:
        records.write_json(workdir / "a.json", 1)
    path = tmp_path / "manifest.json"
    for damaged in (
        "",
        "{",
        "[]",
        '{"a.json": 1}',
        '{"a.json": {"byte": 2, "sha256": ""}}',
        '{"a.json": {"bytes": "2"}}',
    ):
        path.write_text(damaged)
        with pytest.raises(ValueError, match=r"manifest\.json is damaged, .*; delete it to go on without"):
            workdirs.Workdir(tmp_path).__enter__()
        with pytest.raises(ValueError, match="delete it"):
            records.write_json(tmp_path / "a.json", 2)
        assert path.read_text() == damaged
    path.unlink()
    with workdirs.Workdir(tmp_path) as workdir:
        assert records.read_json(workdir / "a.json") == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == [records.LOCK, "a.json"]
