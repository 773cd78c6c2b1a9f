"""The second axis of the device mesh: what one example is asked many times over, shared by several devices."""

import jax
from jax.sharding import PartitionSpec

from robust_saliency.types import Array

AXIS = "samples"


def spread(values: Array) -> Array:
    """``values [B, S, ...]``, the S of each example shared by the devices along the axis 'samples' of the mesh in use.

    That is the mesh of ``jax.set_mesh``. Where there is none, it has no such axis, or S is no multiple of its length,
    nothing happens. The values do not change; sums over S become messages between those devices.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if AXIS not in mesh.axis_names or values.shape[1] % mesh.shape[AXIS]:
        return values
    return jax.lax.with_sharding_constraint(values, PartitionSpec("data", AXIS))
