"""How numbers look: three decimals, differences with their sign, intervals in brackets, a dash where there is none."""

import math

from robust_saliency.statistics import Estimate

DASH = "\u2013"
_MINUS = "\u2212"


def plain(value: float, scale: float = 0.0) -> str:
    """``0.545``; a dash for NaN; ``2.1e-05`` where three decimals show nothing of it, nor of its ``scale``."""
    if not math.isfinite(value):
        return DASH
    text = f"{value:.1e}" if 0.0 < max(abs(value), scale) < 5e-4 else f"{value:.3f}"
    return text.replace("-", _MINUS)


def share(value: float) -> str:
    """``0.545``; a share below half a thousandth is ``0.000``."""
    return plain(value, scale=1.0)


def signed(value: float, scale: float = 0.0) -> str:
    """``+0.150``."""
    return plain(value, scale) if not value > 0.0 else f"+{plain(value, scale)}"


def interval(low: float, high: float) -> str:
    """``[0.512, 0.577]``; empty when a limit is not defined."""
    return f"[{plain(low, abs(high))}, {plain(high)}]" if math.isfinite(low) and math.isfinite(high) else ""


def signed_interval(low: float, high: float) -> str:
    """``[+0.147, +0.153]``; empty when a limit is not defined."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    scale = max(abs(low), abs(high))
    return f"[{signed(low, scale)}, {signed(high, scale)}]"


def two_decimals(value: float) -> str:
    """``+0.15``; a dash for NaN."""
    return f"{value:+.2f}".replace("-", _MINUS) if math.isfinite(value) else DASH


def percent(share: float) -> str:
    """``12 %``; a dash for NaN."""
    return f"{100 * share:.0f}\u00a0%" if math.isfinite(share) else DASH


def p_value(p: float) -> str:
    """``p 0.012``, ``p < 0.001``, ``p not measured``."""
    if not math.isfinite(p):
        return "p not measured"
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def difference(estimate: Estimate) -> tuple[str, str]:
    """``+0.150`` and ``[+0.147, +0.153]``; the interval is empty when a limit is not defined."""
    mean, low, high = estimate[:3]
    limits = signed_interval(low, high)
    return signed(mean, max(abs(low), abs(high)) if limits else 0.0), limits


def epsilon(value: float) -> str:
    """``4/255`` where it is a number of grey levels, else ``0.25``."""
    levels = round(255 * value, 2)
    return f"{levels:g}/255" if abs(levels / 255 - value) < 1e-6 * value else f"{value:.4g}"


def duration(seconds: float) -> str:
    """``48 s``, ``3 min 3 s`` or ``2 h 5 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def ascii_minus(text: str) -> str:
    """The same text with hyphens for minus signs and plain spaces, for files that other programs read."""
    return text.replace(_MINUS, "-").replace(DASH, "-").replace("\u00a0", " ")
