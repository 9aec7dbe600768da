"""Files from outside, read with care: what is no plain file is not opened, what swells is not unpacked to its end.

A reader of one kind of file uses these and adds what it knows. Errors name the file in one line: OSError and its kin
where it cannot be opened, InputError where it is not what it should be.
"""

import contextlib
import gzip
import io
import json
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from marsjax.core.errors import InputError, brief

MOST_RATIO = 200
"""Most bytes that a byte of a gzip file may stand for: tables of depth reach 50, one byte repeated has 1000."""
MOST_LINE = 2**16
"""Most characters of a line of text."""
MOST_JSON = 2**20
"""Most bytes of a JSON file."""
# So small a file may be as repetitive as it likes.
_HARMLESS = 2**22
_BLOCK = 2**16
_DEEPEST = 64
_GZIP = b"\x1f\x8b"
_POINTER = b"version https://git-lfs.github.com/spec/"
_KINDS = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device",
          stat.S_ISBLK: "a device"}


def check_regular(path: str | os.PathLike[str], most_bytes: int | None = None) -> int:
    """The size of a plain file in bytes, found without opening it: opening a pipe would wait for its writer for ever.

    Raises FileNotFoundError; IsADirectoryError; OSError where it is a pipe, a socket or a device; InputError where it
    has more than `most_bytes`, or its name cannot be one.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except ValueError as error:  # a zero byte in the name
        raise InputError(f"{brief(str(path))}: no name of a file: {brief(error)}") from None
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _KINDS.items() if test(found.st_mode)), "something else")
        raise (IsADirectoryError if stat.S_ISDIR(found.st_mode) else OSError)(f"{path}: expected a file, got {kind}")
    if most_bytes is not None and found.st_size > most_bytes:
        raise InputError(f"{path}: expected at most {most_bytes} bytes, got {found.st_size}")
    return found.st_size


def refuse_stand_in(path: str | os.PathLike[str], start: bytes) -> None:
    """InputError where the first bytes of a file (64 or more) show that something was put in its place."""
    if start.startswith(_POINTER):
        raise InputError(f"{path}: a Git LFS pointer, not the file it stands for: run `git lfs pull` where it was "
                         "cloned, or download the file itself")
    if start[:64].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{path}: a web page, not the file it should be: download the file itself")


def read_bytes(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """The whole of a plain file of at most `most_bytes`, as it is; errors of `check_regular` and `refuse_stand_in`."""
    check_regular(path, most_bytes)
    with Path(path).open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:  # it has grown since
        raise InputError(f"{path}: expected at most {most_bytes} bytes")
    refuse_stand_in(path, data[:64])
    return data


def read_text(path: str | os.PathLike[str], most_bytes: int) -> str:
    """A small text file (UTF-8); errors of `read_bytes`, and InputError where it is no UTF-8."""
    try:
        return read_bytes(path, most_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected text in UTF-8: {brief(error)}") from None


def read_json(path: str | os.PathLike[str], most_bytes: int = MOST_JSON) -> dict[str, Any]:
    """The object in a JSON file (UTF-8). InputError where it is none, or is nested deeper than 64."""
    return json_object(str(path), read_bytes(path, most_bytes))


def json_object(where: str, data: bytes) -> dict[str, Any]:
    """The object that JSON in UTF-8 holds; InputError, by the name of `where` it is from, as of `read_json`."""
    try:
        record = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a JSON file: {brief(error)}") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected a JSON object, got a {type(record).__name__}")
    level: list[Any] = [record]
    for _ in range(_DEEPEST):
        level = [x for part in level for x in (part.values() if isinstance(part, dict) else part)
                 if isinstance(x, dict | list)]
    if level:
        raise InputError(f"{where}: expected JSON nested at most {_DEEPEST} deep")
    return record


def open_bounded(path: str | os.PathLike[str], most_bytes: int | None = None) -> BinaryIO:
    """Opens a plain file or a gzip file, known by its first bytes, to read what is in it.

    Nothing is held but a buffer. Reading raises InputError where a gzip file is cut off or broken, where it swells to
    more than `MOST_RATIO` times its size, and at more than `most_bytes`; opening it raises the errors of
    `check_regular` and `refuse_stand_in`, and InputError where a file is named .gz and is none.
    """
    check_regular(path)
    with contextlib.ExitStack() as held:
        file = held.enter_context(Path(path).open("rb"))
        start = file.read(64)
        refuse_stand_in(path, start)
        if str(path).endswith(".gz") and start[:2] != _GZIP:
            raise InputError(f"{path}: expected a gzip file, as its name says, got {brief(start[:8])}")
        file.seek(0)
        held.pop_all()  # what is returned closes it
    return io.BufferedReader(cast(io.RawIOBase, _Bounded(str(path), file, start[:2] == _GZIP, most_bytes)), _BLOCK)


def text_lines(path: str | os.PathLike[str], most_line: int = MOST_LINE, most_bytes: int | None = None
               ) -> Iterator[str]:
    r"""The lines of a text file (UTF-8, with or without a mark of byte order), plain or gzip, with their ends.

    A line ends with \n, \r\n or \r. Besides the errors of `open_bounded`, InputError that names the line where it is
    longer than `most_line` characters, holds a zero byte or is no UTF-8.
    """
    number = 0
    with io.TextIOWrapper(cast(Any, open_bounded(path, most_bytes)), encoding="utf-8-sig", newline="") as file:
        while True:
            number += 1
            try:
                line = file.readline(most_line + 1)
            except UnicodeDecodeError as error:
                # Text is decoded in blocks, so the fault may stand some lines further on.
                raise InputError(f"{path}: line {number} or after: expected text in UTF-8: {brief(error)}") from None
            if not line:
                return
            if len(line) > most_line:
                raise InputError(f"{path}: line {number}: expected at most {most_line} characters")
            if "\0" in line:
                raise InputError(f"{path}: line {number}: expected text, got a zero byte at character "
                                 f"{line.index(chr(0)) + 1}")
            yield line


class _Bounded(io.RawIOBase):
    """The bytes of a file, unpacked where it is gzip, counted as they come."""

    def __init__(self, path: str, file: BinaryIO, is_gzip: bool, most_bytes: int | None) -> None:
        self._path, self._file, self._most, self._is_gzip = path, file, most_bytes, is_gzip
        self._source = cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb")) if is_gzip else file
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._source.read(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{self._path}: expected a whole gzip file: {brief(error)}") from None
        self._count += len(data)
        if self._most is not None and self._count > self._most:
            raise InputError(f"{self._path}: expected at most {self._most} bytes"
                             f"{' when unpacked' if self._is_gzip else ''}")
        if self._is_gzip and self._count > _HARMLESS and self._count > MOST_RATIO * self._file.tell():
            raise InputError(f"{self._path}: the gzip file swells to more than {MOST_RATIO} times its size; unpack it "
                             "where you trust it, and give what was in it")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
            self._file.close()
        super().close()
