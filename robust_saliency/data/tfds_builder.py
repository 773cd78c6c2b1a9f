"""Finds a data set prepared with TensorFlow Datasets, or says how to prepare it."""

import difflib
import os
from pathlib import Path

from robust_saliency.data import images

RANDOM_ACCESS = ("array_record", "parquet")


def default_directory(data_dir: str) -> str:
    """``data_dir``, or where TFDS itself looks: $TFDS_DATA_DIR, then ~/tensorflow_datasets."""
    return os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR", "") or "~/tensorflow_datasets")


def open_builder(name: str, data_dir: str):
    """The TFDS builder of the prepared data set ``name`` ('name', 'name/config', 'name:version').

    Raises:
      ValueError: an unknown name (with near matches), or data not prepared (with the directory looked in and the
        command that prepares them). Never downloads.
    """
    import tensorflow_datasets as tfds

    directory = default_directory(data_dir)
    try:
        builder = tfds.builder(name, data_dir=directory)
    except tfds.core.DatasetNotFoundError as error:
        stored = [entry.name for entry in Path(directory).iterdir()] if os.path.isdir(directory) else []
        known = [*tfds.list_builders(with_community_datasets=False), *stored, "planted_lesions", "folder"]
        near = difflib.get_close_matches(name.partition(":")[0], sorted({*known}))
        hint = f" Near: {', '.join(near)}." if near else ""
        raise ValueError(
            f"Unknown data set {name!r}: neither TFDS nor the directory {directory} has it.{hint}"
        ) from error
    except (ValueError, AssertionError) as error:
        raise ValueError(f"data.name {name!r} cannot be opened: {images.one_line(error)}.") from error
    prepare = (
        f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, data_dir={directory!r}, '
        "file_format='array_record').download_and_prepare()\""
    )
    if not os.path.isfile(os.path.join(builder.data_dir, "dataset_info.json")):
        raise ValueError(
            f"The data set {name!r} is not prepared in {directory} (looked for {builder.data_dir}); "
            f"prepare it with: {prepare}"
        )
    stored_as = builder.info.file_format.value
    if stored_as not in RANDOM_ACCESS:
        raise ValueError(
            f"The data set {name!r} in {builder.data_dir} is stored as {stored_as}, which cannot be read at random; "
            f"move it away and prepare it with: {prepare}"
        )
    return builder
