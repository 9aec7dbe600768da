"""Files made to harm who reads them: pipes, devices, archives and lines that swell, nests, claims of huge arrays.

    python -m tests.hostile_files FOLDER [light]

gives each (or each that takes little time) to its reader and prints as JSON what came of it; the limits stand in
tests/test_damaged_files.py. Nothing that a file could run leaves a trace but `canary` in the current folder.
"""

import gzip
import io
import json
import os
import pickle
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import zstandard

from marsjax.core.errors import InputError
from tests.damaged_readers import CASES
from tests.peak_memory import peak_bytes

EDGES = np.arange(5.0)
COUNTS = np.array([2, 0, 1, 1])
VALUES = np.array([1.0, 2.0, 3.0, 4.0])
CHANCES = np.array([0.5, 0.5, 1.0, 1.0])
DEEP = 300_000


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def npz(method: int = zipfile.ZIP_DEFLATED, **members: np.ndarray | bytes) -> bytes:
    """A file of converters; `members` replace its arrays, or are further ones."""
    file = io.BytesIO()
    whole = {"edges": EDGES, "counts": COUNTS, "values": VALUES, "probabilities": CHANCES}
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, array in (whole | members).items():
            archive.writestr(f"{name}.npy", array if isinstance(array, bytes) else npy(array))
    return file.getvalue()


def header(claim: str, data: bytes = bytes(32)) -> bytes:
    text = f"{claim:<117}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def flagged(data: bytes, flags: int, method: int) -> bytes:
    """Other flags and another method in every header of a zip file."""
    found = bytearray(data)
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = -1
        while (place := found.find(mark, place + 1)) >= 0:
            struct.pack_into("<HH", found, place + at, flags, method)
    return bytes(found)


