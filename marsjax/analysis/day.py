"""A day of one market by the minute: prices, spread, depth and volume, added up while the day streams by."""

import numpy as np
import pandas as pd

from marsjax import clock
from marsjax.specs import SECOND_NS
from marsjax.types import BookView, Kind, Order, Report, Status

MINUTE_NS = 60 * SECOND_NS


def minutes(orders: Order, reports: Report, views: BookView) -> pd.DataFrame:
    """What the accepted orders of a stretch, [N] on the host, make of each minute that they touch.

    Index: whole minutes since midnight. Columns: `mid` (float, last of the minute, 1e-4 of the currency, NaN while
    undefined), `spread` (last with both sides, else NaN), `bid_depth` and `ask_depth` (shares on the levels of the
    view, last), `volume` (shares traded), `orders`.
    """
    keep = np.asarray(reports.status) == Status.ACCEPTED
    both = keep & (np.asarray(views.bid_price)[:, 0] > 0) & (np.asarray(views.ask_price)[:, 0] > 0)
    minute = clock.time_to_ns(orders.time) // MINUTE_NS
    table = pd.DataFrame({
        "mid": np.where(views.has_mid, np.asarray(views.mid_price_twice) / 2, np.nan),
        "spread": np.where(both, views.spread, np.nan),
        "bid_depth": clock.wide_to_numpy(views.bid_volume).sum(axis=1),
        "ask_depth": clock.wide_to_numpy(views.ask_volume).sum(axis=1),
        "volume": np.where(np.asarray(reports.trades.kind) == Kind.CANCEL, 0,
                           clock.wide_to_numpy(reports.trades.volume)),
        "orders": 1,
    })[keep]
    grouped = table.groupby(minute[keep])
    result = grouped[["mid", "spread", "bid_depth", "ask_depth"]].last()
    return result.join(grouped[["volume", "orders"]].sum())


def join(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Stretches of one day, in order -> one row a minute."""
    whole = pd.concat(parts)
    grouped = whole.groupby(level=0)
    result = grouped[["mid", "spread", "bid_depth", "ask_depth"]].last()
    return result.join(grouped[["volume", "orders"]].sum()).rename_axis("minute")
