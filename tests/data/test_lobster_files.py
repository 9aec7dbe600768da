"""LOBSTER's format as an output: what our own reader makes of it is the market that was written."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from marsjax.core.records import NO_ID, Kind, Order
from marsjax.core.sessions import Session, chinese_session, continuous_session
from marsjax.core.specs import MarketSpec, Units
from marsjax.core.times import SECOND_NS
from marsjax.data import lobster, lobster_files
from marsjax.data.feed import DayFeed, FeedChunk
from marsjax.market import orders
from marsjax.sim.replayed import Replayed, replay_day

LEVELS = 10


def market(session: Session, **changes: Any) -> MarketSpec:
    return MarketSpec(capacity=256, trade_width=32, session=session, **changes)


def random_orders(seed: int, first_s: int, seconds: int, count: int = 400) -> Order:
    """Orders of all kinds around 10.00, on more levels than are shown; every second one crosses or cancels."""
    rng = np.random.default_rng(seed)
    at_ns = np.sort(rng.integers(first_s * SECOND_NS, (first_s + seconds) * SECOND_NS, count))
    kind = rng.choice([Kind.BUY, Kind.SELL, Kind.CANCEL], count, p=[0.35, 0.35, 0.3])
    named = np.maximum(np.arange(count) - rng.integers(1, 40, count), 0)
    is_cancel = kind == Kind.CANCEL
    away = np.where(kind == Kind.BUY, -1, 1) * rng.integers(-3, 25, count)
    return orders.from_columns(
        at_ns, kind, 100_000 + 100 * away, 100 * rng.integers(1, 9, count),
        np.where(is_cancel, NO_ID, np.arange(count)), np.where(is_cancel, kind[named] == Kind.BUY, NO_ID),
        np.where(is_cancel, named, NO_ID), np.zeros(count, np.int64))


def replayed(spec: MarketSpec, sent: Order) -> Replayed:
    """Some of the cancels name orders that are gone, or more than is left."""
    return replay_day(DayFeed("x", "", lambda: iter([FeedChunk.of(sent)])), spec, chunk_orders=512, allow_refused=True)


def write(folder: Path, spec: MarketSpec, done: Replayed, levels: int = LEVELS) -> list[Path]:
    files = lobster_files.LobsterFiles(folder, spec, "X", "2020-01-02", levels)
    time_ns = np.asarray(done.sent.time.s).astype(np.int64) * SECOND_NS + done.sent.time.ns
    ends = [*(np.searchsorted(time_ns, each.time_ns, side="right") for each in done.call_auctions), len(time_ns)]
    begin = 0
    for end, auction in zip(ends, [*done.call_auctions, None], strict=True):
        sent, reports = (_rows(x, begin, int(end)) for x in (done.sent, done.reports))
        files.orders(sent, reports)
        if auction is not None:
            files.auction(auction.time_ns, auction.uncross)
        begin = int(end)
    files.close()
    return [folder / name for name in lobster_files.names(spec, "X", "2020-01-02", levels)]


def _rows(tree: Any, begin: int, end: int) -> Any:
    return jax.tree.map(lambda x: x[begin:end], tree)


def book_rows(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", dtype=np.int64)


def as_row(done: Replayed, row: int) -> list[int]:
    """A view as a line of the book file."""
    columns = [np.asarray(done.views.ask_price)[row], np.asarray(done.views.ask_volume.lo)[row].astype(np.int64),
               np.asarray(done.views.bid_price)[row], np.asarray(done.views.bid_volume.lo)[row].astype(np.int64)]
    found = np.column_stack(columns)
    found[found[:, 1] == 0, 0] = 9_999_999_999
    found[found[:, 3] == 0, 2] = -9_999_999_999
    return found.ravel().tolist()


def test_a_market_that_is_written_is_read_back_with_the_same_fills_and_book(tmp_path: Path) -> None:
    spec = market(continuous_session())
    done = replayed(spec, random_orders(0, 34_200, 600))
    message, book = write(tmp_path, spec, done, levels=64)
    assert message.name == "X_2020-01-02_34200000_57600000_message_64.csv"
    trades = done.trades("integer")
    rows = np.loadtxt(message, delimiter=",")
    assert len(trades) > 50 and (rows[:, 1] == 4).sum() == len(trades) and len(book_rows(book)) == len(rows)
    # The reader makes an order of each execution again, with the best known limit.
    (day,) = lobster.days(tmp_path)
    again = replay_day(day, day.venue.market(capacity=256, trade_width=32), chunk_orders=512)
    back = again.trades("integer")
    resting = [np.where(each["type"] == "B", each["sell_id"], each["buy_id"]) for each in (trades, back)]
    np.testing.assert_array_equal(*resting)
    for name in ("time_ns", "type", "price", "volume"):
        np.testing.assert_array_equal(trades[name], back[name])
    left = [each.resting("integer")[["side", "price", "volume", "order_id", "shares_ahead"]] for each in (done, again)]
    assert left[0].to_numpy().tolist() == left[1].to_numpy().tolist() and len(left[0]) > 50


def test_the_book_file_has_the_best_levels_after_each_order(tmp_path: Path) -> None:
    spec = market(continuous_session())
    done = replayed(spec, random_orders(1, 34_200, 600))
    message, book = write(tmp_path, spec, done)
    lines = message.read_text().splitlines()
    rows, time_ns = book_rows(book), done.orders()["time_ns"].to_numpy()
    last = {line.split(",")[0]: number for number, line in enumerate(lines)}
    checked = 0
    for row in range(len(time_ns)):
        at = f"{time_ns[row] // SECOND_NS}.{time_ns[row] % SECOND_NS:09d}"
        if at in last and (row + 1 == len(time_ns) or time_ns[row + 1] > time_ns[row]):
            assert rows[last[at]].tolist() == as_row(done, row)
            checked += 1
    assert checked > 200


def test_call_auctions_are_cross_trades_and_the_book_after_them(tmp_path: Path) -> None:
    spec = market(chinese_session())
    done = replayed(spec, random_orders(2, 33_600, 1200))
    message, book = write(tmp_path, spec, done)
    rows = np.loadtxt(message, delimiter=",")
    assert message.name.startswith("X_2020-01-02_33900000_54000000_message_")
    (cross,) = rows[rows[:, 1] == 6][:, [0, 2, 3]].tolist() if (rows[:, 1] == 6).sum() == 1 else [None]
    first = done.auctions("integer")
    assert cross == [33_900, -1, first[first["type"] == "B"]["volume"].sum()]
    assert (rows[:, 0] >= 33_900).all()
    # Every message changes its level by its size; nothing is crossed.
    states = book_rows(book)
    assert (states[:, 0] > states[:, 2]).all()
    assert states[-1].tolist() == as_row(done, len(done.orders()) - 1)


def test_what_does_not_fit_the_format_is_refused_by_name(tmp_path: Path) -> None:
    spec = market(continuous_session(), units=Units(price="0.00003"))
    with pytest.raises(ValueError, match=r"prices in units of 0\.0001 and volumes of 1, got 0\.00003"):
        lobster_files.LobsterFiles(tmp_path, spec, "X", "2020-01-02")
    with pytest.raises(ValueError, match="symbol: expected a word without _"):
        lobster_files.LobsterFiles(tmp_path, market(continuous_session()), "A_B", "2020-01-02")
    narrow = MarketSpec(capacity=256, trade_width=1)
    with pytest.raises(ValueError, match=r"lists of transactions were cut: raise MarketSpec\.trade_width above 1"):
        write(tmp_path, narrow, replayed(narrow, random_orders(0, 34_200, 600)))
