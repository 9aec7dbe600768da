"""One forecast: where its trajectories start, and what really came."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from marsjax.analysis import forecast, forecast_plots
from marsjax.analysis.forecast import History, Move
from marsjax.analysis.forecast_plots import Reached
from marsjax.core import times
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.market import book as books
from marsjax.observers import market_tables
from marsjax.sim import frames
from marsjax.sim.initial import Start
from marsjax.sim.refusals import Refusals
from marsjax.sim.result import Rollout, SoFar
from marsjax.sim.step import End
from marsjax.studies import rollout_summary, starts
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS, spell


class ForecastStart(NamedTuple):
    """Where the trajectories start."""

    name: str
    start: Start
    time_ns: int
    past: History
    seen: History | None
    """The past and what really came; None where nothing did."""
    refused: Refusals
    """Of the orders up to the last of these times."""


def read_start(market: MarketSpec, prepared: PreparedModel, feed: DayFeed, time_ns: int, minutes: int
               ) -> ForecastStart:
    """The state of a market at a time; of real days what came in the `minutes` after it, too (0: nothing did)."""
    stops = [time_ns, time_ns + minutes * MINUTE_NS] if minutes else [time_ns]
    found, passed, refused, _ = starts.states_of_feed(market, prepared, feed, stops)
    return ForecastStart(feed.name, found[0], time_ns, forecast.history(passed[:1]),
                         forecast.history(passed) if minutes else None, refused)


def describe(market: MarketSpec, at: ForecastStart) -> dict[str, Any]:
    """The start in numbers: prices in 1e-4 of the currency, orders that rest, orders that the model sees."""
    view = jax.jit(books.view, static_argnums=0)(market, at.start.market.book)
    asks, bids = (np.asarray(at.start.market.book.volume) > 0).sum(axis=1)
    return {"market": at.name, "time": spell(at.time_ns), "mid": int(view.mid_price_twice) / 2,
            "spread": int(view.spread), "bids": int(bids), "asks": int(asks), "orders_seen": int(at.start.count),
            "orders_before": len(at.past.time_ns)}


def realized(at: ForecastStart, minutes: int, threshold: float) -> dict[str, Any] | None:
    """Label, class and mids by minute of what really came, or None."""
    if at.seen is None:
        return None
    label = float(forecast.labels_of_history(at.seen, np.array([at.time_ns]), minutes * MINUTE_NS)[0])
    move = None if np.isnan(label) else Move(int(forecast.classes(np.array(label), threshold))).name
    return {"label": label, "class": move, "mids": forecast.minute_mids(at.seen, at.time_ns, minutes)}


def label_table(run: Rollout | SoFar, labels: np.ndarray, market: MarketSpec, start_ns: int) -> pd.DataFrame:
    """A row a trajectory: label (a share of the mid at the start), orders, and why it ended; times are of the start."""
    found = _so_far(run)
    at = np.full(len(labels), start_ns)
    return pd.DataFrame({"trajectory": np.arange(len(labels)), "time_ns": at, "clock": times.clock(at),
                         "phase": market_tables.phases(market.session, at), "label": labels,
                         "orders": np.asarray(found.bars.orders).sum(axis=1),
                         "end": [End(end).name for end in found.end], "label_unit": "share of the mid at the start"})


def minute_table(run: Rollout | SoFar, market: MarketSpec, start_ns: int,
                 prices: str = market_tables.CURRENCY) -> pd.DataFrame:
    """`forecast.minute_table` with the times at which minutes end, and units (`market_tables.presented`).

    The status is the end of the trajectory; of one that still runs, the minutes that have passed.
    """
    found = _so_far(run)
    table = forecast.minute_table(found.bars)
    of, minute = table["trajectory"].to_numpy(), table["minute"].to_numpy()
    table = table[(found.end[of] != End.RUNNING) | (minute * MINUTE_NS <= found.passed_ns[of])]
    columns = {str(name): table[name].to_numpy() for name in table}
    ends = np.array([End(end).name for end in found.end])
    columns = {"trajectory": columns.pop("trajectory"), "minute": columns["minute"],
               "time_ns": start_ns + columns.pop("minute") * MINUTE_NS} | columns
    columns["status"] = ends[columns["trajectory"]]
    return frames.frame(market_tables.presented(market, columns, prices))


def labels_so_far(found: SoFar, is_whole: bool = True) -> np.ndarray:
    """Labels float64 [B] of trajectories that have ended, NaN of others; if not `is_whole`, of what there is of all."""
    labels = forecast.labels_of_bars(found.bars, found.mid_twice_start)
    lost = rollout_summary.are_lost(found.end)
    return np.where(lost | (found.end == End.RUNNING) if is_whole else lost, np.nan, labels)


def _so_far(run: Rollout | SoFar) -> SoFar:
    return run if isinstance(run, SoFar) else run.so_far()


def fan(at: ForecastStart, run: Rollout | SoFar, minutes: int, threshold: float, title: str, unit: float = 1e-4
        ) -> Figure:
    """The mids before the start, those of the trajectories that are not lost, what came, and the labels.

    Where trajectories still run, what there is of them.
    """
    found = _so_far(run)
    is_shown = at.past.time_ns > at.time_ns - 2 * minutes * MINUTE_NS
    since = (at.past.time_ns[is_shown] - at.time_ns) / MINUTE_NS
    before = np.where(at.past.mid_twice[is_shown] > 0, at.past.mid_twice[is_shown] / 2, np.nan)
    kept, runs = ~rollout_summary.are_lost(found.end), bool((found.end == End.RUNNING).any())
    ahead, reached = forecast.mids_of_bars(found.bars, found.mid_twice_start)[kept], None
    if runs:
        passed = found.passed_ns[kept] / MINUTE_NS
        # The bars of the minute that a trajectory is in hold its mid now, which all later ones keep.
        reached = Reached(passed, ahead[:, -1])
        ahead = np.where(np.arange(ahead.shape[1]) <= passed[:, None], ahead, np.nan)
    came = realized(at, minutes, threshold)
    futures = forecast_plots.Futures(since, before, ahead, None if came is None else came["mids"],
                                     labels_so_far(found, is_whole=not runs)[kept],
                                     np.nan if came is None else came["label"], threshold)
    return forecast_plots.fan(futures, title, unit, reached)
