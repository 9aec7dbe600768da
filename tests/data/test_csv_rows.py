"""Blocks of a text file: columns are checked, and what is wrong is named with file, line, column and value."""

import codecs
import collections
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from marsjax.core.errors import InputError
from marsjax.data.csv_rows import Rows, first_line, read_rows
from marsjax.data.feed import FeedError, check_arguments


@pytest.fixture
def rows(tmp_path: Path):
    def of(*values: object) -> Rows:
        path = tmp_path / "day.csv"
        path.write_text("x,y\n" + "".join(f"{value},\n" for value in values), encoding="utf-8")
        (block,) = read_rows(path, ["x"], 10_000)
        return block

    return of


@pytest.mark.parametrize(("text", "ns"), [
    ("00:00:00", 0), ("23:59:59.999999999", 86_400 * 10**9 - 1), ("09:30:00.5", 34_200_500_000_000),
    ("09:30:00.000000001", 34_200_000_000_001), ("09:30:00.123", 34_200_123_000_000), ("19:08:07", 68_887 * 10**9),
    ("10:20:30.900000000", 37_230_900_000_000), ("93000120", 34_200_120_000_000), ("093000120", 34_200_120_000_000),
    ("145959999", 53_999_999_000_000)])
def test_times_of_day_are_exact_nanoseconds(rows, text: str, ns: int) -> None:
    got = rows("01:00:00", text).clock_ns("x")
    assert (got.dtype, got.tolist()) == (np.int64, [3_600 * 10**9, ns])


@pytest.mark.parametrize("text", [
    "24:00:00", "23:60:00", "23:59:60", "9:30:00", "09:30", "09:30:00.", "09:30:00.1234567890", "09:30:00;5",
    "09:30:00 ", " 09:30:00", "-9:30:00", "093000", "09300012", "10300012", "23000000",
    "", "09:30:00.5x", "٠٩:30:00", "1 days 09:30:00", "09-30-00",
    "9:30:00.123", "9300012", "246000000", "096000000", "093060000", "93000.120", "09:30:0a", "0930001200",
    "09:30:00.12:", "09:30:00.1-5", "+93000120", "09:30:00+", "09:30:00+8", "09:30:00Zz", "09:30:00 +08:00"])
def test_what_is_no_time_of_day_is_refused_with_its_line(rows, text: str) -> None:
    with pytest.raises(FeedError, match=r"day.csv: line 3, column x: expected a time HH:MM:SS.mmm, got"):
        rows("01:00:00", text).clock_ns("x")


def test_dates_and_offsets_are_understood_or_refused(rows) -> None:
    ten = 36_000 * 10**9
    for text in ("2023-07-11T10:00:00", "2023-07-11 10:00:00.000", "2023/07/11T10:00:00", "20230711100000000"):
        assert rows(text, text).clock_ns("x").tolist() == [ten, ten]
    for text in ("10:00:00+08:00", "10:00:00.0+0800", "02:00:00Z", "2023-07-11T02:00:00Z", "2023-07-11 04:00:00+02:00",
                 "21:00:00-05:00", "2023-07-11 10:00:00"):
        assert rows(text).clock_ns("x", zone_s=8 * 3600).tolist() == [ten], text
    for text in ("10:00:00+08:00", "10:00:00Z", "10:00:00-0500"):
        with pytest.raises(FeedError, match=r"line 2, column x: expected a time .* without an offset, got 10"):
            rows(text).clock_ns("x")
    for second in ("2023-07-12T10:00:00", "10:00:00"):
        with pytest.raises(FeedError, match=r"line 3, column x: expected the date 2023-07-11 in all of the file"):
            rows("2023-07-11T10:00:00", second).clock_ns("x")
    with pytest.raises(FeedError, match=r"line 3, column x: expected a time without a date"):
        rows("10:00:00", "2023-07-11T10:00:00").clock_ns("x")
    with pytest.raises(FeedError, match=r"line 2, column x: expected times of one day"):
        rows("2023-07-10T23:00:00Z").clock_ns("x", zone_s=8 * 3600)


