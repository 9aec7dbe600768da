"""Databento's own files (DBN, plain or packed by zstandard), read by its library."""

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from marsjax.core import files
from marsjax.core.errors import InputError
from marsjax.data.databento_messages import ACTIONS, SIDES, SNAPSHOT, UNDEFINED, MboMessages
from marsjax.data.feed import FeedError

_READ = 2**20
_PACKED = 2**11
_ZSTD = b"\x28\xb5\x2f\xfd"


def blocks(path: Path, chunk_rows: int) -> Iterator[MboMessages]:
    """A .dbn or .dbn.zst file of the mbo schema, in blocks of about `chunk_rows` records.

    Raises InputError where the library is not installed, FeedError where the file is damaged or of another schema.
    """
    library = _library()
    decoder = library.DBNDecoder(compression=library.Compression.NONE)
    symbols: dict[int, str] = {}
    held: list[Any] = []
    count = 0
    for data in _contents(path):
        try:
            decoder.write(data)
            records = decoder.decode()
        except (library.DBNError, ValueError) as error:
            raise FeedError(f"{path}: record {count + len(held)}: expected DBN, got {error}") from error
        for record in records:
            if isinstance(record, library.Metadata):
                symbols = _symbols(path, record)
            elif isinstance(record, library.MBOMsg):
                held.append(record)
        if len(held) >= chunk_rows:
            yield _block(path, held, symbols, count)
            count, held = count + len(held), []
    if decoder.buffer():
        raise FeedError(f"{path}: record {count + len(held)}: expected whole records, got the end of the file")
    if held:
        yield _block(path, held, symbols, count)
    elif not count:
        raise FeedError(f"{path}: expected records of the mbo schema, got none")


def _library() -> Any:
    try:
        return importlib.import_module("databento_dbn")
    except ImportError as error:
        raise InputError("DBN files are read by Databento's library: pip install 'marsjax[databento]' (or let "
                         "Databento deliver CSV)") from error


def _contents(path: Path) -> Iterator[bytes]:
    """What a file holds, unpacked; FeedError where it was packed and is cut off or broken."""
    files.check_regular(path)
    with path.open("rb") as file:
        data = file.read(_READ)
        if data[:4] != _ZSTD:
            while data:
                yield data
                data = file.read(_READ)
            return
        file.seek(0)
        unpacking = zstandard.ZstdDecompressor().decompressobj()
        try:
            while data := file.read(_PACKED):  # little at a time: it may stand for very much
                while data:
                    if unpacking.eof:
                        unpacking = zstandard.ZstdDecompressor().decompressobj()
                    yield unpacking.decompress(data)
                    data = unpacking.unused_data if unpacking.eof else b""
        except zstandard.ZstdError as error:
            raise FeedError(f"{path}: expected a whole zstandard file, got {error}") from error
        if not unpacking.eof:
            raise FeedError(f"{path}: expected a whole zstandard file, got one that is cut off")


def _symbols(path: Path, metadata: Any) -> dict[int, str]:
    """Names of the instruments by their numbers."""
    if str(metadata.schema) not in ("mbo", "None"):
        raise FeedError(f"{path}: expected records of the mbo schema, got {metadata.schema}")
    found = {}
    for name, intervals in metadata.mappings.items():
        for interval in intervals:
            number = str(interval["symbol"])
            if number.isdigit():
                found[int(number)] = str(name)
            elif str(name).isdigit():
                found[int(name)] = number
    return found


def _block(path: Path, records: list[Any], symbols: dict[int, str], first: int) -> MboMessages:
    flags = np.array([int(x.flags) for x in records], np.int64)
    time_ns = np.array([x.ts_event for x in records], np.uint64).astype(np.int64)
    if (snapshot := (flags & SNAPSHOT) > 0).any():
        time_ns = np.where(snapshot, np.array([x.ts_recv for x in records], np.uint64).astype(np.int64), time_ns)
    price = np.array([x.price for x in records], np.int64)
    instrument = [x.instrument_id for x in records]
    names = {number: place for place, number in enumerate(dict.fromkeys(instrument))}
    action, side = ([codes.get(str(getattr(x, name)), -2) for x in records]
                    for name, codes in (("action", ACTIONS), ("side", SIDES)))
    if (odd := min((*action, *side))) == -2:
        row, name = next((row, name) for name, of in (("action", action), ("side", side))
                         for row, code in enumerate(of) if code == odd)
        raise _error(path, records, first, row, name, "one that Databento describes")
    return MboMessages(
        time_ns, np.array(action, np.int64), np.array(side, np.int64),
        np.where(price == UNDEFINED, 0, price), np.array([x.size for x in records], np.int64),
        np.array([x.order_id for x in records], np.uint64), np.array([x.publisher_id for x in records], np.int64),
        np.array([names[x] for x in instrument], np.int64), [symbols.get(x, str(x)) for x in names],
        functools.partial(_error, path, records, first), first).check()


def _error(path: Path, records: list[Any], first: int, row: int, column: str, expected: str) -> FeedError:
    got = getattr(records[row], column, "")
    return FeedError(f"{path}: record {first + row}, field {column}: expected {expected}, got {got}")
