"""The report of stylized facts as its user meets it: files, table, exclusions, and one line for a bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from marsjax.analysis import bars
from marsjax.core import int64, times
from marsjax.core.times import SECOND_NS
from marsjax.experiments import config, launcher
from marsjax.experiments import stylized_facts as experiment
from marsjax.studies import bars as made_bars
from marsjax.studies import rollout_summary
from tests.experiments.conftest import Launch, Ran
from tests.helpers import fixture_folder

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "stylized_facts.py"
FOLDER = fixture_folder().absolute() / "stylized_facts"
GOLDEN = FOLDER / "minutes.csv.gz"


Run = Callable[..., Ran]


@pytest.fixture
def run(launch: Launch) -> Run:
    """Runs the experiment; the first argument is the config's."""
    def call(argument: str, *overrides: str) -> Ran:
        config = f"--config={CONFIG}:{argument},output=out"
        return launch("stylized_facts", experiment.main, config, "--config.resamples=20", *overrides)

    return call


def said(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "verdicts.json").read_text())


def test_a_file_of_bars_becomes_tables_figures_and_verdicts(tmp_path: Path, run: Run) -> None:
    ran = run(f"bars,file={GOLDEN}")
    assert ran.code == 0 and ran.err == "", ran.err
    names = ("cont1", "cont2", "cont3", "cont5", "cont6", "cont7", "cont9", "cont10", "cont11", "cont11_difference")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([
        *(f"{name}.csv" for name in names), *(f"fact_{fact:02d}.png" for fact in range(1, 12)),
        ".marsjax-run", "excluded.csv", "facts.png", "verdicts.json", "verdicts.md"])
    for name in names[:-1]:
        mine, golden = (pd.read_csv(path, dtype={"symbol": str}) for path in (
            tmp_path / "out" / f"{name}.csv", FOLDER / f"{name}.csv.gz"))
        pd.testing.assert_frame_equal(mine, golden, rtol=1e-9, atol=1e-9)
    lines = (tmp_path / "out" / "verdicts.md").read_text().splitlines()
    assert lines[0] == "| fact | Replay | Simulation | paper |" and len(lines) == 13
    assert "\n".join(lines) in ran.out and "300 rollouts, none left out" in ran.out
    report = said(tmp_path)
    assert [(x["source"], x["fact"]) for x in report["verdicts"]] == [
        (source, fact) for source in ("Replay", "Simulation") for fact in range(1, 12)]
    assert {x["answer"] for x in report["verdicts"]} <= {"present", "absent", "cannot tell"}
    assert report["rollouts"] == 300 and report["excluded"] == {} and report["minutes"] == 26


def test_bad_rollouts_are_said_counted_and_listed(tmp_path: Path, run: Run) -> None:
    table = bars.read(GOLDEN).frame()
    of = {name: np.flatnonzero((table["source"] == source) & (table["symbol"] == symbol) & (table["rollout"] == 1))
          for name, source, symbol in (("gap", "Replay", "000001"), ("none", "Simulation", "000002"))}
    table.loc[of["none"][3], "price_last"] = np.nan
    bars.write(tmp_path / "bad.csv", bars.from_frame(table.drop(of["gap"][5])))
    ran = run("bars,file=bad.csv", "--config.pictures=false")
    assert ran.code == 0
    assert "298 rollouts; left out 2:\n  Replay: 1 (a minute without a bar)\n" in ran.out
    report = said(tmp_path)
    assert report["rollouts"] == 298 and report["excluded"]["Replay"] == {"a minute without a bar": 1}
    listed = pd.read_csv(tmp_path / "out" / "excluded.csv", dtype=str).to_numpy().tolist()
    assert listed == [["Replay", "000001", "1", "a minute without a bar"],
                      ["Simulation", "000002", "1", "a price that is missing, infinite or not above 0"]]
    assert not list((tmp_path / "out").glob("*.png"))


def test_two_files_are_one_report(tmp_path: Path, run: Run) -> None:
    table = bars.read(GOLDEN)
    for source in ("Replay", "Simulation"):
        bars.write(tmp_path / f"{source}.csv.gz", table.where(table.source == source))
    ran = run("bars,file=Replay.csv.gz+Simulation.csv.gz", "--config.pictures=false")
    assert ran.code == 0 and said(tmp_path)["input"] == {"rows": {"Replay.csv.gz": 3900, "Simulation.csv.gz": 3900}}
    mine = pd.read_csv(tmp_path / "out" / "cont6.csv", dtype={"symbol": str})
    pd.testing.assert_frame_equal(mine, pd.read_csv(FOLDER / "cont6.csv.gz", dtype={"symbol": str}), rtol=1e-9)