def test_a_date_holds_for_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x\n2023-07-11T10:00:00\n2023-07-12T10:00:00\n")
    first, second = read_rows(path, ["x"], 1)
    assert first.clock_ns("x").tolist() == [36_000 * 10**9]
    with pytest.raises(FeedError, match="line 3, column x: expected the date 2023-07-11"):
        second.clock_ns("x")


def test_numbers_keep_to_their_limits(rows) -> None:
    assert rows(3, 7, " 4 ", "+5", "06", "7.0", "3e0").integers("x", 3, 7).tolist() == [3, 7, 4, 5, 6, 7, 3]
    assert rows(2**53 - 1, -(2**53)).integers("x", -(2**53), 2**53).tolist() == [2**53 - 1, -(2**53)]
    for value in (2, 8, 3.5, "a", np.inf, 10**30):
        with pytest.raises(FeedError, match=f"line 3, column x: expected a .*number.*, got {value}"):
            rows(3, value).integers("x", 3, 7)


@pytest.mark.parametrize("text", ["", " ", "-", "+", ".", "1.2.3", "1-2", "--1", "1e", "e5", "nan", "inf", "1e999",
                                  "0x10", "1_0", "1 0", "١٢", "True", "1;0", "1'0", "\t"])
def test_what_is_no_number_is_refused(rows, text: str) -> None:
    with pytest.raises(FeedError, match=r"line 3, column x: expected a number, got"):
        rows(1, text).numbers("x")


def test_numbers_are_those_of_python(rows) -> None:
    rng = np.random.default_rng(0)
    texts = [f"{rng.normal() * 10.0 ** rng.integers(-6, 12):.{rng.integers(0, 18)}f}" for _ in range(2000)]
    texts += [str(x) for x in rng.normal(size=200) * 10.0 ** rng.integers(-300, 300, 200)]
    texts += ["10.020000000000001", ".5", "5.", "-0.0", "+1.25", "9007199254740993", "123456789012345678901234567890"]
    np.testing.assert_array_equal(rows(*texts).numbers("x"), [float(text) for text in texts])


def test_codes_and_texts(rows) -> None:
    block = rows("B", "S ", "Sell", "B")
    assert block.codes("x", {"B": 1, "S": 0, "Sell": 0}).tolist() == [1, 0, 0, 1]
    assert block.text("x").tolist() == ["B", "S ", "Sell", "B"]
    with pytest.raises(FeedError, match="line 4, column x: expected one of B, S, got Sell"):
        block.codes("x", {"B": 1, "S": 0})
    with pytest.raises(FeedError, match="line 3, column x: expected all B, got S"):
        block.require_text("x", "B", "all B")


