"""Tables as files: CSV that is the same bytes each time, Parquet where its package is, and what is said where not."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marsjax.experiments import table_files
from marsjax.experiments.csv_text import csv_text
from marsjax.experiments.table_files import TableFiles
from marsjax.sim import frames

PARTS = [{"i": np.arange(3), "clock": np.array(["09:30:00"] * 3), "ask": np.ma.masked_equal([100, 0, 300], 0),
          "mid_price": np.array([1.5, np.nan, 2])},
         {"i": np.arange(3, 5), "clock": np.array(["09:31:00"] * 2), "ask": np.array([1, 2]), "mid_price": np.ones(2)}]


def write(folder: Path, form: str) -> None:
    folder.mkdir()
    files = TableFiles(folder, form)
    for part in PARTS:
        files.write("orders", part)
    files.close()


def test_csv_grows_part_by_part_and_what_is_missing_is_empty(tmp_path: Path) -> None:
    write(tmp_path / "a", "csv")
    write(tmp_path / "b", "csv")
    assert (tmp_path / "a/orders.csv.gz").read_bytes() == (tmp_path / "b/orders.csv.gz").read_bytes()
    text = pd.read_csv(tmp_path / "a/orders.csv.gz", dtype=str, keep_default_na=False)
    assert text["ask"].tolist() == ["100", "", "300", "1", "2"] and text["mid_price"].tolist()[:3] == ["1.5", "", "2.0"]
    assert text["i"].tolist() == list("01234")


def test_the_text_is_pandas_own() -> None:
    rng = np.random.default_rng(0)
    table = {
        "i": np.arange(6), "small": np.arange(6, dtype=np.int32) - 3, "is_new": np.arange(6) % 2 == 0,
        "price": np.array([0.1, -0.0, 0.0, np.nan, np.inf, 1e-7]), "mid": rng.normal(size=6) * 10.0 ** np.arange(6),
        "big": np.array([2**63 - 1, -(2**63), 0, 1, 2, 3]), "ask": np.ma.masked_equal([1, 0, 3, 4, 0, 6], 0),
        "name": np.array(["a", "", 'say "b"', "c,d", "e\nf", "ü"]), "unit, of": np.array(["1 USD"] * 6)}
    for header in (True, False):
        expected = frames.frame(table).to_csv(index=False, header=header, lineterminator="\n")
        assert csv_text(table, header) == expected
    assert csv_text({"i": np.zeros(0, int), "k": np.zeros(0)}) == "i,k\n"


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for form in ("csv", "parquet"):
        write(tmp_path / form, form)
    expected = pd.read_csv(tmp_path / "csv/orders.csv.gz")
    found = pd.read_parquet(tmp_path / "parquet/orders.parquet")
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    table_files.as_parquet(tmp_path / "csv", "orders")
    assert [path.name for path in (tmp_path / "csv").iterdir()] == ["orders.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "csv/orders.parquet"), expected, check_dtype=False)


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"parquet needs pyarrow: pip install 'marsjax\[parquet\]'"):
        table_files.check_form("parquet")
    with pytest.raises(ValueError, match="expected csv or parquet, got 'xml'"):
        table_files.check_form("xml")
