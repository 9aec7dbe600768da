"""A day replayed whole, as tables: by hand, joined by the running number, nothing that is not there as a number."""

import dataclasses
import decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marsjax.core.specs import MarketSpec, Units
from marsjax.data import neutral
from marsjax.data.feed import DayFeed, FeedChunk
from marsjax.market import orders
from marsjax.sim import Fees, Replayed, refusals, replay_day

HEADER = ",".join(neutral.COLUMNS)
ROWS = ["34200000000000,B,99600,300,1,None,-1,0", "34201000000000,B,99600,200,2,None,-1,1",
        "34202000000001,B,99500,100,3,None,-1,1", "34203000000000,S,99700,100,4,None,-1,1",
        "34204000000000,S,99600,400,5,None,-1,2", "34205000000000,C,99700,40,-1,S,4,1"]
UNITS = Units("0.0001", "1", "CNY")
SPEC = MarketSpec(capacity=16, trade_width=4, accounts=4, levels=3, units=UNITS)


def day(folder: Path, rows: list[str]) -> DayFeed:
    path = folder / "orders.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    (found,) = neutral.days(path)
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    return replay_day(day(tmp_path_factory.mktemp("day"), ROWS), SPEC, chunk_orders=8)


def test_orders_have_time_phase_status_and_units_and_no_price_that_is_not_there(done: Replayed) -> None:
    table = done.orders()
    assert table["i"].tolist() == [0, 1, 2, 3, 4, 5] and table["clock"][2] == "09:30:02.000000001"
    assert set(table["phase"]) == {"CONTINUOUS"} and set(table["status"]) == {"ACCEPTED"}
    assert set(table["price_unit"]) == {"1 CNY"} and table["price"].tolist() == [9.96, 9.96, 9.95, 9.97, 9.96, 9.97]
    assert table["traded"].tolist() == [0, 0, 0, 0, 400, 0] and table["bid"].tolist() == [9.96] * 6
    # A lone side: no ask, no mid and no spread, where the engine has 0, the bid and 1000.
    assert table[["ask", "mid_price", "spread"]].isna().all(axis=1).tolist() == [True] * 3 + [False] * 3
    np.testing.assert_allclose(table["mid_price"][3:], [9.965] * 3, rtol=1e-12)


def test_integers_are_those_of_the_engine(done: Replayed) -> None:
    table = done.orders("integer")
    assert table["price"].tolist()[:2] == [99_600, 99_600] and set(table["price_unit"]) == {"0.0001 CNY"}
    assert str(table["ask"].dtype) == "Int64" and table["ask"].isna().tolist() == [True] * 3 + [False] * 3
    with pytest.raises(ValueError, match="prices: expected currency or integer, got 'ticks'"):
        done.orders("ticks")


def test_tables_join_by_the_running_number(done: Replayed) -> None:
    trades, states, depth = done.trades(), done.snapshots(), done.depth()
    assert trades[["i", "k", "type", "price", "volume", "buy_id", "sell_id", "buy_agent_id", "sell_agent_id"]
                  ].to_numpy().tolist() == [[4, 0, "S", 9.96, 300, 1, 5, 0, 2], [4, 1, "S", 9.96, 100, 2, 5, 1, 2]]
    np.testing.assert_allclose(trades["value"], [2988, 996])
    joined = trades.merge(done.orders(), on="i", suffixes=("", "_of_order"))
    assert (joined["time_ns"] == joined["time_ns_of_order"]).all() and (joined["sell_id"] == joined["order_id"]).all()
    assert states["i"].tolist() == list(range(6)) and states["bid_volume_1"].tolist() == [300, 500, 500, 500, 100, 100]
    assert states["bid_price_2"].isna().tolist() == [True, True] + [False] * 4
    assert states["last_price"].isna().tolist() == [True] * 4 + [False] * 2
    last = depth[depth["i"] == 5][["side", "level", "price", "volume"]].to_numpy().tolist()
    assert last == [["ask", 1, 9.97, 60], ["bid", 1, 9.96, 100], ["bid", 2, 9.95, 100]]
    assert len(depth) == states.filter(regex="_price_[0-9]").notna().sum().sum()
    for table in (trades, states, depth, done.resting(), done.accounts(), done.auctions()):
        assert {"time_ns", "clock", "phase", "status", "price_unit", "volume_unit"} <= set(table)


def test_resting_orders_have_their_places_in_the_queue(tmp_path: Path, done: Replayed) -> None:
    rows = ["34200000000000,B,99600,300,1,None,-1,0", "34201000000000,B,99700,50,2,None,-1,1",
            "34202000000000,B,99600,200,3,None,-1,1", "34203000000000,B,99600,100,4,None,-1,-1"]
    queue = replay_day(day(tmp_path, rows), SPEC, chunk_orders=8).resting()
    assert queue[["order_id", "orders_ahead", "shares_ahead", "shares_before"]].to_numpy().tolist() == [
        [2, 0, 0, 0], [1, 0, 0, 50], [3, 1, 300, 350], [4, 2, 500, 550]]
    assert set(queue["status"]) == {"RESTING"} and done.resting()["side"].tolist() == ["ask", "bid", "bid"]


