"""Made-up messages: random ones that look like a market's from afar, and blocks of them."""

import dataclasses
from typing import Any

import numpy as np

from marsjax.analysis.lob_bench.messages import OrderMessages
from marsjax.core.records import Kind, Side
from marsjax.core.times import SECOND_NS

BEGIN_NS = 36_000 * SECOND_NS


def made(seed: int, count: int = 300, begin_ns: int = BEGIN_NS, rate: float = 5.0, **changes: Any) -> OrderMessages:
    """Random messages, `rate` a second in the mean; a few find a side empty. `changes` are columns of theirs."""
    rng = np.random.default_rng(seed)
    time_ns = begin_ns + np.cumsum(np.maximum(rng.exponential(SECOND_NS / rate, count).astype(np.int64), 0)
                                   * (rng.random(count) > 0.1)) + 1
    kind = rng.choice([Kind.SELL, Kind.BUY, Kind.CANCEL], count)
    is_cancel = kind == Kind.CANCEL
    mid = 100_000 + 100 * np.cumsum(rng.integers(-1, 2, count))
    half = 50 * rng.integers(1, 4, count)
    side = np.where(is_cancel, rng.integers(0, 2, count), np.where(kind == Kind.BUY, Side.BID, Side.ASK))
    volume = 100 * rng.integers(1, 10, count)
    traded = np.where(is_cancel | (rng.random(count) < 0.7), 0, np.minimum(volume, 100 * rng.integers(1, 10, count)))
    touch = {name: 100 * rng.integers(1, 30, count) for name in ("ask_volume", "bid_volume")}
    has = {name: rng.random(count) > 0.02 for name in ("ask", "bid")}
    columns = {
        "time_ns": time_ns, "kind": kind, "side": side,
        "price": mid + np.where(side == Side.ASK, 1, -1) * 50 * rng.integers(1, 12, count), "volume": volume,
        "traded": traded, "rest": np.where(is_cancel, 0, volume - traded),
        "order_id": np.where(is_cancel, rng.integers(0, count, count), np.arange(count)),
        "level": rng.integers(0, 6, count), "ask": np.where(has["ask"], mid + half, 0),
        "bid": np.where(has["bid"], mid - half, 0),
        **{name: np.where(has[name[:3]], column, 0) for name, column in touch.items()}}
    columns |= {f"{name}_total": columns[f"{name}_volume"] + has[name] * 100 * rng.integers(0, 50, count)
                for name in has}
    found = OrderMessages(**{name: np.asarray(column, np.int64) for name, column in columns.items()})
    return dataclasses.replace(found, **{name: np.asarray(column, np.int64) for name, column in changes.items()})


def parts(seed: int, blocks: int = 6, sequences: int = 1, count: int = 300, **changes: Any
          ) -> list[list[OrderMessages]]:
    """Blocks of a few sequences each, one after another in time."""
    return [[made(1000 * seed + 10 * block + number, count, BEGIN_NS + block * 120 * SECOND_NS, **changes)
             for number in range(sequences)] for block in range(blocks)]
