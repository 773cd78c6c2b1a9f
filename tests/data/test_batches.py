import gc
import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_saliency.data import (
    BatchOrder,
    DataSpec,
    MemorySplit,
    epoch_order,
    eval_batches,
    load,
    steps_per_epoch,
    train_batches,
)


def split_of(labels):
    labels = np.asarray(labels, np.int32)
    ids = np.arange(len(labels), dtype=np.int32)
    image = np.broadcast_to(ids[:, None, None, None], (len(labels), 2, 2, 1)).astype(np.uint8)
    return MemorySplit({"image": image, "label": labels, "id": ids})


def take(batches, num):
    return [next(batches) for _ in range(num)]


def assert_same(a, b):
    assert len(a) == len(b)
    for one, two in zip(a, b, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])


@given(num=st.integers(1, 50), seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_a_plain_epoch_holds_every_example_once(num, seed, epoch):
    np.testing.assert_array_equal(np.sort(epoch_order(seed, epoch, range(num))), np.arange(num))


@given(counts=st.lists(st.integers(1, 12), min_size=2, max_size=5), seed=st.integers(0, 9), epoch=st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_a_balanced_epoch_holds_every_class_equally_often_and_no_example_too_often(counts, seed, epoch):
    labels = np.repeat(np.arange(len(counts)), counts)
    order = epoch_order(seed, epoch, labels, class_balanced=True)
    assert np.bincount(labels[order]).tolist() == [max(counts)] * len(counts)
    times = np.bincount(order, minlength=len(labels))
    for label, count in enumerate(counts):
        own = times[labels == label]
        assert own.min() == max(counts) // count and own.max() == -(-max(counts) // count)


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(epoch_order(seed, epoch, range(20))) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_an_epoch_drops_its_ragged_end_and_repeats_nothing():
    split = split_of(np.arange(10) % 2)
    assert steps_per_epoch(split, 4) == 2
    batches = take(train_batches(split, batch_size=4, seed=1), 6)
    for epoch in range(3):
        ids = np.concatenate([batch["id"] for batch in batches[2 * epoch : 2 * epoch + 2]])
        np.testing.assert_array_equal(ids, epoch_order(1, epoch, range(10))[:8])
    assert all(batch["valid"].all() and batch["valid"].shape == (4,) for batch in batches)


def test_a_balanced_epoch_has_as_many_steps_as_its_oversampled_classes_fill():
    split = split_of([0] * 8 + [1] * 3 + [4])
    assert steps_per_epoch(split, 6, class_balanced=True) == 4
    labels = np.concatenate(
        [b["label"] for b in take(train_batches(split, batch_size=6, seed=0, class_balanced=True), 4)]
    )
    assert np.bincount(labels).tolist() == [8, 8, 0, 0, 8]


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("start", [0, 1, 3, 7, 1000])
def test_a_run_from_step_k_sees_the_batches_of_a_run_from_zero(balanced, start):
    split = split_of([0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
    options = {"batch_size": 3, "seed": 5, "class_balanced": balanced}
    whole = take(train_batches(split, **options), start + 5)
    assert_same(whole[start:], take(train_batches(split, start_step=start, **options), 5))


@pytest.mark.parametrize("in_memory", ["yes", "no"])
def test_a_position_survives_json_and_restores_exactly(tiny_tfds, in_memory):
    split = load(DataSpec(name="tiny", data_dir=str(tiny_tfds), in_memory=in_memory)).train
    options = {"batch_size": 16, "seed": 2, "class_balanced": True}
    run = train_batches(split, **options)
    take(run, 5)
    position = json.loads(json.dumps(run.position()))
    assert position["step"] == 5  # though a stream has read ahead
    expected = take(run, 4)
    fresh = train_batches(split, **options)
    next(fresh)
    fresh.restore(position)
    assert_same(expected, take(fresh, 4))


def test_a_position_of_another_order_is_refused():
    split = split_of(np.arange(10) % 2)
    position = train_batches(split, batch_size=4, seed=1).position()
    with pytest.raises(ValueError, match="seed 1 -> 2, batch_size 4 -> 5"):
        train_batches(split, batch_size=5, seed=2).restore(position)


@pytest.mark.parametrize("balanced", [False, True])
def test_streamed_batches_are_byte_for_byte_those_in_memory(tiny_tfds, balanced):
    options = {"batch_size": 8, "seed": 4, "class_balanced": balanced}
    found = []
    for in_memory in ("yes", "no"):
        spec = DataSpec(
            name="tiny", data_dir=str(tiny_tfds), in_memory=in_memory, mask_field="mask", group_field="patient"
        )
        data = load(spec)
        streamed = take(train_batches(data.train, start_step=3, **options), 12)
        found.append(streamed + list(eval_batches(data.test, batch_size=5)))
    assert {array.dtype.name for array in found[1][0].values()} == {"uint8", "int32", "bool"}
    assert_same(*found)


def test_an_abandoned_stream_leaves_no_thread_behind(tiny_tfds):
    split = load(DataSpec(name="tiny", data_dir=str(tiny_tfds), in_memory="no")).train
    before = set(threading.enumerate())
    gc.disable()  # The threads end with the last reference to the stream, not when the collector comes by.
    try:
        for _ in range(5):
            next(train_batches(split, batch_size=8, seed=0))
        for _ in eval_batches(split, batch_size=8):
            break
        mine = [thread for thread in threading.enumerate() if thread not in before]
        for thread in mine:
            thread.join(timeout=60)
        assert not [thread for thread in mine if thread.is_alive()]
    finally:
        gc.enable()


def test_an_error_in_a_stream_reaches_the_loop(tiny_tfds):
    split = load(DataSpec(name="tiny", data_dir=str(tiny_tfds), in_memory="no")).train

    def vanished(rows):
        raise ValueError("the file is gone")

    split._source.read = vanished
    with pytest.raises(ValueError, match="the file is gone"):
        next(train_batches(split, batch_size=8, seed=0))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_hosts_rows_in_order_are_the_global_batch(count):
    split = split_of(np.arange(21) % 3)

    def joined(make):
        shards = [list(make((host, count))) for host in range(count)]
        return [{k: np.concatenate([b[k] for b in parts]) for k in parts[0]} for parts in zip(*shards, strict=True)]

    def train(shard):
        return take(train_batches(split, batch_size=8, seed=3, shard=shard), 5)

    def evaluate(shard):
        return eval_batches(split, batch_size=8, shard=shard)

    assert_same(joined(train), train((0, 1)))
    assert_same(joined(evaluate), list(evaluate((0, 1))))


@given(num=st.integers(1, 30), batch_size=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_evaluation_sees_every_index_once_in_order_and_masks_the_padding(num, batch_size):
    split = split_of(np.zeros(40))
    indices = np.random.default_rng(num).permutation(40)[:num]
    batches = list(eval_batches(split, batch_size=batch_size, indices=indices))
    assert all(len(batch["image"]) == batch_size for batch in batches)
    valid = np.concatenate([batch["valid"] for batch in batches])
    assert valid.sum() == num and len(valid) - num < batch_size
    np.testing.assert_array_equal(np.concatenate([batch["id"] for batch in batches])[valid], indices)


def test_no_index_is_no_batch():
    assert list(eval_batches(split_of([0, 1]), batch_size=4, indices=np.array([], int))) == []


@pytest.mark.parametrize("in_memory", ["yes", "no"])
def test_training_batches_hold_the_fields_asked_for_and_masks_only_then(tiny_tfds, in_memory):
    split = load(
        DataSpec(name="tiny", data_dir=str(tiny_tfds), in_memory=in_memory, mask_field="mask", group_field="patient")
    ).train
    options = {"batch_size": 8, "seed": 4, "start_step": 9}
    plain = next(train_batches(split, **options))
    assert set(plain) == {"image", "label", "id", "valid"}
    masked = next(train_batches(split, **options, fields=("image", "label", "id", "lesion_mask", "group")))
    assert set(masked) == {"image", "label", "id", "lesion_mask", "group", "valid"}
    for name in plain:
        np.testing.assert_array_equal(plain[name], masked[name])
    places = BatchOrder(range(len(split)), batch_size=8, seed=4).indices_at(9)
    np.testing.assert_array_equal(masked["lesion_mask"], split.gather(places)["lesion_mask"])
    with pytest.raises(ValueError, match=r"Unknown field of a training batch 'evidence_mask'\. Did you mean"):
        next(train_batches(split, **options, fields=("image", "label", "id", "evidence_mask")))


def test_what_cannot_be_batched_says_why():
    split = split_of([0, 1, 1])
    with pytest.raises(ValueError, match="batch_size 4 is larger than an epoch of 3"):
        train_batches(split, batch_size=4, seed=0)
    with pytest.raises(ValueError, match="batch_size 3 cannot be shared equally by 2 hosts"):
        train_batches(split, batch_size=3, seed=0, shard=(0, 2))
    with pytest.raises(ValueError, match="shard must be"):
        eval_batches(split, batch_size=2, shard=(2, 2))
    for batches in (steps_per_epoch, eval_batches):
        with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
            batches(split, batch_size=0)
    for balanced in (False, True):
        with pytest.raises(ValueError, match="batch_size 4 is larger than an epoch of 0"):
            steps_per_epoch(split_of([]), 4, balanced)
