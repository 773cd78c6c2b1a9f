"""The device mesh, and how arrays lie on it: batches split by example, everything else a copy on each device, or the
large arrays of a training state split too."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from robust_saliency import processes, samples

PARAMETERS = ("replicated", "sharded")
# Arrays of fewer elements weigh nothing, and each that is split is gathered by an operation of its own.
SPLIT_FROM = 2**14


def make_mesh(num_devices: int, batch_size: int, where: str) -> Mesh:
    """A mesh with one axis 'data' over ``num_devices`` devices, which share a batch evenly, of every process as many.

    0 = as many devices as can: six cores share a batch of 128 by four. Raises ValueError for a number of devices that
    is not there or does not divide ``batch_size``, the value of the config field ``where``.
    """
    return _mesh(jax.devices(), processes.count(), num_devices, batch_size, where)


def make_local_mesh(num_devices: int, batch_size: int, where: str, for_samples: int = 1) -> Mesh:
    """As :func:`make_mesh` over the devices of this process alone; ``num_devices`` is of all processes together.

    for_samples: so many devices hold the same example, one at a time, and share what it is asked many times over (a
    second axis, 'samples', see :func:`robust_saliency.samples.spread`).
    """
    hosts = processes.count()
    if num_devices % hosts:
        raise ValueError(f"config.mesh.num_devices is {num_devices}, which {hosts} processes cannot share evenly.")
    devices, chosen = jax.local_devices(), num_devices // hosts
    if for_samples == 1:
        return _mesh(devices, 1, chosen, batch_size, where)
    needed = batch_size * for_samples
    if needed > len(devices) or chosen not in (0, needed):
        there = f"config.mesh.num_devices is {num_devices}" if chosen else f"there are {len(devices)}"
        raise ValueError(
            f"config.mesh.samples is {for_samples}: as many devices share an example, one at a time, so that {where} "
            f"{batch_size} takes {needed} of them, but {there}."
        )
    together = np.array(devices[:needed]).reshape(batch_size, for_samples)
    return Mesh(together, ("data", samples.AXIS), axis_types=(AxisType.Auto,) * 2)


def _mesh(devices: list, hosts: int, num_devices: int, batch_size: int, where: str) -> Mesh:
    if num_devices > len(devices):
        raise ValueError(f"config.mesh.num_devices is {num_devices}, but there are {len(devices)} devices.")
    if num_devices and batch_size % num_devices:
        raise ValueError(f"{where} is {batch_size}, which {num_devices} devices cannot share evenly; take a multiple.")
    if num_devices % hosts or batch_size % hosts:
        name, value = ("config.mesh.num_devices", num_devices) if num_devices % hosts else (where, batch_size)
        raise ValueError(f"{name} is {value}, which {hosts} processes cannot share evenly; take a multiple.")
    each = len(devices) // hosts
    most = max(count for count in range(1, each + 1) if batch_size % (hosts * count) == 0)
    chosen = num_devices // hosts or most
    of_host: dict[int, list] = {}
    for device in devices:
        of_host.setdefault(device.process_index, []).append(device)
    # Auto: user models may index logits in ways that Explicit axes refuse.
    return Mesh(
        np.array([device for own in of_host.values() for device in own[:chosen]]),
        ("data",),
        axis_types=(AxisType.Auto,),
    )


def check_parts(mesh: Mesh, batch_size: int, parts: int) -> None:
    """Raises ValueError unless each of the ``parts`` of a batch is shared evenly by the devices."""
    if batch_size % (mesh.size * parts):
        raise ValueError(
            f"config.train.accumulate is {parts}: config.data.batch_size {batch_size} cannot be cut into as many parts "
            f"that {mesh.size} device(s) share evenly; take a multiple of {mesh.size * parts}."
        )


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Host arrays to global arrays, split by example; each process gives its own rows."""
    sharding = by_example(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def put_replicated(tree, mesh: Mesh):
    """A copy on each device; every process gives the whole."""
    return jax.tree.map(lambda leaf: _put(leaf, replicated(mesh)), tree)


def put_state(tree, mesh: Mesh, parameters: str):
    """'replicated': as :func:`put_replicated`. 'sharded': arrays of at least ``SPLIT_FROM`` elements are split along
    their longest axis that the devices divide; XLA gathers each where it is used (ZeRO-3, Rajbhandari et al. 2020,
    1910.02054).
    """
    if parameters == "replicated":
        return put_replicated(tree, mesh)
    return jax.tree.map(lambda leaf: _put(leaf, NamedSharding(mesh, _split(np.shape(leaf), mesh.size))), tree)


def _split(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    axes = [axis for axis, length in enumerate(shape) if length % devices == 0]
    if not axes or np.prod(shape) < SPLIT_FROM:
        return PartitionSpec()
    longest = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*(None,) * longest, "data")


def _put(leaf, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])


def waited(values, mesh: Mesh):
    """``values``, once they are computed where :func:`must_wait`."""
    return jax.block_until_ready(values) if must_wait(mesh) else values


def on(mesh: Mesh, programs):
    """The functions of a tree; on a mesh with the axis 'samples' compiled for it, and :func:`waited` for."""
    if samples.AXIS not in mesh.axis_names:
        return programs

    def placed(program):
        def run(*arguments):
            with jax.set_mesh(mesh):
                return waited(program(*arguments), mesh)

        return run

    return jax.tree.map(placed, programs)


def must_wait(mesh: Mesh) -> bool:
    """True where a program with collectives must be done before the next is dispatched.

    Several virtual CPU devices share one thread pool: programs dispatched ahead can each hold threads that the other's
    all-reduce waits for, and XLA aborts the process.
    """
    return mesh.size > 1 and mesh.devices.flat[0].platform == "cpu"
