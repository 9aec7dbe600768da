"""The replay experiment as its user meets it: the files of a run agree, and bad inputs are one line and leave nothing.

Most runs are in this process, through the launcher; all of them share the sizes of SMALL, so that they compile once.
"""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marsjax.experiments import launcher
from marsjax.experiments import replay as experiment
from tests.experiments.conftest import Launch, Ran
from tests.helpers import fixture_folder

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "replay.py"
SMALL = ("--config.capacity=64", "--config.trade_width=16", "--config.accounts=2", "--config.chunk_orders=128")
ORDERS = "MDDate,MDTime,OrderType,OrderPrice,OrderQty,OrderBSFlag,ApplSeqNum,OrderNO,SecurityID"
TRADES = "MDDate,MDTime,TradeBuyNo,TradeSellNo,TradeBSFlag,TradePrice,TradeQty,ApplSeqNum,SecurityID"
# An opening auction of 50 shares at 10.00, a buyer (30) that takes two asks and rests, a seller (40), a delete.
ADDED = ["09:15:00.000,2,10.01,100,2,1,10", "09:15:00.010,2,10.02,200,2,2,20", "09:15:00.020,2,10.00,50,1,3,5",
         "09:15:00.030,2,10.00,50,2,4,15", "09:30:01.500,2,10.03,70,1,8,30", "09:31:00.000,10,10.03,30,1,10,30"]
TRADED = ["09:25:00.000,5,15,0,10.00,50,5", "09:30:01.500,30,10,1,10.01,100,6", "09:30:01.500,30,20,1,10.02,200,7",
          "09:30:59.990,30,40,2,10.03,40,9"]
NEUTRAL = "time_ns,type,price,volume,order_id,cancel_type,cancel_id,agent_id"
ROWS = ["34200000000000,B,99600,100,1,None,-1,0", "34201000000000,S,99700,100,2,None,-1,1",
        "34202000000000,C,99600,50,-1,B,1,0"]


Run = Callable[..., Ran]


@pytest.fixture
def run(launch: Launch) -> Run:
    """Runs the experiment in this process; the first argument is the config's."""
    def call(argument: str, *overrides: str) -> Ran:
        return launch("replay", experiment.main, f"--config={CONFIG}:{argument},output=out", *SMALL, *overrides)

    return call


def run_program(folder: Path, argument: str, *overrides: str) -> Ran:
    """Runs the experiment as a program, in a folder."""
    cache = str(folder / "cache")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": cache}
    command = [sys.executable, "-m", "marsjax.experiments.replay", f"--config=replay:{argument},output=out", *SMALL]
    result = subprocess.run([*command, *overrides], cwd=folder, env=environment, capture_output=True, text=True,
                            timeout=200, check=False)
    return Ran(result.returncode, result.stdout, result.stderr)


def write_sse(folder: Path, added: list[str] = ADDED, traded: list[str] = TRADED,
              headers: tuple[str, str] = (ORDERS, TRADES), suffix: str = ".csv") -> list[Path]:
    paths = []
    for name, header, rows in (("orders", headers[0], added), ("trades", headers[1], traded)):
        text = "\n".join([header, *(f"2023.07.11,{row},600000.SH" for row in rows)]) + "\n"
        paths.append(folder / f"600000_20230711_{name}{suffix}")
        paths[-1].write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    return paths


def write_csv(folder: Path, rows: list[str], header: str = NEUTRAL) -> None:
    (folder / "orders.csv").write_text("\n".join([header, *rows]) + "\n")


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "summary.json").read_text())


def table(folder: Path, market: str, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "out" / market / f"{name}.csv.gz", keep_default_na=False, na_values=[""])


