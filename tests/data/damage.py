"""Files damaged in every way that files are, and what a reader may make of one.

A reader must refuse a damaged file, with one line that names it, or read what it read before. There is one exception by
design: where a plain file is, after all, a good file of another content (a digit became another digit, a file ends at
the end of a line, names of columns of one kind are swapped), no reader can know. `is_good` says so, by a reading of
its own: Python's csv, and a pattern for every column. Of a packed file there is no exception: it has a checksum.
"""

import csv
import gzip
import io
import re
from collections.abc import Callable, Mapping

import numpy as np

Damage = Callable[[np.random.Generator, bytes], bytes]


def cut(rng, data):
    return data[: rng.integers(len(data))]


def flip(rng, data):
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return bytes(damaged)


def overwrite(rng, data):
    begin, size = rng.integers(len(data)), rng.integers(1, 200)
    return data[:begin] + (bytes(size) if rng.integers(2) else rng.bytes(size)) + data[begin + size:]


def insert(rng, data):
    piece = [b"\0", b",", b'"', b"\n", b"\r", b" ", b"\xff", b"0", b"-", b"e", b".", b"\xe4\xb8\xad"][rng.integers(12)]
    at = rng.integers(len(data))
    return data[:at] + piece + data[at:]


def lose(rng, data):
    begin = rng.integers(len(data))
    return data[:begin] + data[begin + rng.integers(1, 300):]


def rename(rng, data):
    """Swaps two names of the header and not the columns."""
    head, rest = data.split(b"\n", 1)
    names = head.split(b",")
    a, b = rng.choice(len(names), 2, replace=False)
    names[a], names[b] = names[b], names[a]
    return b",".join(names) + b"\n" + rest


def swap(rng, data):
    """Swaps two columns, names and all: the same table."""
    rows = [line.split(b",") for line in data.strip(b"\n").split(b"\n")]
    a, b = rng.choice(len(rows[0]), 2, replace=False)
    for row in rows:
        row[a], row[b] = row[b], row[a]
    return b"\n".join(b",".join(row) for row in rows) + b"\n"


def encode(rng, data):
    name = ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037", "utf-7", "cp1026"][rng.integers(7)]
    return data.decode().encode(name)


def ends(rng, data):
    other = [b"\r", b"\r\n", b"\n\n", b"\n\r", b"\x0b", b"\xc2\x85", b"\xe2\x80\xa8"]
    return data.replace(b"\n", other[rng.integers(7)])


def quote(rng, data):
    """Quotes some values, one of them perhaps wrongly."""
    rows = [line.split(b",") for line in data.strip(b"\n").split(b"\n")]
    for _ in range(rng.integers(1, 20)):
        row = rows[rng.integers(len(rows))]
        at = rng.integers(len(row))
        row[at] = b'"' + row[at].strip(b'"') + b'"'
    if rng.integers(2):
        row = rows[rng.integers(len(rows))]
        at = rng.integers(len(row))
        row[at] = [b'"' + row[at], row[at] + b'"', b'"' + row[at] + b',0"', b'""' + row[at]][rng.integers(4)]
    return b"\n".join(b",".join(row) for row in rows) + b"\n"


def repeat(rng, data):
    """One line twice."""
    lines = data.split(b"\n")
    at = rng.integers(len(lines) - 1)
    return b"\n".join([*lines[: at + 1], *lines[at:]])


def swell(rng, data):
    """An archive of which most is nothing."""
    return gzip.compress(data + [b"\n", b"\0", b" ", b"1", b"1,"][rng.integers(5)] * 8_000_000, 6)


def pack_and(change: Damage) -> Damage:
    def damage(rng, data):
        return change(rng, gzip.compress(data))

    return damage


PLAIN = {"cut": cut, "flip": flip, "overwrite": overwrite, "insert": insert, "lose": lose, "rename": rename,
         "swap": swap, "encode": encode, "ends": ends, "quote": quote, "repeat": repeat}
PACKED = {f"packed {name}": pack_and(change) for name, change in
          {"cut": cut, "flip": flip, "overwrite": overwrite, "lose": lose}.items()} | {"swell": swell}


def is_good(data: bytes, patterns: Mapping[str, str]) -> bool:
    """Whether a plain file is a good one: text, as many values a row as names, each of the pattern of its column."""
    marks = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"", "utf-8"))
    encoding = next(name for mark, name in marks if data.startswith(mark))
    try:
        text = data.decode(encoding)
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if any(x.strip() for x in row)]
    except (UnicodeError, csv.Error):
        return False
    if not rows or "\0" in text:
        return False
    names = [x.strip() for x in rows[0]]
    if not set(patterns) <= set(names) or not all(name.isprintable() for name in names):
        return False
    return all(len(row) == len(names) and all(
        name not in patterns or re.fullmatch(f" *(?:{patterns[name]}) *", value, re.ASCII)
        for name, value in zip(names, row, strict=True)) for row in rows[1:])
