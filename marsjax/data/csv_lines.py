r"""The lines of a text file in blocks: any line end, any mark of byte order; what is no text, or swells, is refused.

Bounded: a block holds at most as many lines as asked for and 32 MiB; a line at most `files.MOST_LINE` bytes.
"""

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from marsjax.core import files
from marsjax.core.errors import InputError, brief
from marsjax.data.feed import FeedError

MOST_BLOCK = 2**25
"""Most bytes of a block."""
_READ = 2**18
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
          (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_PACKED = ((b"\x28\xb5\x2f\xfd", "zstandard"), (b"PK\x03\x04", "zip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"),
           (b"7z\xbc\xaf\x27\x1c", "7-zip"), (b"PAR1", "Parquet"), (b"\x89HDF", "HDF5"), (b"Rar!", "rar"))


def blocks(path: Path, most_lines: int) -> Iterator[tuple[int, bytes]]:
    r"""Blocks of whole lines: the number of the first (from 1), and the lines, each ended by b"\n"; see `check_text`.

    Args:
      path: a text file, plain or gzip (known by what is in it): UTF-8, or UTF-16 or -32 with a mark of byte order.
      most_lines: of a block.

    Raises FeedError, with the line, for another encoding, lines too long, broken or swelling archives; OSError and its
    kin where there is no such file, or a folder, a pipe or a device.
    """
    first, waiting = 1, b""
    with _opened(path) as file:
        for data in _gathered(_unified(_text(path, file)), most_lines):
            data = waiting + data
            ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
            lengths = np.diff(ends, prepend=0, append=len(data))
            if lengths.max() > files.MOST_LINE + 1:
                line = first + int(np.argmax(lengths > files.MOST_LINE + 1))
                raise FeedError(f"{path}: line {line}: expected at most {files.MOST_LINE} bytes")
            begin = 0
            # Fewer than asked for: so large that they are enough, or the last ones.
            lines = min(most_lines, len(ends))
            for last in range(lines, len(ends) + 1, lines) if lines else ():
                end = int(ends[last - 1])
                yield first, data[begin:end]
                first, begin = first + lines, end
            waiting = data[begin:]
    if waiting:
        yield first, waiting


def check_text(path: Path, first: int, block: bytes, names: Sequence[str] = ()) -> None:
    """FeedError where a block holds a zero byte or is no UTF-8; it names the line, and the column by its name."""
    at = block.find(b"\0")
    if at >= 0:
        begin = block.rfind(b"\n", 0, at) + 1
        column = block.count(b",", begin, at)
        name = names[column] if column < len(names) else str(column + 1)
        line = first + block.count(b"\n", 0, at)
        raise FeedError(f"{path}: line {line}, column {name}: expected text in UTF-8, got a zero byte, character "
                        f"{at - begin + 1} of the line")
    if not block.isascii():
        try:
            block.decode("utf-8")
        except UnicodeDecodeError as error:
            line = first + block.count(b"\n", 0, error.start)
            raise FeedError(f"{path}: line {line}: expected text in UTF-8, got the byte 0x{block[error.start]:02x}: "
                            "save the file as UTF-8") from None


def _opened(path: Path) -> BinaryIO:
    try:
        return files.open_bounded(path)
    except InputError as error:
        raise _placed(path, 1, error) from None


def _placed(path: Path, line: int, error: InputError) -> FeedError:
    return FeedError(f"{path}: line {line}: {str(error).removeprefix(f'{path}: ')}")


def _text(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """The bytes of a file as UTF-8, without a mark of byte order."""
    line = 1
    decoder = None
    start = _read(path, file, line)
    for magic, name in _PACKED:
        if start.startswith(magic):
            raise FeedError(f"{path}: line 1: expected text or a gzip file, got {name}: unpack it, or save it as CSV")
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            start = start[len(mark):]
            decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
            break
    while start:
        data = start
        if decoder is not None:
            try:
                data = decoder.decode(start).encode()
            except UnicodeError as error:
                raise FeedError(f"{path}: line {line} or after: {brief(error)}") from None
        line += data.count(b"\n") or data.count(b"\r")
        yield data
        start = _read(path, file, line)
    if decoder is not None and decoder.getstate()[0]:
        raise FeedError(f"{path}: line {line}: the file ends within a character (cut off?)")


def _read(path: Path, file: BinaryIO, line: int) -> bytes:
    try:
        return file.read(_READ)
    except InputError as error:
        raise _placed(path, line, error) from None


def _unified(parts: Iterator[bytes]) -> Iterator[bytes]:
    r"""Line ends \r\n and \r -> \n, also where two parts meet within one; the last line gets one too."""
    held, last = b"", b"\n"
    for data in parts:
        data = held + data
        held = b"\r" if data.endswith(b"\r") else b""
        data = data[:-1] if held else data
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data
        last = data[-1:] or last
        yield data
    if held or last != b"\n":
        yield b"\n"


def _gathered(parts: Iterator[bytes], least_lines: int) -> Iterator[bytes]:
    """The same bytes in parts of at least so many lines, or `MOST_BLOCK` bytes; the last may have fewer."""
    held: list[bytes] = []
    lines = size = 0
    for data in parts:
        held.append(data)
        lines, size = lines + data.count(b"\n"), size + len(data)
        if lines >= least_lines or size >= MOST_BLOCK:
            yield b"".join(held)
            held, lines, size = [], 0, 0
    if held:
        yield b"".join(held)