def assert_files_agree(folder: Path, market: str) -> None:
    """The tables of one market and its summary tell the same story."""
    facts = summary(folder)["markets"][market]
    orders, trades, states = (table(folder, market, name) for name in ("orders", "transactions", "snapshots"))
    fills = trades[trades["type"] != "C"]
    assert facts["conserved"] and facts["orders"] == facts["accepted"] + facts["rejected"] == len(orders) == len(states)
    assert facts["trades"] == len(fills)
    auctions = sum(x["volume"] for x in facts["auctions"])
    assert facts["volume"] == fills["volume"].sum() + auctions
    assert facts["value"] == (fills["price"] * fills["volume"]).sum() + sum(
        x["price"] * x["volume"] for x in facts["auctions"])
    assert states["i"].tolist() == list(range(len(orders)))
    assert facts["last_price"] == (states["last_price"].iloc[-1] if len(fills) else None)
    cancels = trades[trades["type"] == "C"]
    sent = orders.iloc[cancels["i"]]
    assert (sent["type"] == "C").all()
    assert (sent["volume"].to_numpy() == cancels["volume"].to_numpy()).all()
    assert (np.maximum(cancels["buy_id"], cancels["sell_id"]).to_numpy() == sent["cancel_id"].to_numpy()).all()
    aggressor = orders.iloc[fills["i"]]
    assert (aggressor["type"].to_numpy() == fills["type"].to_numpy()).all()
    own = np.where(fills["type"] == "B", fills["buy_id"], fills["sell_id"])
    assert (aggressor["order_id"].to_numpy() == own).all()
    for found in (orders, trades, states):
        assert {"i", "time_ns", "clock", "phase", "status", "price_unit", "volume_unit"} <= set(found)
        for name in ("time_ns", "clock", "phase", "status"):
            assert (found[name].to_numpy() == orders[name].iloc[found["i"]].to_numpy()).all(), name


@pytest.mark.slow
def test_noise_by_the_command_line_writes_everything_and_the_same_again_for_a_seed(tmp_path: Path, run: Run) -> None:
    ran = run_program(tmp_path, "noise", "--config.minutes=3", "--config.seed=4", "--config.markets=2")
    assert ran.code == 0, ran.err
    assert "error" not in ran.err
    assert ran.out.startswith("replay on 1 x cpu (cpu)") and "results in out" in ran.out
    first = ran.out.rsplit("; look at ", 1)[1].removesuffix(" first\n")
    assert (tmp_path / "out" / first).is_file() and first.endswith("day.png")
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    names = ("day.png", "orders.csv.gz", "snapshots.csv.gz", "transactions.csv.gz")
    assert files == [".marsjax-run", *(f"noise_{i}/{name}" for i in range(2) for name in names), "summary.json"]
    whole = summary(tmp_path)
    assert whole["total"]["conserved"] and whole["config"]["seed"] == 4
    assert whole["total"]["orders"] == sum(market["orders"] for market in whole["markets"].values())
    for market in ("noise_0", "noise_1"):
        assert_files_agree(tmp_path, market)
        assert 150 < whole["markets"][market]["orders"] < 250 and whole["markets"][market]["rejected"] == 0

    # Again here: the same transactions.
    (tmp_path / "out").rename(tmp_path / "first")
    ran = run("noise", "--config.minutes=3", "--config.seed=4", "--config.markets=2", "--config.picture=false")
    assert ran.code == 0, ran.err
    for name in (f"noise_{i}/{table}.csv.gz" for i in range(2) for table in ("orders", "transactions", "snapshots")):
        first = gzip.decompress((tmp_path / "first" / name).read_bytes())
        assert first == gzip.decompress((tmp_path / "out" / name).read_bytes())
    assert not (tmp_path / "out" / "noise_0" / "day.png").exists()