BAD: dict[str, tuple[str, str]] = {
    "no file named": ("bars", "config.file: expected a path, or several joined by + (bars,file=PATH), got ''"),
    "no such file": ("bars,file=none.csv", "none.csv: no such file of bars"),
    "no archive": ("rollout_info,file=bad.csv", "bad.csv: "),
    "columns": ("bars,file=bad.csv", "bad.csv: expected columns symbol, rollout, source"),
    "nothing left": ("bars,file=one.csv", "0 rollouts; left out 1:; Replay: 1 (fewer bars)"),
    "no folder": ("sse,folder=nowhere", "config.folder: no folder nowhere"),
    "no bars": ("bars,file=none_at_all.csv", "0 rollouts, none left out: expected complete rollouts of 26 minutes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_no_output(tmp_path: Path, run: Run, name: str) -> None:
    argument, message = BAD[name]
    header = ",".join(bars.COLUMNS)
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "one.csv").write_text(f"{header}\nA,0,Replay,2024-03-06 10:23:00,1,1,1,1,1\n")
    (tmp_path / "none_at_all.csv").write_text(f"{header}\n")
    ran = run(argument)
    assert ran.code == launcher.FAILED and ran.err.startswith("error: ") and ran.err.count("\n") == 1
    assert message in ran.err and not (tmp_path / "out").exists()


def test_rollouts_become_bars_without_those_that_were_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seam to the rollouts: arrays as `rollout.Bars` has them, three trajectories of which one is lost."""
    dense: Any = NamedTuple("Dense", [(name, Any) for name in (
        "price_last", "mid_twice_last", "mid_twice_sum", "price_sum", "priced", "orders", "volume")])(
            np.array([[100, 101], [-1, 102], [7, 7]]), np.array([[201, 203], [205, 207], [1, 1]]),
            int64.of_int32(np.array([[400, 609], [0, 206], [1, 1]], np.int32)),
            int64.of_int32(np.array([[99, 303], [0, 102], [1, 1]], np.int32)),
            np.array([[1, 3], [0, 1], [1, 1]]), np.array([[2, 3], [0, 1], [1, 1]]),
            int64.of_int32(np.array([[10, 20], [0, 30], [1, 1]], np.int32)))
    simulated: Any = NamedTuple("Run", [("bars", Any)])(dense)
    start: Any = NamedTuple("Start", [("time", Any)])(times.from_ns(36_000 * SECOND_NS))
    monkeypatch.setattr(rollout_summary, "is_lost", lambda run: np.array([False, False, True]))
    got = made_bars.of_rollout(simulated, start, "noise_3", made_bars._NO_DATE, first=5).frame()
    assert got["rollout"].tolist() == [5, 5, 6] and set(got["symbol"]) == {"noise_3"}
    assert got["time"].dt.strftime("%H:%M").tolist() == ["10:00", "10:01", "10:01"]
    assert got["price_last"].tolist() == [100, 101, 102] and got["price_mid"].tolist() == [100, 101.5, 103]
    assert got["price_mean"].tolist() == [99, 101, 102]
    assert got["price_mid_last"].tolist() == [100.5, 101.5, 103.5] and got["volume"].tolist() == [10, 20, 30]


def test_a_replayed_day_becomes_stretches_of_its_minutes(tmp_path: Path) -> None:
    """A buyer takes 300 shares in the first half minute, a seller 40 in the next, a delete is the last order."""
    columns = "MDDate,MDTime,OrderType,OrderPrice,OrderQty,OrderBSFlag,ApplSeqNum,OrderNO,SecurityID"
    added = ["09:15:00.000,2,10.01,100,2,1,10", "09:15:00.010,2,10.02,200,2,2,20", "09:15:00.020,2,10.00,50,1,3,5",
             "09:15:00.030,2,10.00,50,2,4,15", "09:30:01.500,2,10.03,70,1,8,30", "09:31:00.000,10,10.03,30,1,10,30"]
    traded = ["09:25:00.000,5,15,0,10.00,50,5", "09:30:01.500,30,10,1,10.01,100,6",
              "09:30:01.500,30,20,1,10.02,200,7", "09:30:59.990,30,40,2,10.03,40,9"]
    header = "MDDate,MDTime,TradeBuyNo,TradeSellNo,TradeBSFlag,TradePrice,TradeQty,ApplSeqNum,SecurityID"
    for name, first, rows in (("orders", columns, added), ("trades", header, traded)):
        text = "\n".join([first, *(f"2023.07.11,{row},600000.SH" for row in rows)]) + "\n"
        (tmp_path / f"600000_20230711_{name}.csv").write_text(text)
    chosen = config.load(CONFIG, f"sse,folder={tmp_path}")
    config.override(chosen, ["--config.capacity=64", "--config.trade_width=16",
                             "--config.chunk_orders=128", "--config.minutes=3"])
    got = experiment.gather(chosen).bars.frame()
    assert got["time"].astype(str).tolist() == ["2023-07-11 09:30:00", "2023-07-11 09:31:00"]
    assert set(got["source"]) == {"Replay"} and set(got["symbol"]) == {"600000"} and set(got["rollout"]) == {0}
    assert got["price_last"].tolist() == [100_200, 100_300] and got["volume"].tolist() == [300, 40]


@pytest.mark.parametrize("mode", ["default", "bars", "rollout_info", "sse", "noise"])
def test_every_mode_has_a_config_and_an_unknown_source_is_refused(mode: str) -> None:
    chosen = config.load(CONFIG, mode)
    assert chosen.source == mode and chosen.output == ""
    chosen.source = "foo"
    with pytest.raises(ValueError, match=r"config\.source: expected default, bars, rollout_info, .*sse.*, got 'foo'"):
        experiment.gather(chosen)
