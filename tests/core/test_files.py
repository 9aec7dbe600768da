"""Files from outside: what is none is not opened, what swells is not unpacked, what is damaged is said in one line."""

import functools
import gzip
import io
import json
import os
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from marsjax.core import files
from marsjax.core.errors import InputError, brief

READERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: files.read_bytes(path, 2**20), "json": files.read_json,
    "stream": lambda path: files.open_bounded(path).read(), "lines": lambda path: list(files.text_lines(path))}


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_plain_file_is_refused_without_opening_it(tmp_path: Path, reader: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken").symlink_to("nothing")
    for place, kind, what in [
            (tmp_path / "pipe", OSError, "expected a file, got a pipe"),
            (tmp_path / "socket", OSError, "expected a file, got a socket"),
            (tmp_path, IsADirectoryError, "expected a file, got a folder"),
            (Path("/dev/zero"), OSError, "expected a file, got a device"),
            (tmp_path / "none", FileNotFoundError, "no such file"), (tmp_path / "broken", FileNotFoundError, "no such"),
            (tmp_path / "loop", OSError, "loop"), (Path("a\0b"), InputError, "no name of a file")]:
        with pytest.raises(kind, match=what) as error:
            READERS[reader](place)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("reader", READERS)
def test_a_stand_in_is_named(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "file"
    for text, what in [("version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 1\n", "Git LFS"),
                       ("<!DOCTYPE html>\n<html></html>", "a web page")]:
        path.write_text(text)
        with pytest.raises(InputError, match=f"^{path}: {what if what[0] == 'a' else 'a ' + what}"):
            READERS[reader](path)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"a": 1,}', "[" * 300_000, '{"a":' * 300_000, "{" + " " * 2**20,
                                  '{"a": ' + "9" * 5000 + "}", '{"a": ' + "[" * 70 + "]" * 70 + "}", "\ufeff{}"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"^{path}: ") as error:
        files.read_json(path)
    assert len(str(error.value)) < len(str(path)) + 150
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InputError, match=f"^{path}: (not a JSON file|expected text in UTF-8)"):
        files.read_json(path)
    path.write_text(json.dumps({"a": [{"b": None}]}))
    assert files.read_json(path) == {"a": [{"b": None}]}


def test_plain_and_packed_files_give_what_is_in_them(tmp_path: Path) -> None:
    text = "".join(f"{i},{i * i}\n" for i in range(20_000))
    (tmp_path / "plain").write_text(text)
    (tmp_path / "packed.csv").write_bytes(gzip.compress(text[:5000].encode()) + gzip.compress(text[5000:].encode()))
    (tmp_path / "empty").write_text("")
    for name, expected in (("plain", text), ("packed.csv", text), ("empty", "")):
        with files.open_bounded(tmp_path / name) as file:
            assert file.read().decode() == expected
        assert list(files.text_lines(tmp_path / name)) == expected.splitlines(keepends=True)


def test_lines_of_any_end_and_what_no_line_is(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,\xc3\xa9\rc\n\nd")
    assert list(files.text_lines(path)) == ["a,b\r\n", "1,é\r", "c\n", "\n", "d"]
    for data, what in [(b"a\nb\0c\n", "line 2: expected text, got a zero byte at character 2"),
                       (b"a\nb" * 9 + b"x" * 100, "line 10: expected at most 80 characters"),
                       (b"a\n\xff\n", "expected text in UTF-8"), ("aé".encode("utf-16"), "expected text in UTF-8"),
                       ("\ufeffab".encode("utf-16-be"), "expected text in UTF-8")]:
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"^{path}: .*{what}"):
            list(files.text_lines(path, most_line=80))


@pytest.mark.parametrize("unit", [b"\0", b"\n", b"x", b"1,2,3\n"])
def test_a_file_that_swells_is_left_early(tmp_path: Path, unit: bytes) -> None:
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(64):
            file.write(unit * (2**20 // len(unit)))
    sizes: list[int] = []
    tracemalloc.start()
    try:
        with files.open_bounded(path) as stream, pytest.raises(InputError, match="swells to more than 200 times"):
            sizes.extend(map(len, iter(functools.partial(stream.read, 2**16), b"")))
        assert sum(sizes) < 2**25
        if unit[-1:] != b"\n":
            with pytest.raises(InputError, match=f"^{path}: line 1: expected"):
                next(files.text_lines(path))
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_a_limit_holds_for_what_is_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(bytes(1001)))
    (tmp_path / "b").write_bytes(bytes(1001))
    for name in ("a", "b"):
        assert len(files.open_bounded(tmp_path / name, 1001).read()) == 1001
        with pytest.raises(InputError, match="expected at most 1000 bytes"):
            files.open_bounded(tmp_path / name, 1000).read()
    with pytest.raises(InputError, match="expected at most 1000 bytes, got 1001"):
        files.read_bytes(tmp_path / "b", 1000)


def test_a_name_of_a_gzip_file_must_be_right(tmp_path: Path) -> None:
    for data in (b"", b"a,b\n1,2\n"):
        (tmp_path / "a.csv.gz").write_bytes(data)
        with pytest.raises(InputError, match=r"a\.csv\.gz: expected a gzip file, as its name says, got b'"):
            files.open_bounded(tmp_path / "a.csv.gz")


def read(path: Path) -> tuple[bytes | None, str]:
    try:
        return files.open_bounded(path).read(), ""
    except InputError as error:
        return None, str(error)


def test_damage_of_a_gzip_file_is_always_found(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "a.csv.gz"
    text = "".join(f"{i},{x}\n" for i, x in enumerate(rng.integers(0, 10**6, 300))).encode()
    whole = gzip.compress(text, mtime=0)
    kept = 0
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        cut = int(rng.integers(len(data))) if rng.random() < 0.3 else len(data)
        path.write_bytes(data[:cut])
        found, message = read(path)
        # What is read all the same has another flag, time or system in its header, on which nothing depends.
        kept += found is not None
        assert found == text or (message.startswith(f"{path}: ") and "\n" not in message and len(message) < 300)
    assert kept < 30


def test_values_in_messages_are_brief() -> None:
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    doubled: tuple = ()
    for _ in range(60):
        doubled = (doubled, doubled)
    for value in (deep, doubled, {"a": deep}, 10**10_000, "x" * 10**7, b"\0" * 10**7, np.zeros((2, 3)), object(),
                  ValueError("a\n" * 10**6), "\n\x1b[31m", io.BytesIO()):
        assert len(brief(value)) <= 80 and brief(value).isprintable()
    assert [brief(x) for x in (None, 1, -2.5, True, "a'b", b"a", np.int64(3), [1, 2], {}, ValueError(" a\n b"))] == [
        "None", "1", "-2.5", "True", '"a\'b"', "b'a'", repr(np.int64(3)), "a list of 2", "a dict of 0", "a b"]
    assert brief(ValueError()) == "ValueError"
    assert brief("abcdefghijkl", 10) == "'abcdef..."