def test_a_golden_stream_comes_out_as_the_golden_transactions_and_snapshots(tmp_path: Path, run: Run) -> None:
    source = fixture_folder().absolute() / "book_noise_orders.csv.gz"
    ran = run(f"csv,file={source}", "--config.capacity=1024", "--config.trade_width=64", "--config.accounts=16")
    assert ran.code == 0, ran.err
    for name in ("transactions", "snapshots"):
        mine = table(tmp_path, "book_noise_orders", name)
        golden = pd.read_csv(fixture_folder() / f"book_noise_{name}.csv.gz", keep_default_na=False)
        common = [column for column in golden if column not in ("mid_price", "spread")]
        # In the golden files 0 and -1 stand for a price that is not there.
        prices = [column for column in common if "price" in column]
        assert not (mine[prices] <= 0).any(axis=None)
        golden[prices] = golden[prices].where(golden[prices] > 0)
        pd.testing.assert_frame_equal(mine[common], golden[common], check_dtype=False)
        if name == "snapshots":
            both = mine["ask_price_1"].notna() & mine["bid_price_1"].notna()
            assert (~both).any() and mine.loc[~both, ["mid_price", "spread"]].isna().all(axis=None)
            np.testing.assert_array_equal(mine["spread"][both], golden["spread"][both])
            mid = (mine["ask_price_1"] + mine["bid_price_1"]) / 2
            np.testing.assert_array_equal(mine["mid_price"][both], mid[both])
    columns = pd.read_csv(source, keep_default_na=False)
    pd.testing.assert_frame_equal(table(tmp_path, "book_noise_orders", "orders")[["time_ns", "type", "volume"]],
                                  columns[["time_ns", "type", "volume"]])
    assert_files_agree(tmp_path, "book_noise_orders")


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_small_shanghai_day_equals_what_was_published(tmp_path: Path, run: Run, suffix: str) -> None:
    write_sse(tmp_path, suffix=suffix)
    ran = run("sse,folder=.")
    assert ran.code == 0, ran.err
    assert "3 fills and 2 auctions equal to those published" in ran.out
    facts = summary(tmp_path)["markets"]["600000_20230711"]
    assert facts["published_fills"]["equal"] and facts["published_fills"]["compared"] == 3
    assert facts["auctions"][0] | {"price": 100_000, "volume": 50, "orders": 2} == facts["auctions"][0]
    assert (facts["trades"], facts["volume"], facts["rejected"]) == (3, 50 + 340, 0)
    assert_files_agree(tmp_path, "600000_20230711")
    auctions = table(tmp_path, "600000_20230711", "auctions")
    assert auctions[["type", "order_id", "volume"]].to_numpy().tolist() == [["S", 15, 50], ["B", 5, 50]]


def test_prices_in_the_currency_and_the_files_of_lobster(tmp_path: Path, run: Run) -> None:
    write_csv(tmp_path, [*ROWS, "34203000000000,B,99700,30,4,None,-1,1"])
    ran = run("csv,file=orders.csv", "--config.prices=currency", "--config.write_lobster=true", "--config.currency=USD")
    assert ran.code == 0, ran.err
    orders, trades, states = (table(tmp_path, "orders", name) for name in ("orders", "transactions", "snapshots"))
    assert orders["price"].tolist() == [9.96, 9.97, 9.96, 9.97] and set(orders["price_unit"]) == {"1 USD"}
    assert trades[["i", "type", "price", "volume"]].to_numpy().tolist() == [[2, "C", 9.96, 50], [3, "B", 9.97, 30]]
    assert states["ask_price_1"].isna().tolist() == [True, False, False, False] and np.isnan(states["spread"][0])
    np.testing.assert_allclose(states["mid_price"][1:], 9.965)
    message, book = sorted((tmp_path / "out" / "orders").glob("orders_undated_*.csv"))
    assert [line.split(",")[1:] for line in message.read_text().split()] == [
        ["1", "1", "100", "99600", "1"], ["1", "2", "100", "99700", "-1"], ["2", "1", "50", "99600", "1"],
        ["4", "2", "30", "99700", "-1"]]
    assert book.read_text().split()[-1].startswith("99700,70,99600,50,9999999999,0,-9999999999,0,")


