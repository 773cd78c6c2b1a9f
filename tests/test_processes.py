"""One process has nobody to ask; what several do is tested in tests/faults/test_two_processes.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.experimental import multihost_utils

from robust_saliency import processes, sharding


def test_one_process_is_the_first_and_agrees_with_itself():
    assert (processes.count(), processes.index(), processes.is_first(), processes.name()) == (1, 0, True, "")
    assert processes.gathered("x") == ["x"]
    assert processes.on_first(lambda: 3) == 3
    with pytest.raises(ValueError, match="as it was"):
        processes.on_first(lambda: (_ for _ in ()).throw(ValueError("as it was")))


@given(length=st.integers(0, 100), count=st.integers(1, 9))
def test_the_shares_in_order_are_the_whole_and_alike(length, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "count", lambda: count)
        parts = []
        for number in range(count):
            patch.setattr(processes, "index", lambda number=number: number)
            parts.append(np.arange(length)[processes.share(length)])
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(length))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("devices", "batch", "message"),
    [
        (3, 12, "config.mesh.num_devices is 3, which 2 processes cannot share evenly"),
        (1, 12, "config.mesh.num_devices is 1, which 2 processes cannot share evenly"),
        (0, 13, "config.data.batch_size is 13, which 2 processes cannot share evenly"),
    ],
)
def test_processes_share_devices_and_batches_evenly(devices, batch, message, monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(devices, batch, "config.data.batch_size")


@pytest.mark.parametrize("at_once", [1, 64, 2**20])
def test_what_is_gathered_arrives_whole_in_pieces_of_any_size(at_once, monkeypatch):
    seen = []

    def from_both(array):
        seen.append(array.nbytes)
        return np.stack([array, array])

    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "_AT_ONCE", at_once)
    monkeypatch.setattr(multihost_utils, "process_allgather", from_both)
    value = {"rows": list(range(100)), "name": "x" * 77}
    assert processes.gathered(value) == [value, value]
    assert max(seen) <= max(at_once, 8)


def test_processes_that_read_different_things_say_so(monkeypatch):
    processes.check_same("checkpoint", 3)
    monkeypatch.setattr(processes, "gathered", lambda value: [value, 560])
    with pytest.raises(ValueError, match="not read the same checkpoint: 624 in process 0, 560 in process 1"):
        processes.check_same("checkpoint", 624)


def test_only_of_several_can_another_be_lost(monkeypatch):
    error = RuntimeError("UNKNOWN: Gloo AllReduce failed: Connection closed by peer [127.0.0.1]:1")
    assert not processes.is_of_another(error)
    monkeypatch.setattr(processes, "count", lambda: 2)
    assert processes.is_of_another(error)
    assert not processes.is_of_another(RuntimeError("RESOURCE_EXHAUSTED: Out of memory"))
