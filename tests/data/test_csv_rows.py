"""Blocks of a text file: columns are checked, and what is wrong is named with file, line, column and value."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marsjax.data.csv_rows import Rows, read_rows
from marsjax.data.feed import FeedError, check_arguments

PATH = Path("day.csv")


def rows(*values: object) -> Rows:
    return Rows(PATH, np.arange(2, 2 + len(values)), pd.DataFrame({"x": list(values)}))


@pytest.mark.parametrize(("text", "ns"), [
    ("00:00:00", 0), ("23:59:59.999999999", 86_400 * 10**9 - 1), ("09:30:00.5", 34_200_500_000_000),
    ("09:30:00.000000001", 34_200_000_000_001), ("09:30:00.123", 34_200_123_000_000), ("19:08:07", 68_887 * 10**9),
    ("10:20:30.900000000", 37_230_900_000_000)])
def test_times_of_day_are_exact_nanoseconds(text: str, ns: int) -> None:
    got = rows("01:00:00", text).clock_ns("x")
    assert (got.dtype, got.tolist()) == (np.int64, [3_600 * 10**9, ns])


@pytest.mark.parametrize("text", [
    "24:00:00", "23:60:00", "23:59:60", "9:30:00", "09:30", "09:30:00.", "09:30:00.1234567890", "09:30:00,5",
    "09:30:00 ", " 09:30:00", "-9:30:00", "093000", "", "09:30:00.5x", "٠٩:30:00", "1 days 09:30:00", "09-30-00"])
def test_what_is_no_time_of_day_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(FeedError, match=r"day.csv: line 3, column x: expected a time HH:MM:SS.mmm, got"):
        rows("01:00:00", text).clock_ns("x")


def test_numbers_keep_to_their_limits() -> None:
    assert rows(3, 7).integers("x", 3, 7).tolist() == [3, 7]
    for value, low, high in ((2, 3, 7), (8, 3, 7), (3.5, 3, 7), ("a", 3, 7), (np.inf, 3, 7)):
        with pytest.raises(FeedError, match=f"line 3, column x: expected a .*number.*, got {value}"):
            rows(3, value).integers("x", low, high)


def test_prices_are_multiples_of_the_tick_up_to_rounding() -> None:
    assert rows(10.01, 10.020000000000001).price("x").tolist() == [100_100, 100_200]
    assert rows(0.0005).price("x", tick=5).tolist() == [5]
    assert rows(0).price("x", low=0).tolist() == [0]
    assert rows((2**30 - 1) // 100 / 100).price("x").tolist() == [(2**30 - 1) // 100 * 100]
    for value in (10.005, 0, -0.01, 2**30 / 10_000, 10.0002):
        with pytest.raises(FeedError, match=r"line 2, column x: expected a price above 0 in steps of 0.01"):
            rows(value).price("x")


def test_blank_lines_are_skipped_and_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,2\n\n3,4\n\n\n5,6\n")
    for chunk_rows in (1, 2, 3, 100):
        blocks = list(read_rows(path, ["x"], chunk_rows))
        assert np.concatenate([block.line for block in blocks]).tolist() == [2, 4, 7]
        assert np.concatenate([block.integers("x", 0, 9) for block in blocks]).tolist() == [1, 3, 5]
        assert all(list(block.frame.columns) == ["x"] for block in blocks)


def test_arguments_of_readers_are_checked(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    check_arguments(1, tmp_path / "a.csv")
    with pytest.raises(ValueError, match="chunk_rows: expected at least 1, got 0"):
        check_arguments(0)
    with pytest.raises(FileNotFoundError, match=r"b\.csv: no such file"):
        check_arguments(1, tmp_path / "a.csv", tmp_path / "b.csv")
