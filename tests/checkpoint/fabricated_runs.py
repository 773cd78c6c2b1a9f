"""Runs to save, and how a test compares what came back with what was saved."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from robust_saliency import checkpoint


def run_of(seed: int) -> tuple[dict, dict]:
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "conv": {"kernel": jax.random.normal(keys[0], (40, 50)), "bias": jnp.zeros(50, jnp.bfloat16) + seed / 3},
        "dense": {"kernel": jax.random.normal(keys[1], (50, 30)).astype(jnp.bfloat16)},
    }
    optimizer = optax.adamw(1e-3)
    opt_state = optimizer.init(params)
    _, opt_state = optimizer.update(jax.tree.map(jnp.ones_like, params), opt_state, params)
    variables = {"params": params, "state": {"norm": {"mean": jax.random.normal(keys[2], (7,))}, "none": {}}}
    return variables, {"opt_state": opt_state, "step": jnp.int32(seed), "carry": (), "ids": jnp.arange(5) + seed}


def save_run(saver: checkpoint.Checkpointer, step: int, **metrics: float) -> bool:
    variables, trainer = run_of(step)
    position = {"epoch": step, "index": 2**40 + step}
    return saver.save(
        step, variables=variables, trainer=trainer, position=position, config={"seed": step}, metrics=metrics
    )


def assert_same(got, expected) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert leaf.dtype == other.dtype
        assert leaf.shape == other.shape
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()


def assert_restores(directory: Path, step: int) -> None:
    with checkpoint.Checkpointer(directory) as saver:
        restored = saver.restore(*run_of(0))
    assert restored.step == step
    assert_same((restored.variables, restored.trainer), run_of(step))
    assert restored.position == {"epoch": step, "index": 2**40 + step}
    assert restored.config == {"seed": step}


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def largest_file(directory: Path) -> Path:
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
