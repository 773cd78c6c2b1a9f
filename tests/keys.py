"""Keys whose bits compile fast."""

import jax


def fast_key(seed):
    """Threefry takes XLA seconds to compile on CPU; where a single key is used any generator will do."""
    return jax.random.key(seed, impl="rbg")
