"""What a page shows, for other programs: its figures as PNG, and the rows behind its numbers as Parquet."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from robust_saliency import records
from robust_saliency.report import picture_sheets
from robust_saliency.report.figures import Picture
from robust_saliency.report.load import Run, Study
from robust_saliency.report.pictures import PictureRow

_CURVE_COLUMNS = ("method", "metric", "id", "point", "fraction", "value")
# Names of files that an earlier report may have left, of a method that is measured no more.
_OURS = re.compile(r"(curves_.*|pictures_.*|training)\.png|(examples|maps|curves)\.parquet")


def write(folder: Path, study: Study, figures: list[Picture], pictures: list[PictureRow]) -> None:
    """Into ``folder`` each figure as ``curves_<method>.png`` or ``training.png``, the pictures as
    ``pictures_<method>.png``, and ``examples.parquet``, ``maps.parquet`` and, of curves, ``curves.parquet``.

    examples and maps: the columns of the CSV files of all networks, after ``seed`` and ``run``; what is not defined is
    null. curves: a row a point: seed, run, method, metric, id, point (0, 1, ...), fraction (the share of the pixels),
    value.
    """
    files = {f"{_file_name(figure)}.png": figure.png for figure in figures}
    files |= {f"pictures_{sheet.name}.png": sheet.png for sheet in picture_sheets.draw(pictures)}
    files |= {f"{name}.parquet": _parquet([_rows(study, name)]) for name in ("examples", "maps")}
    if all(run.curves is not None for run in study.runs):
        files["curves.parquet"] = _parquet(_curves(study))
    for path in folder.glob("*"):
        if _OURS.fullmatch(path.name) and path.name not in files:
            records.remove(path)
    for name, data in files.items():
        records.write_atomic(folder / name, data)


def _file_name(figure: Picture) -> str:
    return figure.name if figure.name == "training" else f"curves_{figure.name}"


def _rows(study: Study, name: str) -> pa.Table:
    """All rows of ``name``.csv, run after run in the order of the study."""
    tables = []
    for run in study.runs:
        columns = records.read_csv(run.folder / f"{name}.csv")
        tables.append(_table(run, {name: values for name, values in columns.items() if name not in ("seed", "run")}))
    return pa.concat_tables(_one_kind(tables), promote_options="permissive")


def _one_kind(tables: list[pa.Table]) -> list[pa.Table]:
    """The tables, a column as text where it is text in one of them: a group may be a number in one run alone."""
    texts = {field.name for table in tables for field in table.schema if pa.types.is_string(field.type)}
    found = []
    for table in tables:
        fields = [pa.field(field.name, pa.string() if field.name in texts else field.type) for field in table.schema]
        found.append(table.cast(pa.schema(fields)))
    return found


def _curves(study: Study) -> Iterator[pa.Table]:
    """The curves of each network, those without fractions left out."""
    kind = np.result_type(*(values.dtype for run in study.runs for name, values in run.curves.items() if "/" in name))
    for run in study.runs:
        parts = [_curve(run, name, kind) for name in run.curves if "/" in name and not name.startswith("fractions/")]
        yield pa.concat_tables(parts)


def _curve(run: Run, name: str, kind: np.dtype) -> pa.Table:
    method, metric = name.split("/", 1)
    values, ids = run.curves[name], run.curves["ids"]
    count, points = values.shape
    columns = [
        np.full(values.size, method),
        np.full(values.size, metric),
        np.repeat(ids, points),
        np.tile(np.arange(points), count),
        np.tile(run.curves[f"fractions/{metric}"].astype(float), count),
        values.ravel().astype(kind),
    ]
    return _table(run, dict(zip(_CURVE_COLUMNS, columns, strict=True)))


def _table(run: Run, columns: dict[str, np.ndarray]) -> pa.Table:
    """The columns behind those of the run; NaN is null."""
    length = len(next(iter(columns.values())))
    own = {"seed": np.full(length, run.seed), "run": np.full(length, run.label)}
    return pa.table({name: pa.array(values, from_pandas=True) for name, values in (own | columns).items()})


def _parquet(tables) -> bytes:
    """One file, a row group a table at least."""
    buffer, writer = io.BytesIO(), None
    for table in tables:
        writer = writer or pyarrow.parquet.ParquetWriter(buffer, table.schema, compression="zstd")
        writer.write_table(table)
    writer.close()
    return buffer.getvalue()