def test_prices_are_multiples_of_the_tick_up_to_rounding(rows) -> None:
    assert rows(10.01, 10.020000000000001).price("x").tolist() == [100_100, 100_200]
    assert rows(0.0005).price("x", tick=5).tolist() == [5]
    assert rows(0).price("x", low=0).tolist() == [0]
    assert rows((2**30 - 1) // 100 / 100).price("x").tolist() == [(2**30 - 1) // 100 * 100]
    for value in (10.005, 0, -0.01, 2**30 / 10_000, 10.0002):
        with pytest.raises(FeedError, match=r"line 2, column x: expected a price above 0 in steps of 0.01"):
            rows(value).price("x")


def read_all(path: Path, chunk_rows: int = 1000) -> list[tuple[int, int, str]]:
    return [(int(line), int(x), y) for block in read_rows(path, ["x", "y"], chunk_rows)
            for line, x, y in zip(block.line, block.integers("x", 0, 99), block.text("y"), strict=True)]


def test_blank_lines_are_skipped_and_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for end in ("\n", "\r\n", "\r"):
        path.write_text("x,y\n1,2\n\n3,4\n  \n\t\n5,6\n".replace("\n", end), newline="")
        for chunk_rows in (1, 2, 3, 100):
            assert read_all(path, chunk_rows) == [(2, 1, "2"), (4, 3, "4"), (7, 5, "6")]
    path.write_text("x\n1\n\n \n5")
    blocks = list(read_rows(path, ["x"], 2))
    assert np.concatenate([block.line for block in blocks]).tolist() == [2, 5]


@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
@pytest.mark.parametrize("encode", [
    lambda text: codecs.BOM_UTF8 + text.encode(), lambda text: text.encode("utf-16"),
    lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"), lambda text: text.encode("utf-32"),
    lambda text: gzip.compress(text.encode()), lambda text: text.rstrip("\n").encode(),
    lambda text: gzip.compress(text[:9].encode()) + gzip.compress(text[9:].encode()),
    lambda text: text.replace("\n", "\r\n").encode("utf-16"), lambda text: text.replace("\n", "\r").encode()])
def test_csv_as_the_world_writes_it(tmp_path: Path, encode, chunk_rows: int) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(encode('"x",name," y"\n1,Kweichow Moutai,a\n"2","a, ""b""",é\n3,, 茅台 \n'))
    assert read_all(path, chunk_rows) == [(2, 1, "a"), (3, 2, "é"), (4, 3, " 茅台 ")]


@pytest.mark.parametrize(("text", "message"), [
    (b'x,y\n1,2\n"S",2,000\n', "line 3: expected 2 fields .*got 3"),
    (b"x,y\n1,2\n1,2,000\n", "line 3: expected 2 fields .*got 3"),
    (b"x,y\n1,2\n12\n", "line 3: expected 2 fields .*got 1"),
    (b'x,y\n1,2\n1,"2\n3"\n', "line 3: expected .*(quote|CSV)"),
    (b'x,y\n1,2\n1,"2', "line 3: expected .*(quote|CSV)"),
    (b'x,y\n1,"2"3\n', "line 2: expected CSV"),
    (b"x,y\n1,2\n1,\x00\x00\n", "line 3, column y: expected text in UTF-8, got a zero byte, character 3"),
    (b"x,y\r1,2\r\x00,2\r", "line 3, column x: expected text in UTF-8, got a zero byte, character 1"),
    (b"x,y\n1,2\n1,\xc3\xa9\xe9\n", "line 3: expected text in UTF-8, got the byte 0xe9: save the file as UTF-8"),
    ("x,y\n1,贵州\n".encode("gbk"), "line 2: expected text in UTF-8, got the byte 0xb9"),
    ("x,y\n1,2\n".encode("utf-16-le"), "line 1, column 1: expected text in UTF-8, got a zero byte"),
    ("x,y\n1,2\n".encode("utf-16")[:-1], "line 2: the file ends within a character"),
    (codecs.BOM_UTF16_LE + b"x\x00\x00\xd8x\x00", "line 1 or after: "),
    (b"x;y\n1;2\n", "line 1: expected columns x, y, got 'x;y' .separated by ';'"),
    (b"x,y,x\n1,2,3\n", "line 1: expected each name once, got x 2 times"),
    (b"x,y,\x0b1,2,\x0b", r"line 1: expected names in a header, and lines that end in .*got '\\x0b1'"),
    ("x,y,z\u20281,2,3\u2028".encode(), "line 1: expected names in a header"),
    (b"x,y" + b"," * 10_000 + b"\n", "line 1: expected at most 10000 columns, got 10002"),
    (b"", "line 1: expected a header: the file is empty"), (b"\n\n", "line 1: expected a header"),
    (b"\x28\xb5\x2f\xfd rest", "line 1: expected text or a gzip file, got zstandard"),
    (b"PK\x03\x04 rest", "line 1: expected text or a gzip file, got zip"),
    (b"x,y\n1," + b"2" * 70_000 + b"\n", "line 2: expected at most 65536 bytes"),
    (b"x,y\n1,2\n" + b"2" * 70_000, "line 3: expected at most 65536 bytes"),
    (gzip.compress(b"x,y\n1,2\n" + os.urandom(999) * 99)[:-50], r"line \d+: expected a whole gzip file"),
    (b"version https://git-lfs.github.com/spec/v1\n", "line 1: a Git LFS pointer"),
], ids=lambda x: x if isinstance(x, str) else "")
@pytest.mark.parametrize("chunk_rows", [1, 100_000])
def test_damage_is_named_with_its_line(tmp_path: Path, text: bytes, message: str, chunk_rows: int) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text)
    with pytest.raises(FeedError, match=message) as caught:
        read_all(path, chunk_rows)
    assert str(caught.value).startswith(f"{path}: line ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize("body", [b"\n", b"1,2\n", b"2"])
def test_what_swells_is_not_read_to_its_end(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"x,y\n" + body * (10**8 // len(body))))
    with pytest.raises(FeedError, match=r"line \d+: (the gzip file swells to more|.*at most 65536|.*blank lines)"):
        collections.deque(read_rows(path, ["x", "y"], 200_000), maxlen=0)


def test_quoted_lines_by_the_thousand(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('x,y\n' + "".join(f'{i % 90},"a ""{i}"", {"z" * 90}"\n' for i in range(60_000)))
    rows = read_all(path, 50_000)
    assert [row[0] for row in rows] == list(range(2, 60_002))
    assert [row[1] for row in rows] == [i % 90 for i in range(60_000)]
    assert {row[2] for row in rows} == {f'a "{i}", {"z" * 90}' for i in range(60_000)}


def test_a_file_of_blank_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"x,y\n1,2\n" + b"\r\n" * 1_000_001)
    with pytest.raises(FeedError, match=r"line \d+: expected at most 1000000 blank lines"):
        read_all(path, 200_000)


def test_blocks_hold_as_many_lines_as_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y\n" + "".join(f"{i % 100},{i}\n" for i in range(100_000)))
    whole = read_all(path, 10**6)
    assert [row[2] for row in whole] == [str(i) for i in range(100_000)]
    sizes = [len(block.line) for block in read_rows(path, ["x"], 30_000)]
    assert sizes == [29_999, 30_000, 30_000, 10_001]  # the header is a line too
    assert read_all(path, 777) == whole


def test_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(gzip.compress(codecs.BOM_UTF8 + b"1,2,3\r\n4"))
    assert first_line(path) == "1,2,3"
    path.write_text("")
    with pytest.raises(FeedError, match="empty line or file"):
        first_line(path)


def test_arguments_of_readers_are_checked(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    os.mkfifo(tmp_path / "pipe.csv")
    check_arguments(1, tmp_path / "a.csv")
    with pytest.raises(ValueError, match="chunk_rows: expected at least 1, got 0"):
        check_arguments(0)
    with pytest.raises(InputError, match="chunk_rows: expected at least 1, got 0"):
        next(read_rows(tmp_path / "a.csv", ["x"], 0))
    with pytest.raises(FileNotFoundError, match=r"b\.csv: no such file"):
        check_arguments(1, tmp_path / "a.csv", tmp_path / "b.csv")
    with pytest.raises(IsADirectoryError, match="expected a file, got a folder"):
        check_arguments(1, tmp_path)
    for path in (tmp_path / "pipe.csv", Path("/dev/zero")):
        with pytest.raises(OSError, match=f"{path}: expected a file, got a (pipe|device)"):
            next(read_rows(path, ["x"], 1))


def test_line_ends_may_lie_where_two_reads_meet(tmp_path: Path) -> None:
    """A block ends between the two bytes of a line end: that is one end, and no blank line."""
    path = tmp_path / "a.csv"
    for filler in (2**18 - 8, 2**18 - 7, 2**18 - 6):
        width = 100
        lines = ["x,y", *(f"{i % 10},{'z' * (width - 4)}" for i in range(filler // width))]
        lines.append("1," + "z" * (filler - sum(len(line) + 2 for line in lines)))
        path.write_bytes("\r\n".join([*lines, "2,a", "3,b", ""]).encode())
        rows = [(int(line), y) for block in read_rows(path, ["x", "y"], 10**6)
                for line, y in zip(block.line, block.text("y"), strict=True)]
        assert rows[-2:] == [(len(lines) + 1, "a"), (len(lines) + 2, "b")]
        assert len(rows) == len(lines) + 1
