"""CSV files: what is read back is what was written, by pandas too, and a cut is noticed."""

import re

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pandas
import pytest
from hypothesis import strategies as st

from robust_saliency import records

_QUICK = hypothesis.settings(max_examples=60, deadline=None)
_FLOAT64 = hnp.arrays(np.float64, 5, elements=st.floats(width=64))
_FLOAT32 = hnp.arrays(np.float32, 5, elements=st.floats(width=32))
_STRINGS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=5, max_size=5)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return tmp_path_factory.mktemp("csv") / "table.csv"


def test_csv_types_survive(tmp_path):
    columns = {
        "id": np.array([3, -1, 2**60 + 1]),
        "score": np.array([0.1, np.nan, -np.inf]),
        "whole": np.array([1.0, 2.0, 3.0]),
        "file": ["007", "a,b", 'say "x"\nnew line'],
        "none": [np.nan] * 3,
        "robust": np.array([True, False, True]),
        "odd, name": ["", "nan", "True"],
    }
    records.write_csv(tmp_path / "a.csv", columns)
    back = records.read_csv(tmp_path / "a.csv")
    assert list(back) == list(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(back[name], values)
    assert [back[name].dtype.kind for name in columns] == list("iffUfbU")


def test_csv_text_is_what_is_promised(tmp_path):
    records.write_csv(tmp_path / "a.csv", {"id": [1, 2], "x": [0.5, np.nan], "name": ["a", 'b"']})
    assert (tmp_path / "a.csv").read_text() == '"id","x","name"\n1,0.5,"a"\n2,,"b"""\n'


@_QUICK
@hypothesis.given(doubles=_FLOAT64, singles=_FLOAT32, strings=_STRINGS)
def test_csv_round_trips_any_float_and_string(table, doubles, singles, strings):
    records.write_csv(table, {"doubles": doubles, "singles": singles, "strings": strings})
    back = records.read_csv(table)
    np.testing.assert_array_equal(back["doubles"], doubles)
    np.testing.assert_array_equal(np.signbit(back["doubles"][doubles == 0]), np.signbit(doubles[doubles == 0]))
    np.testing.assert_array_equal(back["singles"], singles)
    np.testing.assert_array_equal(back["singles"].astype(np.float32), singles)
    assert back["strings"].tolist() == strings


@_QUICK
@hypothesis.given(singles=_FLOAT32, strings=_STRINGS)
def test_pandas_reads_the_same(table, singles, strings):
    records.write_csv(table, {"x": singles, "name": strings, "n": range(5)})
    frame = pandas.read_csv(table, dtype={"name": str}, keep_default_na=False, na_values={"x": [""]})
    assert frame["name"].tolist() == strings
    assert frame["n"].dtype == np.int64
    # pandas' default parser may be one unit in the last place off.
    np.testing.assert_allclose(frame["x"].to_numpy(np.float64), singles.astype(np.float64), rtol=1e-15)


def test_a_lone_column_with_gaps_keeps_its_rows(tmp_path):
    records.write_csv(tmp_path / "a.csv", {"x": [1.0, np.nan, 2.0]})
    np.testing.assert_array_equal(records.read_csv(tmp_path / "a.csv")["x"], [1, np.nan, 2])
    assert len(pandas.read_csv(tmp_path / "a.csv")) == 3


def test_csv_written_by_pandas_is_read(tmp_path):
    pandas.DataFrame({"a": [1, 2], "b": ["x", "y,z"], "c": [0.5, np.nan]}).to_csv(tmp_path / "a.csv", index=False)
    back = records.read_csv(tmp_path / "a.csv")
    assert back["a"].tolist() == [1, 2]
    assert back["b"].tolist() == ["x", "y,z"]
    np.testing.assert_array_equal(back["c"], [0.5, np.nan])


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    records.write_csv(tmp_path / "a.csv", {"id": [], "x": []})
    assert {name: len(column) for name, column in records.read_csv(tmp_path / "a.csv").items()} == {"id": 0, "x": 0}


def test_a_csv_cut_anywhere_is_noticed_without_a_manifest_too(tmp_path):
    path = tmp_path / "a.csv"
    records.write_csv(path, {"id": [1, 22], "name": ["a\nb", "c"]})
    text = path.read_text()
    ends_of_rows = {match.end() for match in re.finditer(r'"\n', text)}
    for length in set(range(len(text))) - ends_of_rows:
        path.write_text(text[:length])
        with pytest.raises(ValueError, match=r"a\.csv is a damaged CSV file: line \d+ is cut off"):
            records.read_csv(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1, 2], "b": [1.0]}, "one length, got a 2, b 1"),
        ({}, "one length, got none"),
        ({"a": np.zeros((2, 2))}, r"'a' must be one axis .* shape \(2, 2\)"),
        ({"a": ["x", None]}, "'a' must be one axis"),
        ({"a": ["x\0"]}, "'a' must be one axis .* without NUL"),
    ],
)
def test_csv_refuses_what_it_cannot_hold(tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        records.write_csv(tmp_path / "a.csv", columns)
