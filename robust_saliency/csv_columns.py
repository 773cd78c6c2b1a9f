"""Columns of numbers and strings as the text of a CSV file, and back, without losing a bit or a type.

The csv module cannot tell the string ``"7"`` from the number 7, nor a file that was cut off from a whole one.
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np


def to_text(where: str, columns: Mapping[str, Sequence]) -> str:
    """The CSV text of equally long columns of floats, ints, bools or strings.

    Floats are written so that :func:`from_text` gives the same float64 (hence float32) back, NaN as an empty field;
    strings are quoted, so that the string ``"007"`` stays one. Raises ValueError, beginning with ``where``, for columns
    of different lengths or of another kind.
    """
    fields = {name: _fields(where, name, values, len(columns) == 1) for name, values in columns.items()}
    if len({len(column) for column in fields.values()}) != 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in fields.items())
        raise ValueError(f"{where}: columns must be of one length, got {lengths or 'none'}.")
    rows = [",".join(_quoted(name) for name in fields), *map(",".join, zip(*fields.values(), strict=True))]
    return "\n".join(rows) + "\n"


def from_text(where: str, text: str) -> dict[str, np.ndarray]:
    """The columns: quoted fields are strings, other columns int64, bool or float64 where all fields are.

    Raises ValueError naming the line if the text is damaged, also if its last line lacks the line break.
    """
    return {_unquoted(name): _column(fields) for name, *fields in _columns(where, text)}


_FIELD = re.compile(r'("[^"]*(?:""[^"]*)*"|[^",\r\n]*)(,|\r?\n)')


def _columns(where: str, text: str) -> list[list[str]]:
    fields = _FIELD.findall(text)
    breaks = [number for number, (_, end) in enumerate(fields, start=1) if end != ","]
    width = breaks[0] if breaks else 0
    length = sum(len(field) + len(end) for field, end in fields)
    if not width or length != len(text) or breaks != list(range(width, len(fields) + width, width)):
        line = _damaged_line(text, width)
        raise ValueError(f"{where} is a damaged CSV file: line {line} is cut off, wrongly quoted or lacks fields.")
    return [[field for field, _ in fields[start::width]] for start in range(width)]


def _damaged_line(text: str, width: int) -> int:
    position = 0
    for number, field in enumerate(_FIELD.finditer(text), start=1):
        if field.start() != position or (field.group(2) != ",") != (width > 0 and number % width == 0):
            break
        position = field.end()
    return text.count("\n", 0, position) + 1


def _fields(where: str, name: str, values: Sequence, alone: bool) -> list[str]:
    array = np.asarray(values)
    if array.ndim == 1 and array.dtype.kind == "f":
        # A line of one empty field would be a blank line, which readers skip.
        missing = "nan" if alone else ""
        return [missing if math.isnan(value) else repr(value) for value in array.astype(np.float64).tolist()]
    if array.ndim == 1 and array.dtype.kind in "iub":
        return [str(value) for value in array.tolist()]
    strings = list(values)
    if array.ndim == 1 and all(isinstance(value, str) and "\0" not in value for value in strings):
        return [_quoted(value) for value in strings]
    raise ValueError(
        f"{where}: column {name!r} must be one axis of floats, ints, bools or strings without NUL, "
        f"got {array.dtype} of shape {array.shape}."
    )


def _column(fields: Sequence[str]) -> np.ndarray:
    if any(field.startswith('"') for field in fields):
        return np.array([_unquoted(field) for field in fields], dtype=np.str_)
    if fields and all(re.fullmatch("-?[0-9]+", field) for field in fields):
        return np.array([int(field) for field in fields])
    if fields and set(fields) <= {"True", "False"}:
        return np.array([field == "True" for field in fields])
    try:
        return np.array([float(field or "nan") for field in fields], dtype=np.float64)
    except ValueError:
        return np.array(fields, dtype=np.str_)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if field.startswith('"') else field
