"""The claims of each paper, stated as differences and put to the test: one config a paper, in three sizes.

``smoke``: drawn images, two minutes or less, one seed, so that nothing is claimed: does all of it run? ``small``: three
seeds, a laptop. ``full``: a GPU. What came out: docs/papers.
"""

from robust_saliency import checks

SIZES = ("smoke", "small", "full")


def size_and_data(words: str, usual: str, *others: str) -> tuple[str, str]:
    """Of 'small:cifar10' both; ``usual`` is what 'small' alone is of. 'smoke' is of drawn images.

    Raises ValueError for another size or data set.
    """
    size, colon, data_set = words.partition(":")
    check_size(size)
    if colon:
        checks.one_of("data set", data_set, (usual, *others))
    if size == "smoke":
        if colon:
            raise ValueError(f"smoke is of drawn images alone, got {words!r}.")
        return size, "planted_lesions"
    return size, data_set or usual


def check_size(size: str) -> None:
    checks.one_of("size", size, SIZES)
