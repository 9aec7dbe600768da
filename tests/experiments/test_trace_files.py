"""The trace goes back to any mark and goes on from there to the same bytes; a damaged one is told."""

import errno
import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.experiments import trace_files
from marsjax.experiments.trace_files import TraceFiles
from marsjax.sim.saved_states import DamagedError

MARKET = MarketSpec()
NAMES = ("trace_orders.csv.gz", "trace_trades.csv.gz")


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a chunk that is one number: so many orders, and half as many trades."""
    def rows(part: int) -> Any:
        return lambda log, numbers: {"chunk": np.full(log // part, log), "row": np.arange(log // part)}

    monkeypatch.setattr(trace_files, "_TABLES", {"orders": rows(1), "trades": rows(2)})


def write(trace: TraceFiles, *chunks: Any) -> None:
    for chunk in chunks:
        trace(np.zeros(1, int), chunk)


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in NAMES]


def test_what_came_after_a_mark_is_cut_off_and_made_again(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("whole", "killed", "out")]
    for place in places:
        place.mkdir()
    write(TraceFiles(places[0], MARKET), 0, 3, 5, 1, 4)
    killed = TraceFiles(places[1], MARKET)
    write(killed, 0, 3)
    mark = killed.mark()
    write(killed, 5, 1)
    with open(places[1] / NAMES[0], "ab") as file:
        file.write(b"half a chunk")
    resumed = TraceFiles(places[1], MARKET)  # another process
    resumed.go_back(mark)
    write(resumed, 5, 1, 4)
    assert contents(places[1]) == contents(places[0])
    resumed.copy_to(places[2])
    assert contents(places[2]) == contents(places[0])
    table = pd.read_csv(io.BytesIO(gzip.decompress(contents(places[0])[0])))
    assert table["chunk"].tolist() == [3] * 3 + [5] * 5 + [1] + [4] * 4
    resumed.go_back(None)
    assert list(places[1].iterdir()) == []
    write(resumed, 0, 3, 5, 1, 4)
    assert contents(places[1]) == contents(places[0])


def test_a_trace_that_is_not_what_was_written_is_damaged_and_left_alone(tmp_path: Path) -> None:
    trace = TraceFiles(tmp_path, MARKET)
    write(trace, 3)
    mark = trace.mark()
    write(trace, 2)
    path = tmp_path / NAMES[1]
    whole = path.read_bytes()
    for content in (whole[:10], b"", b"\0" + whole[1:]):
        path.write_bytes(content)
        before = contents(tmp_path)
        with pytest.raises(DamagedError, match=r"trace_trades\.csv\.gz"):
            TraceFiles(tmp_path, MARKET).go_back(mark)
        assert contents(tmp_path) == before
    path.unlink()
    with pytest.raises(DamagedError, match=r"trace_trades\.csv\.gz beside it is missing"):
        TraceFiles(tmp_path, MARKET).go_back(mark)


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    trace = TraceFiles(tmp_path, MARKET)
    (tmp_path / NAMES[0]).symlink_to("/dev/full")
    with pytest.raises(OSError, match=NAMES[0]) as caught:
        write(trace, 3)
    assert caught.value.errno == errno.ENOSPC


def test_a_trace_does_not_go_on_in_another_form(tmp_path: Path) -> None:
    trace = TraceFiles(tmp_path, MARKET)
    write(trace, 3)
    with pytest.raises(InputError, match=r"config\.prices: the trace beside the saved states was begun with 'integer'"):
        TraceFiles(tmp_path, MARKET, "decimal").go_back(trace.mark())