def test_orders_outside_of_the_session_are_exit_3_and_name_the_keys(tmp_path: Path, run: Run) -> None:
    write_csv(tmp_path, [*ROWS, "34203000000000,C,99600,10,-1,B,1,0"])
    ran = run("csv,file=orders.csv", "--config.start_time=09:30:01")
    assert ran.code == 3
    closed, follow = ran.err.splitlines()
    assert closed == ("orders: 1 orders refused as CLOSED, of 09:30:00.000 to 09:30:00.000: set config.session (or "
                      "config.start_time, config.end_time) to the hours of the feed")
    assert follow == "orders: 2 cancels refused as UNKNOWN_ID, of orders that were refused"
    assert summary(tmp_path)["markets"]["orders"]["refused"] == {"UNKNOWN_ID": 2, "CLOSED": 1}


def test_a_day_that_differs_from_what_was_published_is_written_and_named(tmp_path: Path, run: Run) -> None:
    # The seller hits an order whose price is not the best: the exchange cannot have done that.
    write_sse(tmp_path, [*ADDED[:4], "09:30:01.000,2,9.99,70,1,6,31", "09:30:02.000,2,9.90,70,1,8,32"],
              ["09:25:00.000,5,15,0,10.00,50,5", "09:30:59.990,32,40,2,9.90,40,9"])
    ran = run("sse,folder=.")
    assert ran.code == launcher.INCOMPLETE == 3
    assert "600000_20230711: differs from the published trades: fill 0: published buy_id=32" in ran.err
    assert summary(tmp_path)["markets"]["600000_20230711"]["published_fills"]["different"] == 1


def test_capacity_too_small_is_exit_3_with_a_summary_and_names_the_capacity(tmp_path: Path, run: Run) -> None:
    write_csv(tmp_path, [f"34200000000000,B,{99_600 - 100 * i},100,{i},None,-1,0" for i in range(70)])
    ran = run("csv,file=orders.csv")
    assert ran.code == 3
    assert ran.err == "orders: 6 orders refused, a side was full: set config.capacity above 64\n"
    facts = summary(tmp_path)["markets"]["orders"]
    assert (facts["rejected"], facts["rejected_by_status"], facts["most_resting_bids"]) == (6, {"SIDE_FULL": 6}, 64)


def test_cut_lists_are_exit_3_and_name_the_key(tmp_path: Path, run: Run) -> None:
    write_csv(tmp_path, [*(f"34200000000000,S,99600,100,{i},None,-1,0" for i in range(20)),
                         "34201000000000,B,99600,1900,20,None,-1,1"])
    ran = run("csv,file=orders.csv")
    assert ran.code == 3
    assert ran.err == "orders: 1 lists of transactions were cut: raise config.trade_width\n"
    assert summary(tmp_path)["markets"]["orders"]["trades"] == 19


def test_agents_without_an_account_are_exit_3_and_name_the_key(tmp_path: Path, run: Run) -> None:
    write_csv(tmp_path, [*ROWS, "34203000000000,B,99600,100,4,None,-1,2"])
    ran = run("csv,file=orders.csv")
    assert ran.code == 3
    assert ran.err == "orders: 1 orders refused, their agent has no account: raise config.accounts to 3\n"
    assert summary(tmp_path)["markets"]["orders"]["rejected_by_status"] == {"BAD_ACCOUNT": 1}


def truncated(folder: Path) -> None:
    orders, _ = write_sse(folder, suffix=".csv.gz")
    orders.write_bytes(orders.read_bytes()[:-20])


def replaced(rows: list[str], index: int, row: str) -> list[str]:
    return [row if i == index else old for i, old in enumerate(rows)]


