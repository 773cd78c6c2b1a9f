"""The second axis of the device mesh: what one example is asked many times over, shared by several devices."""

import jax
from jax.sharding import AxisType, PartitionSpec

from robust_saliency.types import Array

AXIS = "samples"


def spread(values: Array) -> Array:
    """``values [B, S, ...]``, the S of each example shared by the devices along the axis 'samples' of the mesh in use.

    That is the mesh of ``jax.set_mesh``, with Auto axes 'data' and 'samples', of which 'data' has a device for each
    example: XLA can split the B * S points of a pass in no other way. Else, where S is no multiple of the length of
    'samples', and inside ``shard_map``, nothing happens. The values do not change; sums over S become messages between
    those devices.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if not {"data", AXIS} <= axes.keys() or set(axes.values()) != {AxisType.Auto}:
        return values
    if values.shape[0] != mesh.shape["data"] or values.shape[1] % mesh.shape[AXIS]:
        return values
    return jax.lax.with_sharding_constraint(values, PartitionSpec("data", AXIS))
