"""The small data set of the tests of the data."""

from tests.data.conftest import tiny_tfds

__all__ = ["tiny_tfds"]
