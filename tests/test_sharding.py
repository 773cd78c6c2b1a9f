"""The mesh: as many devices as can share a batch."""

import numpy as np
import pytest
from jax.sharding import PartitionSpec

from robust_saliency import sharding


@pytest.mark.parametrize(("batch_size", "devices"), [(128, 8), (12, 6), (7, 7), (5, 5), (11, 1), (1, 1), (20, 5)])
def test_by_itself_it_takes_the_most_devices_that_divide_the_batch(batch_size, devices):
    assert sharding.make_mesh(0, batch_size, "config.data.batch_size").size == devices


def test_a_number_that_was_asked_for_is_taken_or_refused():
    assert sharding.make_mesh(2, 12, "config.data.batch_size").size == 2
    with pytest.raises(ValueError, match=r"config.data.batch_size is 12, which 5 devices cannot share evenly"):
        sharding.make_mesh(5, 12, "config.data.batch_size")
    with pytest.raises(ValueError, match=r"config.mesh.num_devices is 9, but there are 8 devices"):
        sharding.make_mesh(9, 9, "config.data.batch_size")


def test_a_sharded_state_is_split_along_the_longest_axis_that_the_devices_divide():
    mesh = sharding.make_mesh(8, 8, "config.data.batch_size")
    tree = {"wide": np.ones((3, 3, 64, 128)), "odd": np.ones((7, 2341)), "few": np.ones(64), "count": np.int32(0)}
    placed = sharding.put_state(tree, mesh, "sharded")
    assert placed["wide"].sharding.spec == PartitionSpec(None, None, None, "data")
    assert all(placed[name].is_fully_replicated for name in ("odd", "few", "count"))
    assert all(leaf.is_fully_replicated for leaf in sharding.put_state(tree, mesh, "replicated").values())