SSE, CSV = "sse,folder=.", "csv,file=orders.csv"
Prepare = Callable[[Path], Any]
BAD_INPUTS: dict[str, tuple[str, Prepare, list[str]]] = {
    "truncated gzip": (SSE, truncated, ["600000_20230711_orders.csv.gz: line ", "expected a whole gzip file"]),
    "number": (SSE, lambda folder: write_sse(folder, replaced(ADDED, 1, "09:15:00.010,2,10.0x2,200,2,2,20")),
               ["600000_20230711_orders.csv: line 3, column OrderPrice: expected a number, got 10.0x2"]),
    "column": (SSE, lambda folder: write_sse(folder, headers=(ORDERS.replace("OrderQty", "Qty"), TRADES)),
               ["600000_20230711_orders.csv: line 1: expected columns OrderQty, got"]),
    "unknown order": (SSE, lambda folder: write_sse(folder, traded=replaced(
        TRADED, 2, "09:30:01.500,30,21,1,10.02,200,7")),
        ["600000_20230711_trades.csv: line 4, column TradeSellNo: ", "unknown order", "got 21"]),
    "sse time": (SSE, lambda folder: write_sse(folder, replaced(ADDED, 2, "09:14:59.000,2,10.00,50,1,3,5")),
                 ["600000_20230711_orders.csv: line 4, column MDTime: expected no time before", "got "]),
    "csv number": (CSV, lambda folder: write_csv(folder, replaced(ROWS, 1, "34201000000000,S,9970O,100,2,None,-1,1")),
                   ["orders.csv: line 3, column price: expected a number, got 9970O"]),
    "csv column": (CSV, lambda folder: write_csv(folder, ROWS, NEUTRAL.replace("volume", "size")),
                   ["orders.csv: line 1: expected columns volume, got"]),
    "csv time": (CSV, lambda folder: write_csv(folder, [ROWS[1], ROWS[0]]),
                 ["orders.csv: line 3, column time_ns: expected no time before", "got 34200000000000"]),
    "csv missing": ("csv,file=nothing.csv", lambda folder: None, ["nothing.csv: no such file"]),
    "csv not named": ("csv", lambda folder: None, ["config.file: expected the path of a CSV"]),
    "no folder": ("sse,folder=nowhere", lambda folder: None, ["config.folder: no folder nowhere"]),
    "no lobster folder": ("lobster,folder=nowhere", lambda folder: None, ["config.folder: no folder nowhere"]),
    "no such symbol": ("sse,folder=.,symbol=600001", write_sse, ["symbol=600001", "found: 600000_20230711"]),
    "no such date": ("sse,folder=.,date=20230712", write_sse, ["date=20230712", "found: 600000_20230711"]),
    "empty folder": ("lobster,folder=.", lambda folder: None, ["SYMBOL_DATE"]),
}