def members(unit: bytes, count: int) -> bytes:
    """A gzip file of `count` members of 4 MiB of one text: small, and fast to make."""
    return gzip.compress(unit * (2**22 // len(unit)), 9) * count


class Trap:
    """Leaves a trace if it is run."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch canary",)


HEAVY = {"nested lists", "a nested sample", "a pair of nests", "nested tuples", "marks", "empty lists", "floats",
         "memo", "numbers", "newlines", "members without content", "plain newlines, then a zero", "a huge name",
         "zeros", "rows", "a line", "commas", "a huge text", "a huge integer"}
"""These take seconds; one reader of its kind has each."""
MAY_BE_EMPTY = {"predictions: nothing"}
"""A table without rows is one."""
DOUBLED = b"(" + b")\x94" + b"".join(b"h" + bytes([i, ord("h"), i]) + b"\x86\x94" for i in range(60)) + b"t"
PICKLES = {
    "trap": lambda: pickle.dumps([Trap()]),
    "trap, protocol 0": lambda: pickle.dumps([(np.zeros(3), Trap())], 0),
    "nested lists": lambda: b"]" * DEEP + b"a" * (DEEP - 1) + b".",
    "a nested sample": lambda: b"]" + b"]" * DEEP + b"a" * (DEEP - 1) + b"a.",
    "a pair of nests": lambda: b"]" * DEEP + b"a" * (DEEP - 1) + b"]\x86\x85.",
    "nested tuples": lambda: b")" + b"\x85" * DEEP + b".",
    "doubled": lambda: DOUBLED + b"h\x3ch\x3c\x86\x85.",
    "marks": lambda: b"(" * 2**22 + b".",
    "empty lists": lambda: b"(" + b"]" * 2**23 + b"l.",
    "floats": lambda: b"(" + b"G?\xf0\0\0\0\0\0\0" * 2**21 + b"l.",
    "memo": lambda: b"(" + b"]\x94" * 2**22 + b"l.",
    "a huge integer": lambda: b"]\x8b" + struct.pack("<i", 2**24) + b"\x7f" * 2**24 + b"a.",
    "a huge text": lambda: b"]X" + struct.pack("<I", 2**25) + b"x" * 2**25 + b"a.",
    "a huge name": lambda: b"c" + b"x" * 2**25 + b"\ny\n.",
    "a claim": lambda: b"\x8e" + struct.pack("<Q", 2**62) + b".",
    "zeros": lambda: bytes(2**28),
    "numbers": lambda: b"(" + b"I1\n" * 2**21 + b"l.",
}
NPZ = {
    "renamed .npy": lambda: npy(VALUES),
    "10^12 numbers": lambda: npz(values=header(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }")),
    "more than it claims": lambda: npz(edges=header("{'descr': '<f8', 'fortran_order': False, 'shape': (5,), }",
                                                    bytes(48))),
    "less than it claims": lambda: npz(edges=header("{'descr': '<f8', 'fortran_order': False, 'shape': (5,), }")),
    "text": lambda: npz(values=b"hello"),
    "times": lambda: npz(counts=COUNTS.astype("datetime64[s]")),
    "words": lambda: npz(counts=np.array(["a", "b"])),
    "records": lambda: npz(counts=np.zeros(4, [("a", "i4"), ("b", "f4")])),
    "objects": lambda: npz(values=np.array([Trap()], object)),
    "complex": lambda: npz(values=VALUES + 0j),
    "plane": lambda: npz(values=VALUES[None]),
    "encrypted": lambda: flagged(npz(), 1, 8),
    "method 99": lambda: flagged(npz(), 0, 99),
    "method 12": lambda: npz(zipfile.ZIP_BZIP2),
    "swelling": lambda: npz(edges=header("{'descr': '<f8', 'fortran_order': False, 'shape': (8388608,), }",
                                         bytes(2**26))),
    "many members": lambda: npz(**{f"a{i}": b"" for i in range(4000)}),
    "too few": lambda: flagged(npz(), 0, 8)[:-60],
    "sums that turn round": lambda: npz(counts=np.array([2**63, 2**63, 4, 0], np.uint64)),
    "negative": lambda: npz(counts=np.array([5, -1, 0, 0])),
    "nested header": lambda: npz(values=header("(" * 116)),
    "a call in the header": lambda: npz(values=header("__import__('os').system('touch canary')")),
    "bins without end": lambda: npz(edges=np.arange(500_001.0), counts=np.zeros(500_000, np.int8), values=VALUES[:0],
                                    probabilities=VALUES[:0]),
    "not a number": lambda: npz(values=VALUES * np.nan),
    "zstd": lambda: zstandard.compress(npz()),
    "huge": lambda: bytes(2**24),
}
JSON = {
    "lists in lists": lambda: b"[" * DEEP,
    "nested": lambda: b'{"a":' * DEEP,
    "closed": lambda: b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "large": lambda: b"{" + b" " * 2**25,
    "digits": lambda: b'{"emb_dim": ' + b"9" * 10**5 + b"}",
    "text": lambda: b'"' + b"x" * 10**5,
    "not UTF-8": lambda: b'{"\xff": 1}',
    "a few zeros": lambda: bytes(1000)}
HEADERS = {
    "10^12 numbers": lambda: b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}',
    "an overflow": lambda: b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}',
    "nested": lambda: b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "holes": lambda: b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[9,13]}}',
    "names": lambda: b"{%s}" % b",".join(b'"%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i
                                      for i in range(50_000))}
BARS_HEAD = b"symbol,rollout,source,time,price_last,price_mean,price_mid,price_mid_last,volume\n"
TABLES = {
    "zeros": lambda: members(b"\0", 600),
    "newlines": lambda: members(b"\n", 600),
    "a line": lambda: members(b"x", 600),
    "rows": lambda: gzip.compress(BARS_HEAD) + members(b"1,2,3\n", 600),
    "commas": lambda: members(b",", 600),
    "plain newlines, then a zero": lambda: BARS_HEAD + b"\n" * 10**6 + b"\0",
    "a line of 32 MB": lambda: b"x" * 2**25,
    "a quote left open": lambda: BARS_HEAD + b'"' + b"x,\n" * 10**6,
    "a long name": lambda: BARS_HEAD + b"x" * 60_000 + b",0",
    "members without content": lambda: gzip.compress(b"") * 200_000,
    "gzip in gzip": lambda: gzip.compress(members(b"\0", 10))}


def cases() -> Iterator[tuple[str, str, Callable[[Path], object]]]:
    """(reader, name, what makes the file)."""
    def filled(make: Callable[[], bytes]) -> Callable[[Path], object]:
        return lambda path: path.write_bytes(make())

    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 9\n"
    for reader in CASES:
        if reader != "own":  # is a folder of several
            yield reader, "a pipe", os.mkfifo
            yield reader, "a folder", Path.mkdir
            yield reader, "a device", lambda path: path.symlink_to("/dev/zero")
            yield reader, "a pointer", filled(lambda: pointer)
            yield reader, "a page", filled(lambda: b"<!DOCTYPE html><html>" + b" " * 10**6)
            yield reader, "nothing", filled(bytes)
            yield reader, "a pickle", filled(lambda: pickle.dumps(Trap()))
    packed = {name: lambda make=make: zstandard.compress(make()) for name, make in PICKLES.items()}
    headed = {name: lambda make=make: struct.pack("<Q", len(make())) + make() + bytes(64)
              for name, make in HEADERS.items()}
    for readers, kinds in ((("zstd", "archive", "samples"), packed), (("npz",), NPZ), (("config", "index"), JSON),
                           (("weights",), headed), (("bars", "predictions", "bars.gz"), TABLES)):
        for reader in readers:
            yield from ((reader, name, filled(make)) for name, make in kinds.items()
                        if reader == readers[-1] or name not in HEAVY)


def study(folder: Path, light: bool) -> list[tuple[str, float, str]]:
    """(name, seconds of the processor, fault or nothing) of each, or of those that are light."""
    found = []
    for number, (reader, name, make) in enumerate(cases()):
        if light and name in HEAVY:
            continue
        place = folder / str(number)
        place.mkdir(parents=True)
        path = CASES[reader].make(place)
        path.unlink()
        make(path)
        began, fault = time.process_time(), "read without an error" * (f"{reader}: {name}" not in MAY_BE_EMPTY)
        try:
            CASES[reader].read(path)
        except (InputError, OSError) as error:
            text = str(error)
            is_told = str(place) in text and "\n" not in text and len(text.replace(str(place), "")) <= 350
            fault = "" if is_told else f"{type(error).__name__}: {text[:400]}"
        except Exception as error:  # noqa: BLE001 - what else there may be is the question
            fault = f"{type(error).__name__}: {str(error)[:200]}"
        found.append((f"{reader}: {name}", time.process_time() - began, fault))
        if path.is_file():
            path.unlink()
    return found


if __name__ == "__main__":
    told = study(Path(sys.argv[1]), "light" in sys.argv[2:])
    print(json.dumps({"cases": told, "most_bytes": peak_bytes()}))
