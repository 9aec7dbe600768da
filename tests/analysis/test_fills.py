"""The check of fills sees every kind of difference, whatever the chunks in which both sides come."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from marsjax.analysis.fills import FillCheck, transactions
from marsjax.core.records import NO_ID, Kind, Report, Side, Uncross
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import AUCTION, PublishedFills
from marsjax.market import auction, book, orders
from tests.twin_auction import Collected, as_book

SPEC = MarketSpec(capacity=16, trade_width=4)
AUCTION_NS = 33_900 * 10**9
# Two asks; a buyer takes one and half of the other; a cancel; a bid; a seller takes it.
MESSAGES = [
    (Kind.SELL, 100_000, 100, 1, NO_ID), (Kind.SELL, 100_100, 200, 2, NO_ID), (Kind.BUY, 100_100, 200, 3, NO_ID),
    (Kind.CANCEL, 0, 50, 4, 2), (Kind.BUY, 99_900, 300, 5, NO_ID), (Kind.SELL, 99_900, 300, 6, NO_ID)]
FILLS = [(3, 1, 100_000, 100, Kind.BUY), (3, 2, 100_100, 100, Kind.BUY), (5, 6, 99_900, 300, Kind.SELL)]
"""buy id, sell id, price, volume, aggressor."""
IN_AUCTION = [(11, 13, 100_000, 100, AUCTION), (12, 13, 100_000, 50, AUCTION), (12, 14, 100_000, 30, AUCTION)]


@pytest.fixture(scope="module")
def reports() -> Report:
    """What the exchange says to MESSAGES, [6, ...]."""
    kind, price, volume, order_id, cancel_id = np.array(MESSAGES, np.int64).T
    none = np.zeros_like(kind)
    stream = orders.from_columns(none, kind, price, volume, order_id, none + Side.ASK, cancel_id, none)

    def one(now: Any, order: Any) -> Any:
        now, trades, status = book.submit(SPEC, now, order)
        return now, Report(status, order.order_id, trades, order.price)

    return jax.tree.map(np.asarray, jax.lax.scan(one, book.empty(SPEC), stream)[1])


@pytest.fixture(scope="module")
def uncrossed() -> Uncross:
    """11 buys 100, 12 buys 80; 13 sells 150, 14 sells 90: 180 trade."""
    rows = [Collected(Side.BID, 100_000, 100), Collected(Side.BID, 100_000, 80), Collected(Side.ASK, 100_000, 150),
            Collected(Side.ASK, 100_000, 90)]
    now = as_book(SPEC, rows)
    now = dataclasses.replace(now, order_id=np.where(now.order_id == NO_ID, NO_ID, now.order_id + 11))
    return jax.tree.map(np.asarray, jax.jit(auction.uncross, static_argnums=0)(SPEC, now)[1])


def published(rows: list[Any], time_ns: int = AUCTION_NS + 5) -> PublishedFills:
    buy_id, sell_id, price, volume, aggressor = np.array(rows, np.int32).reshape(-1, 5).T
    long = np.full(len(rows), time_ns, np.int64)
    return PublishedFills(long, price, volume, buy_id, sell_id, aggressor, np.arange(len(rows)))


def checked(reports: Report | None, rows: list[Any], parts: int = 1) -> FillCheck:
    """Continuous fills against the published ones, both in so many parts."""
    check = FillCheck()
    for part in np.array_split(np.arange(len(rows)), parts):
        check.publish(published([rows[i] for i in part]))
    for part in np.array_split(np.arange(6), parts):
        if reports is not None:
            check.compute(jax.tree.map(lambda x, i=part: x[i], reports))
    check.finish()
    return check


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_equal_fills_are_equal(reports: Report, parts: int) -> None:
    check = checked(reports, FILLS, parts)
    assert check.equal
    assert (check.compared, check.different, check.first_difference) == (3, 0, None)


def test_transactions_are_the_fills_without_the_cancels(reports: Report) -> None:
    found = transactions(reports)
    assert np.column_stack(found[1:]).tolist() == [[*fill[:4]] for fill in FILLS]
    assert found.row.tolist() == [2, 2, 5]


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize(("column", "name"), list(enumerate(("buy_id", "sell_id", "price", "volume"))))
def test_any_changed_number_is_seen_and_named(reports: Report, number: int, column: int, name: str) -> None:
    rows = [list(row) for row in FILLS]
    rows[number][column] += 100
    check = checked(reports, rows)
    assert not check.equal
    assert (check.compared, check.different) == (3, 1)
    assert f"fill {number}: published" in check.first_difference
    assert f"{name}={rows[number][column]}" in check.first_difference


def test_ids_that_were_not_published_are_not_compared(reports: Report) -> None:
    assert checked(reports, [(NO_ID, *FILLS[0][1:]), *FILLS[1:]]).equal
    assert checked(reports, [(3, NO_ID, *FILLS[0][2:]), *FILLS[1:]]).equal
    assert not checked(reports, [(*FILLS[0][:2], NO_ID, *FILLS[0][3:]), *FILLS[1:]]).equal


def test_the_order_of_fills_matters(reports: Report) -> None:
    check = checked(reports, [FILLS[1], FILLS[0], FILLS[2]])
    assert check.different == 2


def test_a_missing_fill_is_seen(reports: Report) -> None:
    check = checked(reports, FILLS[:2])
    assert (check.equal, check.compared, check.different) == (False, 2, 1)
    assert "fill 2: computed, not published: buy_id=5, sell_id=6, price=99900, volume=300" in check.first_difference


def test_an_extra_fill_is_seen(reports: Report) -> None:
    check = checked(reports, [*FILLS, (7, 8, 100, 5, Kind.BUY)])
    assert (check.equal, check.compared, check.different) == (False, 3, 1)
    assert "fill 3: published, not computed: buy_id=7, sell_id=8, price=100, volume=5" in check.first_difference
    nothing = checked(None, FILLS)
    assert (nothing.compared, nothing.different) == (0, 3)


def auction_check(rows: list[Any], *held: tuple[int, Uncross], time_ns: int = AUCTION_NS + 5) -> FillCheck:
    check = FillCheck()
    check.publish(published(rows, time_ns))
    for at_ns, result in held:
        check.uncross(at_ns, result)
    check.finish()
    return check


def test_an_equal_auction_is_equal_however_its_orders_were_paired(uncrossed: Uncross) -> None:
    for rows in (IN_AUCTION, [(12, 13, 100_000, 50, AUCTION), (12, 14, 100_000, 30, AUCTION),
                              (11, 13, 100_000, 60, AUCTION), (11, 13, 100_000, 40, AUCTION)]):
        check = auction_check(rows, (AUCTION_NS, uncrossed))
        assert check.equal and check.first_difference is None
        assert (check.auctions_compared, check.compared) == (1, 0)


@pytest.mark.parametrize("change", [
    lambda rows: rows[:-1], lambda rows: [*rows, (15, 16, 100_000, 10, AUCTION)], lambda rows: [],
    lambda rows: [(*rows[0][:2], 100_100, 100, AUCTION), *rows[1:]],
    lambda rows: [(*rows[0][:3], 99, AUCTION), *rows[1:]],
    lambda rows: [(12, *rows[0][1:]), *rows[1:]], lambda rows: [(11, 14, *rows[0][2:]), *rows[1:]],
], ids=["missing", "extra", "none", "price", "volume", "buyer", "seller"])
def test_any_difference_of_an_auction_is_seen(uncrossed: Uncross, change: Any) -> None:
    check = auction_check(change(IN_AUCTION), (AUCTION_NS, uncrossed))
    assert not check.equal
    assert (check.auctions_compared, check.auctions_different) == (1, 1)
    assert f"call auction at {AUCTION_NS} ns: published" in check.first_difference


def test_each_auction_has_the_fills_from_its_time_to_the_next(uncrossed: Uncross) -> None:
    nothing = dataclasses.replace(uncrossed, fill=np.zeros_like(uncrossed.fill), price=np.int32(-1),
                                  volume=jax.tree.map(np.zeros_like, uncrossed.volume))
    later = AUCTION_NS + 10**12
    assert auction_check(IN_AUCTION, (AUCTION_NS, uncrossed), (later, nothing)).equal
    assert auction_check(IN_AUCTION, (AUCTION_NS, uncrossed), (later, uncrossed)).auctions_different == 1
    assert auction_check(IN_AUCTION, (AUCTION_NS, nothing), (later, uncrossed)).auctions_different == 2
    assert auction_check(IN_AUCTION, (AUCTION_NS, nothing), (later, uncrossed), time_ns=later).equal


def test_auction_fills_without_an_auction_are_seen(uncrossed: Uncross) -> None:
    check = auction_check(IN_AUCTION)
    assert (check.equal, check.auctions_compared, check.auctions_different) == (False, 0, 1)
    assert "published 180 shares, none was held" in check.first_difference
    nothing = dataclasses.replace(uncrossed, fill=np.zeros_like(uncrossed.fill), price=np.int32(-1),
                                  volume=jax.tree.map(np.zeros_like, uncrossed.volume))
    assert not auction_check(IN_AUCTION, (AUCTION_NS, nothing), time_ns=AUCTION_NS - 1).equal
