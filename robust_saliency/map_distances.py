"""Distances of saliency maps as losses ``[B]``, at least float32: what an attack on an explanation raises.

A map m becomes *shares* ``p_i = |m_i| / sum_j |m_j|``, so that its scale does not count. A map that is zero or not
finite has no shares: its losses are NaN and its gradient is zero. Pixels are differentiated, references are not.
"""

import jax
import jax.numpy as jnp

from robust_saliency import checks, ranks
from robust_saliency.types import Array, Maps


def shares(maps: Maps) -> Array:
    """``p = |m| / sum |m|`` of ``maps [B, H, W]``: in [0, 1], summing to one; NaN for a map without."""
    checks.rank("maps", maps, 3)
    values = jnp.abs(maps.astype(jnp.promote_types(maps.dtype, jnp.float32)))
    largest = jax.lax.stop_gradient(jnp.max(values, axis=(1, 2), keepdims=True))
    scaled = jnp.where((largest > 0) & jnp.isfinite(largest), values / jnp.where(largest > 0, largest, 1), jnp.nan)
    return scaled / jnp.sum(scaled, axis=(1, 2), keepdims=True)


def centre_of_mass(shares: Array) -> Array:
    """``sum_i p_i (row_i, column_i)``: ``[B, 2]``, in pixels from the centre of the first pixel."""
    profiles = jnp.sum(shares, axis=2), jnp.sum(shares, axis=1)
    means = [jnp.sum(p * jnp.arange(p.shape[1], dtype=p.dtype)[None], axis=1) for p in profiles]
    return jnp.stack(means, axis=-1)


def region_mass(maps: Maps, region: Array) -> Array:
    """``sum_i r_i p_i``, the share of the map in ``region [B, H, W]`` of weights in [0, 1]: in [0, 1].

    Source: Ghorbani, Abid, Zou 2019 (1710.10547), the targeted attack.
    """
    return jnp.sum(jax.lax.stop_gradient(_fitting("region", region, maps)) * shares(maps), axis=(1, 2))


def top_k_mass(maps: Maps, clean_maps: Maps, k: int) -> Array:
    """``-sum_{i in T} p_i``, T the ``k`` largest pixels of ``|clean_maps|``: in [-1, 0], 0 once nothing is left there.

    Pixels tied at the k-th value count by the share of the places left to them (:func:`ranks.top_share`).
    Source: Ghorbani, Abid, Zou 2019 (1710.10547), the top-k attack.
    """
    return -region_mass(maps, ranks.top_share(shares(clean_maps), k))


def mass_centre(maps: Maps, clean_maps: Maps) -> Array:
    """``|c(p) - c(clean p)|_2``, c the :func:`centre_of_mass`: pixels, in [0, diagonal of the map].

    At the clean map it is 0 with a zero gradient: an attack needs a random start, or a surrogate that differs.
    Source: Ghorbani, Abid, Zou 2019 (1710.10547), the mass-centre attack; their code squares it.
    """
    clean = jax.lax.stop_gradient(centre_of_mass(shares(_fitting("clean_maps", clean_maps, maps))))
    square = jnp.sum(jnp.square(centre_of_mass(shares(maps)) - clean), axis=-1)
    # Not sqrt(0), whose derivative is infinite; a NaN stays one.
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))


def target_map(maps: Maps, target: Maps) -> Array:
    """``-mean_i (n p_i - n t_i)^2``, t the shares of ``target [B, H, W]``, n = H W: at most 0, which is the target.

    Source: Dombrowski et al. 2019 (1906.07983), the explanation term of their loss; their code takes the mean square of
    ``p - t``, here it is times ``n^2``, so that it does not shrink with the number of pixels.
    """
    wanted = jax.lax.stop_gradient(shares(_fitting("target", target, maps)))
    count = maps.shape[1] * maps.shape[2]
    return -jnp.mean(jnp.square(count * (shares(maps) - wanted)), axis=(1, 2))


def _fitting(name: str, array: Array, maps: Maps) -> Array:
    if jnp.shape(array) != maps.shape:
        raise ValueError(f"{name} must have the shape of the maps, {maps.shape}, got {jnp.shape(array)}.")
    return jnp.asarray(array)
