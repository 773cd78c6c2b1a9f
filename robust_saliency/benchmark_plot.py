"""A benchmark's attacks as bars: gradients a second, and beside which share of the machine's own speed that is."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

BAR = 0.3  # inches


def draw(rows: list[dict], title: str, path: str) -> None:
    """Writes a PNG of the rows of :mod:`robust_saliency.benchmark_attacks`."""
    labels = ["{network}, {attack}-{steps}, {batch} images, {dtype}".format(**row) for row in rows]
    height = 1.3 + BAR * len(rows)
    figure, (speed, share) = plt.subplots(1, 2, sharey=True, figsize=(11, height), width_ratios=(2, 1))
    dtypes = sorted({row["dtype"] for row in rows}, reverse=True)
    colours = [f"C{dtypes.index(row['dtype'])}" for row in rows]
    bars = speed.barh(labels, [row["gradients_per_second"] for row in rows], color=colours)
    speed.bar_label(bars, fmt="%.0f", padding=3)
    speed.set(xlabel="gradients of images a second")
    speed.margins(x=0.12)
    speed.invert_yaxis()
    bars = share.barh(labels, [100 * row["share"] for row in rows], color=colours)
    share.bar_label(bars, fmt="%.0f %%", padding=3)
    share.set(xlabel="% of a matrix product's speed")
    share.margins(x=0.2)
    for axes in (speed, share):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize="medium")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
