"""Tables of rollouts: the same in any chunks and slots, joined by the running number, equal to what was counted."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marsjax import testing
from marsjax.agents.twap import Twap
from marsjax.core.times import SECOND_NS
from marsjax.observers import TraceObserver
from marsjax.sim import Fees, Rollout, RolloutSpec, Simulator, rollout

pytestmark = pytest.mark.slow
START_NS = 36_000 * SECOND_NS
MARKET = testing.tiny_market(accounts=4)


@functools.cache
def start() -> Any:
    return testing.random_start(MARKET, testing.tiny_model(), START_NS)


@functools.cache
def run(kept: bool = True, chunk_steps: int = 16, slots: int | None = None) -> Rollout:
    twap = Twap(2_000, START_NS, 10, account=2, passive_seconds=3, idle_seconds=2)
    simulator = Simulator.of(testing.tiny_model(), MARKET, agents=[twap], end_ns=START_NS + 12 * SECOND_NS,
                             observers=[TraceObserver(MARKET, 64)] if kept else [])
    return rollout.rollout(simulator, start(), RolloutSpec(3, 1, seed=2, chunk_steps=chunk_steps, slots=slots))


def test_orders_are_all_that_were_counted_and_numbered_over_all_chunks() -> None:
    table, result = run().orders(), run()
    assert (table["status"] == "ACCEPTED").sum() == result.order_count > 60
    for _, rows in table.groupby("trajectory"):
        assert rows["i"].tolist() == list(range(len(rows))) and rows["time_ns"].is_monotonic_increasing
    assert set(table["agent"]) == {"order model", "twap"} and set(table["agent_id"][table["agent"] == "twap"]) == {2}
    assert (table[["ask", "bid"]].min().min() > 5) and (table["price"].max() < 20)
    assert table["clock"].iloc[0] >= "10:00:00"


def test_tables_do_not_depend_on_chunks_or_slots() -> None:
    whole = run()
    other = run(chunk_steps=5, slots=2)
    for name in ("orders", "trades", "snapshots", "depth", "resting", "accounts"):
        pd.testing.assert_frame_equal(getattr(whole, name)(), getattr(other, name)())


def test_trades_snapshots_and_accounts_agree_with_orders() -> None:
    result = run()
    sent, trades, states, accounts = result.orders(), result.trades(), result.snapshots(), result.accounts()
    keys = ["trajectory", "i"]
    joined = trades.merge(sent, on=keys, suffixes=("", "_order"))
    assert len(joined) == len(trades) > 20 and (joined["time_ns"] == joined["time_ns_order"]).all()
    assert (np.where(joined["type"] == "B", joined["buy_id"], joined["sell_id"]) == joined["order_id"]).all()
    traded = trades.groupby(keys)["volume"].sum()
    assert (sent.set_index(keys)["traded"].loc[traded.index] == traded).all() and sent["traded"].sum() == traded.sum()
    both = states.merge(sent, on=keys)
    pd.testing.assert_series_equal(both["ask_price_1"], both["ask"], check_names=False)
    pd.testing.assert_series_equal(both["mid_price_x"], both["mid_price_y"], check_names=False)
    mine = accounts[accounts["agent"] == "twap"].set_index("trajectory")
    bought = trades[trades["buy_agent_id"] == 2].groupby("trajectory")["volume"].sum()
    sold = trades[trades["sell_agent_id"] == 2].groupby("trajectory")["volume"].sum()
    assert (mine["holdings"] == bought.sub(sold, fill_value=0).reindex(mine.index, fill_value=0)).all()
    paid = trades[trades["buy_agent_id"] == 2].groupby("trajectory")["value"].sum()
    np.testing.assert_allclose(mine["cash"], -paid.reindex(mine.index, fill_value=0), atol=1e-6)
    np.testing.assert_allclose(mine["profit"], mine["cash"] + mine["holdings"] * mine["mark_price"], atol=1e-6)
    np.testing.assert_allclose(accounts.groupby("trajectory")["profit"].sum(), 0, atol=1e-6)
    assert set(accounts["status"]) == {"TIME"} and (accounts["clock"] == "10:00:12.000000000").all()


def test_fees_are_charged_on_the_trades_of_each_side() -> None:
    result, fees = run(), Fees(maker=0.001, taker=0.002)
    charged = result.accounts(fees=fees).groupby("trajectory")["fees"].sum()
    value = result.trades().groupby("trajectory")["value"].sum()
    np.testing.assert_allclose(charged, 0.003 * value.reindex(charged.index, fill_value=0), rtol=1e-9)


def test_resting_orders_are_those_of_the_book_in_their_order() -> None:
    result = run()
    queue, volume = result.resting("integer"), np.asarray(result.state.market.book.volume)
    assert len(queue) == (volume > 0).sum() and queue["volume"].sum() == volume.sum()
    accounts = result.accounts("integer")
    assert accounts["bid_resting_shares"].sum() + accounts["ask_resting_shares"].sum() == volume.sum()


def test_each_trajectory_is_written_in_the_format_of_lobster(tmp_path: Path) -> None:
    result, trades = run(), run().trades("integer")
    tmp_path = tmp_path / "new" / "folder"
    result.write_lobster(tmp_path, "sim", "2024-01-02")
    name = "sim-{}_2024-01-02_34200000_57600000_{}_10.csv"
    assert len(list(tmp_path.iterdir())) == 6
    for trajectory in range(3):
        messages, books = (np.loadtxt(tmp_path / name.format(trajectory, what), delimiter=",")
                           for what in ("message", "orderbook"))
        mine = trades[trades["trajectory"] == trajectory]
        fills = messages[messages[:, 1] == 4]
        resting = np.where(mine["type"] == "B", mine["sell_id"], mine["buy_id"])
        expected = np.column_stack([resting, mine["volume"], mine["price"]])
        np.testing.assert_array_equal(fills[:, 2:5].astype(int), expected)
        assert len(messages) == len(books) and messages[0, 0] == 36_000 and (np.diff(messages[:, 0]) >= 0).all()
        # The last row is the book at the end.
        view = result.state.view
        assert books[-1, 0] == view.ask_price[trajectory, 0] and books[-1, 2] == view.bid_price[trajectory, 0]
        assert books[-1, 1] == int(np.asarray(view.ask_volume.lo)[trajectory, 0])


def test_a_part_has_the_rows_of_its_trajectories() -> None:
    whole, part = run(), run().part(np.array([False, True, True]))
    expected = whole.orders()
    expected = expected[expected["trajectory"] > 0].assign(trajectory=lambda x: x["trajectory"] - 1)
    pd.testing.assert_frame_equal(part.orders(), expected.reset_index(drop=True))
    assert part.accounts()["trajectory"].max() == 1


def test_without_what_is_needed_the_error_says_what_to_add() -> None:
    for name in ("orders", "trades", "snapshots", "depth"):
        with pytest.raises(ValueError, match=r"no orders were kept .*: add an observer .*TraceObserver\(market\)"):
            getattr(run(kept=False), name)()
    with pytest.raises(ValueError, match="TraceObserver"):
        run(kept=False).accounts(fees=Fees(taker=0.1))
    pd.testing.assert_frame_equal(run(kept=False).accounts(), run().accounts())
    cut = dataclasses.replace(run(), trace=dataclasses.replace(run().trace, missing="3 events found no room"))
    with pytest.raises(ValueError, match="not all orders were kept for tables: 3 events found no room"):
        cut.orders()
