"""What is wrong with a map before anything is measured of it."""

import numpy as np

NOT_FINITE, ZERO, CONSTANT = "not finite", "zero", "constant"


def of_maps(maps: np.ndarray) -> np.ndarray:
    """For each of ``maps [N, H, W]`` 'not finite' (a pixel is NaN or infinite), 'zero', 'constant', or ''."""
    low, high = np.min(maps, axis=(1, 2)), np.max(maps, axis=(1, 2))
    finite = np.isfinite(low) & np.isfinite(high)
    return np.select([~finite, (low == 0) & (high == 0), low == high], [NOT_FINITE, ZERO, CONSTANT], "")
