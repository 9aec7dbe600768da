"""Both call auctions and the continuous trading between them equal the reference's, on every golden day."""

import functools
import json
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from marsjax.core import int64, times
from marsjax.core.records import EMPTY_PRICE, NO_ID, BookView, Kind, Market, Order, Report, Side, Status
from marsjax.core.sessions import chinese_session
from marsjax.core.specs import MarketSpec
from marsjax.market import book, exchange, orders
from tests.helpers import golden_folder, read_columns, read_orders, snapshot_rows

SUFFIX = "_orders.csv.gz"
CASES = sorted(path.name.removesuffix(SUFFIX) for path in golden_folder().glob(f"auction_*{SUFFIX}"))
SPEC = MarketSpec(capacity=1024, trade_width=128, session=chinese_session())
UNCROSS_NS = {"open": 33_900 * 10**9, "close": 54_000 * 10**9}

step, submit, uncross = (jax.jit(f, static_argnums=0) for f in (exchange.step, exchange.submit, exchange.uncross))
view = jax.jit(book.view, static_argnums=0)
conservation = jax.jit(exchange.conservation)


class Held(NamedTuple):
    """One call auction as a replay saw it."""

    price: int
    volume: int
    matched: dict[int, int]
    """Shares by order id."""
    snapshot: list[int]


class Day(NamedTuple):
    auctions: dict[str, Held]
    last_continuous_snapshot: list[int]
    reports: list[Report]


@functools.cache
def stream(case: str) -> tuple[np.ndarray, Order, dict[str, Any]]:
    """The phase of each order, the orders, and what the reference made of them."""
    path = golden_folder() / (case + SUFFIX)
    result = json.loads((golden_folder() / f"{case}_result.json").read_text())
    return read_columns(path)["phase"], read_orders(path), result


def snapshot(market: Market) -> list[int]:
    seen: BookView = jax.tree.map(lambda x: np.asarray(x)[None], view(SPEC, market.book))
    return snapshot_rows(seen)[0].tolist()


def shares_by_id(market: Market) -> dict[int, int]:
    ids, volume = (np.asarray(x).reshape(-1).tolist() for x in (market.book.order_id, market.book.volume))
    return {i: v for i, v in zip(ids, volume, strict=True) if v}


def assert_conserved(market: Market) -> None:
    for lost in jax.tree.leaves(conservation(market)):
        assert not np.any(lost)


def by_uncross(market: Market) -> tuple[Market, Held]:
    """The next auction, held by hand."""
    after, result = uncross(SPEC, market)
    fill, ids = (np.asarray(x)[np.asarray(result.fill) > 0] for x in (result.fill, result.order_id))
    matched = dict(zip(ids.tolist(), fill.tolist(), strict=True))
    return after, Held(int(result.price), int(int64.to_numpy(result.volume)), matched, snapshot(after))


def by_step(market: Market, uncross_ns: int) -> tuple[Market, Held]:
    """The next auction, held because something (here: nothing at all) reaches the exchange after its time."""
    after, report = step(SPEC, market, orders.no_order(times.of_ns(uncross_ns + 1)))
    assert int(report.status) == Status.NO_ORDER
    was, left = shares_by_id(market), shares_by_id(after)
    matched = {i: was[i] - left.get(i, 0) for i in was if was[i] != left.get(i, 0)}
    volume, value = (int(int64.to_numpy(getattr(after.counters, x)) - int64.to_numpy(
        getattr(market.counters, x))) for x in ("traded", "value"))
    assert value % volume == 0
    return after, Held(value // volume, volume, matched, snapshot(after))


@functools.cache
def play(case: str, way: str) -> Day:
    """A whole day, order by order."""
    phases, given, _ = stream(case)
    market, reports = exchange.open_market(SPEC), []
    auctions: dict[str, Held] = {}
    last_continuous: list[int] = []

    def hold(name: str, market: Market) -> Market:
        market, auctions[name] = by_step(market, UNCROSS_NS[name]) if way == "step" else by_uncross(market)
        assert_conserved(market)
        return market

    for i, phase in enumerate(phases):
        if i and phase != phases[i - 1] and phases[i - 1] == "open":
            market = hold("open", market)
        send = step if way == "step" else submit
        market, report = send(SPEC, market, jax.tree.map(lambda x, i=i: x[i], given))
        reports.append(jax.tree.map(np.asarray, report))
        assert_conserved(market)
        if phase == "continuous":
            last_continuous = snapshot(market)
    market = hold("close", market)
    assert int(market.counters.auctions) == 2
    return Day(auctions, last_continuous, reports)


def test_golden_folder_holds_auctions() -> None:
    assert CASES, f"no file auction_*{SUFFIX} in {golden_folder()}"


@pytest.mark.parametrize("way", ["step", "submit"])
@pytest.mark.parametrize("case", CASES)
def test_every_order_is_taken_and_nothing_matches_before_an_auction_ends(case: str, way: str) -> None:
    phases, given, _ = stream(case)
    for phase, kind, report in zip(phases, given.kind, play(case, way).reports, strict=True):
        assert report.status == Status.ACCEPTED
        if phase != "continuous":
            assert report.trades.kind == (Kind.CANCEL if kind == Kind.CANCEL else Kind.NONE)


@pytest.mark.parametrize("way", ["step", "submit"])
@pytest.mark.parametrize("case", CASES)
def test_cancels_of_an_auction_are_reported_in_order_and_without_a_price(case: str, way: str) -> None:
    phases, _, expected = stream(case)
    found: dict[str, list[Any]] = {"open": [], "close": []}
    for phase, report in zip(phases, play(case, way).reports, strict=True):
        trades = report.trades
        if phase in found and trades.kind == Kind.CANCEL:
            assert (trades.count, trades.price[0], int(int64.to_numpy(trades.value))) == (1, EMPTY_PRICE, 0)
            assert trades.resting_id[0] != NO_ID
            ids = [[int(trades.resting_id[0])] if trades.side == side else [] for side in (Side.BID, Side.ASK)]
            found[phase].append([int(trades.volume_each[0]), *ids])
    for name, cancels in found.items():
        assert cancels == expected[name].get("cancel", [])


@pytest.mark.parametrize("way", ["step", "submit"])
@pytest.mark.parametrize("name", ["open", "close"])
@pytest.mark.parametrize("case", CASES)
def test_auctions_equal_the_reference(case: str, name: str, way: str) -> None:
    expected = stream(case)[2][name]
    held = play(case, way).auctions[name]
    assert held.price == expected["price"]
    assert held.volume == expected["volume"]
    assert held.matched == {int(order_id): shares for order_id, shares in expected["matched"].items()}
    assert held.snapshot == expected["snapshot"]


@pytest.mark.parametrize("way", ["step", "submit"])
@pytest.mark.parametrize("case", CASES)
def test_continuous_trading_from_one_auction_to_the_other_equals_the_reference(case: str, way: str) -> None:
    assert play(case, way).last_continuous_snapshot == stream(case)[2]["continuous_last_snapshot"]
