"""What a page shows, for other programs: its figures as PNG, and the rows behind its numbers as Parquet."""

import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from robust_saliency import records
from robust_saliency.report import picture_sheets
from robust_saliency.report.figures import Picture
from robust_saliency.report.load import Run, Study
from robust_saliency.report.pictures import PictureRow

# Names of files that an earlier report may have left, of a method that is measured no more.
_OURS = re.compile(r"((curves|pictures|randomisation)_.*|training)\.png|(examples|maps|curves)\.parquet|claims\.json")


def write(
    folder: Path, study: Study, figures: dict[str, Picture], pictures: list[PictureRow], stated: dict | None
) -> None:
    """Into ``folder`` each figure as ``<name>.png``, the pictures as ``pictures_<method>.png``, and
    ``examples.parquet``, ``maps.parquet`` and, of curves, ``curves.parquet``; ``claims.json``, where any were stated.

    examples and maps: the columns of the CSV files of all networks, after ``seed`` and ``run``; what is not defined is
    null. curves: a row a point: seed, run, method, metric, id, point (0, 1, ...), fraction (the share of the pixels),
    value.
    """
    files = {f"{name}.png": figure.png for name, figure in figures.items()}
    files |= {f"pictures_{sheet.name}.png": sheet.png for sheet in picture_sheets.draw(pictures)}
    files |= {f"{name}.parquet": _parquet([_rows(study, name)]) for name in ("examples", "maps")}
    if all(run.curves is not None for run in study.runs):
        files["curves.parquet"] = _parquet(_curves(study))
    if stated:
        files["claims.json"] = json.dumps(stated, indent=1) + "\n"
    for path in folder.glob("*"):
        if _OURS.fullmatch(path.name) and path.name not in files:
            records.remove(path)
    for name, data in files.items():
        records.write_atomic(folder / name, data)


def _rows(study: Study, name: str) -> pa.Table:
    """All rows of ``name``.csv, run after run in the order of the study; NaN is null."""
    tables = []
    for run in study.runs:
        columns = records.read_csv(run.folder / f"{name}.csv")
        tables.append(_of(run, {name: pa.array(values, from_pandas=True) for name, values in columns.items()}))
    return pa.concat_tables(_one_kind(tables), promote_options="permissive")


def _one_kind(tables: list[pa.Table]) -> list[pa.Table]:
    """The tables, a column as text where it is text in one of them: a group may be a number in one run alone."""
    texts = {field.name for table in tables for field in table.schema if pa.types.is_string(field.type)}
    return [
        pa.table(
            {
                name: pc.fill_null(table[name].cast(pa.string()), "") if name in texts else table[name]
                for name in table.column_names
            }
        )
        for table in tables
    ]


def _curves(study: Study) -> Iterator[pa.Table]:
    """The curves of one network after the other."""
    kind = np.result_type(*(values for run in study.runs for name, values in run.curves.items() if _is_curve(name)))
    for run in study.runs:
        yield pa.concat_tables([_curve(run, name, kind) for name in run.curves if _is_curve(name)])


def _is_curve(name: str) -> bool:
    return "/" in name and not name.startswith("fractions/")


def _curve(run: Run, name: str, kind: np.dtype) -> pa.Table:
    method, metric = name.split("/", 1)
    values = run.curves[name].astype(kind)
    count, points = values.shape
    columns = {
        "method": pa.repeat(method, values.size),
        "metric": pa.repeat(metric, values.size),
        "id": pa.array(np.repeat(run.curves["ids"], points)),
        "point": pa.array(np.tile(np.arange(points), count)),
        "fraction": pa.array(np.tile(run.curves[f"fractions/{metric}"].astype(float), count)),
        "value": pa.array(values.ravel(), from_pandas=True),
    }
    return _of(run, columns)


def _of(run: Run, columns: dict[str, pa.Array]) -> pa.Table:
    """The columns of a network behind those that name it."""
    length = len(next(iter(columns.values())))
    return pa.table({"seed": pa.repeat(run.seed, length), "run": pa.repeat(run.label, length), **columns})


def _parquet(tables: Iterable[pa.Table]) -> bytes:
    """One file, a row group a table at least."""
    buffer, writer = io.BytesIO(), None
    for table in tables:
        writer = writer or pyarrow.parquet.ParquetWriter(buffer, table.schema, compression="zstd")
        writer.write_table(table)
    writer.close()
    return buffer.getvalue()
