"""The page of ``--mode=explain``: a user's own images, what the network says of them, and where it looks."""

from pathlib import Path

import jinja2

from robust_saliency import records
from robust_saliency.report import pictures

MOST_IMAGES = 200


def render(folder: str | Path) -> str:
    """``predictions.csv`` and ``maps.npz`` of ``folder`` as one HTML document; at most ``MOST_IMAGES`` images."""
    folder = Path(folder)
    predictions, arrays = records.read_csv(folder / "predictions.csv"), records.read_npz(folder / "maps.npz")
    methods = [name for name in arrays if name not in ("file", "image")]
    rows = [_row(predictions, arrays, methods, number) for number in range(min(len(arrays["file"]), MOST_IMAGES))]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    left_out = len(arrays["file"]) - len(rows)
    return environment.get_template("explanations.html").render(rows=rows, methods=methods, left_out=left_out)


def _row(predictions: dict, arrays: dict, methods: list[str], number: int) -> dict:
    maps = []
    for method in methods:
        values = arrays[method][number]
        kind = "signed" if (values < 0).any() else "magnitude"
        limit, flaw = pictures.colour_limit([values]), pictures.flaw(values)
        uri = "" if flaw else pictures.map_png(values, limit, kind)
        maps.append({"method": method, "uri": uri, "flaw": flaw, "limit": f"{limit:.3g}"})
    return {
        "file": str(arrays["file"][number]),
        "image": pictures.image_png(arrays["image"][number]),
        "predicted": str(predictions["class"][number]),
        "confidence": f"{100 * float(predictions['confidence'][number]):.0f}\u00a0%",
        "maps": maps,
    }
