"""A slow plain-Python twin of the call auction, written from the rules of the exchange: every price is tried."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from marsjax.core.records import EMPTY_PRICE, NO_ACCOUNT, NO_ID, NO_PRICE, Book, Side
from marsjax.core.specs import AuctionRule, MarketSpec


class Collected(NamedTuple):
    """One order that an auction collected, or that already rested."""

    side: int
    price: int
    volume: int
    account: int = NO_ACCOUNT


class Candidate(NamedTuple):
    """What would happen at one price; the smallest is chosen."""

    minus_volume: int
    imbalance: int
    distance: int
    price: int


@dataclasses.dataclass
class Result:
    """An auction; `fills` are shares of each order, in order of arrival."""

    price: int
    volume: int
    fills: list[int]
    tie_broken_by: str = ""
    """The criterion that told the price from the runner-up: imbalance, distance or price; empty if it was alone."""


def uncross(orders: Sequence[Collected], reference_price: int = NO_PRICE,
            rule: AuctionRule = AuctionRule.REFERENCE, tick: int = 100) -> Result:
    """The orders, in order of arrival, matched at one price."""
    prices = {order.price for order in orders}
    ranked = sorted(candidate for price in prices for candidate in _candidates(orders, price, reference_price))
    if not ranked:
        return Result(NO_PRICE, 0, [0] * len(orders))
    best = ranked[0]
    price = {AuctionRule.REFERENCE: lambda: best.price,
             AuctionRule.SHANGHAI: lambda: _middle(ranked, tick),
             AuctionRule.SHENZHEN: lambda: _nearest(orders, prices, reference_price, tick)}[rule]()
    every = range(min(prices), max(prices) + tick, tick) if rule != AuctionRule.REFERENCE else prices
    # A price at which all better orders fill whole trades the most of all: the criterion of volume never decides.
    assert all(-best.minus_volume >= min(_shares(orders, side, price) for side in Side) for price in every)
    result = Result(price, -best.minus_volume, [0] * len(orders))
    for side in (Side.BID, Side.ASK):
        left = result.volume
        # Better prices first, then at the price itself; each in order of arrival.
        queue = sorted((i for i, order in enumerate(orders) if order.side == side and _reaches(order, price)),
                       key=lambda i: (orders[i].price == price, i))
        for i in queue:
            result.fills[i] = min(left, orders[i].volume)
            left -= result.fills[i]
        assert left == 0
    if len(ranked) > 1:
        names = ("volume", "imbalance", "distance", "price")
        result.tie_broken_by = next(name for name, a, b in zip(names, best, ranked[1], strict=True) if a != b)
    return result


def _middle(ranked: list[Candidate], tick: int) -> int:
    """Shanghai: of the orders' prices that leave least the middle, rounded to the lower tick."""
    tied = [x.price for x in ranked if x.imbalance == ranked[0].imbalance]
    return (min(tied) + max(tied)) // 2 // tick * tick


def _nearest(orders: Sequence[Collected], prices: set[int], reference_price: int, tick: int) -> int:
    """Shenzhen: every tick is tried."""
    return min(candidate for price in range(min(prices), max(prices) + tick, tick)
               for candidate in _candidates(orders, price, reference_price)).price


def _reaches(order: Collected, price: int) -> bool:
    return order.price >= price if order.side == Side.BID else order.price <= price


def _candidates(orders: Sequence[Collected], price: int, reference_price: int) -> list[Candidate]:
    """The price, if it is a possible one."""
    demand, supply = _shares(orders, Side.BID, price), _shares(orders, Side.ASK, price)
    volume = min(demand, supply)
    fill_whole = max(_shares(orders, side, price, strictly=True) for side in Side)
    if volume == 0 or fill_whole > volume:
        return []
    distance = abs(price - reference_price) if reference_price > 0 else 0
    return [Candidate(-volume, abs(demand - supply), distance, price)]


def _shares(orders: Sequence[Collected], side: Side, price: int, strictly: bool = False) -> int:
    """Shares of one side that would trade at a price or better."""
    return sum(order.volume for order in orders
               if order.side == side and _reaches(order, price) and not (strictly and order.price == price))


def slots(orders: Sequence[Collected]) -> list[list[int]]:
    """Numbers of the orders on each side, by priority: price, then arrival."""
    return [sorted((i for i, order in enumerate(orders) if order.side == side),
                   key=lambda i: (orders[i].price if side == Side.ASK else -orders[i].price, i)) for side in Side]


def as_book(spec: MarketSpec, orders: Sequence[Collected], last_price: int = NO_PRICE,
            taken: Sequence[int] | None = None) -> Book:
    """The book of these orders less the shares taken; ids are the numbers of the orders."""
    left = [order.volume - (taken[i] if taken else 0) for i, order in enumerate(orders)]
    rows = [[(orders[i].price, left[i], i, orders[i].account) for i in side if left[i]] for side in slots(orders)]
    nothing = (EMPTY_PRICE, 0, NO_ID, NO_ACCOUNT)
    table = np.array([row + [nothing] * (spec.capacity - len(row)) for row in rows], np.int32)
    return Book(*np.moveaxis(table, -1, 0).copy(), np.int32(last_price))