def assert_one_line(ran: Ran, code: int, *parts: str) -> None:
    assert ran.code == code, ran.err
    assert ran.err.startswith("error: ") and ran.err.count("\n") == 1, ran.err
    for part in parts:
        assert part in ran.err


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_is_one_line_and_leaves_no_output(tmp_path: Path, run: Run, name: str) -> None:
    argument, prepare, parts = BAD_INPUTS[name]
    prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert_one_line(run(argument), launcher.FAILED, *parts)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("argument", "override", "parts"), [
    (CSV, "--config.capacity=-1", ["config.capacity: expected 1 to ", "got -1"]),
    ("noise", "--config.capacity=0", ["config.capacity: expected 1 to ", "got 0"]),
    (CSV, "--config.auction_rule=foo", ["config.auction_rule: expected feed, reference, shanghai, ", "got 'foo'"]),
    (CSV, "--config.accounts=-1", ["config.accounts: expected at least 0", "got -1"]),
    (CSV, "--config.tables=xml", ["config.tables: expected csv or parquet, got 'xml'"]),
    (CSV, "--config.prices=euros", ["prices: expected currency or integer, got 'euros'"]),
    (CSV, "--config.price_unit=0", ["Units.price: expected text of a number from 1e-12"]),
    (CSV, "--config.tick=-1", ["config.tick", "got -1"]),
    (CSV, "--config.session=foo", ["config.session: expected feed, chinese or continuous, got 'foo'"]),
    (CSV, "--config.source=foo", ["config.source: expected noise, coinbase, csv, ", "got 'foo'"]),
    (CSV, "--config.start_time=9am", ["config.start_time: expected a time HH:MM:SS, got '9am'"]),
    (CSV, "--config.chunk_orders=0", ["chunk_orders of at least 1, got 0"]),
    ("noise", "--config.minutes=0", ["config.minutes: expected at least 1, got 0"]),
    ("noise", "--config.markets=0", ["config.markets: expected at least 1, got 0"]),
    ("noise", "--config.seed=-1", ["seed", "got -1"]),
    ("noise", "--config.interval_s=0", ["NoiseSpec.interval_ns", "got 0"]),
    ("noise", "--config.init_price=0", ["NoiseSpec.init_price", "got 0"]),
    ("noise", "--config.start_time=15:45:00", ["expected continuous trading from"]),
    ("noise", "--config.session=chinese", ["expected continuous trading from"]),
])
def test_a_bad_value_is_one_line_and_leaves_no_output(tmp_path: Path, run: Run, argument: str, override: str,
                                                      parts: list[str]) -> None:
    write_csv(tmp_path, ROWS)
    overrides = [override, "--config.end_time=16:00:00"]
    if override == "--config.session=chinese":
        overrides += ["--config.start_time=11:15:00"]
    assert_one_line(run(argument, *overrides), launcher.FAILED, *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["orders.csv"]


@pytest.mark.parametrize(("argument", "override", "parts"), [
    (CSV, "--config.capacty=64", ["unknown key capacty", "capacity"]),
    (CSV, "--config.capacity=many", ["--config.capacity: expected int", "got 'many'"]),
    ("cvs,file=orders.csv", "--config.tick=100", ["'cvs' is unknown; known are: noise, coinbase, csv, "]),
])
def test_a_wrong_command_line_is_exit_2(tmp_path: Path, run: Run, argument: str, override: str,
                                        parts: list[str]) -> None:
    assert_one_line(run(argument, override), launcher.USAGE, *parts)
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_exists_is_kept_unless_it_may_be_replaced(tmp_path: Path, run: Run) -> None:
    def names() -> list[str]:
        return sorted(path.name for path in (tmp_path / "out").iterdir())

    write_csv(tmp_path, ROWS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("kept")
    foreign = "config.output: out exists and holds what marsjax did not write there (precious.txt)"
    for words in ((), ("--config.overwrite=true",)):
        assert_one_line(run(CSV, *words), launcher.FAILED, foreign)
        assert names() == ["precious.txt"]
    (tmp_path / "out" / "precious.txt").unlink()
    assert run(CSV).code == 0  # into an empty folder
    assert names() == [".marsjax-run", "orders", "summary.json"]
    assert_one_line(run(CSV), launcher.FAILED, "config.output: out exists", "by --config.overwrite=true")
    # A run that fails does not replace it either.
    write_csv(tmp_path, [*ROWS, ROWS[0]])
    before = (tmp_path / "out" / "summary.json").read_bytes()
    assert_one_line(run(CSV, "--config.overwrite=true"), launcher.FAILED, "line 5, column time_ns")
    assert (tmp_path / "out" / "summary.json").read_bytes() == before
    write_csv(tmp_path, ROWS)
    assert run(CSV, "--config.overwrite=true").code == 0
    assert names() == [".marsjax-run", "orders", "summary.json"]


def test_bad_input_by_the_command_line_is_one_line_and_exit_1(tmp_path: Path) -> None:
    write_csv(tmp_path, replaced(ROWS, 2, "34202000000000,X,99600,50,-1,B,1,0"))
    ran = run_program(tmp_path, CSV)
    assert_one_line(ran, 1, "orders.csv: line 4, column type: expected one of S, B, C, got X")
    assert sorted(path.name for path in tmp_path.iterdir()) in (["orders.csv"], ["cache", "orders.csv"])
