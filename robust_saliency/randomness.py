"""Random numbers from one key, or from one key an example.

With a key array ``[B]`` (:func:`per_example_keys`) the draw of an example depends on its key alone: not on the batch
size, the order, the padding, the number of devices or the point at which a run was resumed.
"""

import zlib

import jax
import jax.numpy as jnp

from robust_saliency.types import Array, Key


def key_of(purpose: str) -> Key:
    """The same key for a purpose in every run: runs are compared on the same random starts and noise."""
    return jax.random.key(zlib.crc32(purpose.encode()))


def per_example_keys(key: Key, example_ids: Array) -> Key:
    """Key array ``[B]``: ``key`` folded with each integer id of ``example_ids [B]``."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, example_ids)


def fold_in(key: Key, data: int | Array) -> Key:
    """``jax.random.fold_in`` for one key or for one key an example."""
    return jax.vmap(jax.random.fold_in, (0, None))(key, data) if is_per_example(key) else jax.random.fold_in(key, data)


def split(key: Key, num: int = 2) -> Key:
    """Key array ``[num]`` from one key, ``[num, B]`` from one key an example."""
    if is_per_example(key):
        return jnp.swapaxes(jax.vmap(lambda k: jax.random.split(k, num))(key), 0, 1)
    return jax.random.split(key, num)


def draw(sampler, key: Key, shape: tuple[int, ...], dtype=jnp.float32, **kwargs) -> Array:
    """``sampler(key, shape, dtype=..., **kwargs)`` of a ``shape`` that starts with the batch axis."""
    if is_per_example(key):
        if key.shape[0] != shape[0]:
            raise ValueError(f"One key an example is needed: got {key.shape[0]} keys for a batch of {shape[0]}.")
        return jax.vmap(lambda k: sampler(k, shape[1:], dtype=dtype, **kwargs))(key)
    return sampler(key, shape, dtype=dtype, **kwargs)


def is_per_example(key: Key) -> bool:
    """True for a key array with one key an example."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        got = f"{key!r}" if dtype is None else f"an array of dtype {dtype} and shape {key.shape}"
        raise ValueError(f"Keys are made by jax.random.key, got {got}.")
    return key.ndim == 1
