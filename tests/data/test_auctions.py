"""Shanghai's auction rule on real days: what the exchange published while and after its auctions collected."""

import bisect
import collections
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from marsjax.core import int64, times
from marsjax.core.records import Kind, Side
from marsjax.core.specs import AuctionRule, MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data import sse
from marsjax.data.feed import AUCTION
from marsjax.market import auction
from tests import twin_auction
from tests.twin_auction import Collected

SPEC = MarketSpec(capacity=4096, trade_width=1, auction_rule=AuctionRule.SHANGHAI)
ENDS_NS = (9 * 3600 + 25 * 60) * SECOND_NS
DAYS = ["600519_20230201", "600519_20230207", "600536_20230711", "600761_20230711", "601825_20230711"]
uncross = jax.jit(auction.uncross, static_argnums=0)


class Indication(NamedTuple):
    """What an auction would trade now, and the shares left at its price on each side."""

    price: int
    volume: int
    bids_left: int
    asks_left: int


def collected(folder: Path, day: str) -> Iterator[tuple[int, dict[int, Collected]]]:
    """The time of every message of the opening auction and the orders that rest after it, one growing dict."""
    resting: dict[int, Collected] = {}
    for chunk in sse.read(*(folder / "sse" / f"{day}_{kind}.csv.gz" for kind in ("orders", "trades"))):
        order = chunk.orders
        rows = zip(times.to_ns(order.time).tolist(), *(x.tolist() for x in (
            order.kind, order.price, order.volume, order.order_id, order.cancel_id)), strict=True)
        for time_ns, kind, price, volume, order_id, cancel_id in rows:
            if time_ns > ENDS_NS:
                return
            if kind == Kind.CANCEL:
                left = resting[cancel_id].volume - volume
                resting[cancel_id] = resting[cancel_id]._replace(volume=left)
                if not left:
                    del resting[cancel_id]
            else:
                resting[order_id] = Collected(Side(kind), price, volume)
            yield time_ns, resting


def indication(orders: list[Collected]) -> Indication:
    """Of the engine."""
    _, result = uncross(SPEC, twin_auction.as_book(SPEC, orders))
    price, volume = int(result.price), int(int64.to_numpy(result.volume))
    demand, supply = (sum(x.volume for x in orders if x.side == side and twin_auction._reaches(x, price))
                      for side in (Side.BID, Side.ASK))
    return Indication(price, volume, demand - volume, supply - volume)


@pytest.mark.parametrize("day", DAYS)
def test_opening_auctions_have_the_published_price_and_volume(data_folder: Path, day: str) -> None:
    paths = (data_folder / "sse" / f"{day}_{kind}.csv.gz" for kind in ("orders", "trades"))
    volume: dict[int, int] = collections.Counter()
    for chunk in sse.read(*paths):
        here = (chunk.fills.aggressor == AUCTION) & (chunk.fills.time_ns < ENDS_NS + 60 * SECOND_NS)
        for price, shares in zip(chunk.fills.price[here].tolist(), chunk.fills.volume[here].tolist(), strict=True):
            volume[price] += shares
        if int(times.to_ns(chunk.orders.time)[-1]) > ENDS_NS + 60 * SECOND_NS:
            break
    *_, (_, resting) = collected(data_folder, day)
    got = indication(list(resting.values()))
    assert {got.price: got.volume} == volume


@pytest.mark.slow
@pytest.mark.parametrize("day", DAYS[:2])
def test_every_price_indicated_while_the_opening_auction_collects_is_that_of_some_state_then(data_folder: Path, day: str
                                                                                           ) -> None:
    """The exchange shows the price, the volume and the rest every three seconds; states of the next four are tried."""
    states = [(time_ns, list(resting.values())) for time_ns, resting in collected(data_folder, day)]
    began = [time_ns for time_ns, _ in states]
    shown = sse.read_snapshots(data_folder / "sse" / f"{day}_snapshots.csv.gz")
    known: dict[int, Indication] = {}
    found = 0
    for i in np.flatnonzero((shown.time_ns < ENDS_NS) & (shown.bid_volume[:, 0] > 0)):
        published = Indication(*(int(x[i, j]) for x, j in ((shown.bid_price, 0), (shown.bid_volume, 0),
                                                           (shown.bid_volume, 1), (shown.ask_volume, 1))))
        last = bisect.bisect_right(began, int(shown.time_ns[i]) + 4 * SECOND_NS)
        for k in reversed(range(max(last - 400, 0), last)):
            if k not in known:
                known[k] = indication(states[k][1])
            if known[k] == published:
                break
        else:
            pytest.fail(f"no state before {int(shown.time_ns[i])} ns has {published}")
        found += 1
    assert found > 120
