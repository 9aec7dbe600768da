"""Minute bars added up on the device against pandas, for both ways to cut minutes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from marsjax.core import int64, times
from marsjax.core.records import Kind, Status
from marsjax.core.specs import MarketSpec
from marsjax.market import book, exchange
from marsjax.observers.bars import MinuteBarObserver
from marsjax.observers.trace import TraceObserver

SPEC = MarketSpec(capacity=4, trade_width=2, levels=1)
START_NS, COUNT, MINUTES = 36_000 * 10**9, 400, 4


@pytest.mark.parametrize("nearest", [False, True])
def test_bars_are_those_of_pandas(nearest: bool) -> None:
    rng = np.random.default_rng(1)
    # Many times on whole and half minutes, which both go by a rule of their own.
    anywhere, on_a_half = rng.integers(0, 240 * 10**9, COUNT), rng.integers(0, 9, COUNT) * 30 * 10**9
    time_ns = START_NS + np.sort(np.where(rng.random(COUNT) < 0.5, anywhere, on_a_half))
    happened, accepted = rng.random(COUNT) < 0.9, rng.random(COUNT) < 0.8
    is_bulk = rng.random(COUNT) < 0.2
    orders = np.where(is_bulk, rng.integers(0, 4, COUNT), accepted)
    mid, price = rng.integers(190_000, 210_000, COUNT), rng.integers(90_000, 110_000, COUNT)
    price[:20] = -1
    volume = rng.integers(0, 2**31 - 1, COUNT)
    market = exchange.open_market(SPEC)
    view = book.view(SPEC, market.book)
    template = jax.tree.map(lambda x: x[0], TraceObserver(SPEC, 1).begin(market, view, times.of_ns(0)).events)

    def event(row: tuple[jax.Array, ...]) -> object:
        time, happened, bulk, count, mid, before, price, volume = row
        trades = dataclasses.replace(template.trades, volume=volume)
        status = jnp.where(count > 0, Status.ACCEPTED, Status.BAD_PRICE).astype(jnp.int32)
        kind = jnp.where(bulk, Kind.CANCEL, Kind.BUY).astype(jnp.int32)
        return dataclasses.replace(
            template, happened=happened, is_by_price=bulk, orders=count, order=dataclasses.replace(
                template.order, time=time, kind=kind), status=status, trades=trades,
            before=dataclasses.replace(template.before, mid_price_twice=before),
            view=dataclasses.replace(template.view, mid_price_twice=mid, last_price=price))

    observer = MinuteBarObserver(MINUTES, nearest)
    before = np.concatenate([[200_000], mid[:-1]])
    rows = jax.tree.map(jnp.asarray, (
        times.from_ns(time_ns), happened, is_bulk, orders.astype(np.int32), mid.astype(np.int32),
        before.astype(np.int32), price.astype(np.int32), int64.from_numpy(volume)))
    first = observer.begin(market, view, times.of_ns(START_NS))
    got = jax.jit(lambda r: jax.lax.scan(lambda b, x: (observer.update(b, event(x)), None), first, r)[0])(rows)

    if nearest:
        minute = (pd.to_datetime(time_ns).round("min").astype("int64") - START_NS) // (60 * 10**9)
    else:
        minute = pd.Index(-((START_NS - time_ns) // (60 * 10**9)) - 1)
    table = pd.DataFrame({"minute": minute, "orders": orders, "mid": mid, "price": price,
                          "mids": mid + np.maximum(orders - 1, 0) * before,
                          "prices": np.where(price > 0, orders * price, 0), "priced": np.where(price > 0, orders, 0),
                          "volume": np.where(is_bulk, 0, volume)})
    table = table[happened & (orders > 0) & (minute >= 0) & (minute < MINUTES)]
    grouped = table.groupby("minute")
    sums, last = grouped.sum().reindex(range(MINUTES), fill_value=0), grouped.last()
    assert len(last) == MINUTES
    np.testing.assert_array_equal(got.orders, sums["orders"])
    np.testing.assert_array_equal(got.priced, sums["priced"])
    for name, column in (("mid_twice_sum", "mids"), ("price_sum", "prices"), ("volume", "volume")):
        np.testing.assert_array_equal(int64.to_numpy(getattr(got, name)), sums[column])
    np.testing.assert_array_equal(got.price_last, last["price"])
    np.testing.assert_array_equal(got.mid_twice_last, last["mid"])
