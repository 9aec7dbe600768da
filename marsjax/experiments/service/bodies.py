"""Bodies of requests, read up to a size and decoded; nothing is ever unpickled."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from marsjax.core import files, limits
from marsjax.core.errors import InputError, brief
from marsjax.experiments.service import arrow_tables
from marsjax.experiments.service.refusals import RefusedError

if TYPE_CHECKING:
    from starlette.requests import Request

OCTETS, JSON, ARROW, LINES = ("application/octet-stream", "application/json", "application/vnd.apache.arrow.stream",
                              "application/x-ndjson")
_WIRE = np.dtype("<i4")


def kind_of(request: "Request", *known: str) -> str:
    """The media type of a body; RefusedError (415) where it is none of those known, or the body is compressed."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in known:
        raise RefusedError(415, f"expected content-type {' or '.join(known)}, got {brief(kind)}")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise RefusedError(415, "expected a body that is not compressed")
    return kind


async def read(request: "Request", most_bytes: int, timeout_s: float) -> bytes:
    """The whole body; RefusedError where it has more than `most_bytes` (413) or comes too slowly (408)."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > most_bytes:
        raise RefusedError(413, f"expected at most {most_bytes} bytes, got {int(length[:20])}")
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most_bytes:
                    raise RefusedError(413, f"expected at most {most_bytes} bytes")
    except TimeoutError:
        raise RefusedError(408, f"expected the body within {timeout_s:g} s") from None
    return bytes(body)


def windows_of(body: bytes, length: int, columns: int) -> np.ndarray:
    """Windows int32 [n, length, columns] of little-endian numbers; RefusedError (400) where they are no whole ones."""
    size = length * columns * _WIRE.itemsize
    if not body or len(body) % size:
        raise RefusedError(400, f"expected windows of {length} x {columns} int32, {size} bytes each, got {len(body)} "
                           "bytes")
    return np.frombuffer(body, _WIRE).reshape(-1, length, columns).astype(np.int32)


def octets_of(tokens: np.ndarray) -> bytes:
    """Tokens int32 [n] as little-endian numbers."""
    return tokens.astype(_WIRE).tobytes()


def windows_of_json(record: Mapping[str, Any]) -> np.ndarray:
    """The `windows` of a record as an array int64, of whatever shape; InputError where they are no such lists.

    Everything is looked at before an array is made, whose size a text among the numbers would decide.
    """
    level: list[Any] = [record.get("windows")]
    shape: list[int] = []
    while level and isinstance(level[0], list):
        shape.append(len(level[0]))
        if not all(isinstance(part, list) and len(part) == shape[-1] for part in level):
            raise InputError("windows: expected whole numbers [n, T, columns], got lists of different lengths")
        level = [value for part in level for value in part]
    is_whole = [type(value) is int and abs(value) < 2**63 for value in level]
    if not shape or not level or not all(is_whole):
        wrong = brief(level[is_whole.index(False)]) if False in is_whole else "none"
        raise InputError(f"windows: expected whole numbers [n, T, columns], got {wrong}")
    return np.array(level, np.int64).reshape(shape)


def whole(name: str, value: Any, high: int, low: int = 0) -> int | None:
    """A whole number, as it is or as a word of a query; None where there is none, InputError where it does not fit."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        value = int(value)
    if type(value) is not int or not low <= value <= high:
        raise InputError(f"{name}: expected a whole number of {low} to {high}, got {brief(value)}")
    return value


def seed_of(given: Mapping[str, Any], count: int) -> tuple[int | None, int]:
    """`seed` and `first` of a request for `count` draws; the seed is None where there is none."""
    seed, first = whole("seed", given.get("seed"), limits.SEED), whole("first", given.get("first"), limits.SEED)
    if seed is None and first is not None:
        raise InputError("first: has no effect without a seed")
    if first is not None and first + count > limits.SEED:
        raise InputError(f"first: expected at most {limits.SEED - count}, got {first}")
    return seed, first or 0


def futures_record(kind: str, body: bytes, most_rows: int) -> dict[str, Any]:
    """A request for futures as a record; of Arrow the table is its `orders`, of at most so many rows (TooLargeError).

    InputError where it is none.
    """
    return files.json_object("request", body) if kind == JSON else arrow_tables.request_of(body, most_rows)
