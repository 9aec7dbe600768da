"""The archive of the reference is read as data, whatever pickle protocol it is in, and nothing else is."""

import pickle
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import zstandard

from marsjax.analysis import bars, rollout_info
from marsjax.checkpoint import downloads
from marsjax.checkpoint.pickle import UnsafePickleError
from marsjax.core.errors import InputError
from marsjax.experiments import config as configs
from marsjax.experiments import stylized_facts as experiment
from tests.helpers import fixture_folder

MODULE = "market_simulation.examples.report_stylized_facts"
GOLDEN = bars.read(fixture_folder() / "stylized_facts" / "minutes.csv.gz").frame()
SMALL = GOLDEN[(GOLDEN["symbol"] < "000003") & (GOLDEN["rollout"] < 2)]


class MinuteInfo(NamedTuple):
    time: Any
    price_last: Any
    price_mean: float
    price_mid: float
    price_mid_last: float
    volume: float
    num_orders: int


class RolloutInfo(NamedTuple):
    symbol: str
    start_time: Any
    simulation_minutes: Any
    replay_minutes: Any


@pytest.fixture(autouse=True)
def publishers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the two classes those of the module that the publishers pickle them from, for the pickler."""
    parts = MODULE.split(".")
    for i in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:i]), types.ModuleType(parts[i - 1]))
    for one in (MinuteInfo, RolloutInfo):
        monkeypatch.setattr(one, "__module__", MODULE)
        setattr(sys.modules[MODULE], one.__name__, one)


def archive(table: pd.DataFrame = SMALL) -> list[Any]:
    found = []
    for (symbol, _), both in table.groupby(["symbol", "rollout"]):
        minutes = {source: [MinuteInfo(pd.Timestamp(row.time), row.price_last, row.price_mean, row.price_mid,
                                       row.price_mid_last, row.volume, 9) for row in rows.itertuples()]
                   for source, rows in both.groupby("source")}
        found.append(RolloutInfo(symbol, minutes["Replay"][0].time, minutes["Simulation"], minutes["Replay"]))
    return found


def write(folder: Path, record: Any, protocol: int = 4) -> Path:
    path = folder / "rollouts.zstd"
    path.write_bytes(zstandard.ZstdCompressor().compress(pickle.dumps(record, protocol=protocol)))
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_an_archive_gives_the_bars_that_went_in(tmp_path: Path, protocol: int) -> None:
    got, empty = rollout_info.read(write(tmp_path, archive(), protocol))
    keys = ["symbol", "rollout", "source", "time"]
    pd.testing.assert_frame_equal(got.frame().sort_values(keys, ignore_index=True),
                                  SMALL.sort_values(keys, ignore_index=True))
    assert empty == 0


def test_numpy_numbers_other_resolutions_and_empty_entries_are_read(tmp_path: Path) -> None:
    (one, *rest) = archive()
    minute = one.replay_minutes[0]
    seconds = minute._replace(time=minute.time.as_unit("s"), price_last=np.float64(7), price_mean=3)
    record = [None, one._replace(replay_minutes=[seconds, *one.replay_minutes[1:]]), [], *rest]
    got, empty = rollout_info.read(write(tmp_path, record))
    assert empty == 2 and len(got) == len(SMALL)
    row = np.flatnonzero((got.source == "Replay") & (got.symbol == one.symbol) & (got.rollout == 0))[0]
    assert (got.price_last[row], got.price_mean[row]) == (7, 3)
    assert got.time[row] == np.datetime64(minute.time.to_datetime64(), "s")


def test_classes_of_another_module_are_read_if_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "theirs", types.ModuleType("theirs"))
    for one in (MinuteInfo, RolloutInfo):
        monkeypatch.setattr(one, "__module__", "theirs")
        setattr(sys.modules["theirs"], one.__name__, one)
    path = write(tmp_path, archive())
    with pytest.raises(UnsafePickleError, match=r"'theirs'\.'RolloutInfo'|theirs"):
        rollout_info.read(path)
    assert len(rollout_info.read(path, "theirs")[0]) == len(SMALL)


def test_a_data_frame_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UnsafePickleError, match=r"DataFrame.* into a CSV of bars where you trust it: symbol, rollout"):
        rollout_info.read(write(tmp_path, SMALL))


class Shell:
    def __reduce__(self) -> Any:
        return print, ("run",)


def test_nothing_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnsafePickleError, match="print"):
        rollout_info.read(write(tmp_path, [Shell()]))
    assert capsys.readouterr().out == ""


def test_what_is_no_archive_is_named_with_its_place(tmp_path: Path) -> None:
    (one, *_) = archive()
    minute = one.replay_minutes[0]

    def with_first(**changes: Any) -> RolloutInfo:
        return one._replace(replay_minutes=[minute._replace(**changes)])

    for record, message in [
            ({"a": 1}, "expected a list of RolloutInfo, got a dict"),
            ([1], "entry 0: expected RolloutInfo of 4 fields, got a int"),
            ([one, minute], "entry 1: expected RolloutInfo of 4 fields, got MinuteInfo of 7"),
            ([one._replace(symbol=5)], "entry 0: expected a symbol, got 5"),
            ([one._replace(replay_minutes=3)], "entry 0, Replay: expected a list of MinuteInfo, got a int"),
            ([with_first(price_last="1")], "entry 0, Replay, minute 0, price_last: expected a number, got '1'"),
            ([one._replace(symbol="x" * 65)], "entry 0: expected a symbol, got 'xxx"),
            ([with_first(volume=1e300)], "minute 0, volume: expected a number below 2**53, got 1e+300"),
            ([with_first(price_mid=10**400)], "minute 0, price_mid: expected a number below 2**53, got an integer of"),
            ([with_first(time=pd.NaT)], "pandas._libs.tslibs.nattype"),
            ([with_first(time=pd.Timestamp("2260-01-01"))], "expected a time from 1700 to 2240, got 9151"),
            ([with_first(time=3)], "entry 0, Replay, minute 0: expected a time, got a int")]:
        with pytest.raises(ValueError, match=r"rollouts\.zstd") as raised:
            rollout_info.read(write(tmp_path, record))
        assert message in str(raised.value)
    with pytest.raises(FileNotFoundError, match=r"none\.zstd: no such archive"):
        rollout_info.read(tmp_path / "none.zstd")


def test_a_downloaded_archive_is_found_where_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARSJAX_HOME", str(tmp_path))
    chosen = configs.load(configs.named_configs()["stylized_facts"], "rollout_info")
    with pytest.raises(InputError, match=r"config\.file: expected the archive .*, and none was downloaded"):
        experiment.gather(chosen)
    dataset = tmp_path / "published" / "Don-Don" / "mars-order-assets"
    (dataset / downloads.FACTS).mkdir(parents=True)
    write(dataset / downloads.FACTS, archive())
    (dataset / downloads.RECORD).write_text('{"commit": "0", "files": []}')
    assert len(experiment.gather(chosen).bars) == len(SMALL)