def test_accounts_balance_and_fees_are_those_of_who_came_and_who_rested(done: Replayed) -> None:
    table = done.accounts(fees=Fees(maker=-0.0001, taker=0.0003, taker_per_share=0.01)).set_index("agent_id")
    assert table.index.tolist() == [0, 1, 2, 3, -1] and set(table["status"]) == {"END"}
    assert table["holdings"].tolist() == [300, 100, -400, 0, 0] and table["holdings"].sum() == 0
    np.testing.assert_allclose(table["cash"], [-2988, -996, 3984, 0, 0])
    # The mark is the mid, 9.965.
    np.testing.assert_allclose(table["profit"], [300 * 0.005, 100 * 0.005, -400 * 0.005, 0, 0], atol=1e-9)
    np.testing.assert_allclose(table["fees"], [-0.2988, -0.0996, 3984 * 0.0003 + 4, 0, 0], atol=1e-9)
    np.testing.assert_allclose(table["net_profit"], table["profit"] - table["fees"])
    assert table["bid_resting_shares"].tolist() == [0, 200, 0, 0, 0] and table["ask_orders"].tolist() == [0, 1, 0, 0, 0]
    assert table["bid_shares_ahead"].isna().tolist() == [True, False, True, True, True]
    assert done.accounts()["fees"].eq(0).all()


def test_other_units_of_price_and_volume(tmp_path: Path) -> None:
    """Cents and 1e-8 coins."""
    spec = dataclasses.replace(SPEC, tick=1, units=Units("0.01", "0.00000001", "USD"))
    done = replay_day(day(tmp_path, ROWS), spec, chunk_orders=8)
    trades = done.trades()
    assert trades["price"].tolist() == [996.0, 996.0] and trades["volume"].tolist() == [3e-6, 1e-6]
    expected = [float(decimal.Decimal(99_600 * 300) * decimal.Decimal("1e-10")), 99_600 * 100 * 1e-10]
    np.testing.assert_allclose(trades["value"], expected, rtol=1e-12)
    assert set(trades["volume_unit"]) == {"1"} and set(done.trades("integer")["volume_unit"]) == {"0.00000001"}


def test_refused_orders_are_an_error_that_names_the_field_or_are_counted(tmp_path: Path) -> None:
    rows = [*ROWS, "57600000000001,B,99600,100,9,None,-1,0", "57600000000002,B,99610,100,10,None,-1,7",
            "57600000000003,C,0,100,-1,B,9,0"]
    feed = day(tmp_path, rows)
    with pytest.raises(ValueError) as raised:
        replay_day(feed, SPEC, chunk_orders=8)
    assert "3 orders refused as CLOSED, of 16:00:00.000 to 16:00:00.000: set MarketSpec.session" in str(raised.value)
    assert "allow_refused=True" in str(raised.value)
    done = replay_day(feed, SPEC, chunk_orders=8, allow_refused=True)
    assert done.refused.counts == {"CLOSED": 3}
    assert done.orders()["status"].tolist() == ["ACCEPTED"] * 6 + ["CLOSED"] * 3
    assert done.orders()["phase"].tolist() == ["CONTINUOUS"] * 6 + ["CLOSED"] * 3


@pytest.mark.parametrize(("row", "status", "message"), [
    ("34206000000000,B,99610,100,9,None,-1,0", "BAD_PRICE", "not in ticks of 100: set TICK to 10"),
    ("34206000000000,B,2000000000,100,9,None,-1,0", "BAD_PRICE", "1 of them below 1 or above 1073741823 units"),
    ("34206000000000,B,99600,100,9,None,-1,7", "BAD_ACCOUNT", "their agent has no account: raise ACCOUNTS to 8"),
    ("34206000000000,C,99600,100,-1,B,77,0", "UNKNOWN_ID", "1 cancels refused as UNKNOWN_ID, of orders that"),
    ("34206000000000,C,99600,900,-1,B,3,0", "OVER_CANCEL", "1 cancels refused as OVER_CANCEL, of more than rests"),
    ("34206000000000,B,99600,0,9,None,-1,0", "BAD_VOLUME", "1 orders refused as BAD_VOLUME"),
    ("34206000000000,C,99600,100,-1,B,1,0", "UNKNOWN_ID", ""),  # it has traded: a cancel that comes too late is no loss
])
def test_each_refusal_says_what_is_to_be_set(tmp_path: Path, row: str, status: str, message: str) -> None:
    done = replay_day(day(tmp_path, [*ROWS, row]), SPEC, chunk_orders=8, allow_refused=True)
    names = {name: name.upper() for name in refusals.SPEC_FIELDS}
    assert done.refused.counts == {status: 1}
    problems = done.refused.problems(names)
    assert (message in problems[0] and "\n" not in problems[0]) if message else problems == []


def test_what_a_feed_tells_of_is_no_problem_and_what_follows_from_a_refusal_is_said_to() -> None:
    rows = [*ROWS, "34206000000000,C,99600,100,-1,B,77,0", "34207000000000,B,99601,100,8,None,-1,0",
            "34208000000000,C,99600,100,-1,B,8,0"]
    table = pd.DataFrame([row.split(",") for row in rows], columns=list(neutral.COLUMNS))
    kinds = {"S": 0, "B": 1, "C": 2, "None": -1}
    sent = orders.from_columns(*(table[name].map(kinds).to_numpy() if "type" in name else table[name].astype("int64")
                                 .to_numpy() for name in neutral.COLUMNS))
    chunk = FeedChunk.of(sent)
    told = FeedChunk(chunk.orders, chunk.fills, chunk.sequence, {"halt": 2}, {"unknown": 1})
    done = replay_day(DayFeed("x", "", lambda: iter([told])), SPEC, chunk_orders=16, allow_refused=True)
    assert done.refused.record() == {"refused": {"UNKNOWN_ID": 2, "BAD_PRICE": 1}, "ignored_messages": {"halt": 2},
                                     "adapted_messages": {"unknown": 1}}
    assert [problem.split(",")[0] for problem in done.refused.problems()] == [
        "1 orders refused as BAD_PRICE", "1 cancels refused as UNKNOWN_ID"]
    assert "of orders that were refused" in done.refused.problems()[1]
    assert "2 UNKNOWN_ID, 1 BAD_PRICE" in done.refused.line() and "2 halt" in done.refused.line()
