"""Requests and rows as Arrow streams, by pyarrow.

A request is a table of orders; the rest of it stands in JSON in the schema's metadata under `marsjax`. An answer is a
table of rows with a column `attempt`, and what is told beside the rows stands in JSON in the metadata of its batches.
"""

import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from marsjax.core import files
from marsjax.core.errors import InputError, brief
from marsjax.core.json_text import json_text_of
from marsjax.observers.market_tables import Table
from marsjax.studies.service.wanted import TooLargeError
from marsjax.studies.service.whole_futures import Told

if TYPE_CHECKING:
    import pyarrow

KEY = b"marsjax"
"""Of metadata, in schemas and in batches."""
_MOST_COLUMNS = 32
# Fields of Arrow's messages by their places in the tables of its format (Message.fbs).
_VERSION, _HEADER, _METADATA = 0, 2, 4
_LENGTH, _COMPRESSION = 0, 3
_V5 = 4
"""Of Arrow's format, as all since 2020 write it; older ones say in another place that a batch is compressed."""


def request_of(body: bytes, most_rows: int) -> dict[str, Any]:
    """A request whose `orders` are the table; TooLargeError for more rows, InputError where it is none."""
    import pyarrow
    from pyarrow import ipc

    try:
        _check_messages(ipc, body, most_rows)
        with ipc.open_stream(body) as reader:
            _check_schema(pyarrow.types, reader.schema)
            about, table = reader.schema.metadata or {}, reader.read_all()
        table.validate(full=True)
        orders = table.to_pandas(ignore_metadata=True)
    except (pyarrow.ArrowException, struct.error, OSError, UnicodeDecodeError) as error:
        raise InputError(f"request: no Arrow stream: {brief(error)}") from None
    record = files.json_object("request: schema metadata `marsjax`", about.get(KEY, b"{}"))
    if "orders" in record or "day" in record:
        raise InputError("request: the orders are the Arrow table: expected neither `orders` nor `day` beside it")
    return record | {"orders": orders}


def _check_schema(types: Any, schema: "pyarrow.Schema") -> None:
    tests = (types.is_integer, types.is_floating, types.is_string, types.is_large_string, types.is_timestamp,
             types.is_duration)
    if len(schema) > _MOST_COLUMNS or not all(any(test(field.type) for test in tests) for field in schema):
        raise InputError(f"request: expected at most {_MOST_COLUMNS} Arrow columns of numbers, texts or times")


def _check_messages(ipc: Any, body: bytes, most_rows: int) -> None:
    """What the headers say, before a column is read: InputError at a compressed batch, which may be of any size.

    TooLargeError at more rows; struct.error where a header is broken.
    """
    count = 0
    for message in ipc.MessageReader.open_stream(body):
        if message.type not in ("schema", "record batch"):
            raise InputError(f"request: expected Arrow record batches, got a {brief(message.type)}")
        data = message.metadata.to_pybytes()
        (root,) = struct.unpack_from("<I", data, 0)
        if _number(data, root, _VERSION, "<h") != _V5 or _slot(data, root, _METADATA):
            raise InputError("request: expected Arrow messages of version 5 without metadata of their own")
        if message.type == "schema":
            continue
        header = root + _slot(data, root, _HEADER)
        batch = header + _number(data, header, None, "<I")
        if _slot(data, batch, _COMPRESSION):
            raise InputError("request: expected an Arrow stream that is not compressed")
        rows = _number(data, batch, _LENGTH, "<q")
        count += rows
        if rows < 0 or count > most_rows:
            raise TooLargeError(f"request: orders: expected at most {most_rows} rows")


def _number(message: bytes, table: int, place: int | None, form: str) -> int:
    """A field of a flatbuffer's table, 0 where it is not set; without a place what stands at `table` itself."""
    at = 0 if place is None else _slot(message, table, place)
    return int(struct.unpack_from(form, message, table + at)[0]) if at or place is None else 0


def _slot(message: bytes, table: int, place: int) -> int:
    """Where a field of a flatbuffer's table lies, from the table's begin; 0 where it is not set."""
    (back,) = struct.unpack_from("<i", message, table)
    (size,) = struct.unpack_from("<H", message, table - back)
    at = 4 + 2 * place
    return int(struct.unpack_from("<H", message, table - back + at)[0]) if at < size else 0


class ArrowStream:
    """What is told of futures as an Arrow stream."""

    def __init__(self) -> None:
        self._sink = io.BytesIO()
        self._writer: Any = None
        self._schema: Any = None
        self._attempt = 0
        self._before: list[Told] = []

    def encoded(self, one: Told) -> bytes:
        """The bytes that tell it; those of what comes before the first rows come with these."""
        self._attempt += one.kind == "again"
        if self._writer is None and not one.rows and one.kind not in ("result", "error"):
            self._before.append(one)
            return b""
        for each in (*self._before, one):
            self._write(each, one.rows or {})
        self._before = []
        if one.kind in ("result", "error"):
            self._writer.close()
        found = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return found

    def _write(self, one: Told, like: Table) -> None:
        import pyarrow
        from pyarrow import ipc

        if self._writer is None:
            first = pyarrow.RecordBatch.from_pydict(self._columns(like))
            self._writer = ipc.new_stream(self._sink, first.schema)
            self._schema = first.schema
        columns = self._columns(one.rows) if one.rows else {name: [] for name in self._schema.names}
        batch = pyarrow.RecordBatch.from_pydict(columns, schema=self._schema)
        told = json_text_of({"kind": one.kind} | one.facts, indent=None).strip()
        self._writer.write_batch(batch, custom_metadata={KEY: told.encode()})

    def _columns(self, rows: Table) -> dict[str, Any]:
        import pyarrow

        found = {name: pyarrow.array(np.ma.getdata(column), mask=np.ma.getmaskarray(column) | _is_nan(column))
                 for name, column in rows.items()}
        count = len(next(iter(rows.values()))) if rows else 0
        return found | {"attempt": pyarrow.array(np.full(count, self._attempt, np.int32))}


def _is_nan(column: np.ndarray) -> np.ndarray:
    return np.isnan(column) if column.dtype.kind == "f" else np.zeros(len(column), bool)
