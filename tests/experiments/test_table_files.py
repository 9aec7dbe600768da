"""Tables as files: CSV that is the same bytes each time, Parquet where its package is, and what is said where not."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marsjax.experiments import table_files
from marsjax.experiments.table_files import TableFiles
from marsjax.sim import frames

PARTS = [{"i": np.arange(3), "clock": np.array(["09:30:00"] * 3), "ask": np.ma.masked_equal([100, 0, 300], 0),
          "mid_price": np.array([1.5, np.nan, 2])},
         {"i": np.arange(3, 5), "clock": np.array(["09:31:00"] * 2), "ask": np.array([1, 2]), "mid_price": np.ones(2)}]


def write(folder: Path, form: str) -> None:
    folder.mkdir()
    files = TableFiles(folder, form)
    for part in PARTS:
        files.write("orders", frames.frame(part))
    files.close()


def test_csv_grows_part_by_part_and_what_is_missing_is_empty(tmp_path: Path) -> None:
    write(tmp_path / "a", "csv")
    write(tmp_path / "b", "csv")
    assert (tmp_path / "a/orders.csv.gz").read_bytes() == (tmp_path / "b/orders.csv.gz").read_bytes()
    text = pd.read_csv(tmp_path / "a/orders.csv.gz", dtype=str, keep_default_na=False)
    assert text["ask"].tolist() == ["100", "", "300", "1", "2"] and text["mid_price"].tolist()[:3] == ["1.5", "", "2.0"]
    assert text["i"].tolist() == list("01234")


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
