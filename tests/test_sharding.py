"""The mesh: as many devices as can share a batch."""

import pytest

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
