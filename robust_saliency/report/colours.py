"""Colours: one a run, and the two colour maps of saliency, in which a signed zero is exactly white."""

import matplotlib
import numpy as np

_RUNS = (
    "#4a4a4a", "#0072b2", "#d55e00", "#009e73", "#aa4499", "#c59b00", "#56b4e9", "#882255", "#332288", "#cc6677",
    "#7f8f2a", "#b2b2b2",
)  # fmt: skip


def run_colours(labels: list[str]) -> dict[str, str]:
    """A colour a run that people with colour-blindness can tell apart (after Okabe and Ito; Tol); the first is grey.

    A thirteenth run has that of the first.
    """
    return {label: _RUNS[index % len(_RUNS)] for index, label in enumerate(labels)}


def colour_table(kind: str) -> np.ndarray:
    """``uint8 [levels, 3]``: RdBu_r brightened so that its middle level is white, or inferno."""
    if kind != "signed":
        return np.round(255 * matplotlib.colormaps["inferno"](np.linspace(0, 1, 256))[:, :3]).astype(np.uint8)
    colours = matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 255))[:, :3]
    return np.round(255 * (colours / colours[127]).clip(0, 1)).astype(np.uint8)


def levels(values: np.ndarray, limit: float, kind: str) -> np.ndarray:
    """Rows of :func:`colour_table`: signed values from ``[-limit, limit]``, magnitudes from ``[0, limit]``."""
    if kind == "signed":
        return np.round(127 + 127 * (values / limit).clip(-1, 1)).astype(np.uint8)
    return np.round(255 * (np.abs(values) / limit).clip(0, 1)).astype(np.uint8)
