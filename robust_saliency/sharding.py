"""The device mesh, and how arrays lie on it: batches split by example, everything else a copy on each device."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh(num_devices: int, batch_size: int, where: str) -> Mesh:
    """A mesh with one axis 'data' over the first ``num_devices`` devices, which share a batch evenly.

    0 = as many devices as can: six cores share a batch of 128 by four. Raises ValueError for a number of devices that
    is not there or does not divide ``batch_size``, the value of the config field ``where``.
    """
    devices = jax.devices()
    if num_devices > len(devices):
        raise ValueError(f"config.mesh.num_devices is {num_devices}, but this process sees {len(devices)} devices.")
    if num_devices and batch_size % num_devices:
        raise ValueError(f"{where} is {batch_size}, which {num_devices} devices cannot share evenly; take a multiple.")
    most = max(count for count in range(1, len(devices) + 1) if batch_size % count == 0)
    chosen = devices[: num_devices or most]
    # Auto: user models may index logits in ways that Explicit axes refuse.
    return Mesh(np.array(chosen), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Host arrays to global arrays, split by example; each process gives its own rows."""
    sharding = by_example(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def put_replicated(tree, mesh: Mesh):
    return jax.device_put(tree, replicated(mesh))


def waited(values, mesh: Mesh):
    """``values``, once they are computed where :func:`must_wait`."""
    return jax.block_until_ready(values) if must_wait(mesh) else values


def must_wait(mesh: Mesh) -> bool:
    """True where a program with collectives must be done before the next is dispatched.

    Several virtual CPU devices share one thread pool: programs dispatched ahead can each hold threads that the other's
    all-reduce waits for, and XLA aborts the process.
    """
    return mesh.size > 1 and mesh.devices.flat[0].platform == "cpu"
