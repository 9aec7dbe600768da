"""Damage of the kinds that files meet: cut, flipped, mixed up, written in another encoding, packed, swollen."""

import gzip
from collections.abc import Callable

import numpy as np
import zstandard

KINDS = ("cut", "flip", "flips", "bytes", "insert", "delete", "swap", "repeat", "zeros", "encoding", "ends", "packed",
         "doubled", "fields")


def damaged(whole: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """One damage of a kind to a file; the file itself where it has nothing for the kind to work on."""
    data, size = bytearray(whole), len(whole)
    first, second = sorted(int(x) for x in rng.integers(size + 1, size=2))
    place = int(rng.integers(size))
    length = int(rng.integers(1, 20))
    if kind == "flip":
        data[place] ^= 1 << int(rng.integers(8))
    if kind == "flips":
        for at in rng.integers(size, size=length):
            data[at] ^= 1 << int(rng.integers(8))
    if kind == "bytes":
        data[place : place + length] = rng.bytes(length)
    pieces: dict[str, Callable[[], bytes]] = {
        "cut": lambda: whole[:place], "insert": lambda: whole[:place] + rng.bytes(length) + whole[place:],
        "delete": lambda: whole[:place] + whole[place + length :],
        "swap": lambda: whole[second:] + whole[first:second] + whole[:first],
        "repeat": lambda: whole[:second] + whole[first:], "zeros": lambda: whole[:first] + bytes(size - first),
        "encoding": lambda: _encoded(whole, str(rng.choice(["utf-16", "utf-32", "utf-16-be", "utf-8-sig", "cp500"]))),
        "ends": lambda: whole.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n", b"\n\r", b"\0\n"])),
        "packed": lambda: gzip.compress(whole) if rng.random() < 0.5 else zstandard.compress(whole),
        "doubled": lambda: whole + whole, "fields": lambda: _fields(whole, rng)}
    return pieces.get(kind, lambda: bytes(data))()


def _encoded(whole: bytes, name: str) -> bytes:
    return whole.decode("latin-1").encode(name)


def _fields(whole: bytes, rng: np.random.Generator) -> bytes:
    """Two fields of a line of a table change places, or one is lost, comes twice, is quoted or is another number."""
    lines = whole.split(b"\n")
    row = int(rng.integers(len(lines)))
    fields = lines[row].split(b",")
    one, other = (int(x) for x in rng.integers(len(fields), size=2))
    way = int(rng.integers(5))
    if way == 0:
        fields[one], fields[other] = fields[other], fields[one]
    elif way == 1:
        del fields[one]
    elif way == 2:
        fields.insert(one, fields[one])
    elif way == 3:
        fields[one] = b'"' + fields[one] + b'"' * int(rng.integers(2))
    else:
        fields[one] = [b"", b"1e300", b"-1", b"nan", b"inf", b"9" * 400, b"1_0", b"0x10", b"\xff", b"1\0"][
            int(rng.integers(10))]
    lines[row] = b",".join(fields)
    return b"\n".join(lines)
