"""Features of an interval whose books lose a side: the rest of their laws is in tests/sim/test_control.py."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from marsjax.core import times
from marsjax.core.records import EMPTY_SIDE_SPREAD
from marsjax.core.specs import MarketSpec
from marsjax.market import book, exchange
from marsjax.observers.features import FeatureObserver, Features, FeatureSums
from marsjax.observers.trace import TraceObserver

SPEC = MarketSpec(capacity=4, trade_width=2, levels=1, tick=100)
OBSERVER = FeatureObserver(SPEC.tick)


def after(state: FeatureSums, *spreads: int | None) -> FeatureSums:
    """After orders that leave these spreads, None: an empty side."""
    market = exchange.open_market(SPEC)
    view = book.view(SPEC, market.book)
    empty = jax.tree.map(lambda x: x[0], TraceObserver(SPEC, 1).begin(market, view, times.of_ns(0)).events)
    for spread in spreads:
        bid = 0 if spread is None else 10_000
        seen = dataclasses.replace(view, ask_price=jnp.array([10_000 + (spread or 0)]), bid_price=jnp.array([bid]),
                                   spread=jnp.int32(EMPTY_SIDE_SPREAD if spread is None else spread))
        state = OBSERVER.update(state, dataclasses.replace(empty, happened=True, orders=jnp.int32(1), view=seen))
    return state


def test_books_with_an_empty_side_have_no_spread() -> None:
    market = exchange.open_market(SPEC)
    first = OBSERVER.begin(market, book.view(SPEC, market.book), times.of_ns(0))

    def ticks(state: FeatureSums) -> float:
        found: Features = OBSERVER.of(state)
        return float(found.spread_ticks)

    assert ticks(first) == 0, "there never was one"
    one = after(first, 200, None, 500)
    assert ticks(one) == pytest.approx((2 + 5) / 2) and int(one.books) == 4
    assert ticks(after(OBSERVER.emptied(one), 300, None)) == pytest.approx((5 + 3) / 2)
    gone = OBSERVER.emptied(after(one, None))
    assert ticks(after(gone, None, None)) == 5, "that of the last book with both sides"
