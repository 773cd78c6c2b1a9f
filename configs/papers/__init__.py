"""The claims of each paper, stated as differences and put to the test: one config a paper, in three sizes.

``smoke``: drawn images, two minutes or less, one seed, so that nothing is claimed: does all of it run? ``small``: three
seeds, a laptop. ``full``: a GPU. What came out: docs/papers.
"""

SIZES = ("smoke", "small", "full")


def check_size(size: str) -> None:
    if size not in SIZES:
        raise ValueError(f"A paper's config comes in the sizes {', '.join(SIZES)}, got {size!r}.")
