"""Bodies of requests that would take more memory than they have bytes, or that are nearly what is expected."""

import io
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="the service needs prometheus_client: pip install 'marsjax[serve]'")

from marsjax.core.errors import InputError
from marsjax.experiments.service import arrow_tables, bodies
from marsjax.experiments.service.refusals import RefusedError
from marsjax.studies.service.wanted import TooLargeError

COLUMNS: dict[str, Any] = {"time": ["10:00:00"] * 3, "price": [10.0] * 3, "side": ["buy"] * 3, "size": [1] * 3}


@pytest.mark.parametrize("windows", [["x" * 250_000] + [""] * 500, [["x" * 250_000], *[[1]] * 500],
                                     [[[1] * 1000], *[[1]] * 500], [[[]] * 2], [], 5, None, "12", {"1": 2}, [[[True]]],
                                     [[[0.5]]], [[[None]]], [[[1], [[1]]]], [[[2**63]]], [[[1]], 1]])
def test_windows_that_are_no_whole_numbers_are_refused_before_an_array_is_made(windows: Any) -> None:
    tracemalloc.start()
    with pytest.raises(InputError, match=r"^windows: expected whole numbers \[n, T, columns\], got"):
        bodies.windows_of_json({"windows": windows})
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**21


def test_windows_are_the_numbers_that_came() -> None:
    windows = np.arange(-12, 12).reshape(2, 3, 4)
    found = bodies.windows_of_json({"windows": windows.tolist()})
    assert found.dtype == np.int64 and np.array_equal(found, windows)


def stream_of(columns: dict[str, Any], told: Any = None, **options: Any) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    ipc = pytest.importorskip("pyarrow.ipc")
    batch = pyarrow.RecordBatch.from_pydict(columns)
    sink = io.BytesIO()
    with ipc.new_stream(sink, batch.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(batch, custom_metadata=told)
    return sink.getvalue()


def without_compression_field(stream: bytes) -> bytes:
    """The stream whose batches do not say in their own field that they are compressed."""
    ipc = pytest.importorskip("pyarrow.ipc")
    changed = bytearray(stream)
    for message in ipc.MessageReader.open_stream(stream):
        if message.type == "record batch":
            data = message.metadata.to_pybytes()
            (root,) = struct.unpack_from("<I", data, 0)
            header = root + arrow_tables._slot(data, root, 2)
            table = header + struct.unpack_from("<I", data, header)[0]
            (back,) = struct.unpack_from("<i", data, table)
            struct.pack_into("<H", changed, stream.index(data) + table - back + 4 + 2 * 3, 0)
    return bytes(changed)


def test_a_batch_that_says_by_its_metadata_that_it_is_compressed_is_not_unpacked() -> None:
    ipc = pytest.importorskip("pyarrow.ipc")
    zeros = {"price": np.zeros(1_000_000)}
    told = {"ARROW:experimental_compression": "ZSTD"}
    old = without_compression_field(
        stream_of(zeros, told, metadata_version=ipc.MetadataVersion.V4, compression="zstd"))
    assert len(old) < 10_000
    with ipc.open_stream(old) as reader:
        assert reader.read_next_batch().nbytes == 8_000_000  # Arrow itself unpacks it
    with pytest.raises(InputError, match="version 5 without metadata"):
        arrow_tables.request_of(old, 2_000_000)
    with pytest.raises(InputError, match="version 5 without metadata"):
        arrow_tables.request_of(stream_of(COLUMNS, told), 3)
    with pytest.raises(InputError, match="version 5 without metadata"):
        arrow_tables.request_of(stream_of(COLUMNS, metadata_version=ipc.MetadataVersion.V4), 3)
    assert len(arrow_tables.request_of(stream_of(COLUMNS), 3)["orders"]) == 3


def test_rows_are_counted_before_a_column_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    ipc = pytest.importorskip("pyarrow.ipc")
    stream = stream_of(COLUMNS)
    monkeypatch.setattr(ipc, "open_stream", None)
    with pytest.raises(TooLargeError, match="at most 2 rows"):
        arrow_tables.request_of(stream, 2)


@pytest.mark.parametrize("kind", ["timestamp", "duration"])
def test_times_beyond_what_nanoseconds_hold_are_refused(kind: str) -> None:
    from marsjax.data import frames

    pyarrow = pytest.importorskip("pyarrow")
    times = pyarrow.array([1, 2**62, 1], getattr(pyarrow, kind)("s"))
    record = arrow_tables.request_of(stream_of(COLUMNS | {"time": times}), 3)
    with pytest.raises(InputError, match="row 1, column time: expected a time that nanoseconds in 64 bits hold"):
        frames.from_frame(record["orders"])


def test_an_answer_to_a_body_that_is_not_read_closes_the_connection() -> None:
    closing = {status for status in (400, 401, 406, 408, 413, 415, 503, 504)
               if RefusedError(status, "").headers().get("connection") == "close"}
    assert closing == {408, 413}
