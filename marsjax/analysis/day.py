"""A day of one market by the minute: prices, spread, depth and volume, added up while the day streams by."""

import jax
import numpy as np
import pandas as pd

from marsjax.core import int64, times
from marsjax.core.records import BookView, Kind, Order, Report, Status, Uncross
from marsjax.core.times import SECOND_NS

MINUTE_NS = 60 * SECOND_NS


def minutes(orders: Order, reports: Report, views: BookView) -> pd.DataFrame:
    """What the accepted orders of a stretch, [N] on the host, make of each minute that they touch.

    Index: whole minutes since midnight. Columns: `mid` (float, last of the minute, 1e-4 of the currency) and `spread`
    (last), both NaN while there is none or the book is crossed, as it is while a call auction collects; `bid_depth`
    and `ask_depth` (shares on the levels of the view, last), `volume` (shares traded), `orders`.
    """
    keep = np.asarray(reports.status) == Status.ACCEPTED
    is_fill = np.asarray(reports.trades.kind) != Kind.CANCEL
    table = _state(views).assign(volume=np.where(is_fill, int64.to_numpy(reports.trades.volume), 0), orders=1)
    return _by_minute(table[keep], (times.to_ns(orders.time) // MINUTE_NS)[keep])


def auction_minute(time_ns: int, uncross: Uncross, view: BookView) -> pd.DataFrame:
    """The minute of one call auction, scalars on the host, as `minutes` gives it; `view` is the one after it."""
    table = _state(jax.tree.map(lambda x: np.asarray(x)[None], view))
    return _by_minute(table.assign(volume=int64.to_numpy(uncross.volume), orders=0),
                      np.array([time_ns // MINUTE_NS]))


def _state(views: BookView) -> pd.DataFrame:
    bid, ask = np.asarray(views.bid_price)[:, 0], np.asarray(views.ask_price)[:, 0]
    both = (bid > 0) & (ask > 0)
    is_crossed = both & (ask <= bid)
    return pd.DataFrame({
        "mid": np.where(np.asarray(views.has_mid) & ~is_crossed, np.asarray(views.mid_price_twice) / 2, np.nan),
        "spread": np.where(both & ~is_crossed, views.spread, np.nan),
        "bid_depth": int64.to_numpy(views.bid_volume).sum(axis=1),
        "ask_depth": int64.to_numpy(views.ask_volume).sum(axis=1)})


def _by_minute(table: pd.DataFrame, minute: np.ndarray) -> pd.DataFrame:
    grouped = table.groupby(minute)
    # `last` of a group skips NaN; the last row is what is meant.
    return grouped[["mid", "spread", "bid_depth", "ask_depth"]].nth(-1).set_axis(list(grouped.groups)).join(
        grouped[["volume", "orders"]].sum())


def join(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Stretches of one day, in order -> one row a minute."""
    table = pd.concat(parts)
    return _by_minute(table, table.index.to_numpy()).rename_axis("minute")
