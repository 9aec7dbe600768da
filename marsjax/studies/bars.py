"""Minute bars of stretches of real days, and of rollouts of an order model."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from marsjax.analysis import bars
from marsjax.analysis.bars import MinuteBars, OrderTrace
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.sim import replay
from marsjax.sim.initial import Start
from marsjax.sim.result import Rollout
from marsjax.studies import futures, rollout_summary, starts
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS, continuous
from marsjax.studies.starts import MarketFeed, NoiseMarket

_NO_DATE = np.datetime64("1970-01-01", "s")
"""Of the noise agent, which trades on no day."""


class Gathered(NamedTuple):
    """Bars, and where they are from."""

    bars: MinuteBars
    about: dict[str, Any]
    """Plain numbers and names, for a report."""
    problems: list[str]
    """Why they are not all that was asked for."""


def replayed(market: MarketSpec, feeds: Sequence[MarketFeed], minutes: int, chunk_orders: int) -> list[MinuteBars]:
    """Stretches of `minutes` bars, one after the other from the beginning of each period of continuous trading.

    Feeds are named <symbol>_<date>; the stretches of one are its rollouts.
    """
    length_ns = (minutes - 1) * MINUTE_NS
    traces: list[list[OrderTrace]] = [[] for _ in feeds]
    for event in replay.replay(market, [feed.orders for feed in feeds], chunk_orders=chunk_orders):
        if isinstance(event, replay.Stretch) and event.views is not None:
            traces[event.market].append(bars.trace(event.orders, event.reports, event.views))
    parts = []
    for feed, trace in zip(feeds, traces, strict=True):
        symbol, date = feed.name.split("_")
        parts += [bars.of_traces(trace, date, symbol, rollout=number, from_ns=begin, until_ns=begin + length_ns)
                  for number, begin in enumerate(stretches(market, minutes))] if trace else []
    return parts


def stretches(market: MarketSpec, minutes: int) -> list[int]:
    """When stretches of `minutes` bars begin, nanoseconds since midnight; they are a minute shorter than their bars."""
    length_ns = (minutes - 1) * MINUTE_NS
    return [begin for period in continuous(market.session)
            for begin in range(period.start_ns, period.end_ns + 1 - length_ns, length_ns)]


def of_days(market: MarketSpec, prepared: PreparedModel, spec: FuturesSpec, feeds: Sequence[MarketFeed], minutes: int
            ) -> Gathered:
    """Futures from the beginning of every stretch of real days but the first of each, before which no order came.

    Args:
      market: sizes and session.
      prepared: the order model.
      spec: how many futures; their length is that of `minutes` bars.
      feeds: named <symbol>_<date>.
      minutes: bars of a stretch.
    """
    begins = stretches(market, minutes)[1:]
    if not begins:
        raise InputError(f"minutes: expected stretches that begin after the first, got one of {minutes}")
    found: list[Start] = []
    names: list[tuple[str, np.datetime64]] = []
    for feed in feeds:
        found += starts.states_of_feed(market, prepared, feed.orders, begins)[0]
        symbol, date = feed.name.split("_")
        names += [(symbol, np.datetime64(f"{date[:4]}-{date[4:6]}-{date[6:]}", "s"))] * len(begins)
    runs = futures.simulate(prepared, market, spec, found)
    return _gathered([of_rollout(run, start, symbol, day, spec.trajectories * number)
                      for number, (run, start, (symbol, day)) in enumerate(zip(runs, found, names, strict=True))],
                     runs, found)


def of_noise(market: MarketSpec, prepared: PreparedModel, spec: FuturesSpec, noise: NoiseMarket, count: int
             ) -> Gathered:
    """Futures from the ends of `count` noise markets, each a symbol of its own."""
    found = starts.noise_starts(market, noise, prepared, count)
    runs = futures.simulate(prepared, market, spec, found)
    return _gathered([of_rollout(run, start, f"noise_{number}", _NO_DATE)
                      for number, (run, start) in enumerate(zip(runs, found, strict=True))], runs, found)


def _gathered(parts: list[MinuteBars], runs: list[Rollout], found: list[Start]) -> Gathered:
    summary = rollout_summary.summarize(runs, found)
    return Gathered(bars.join(parts), {"rollouts": summary}, rollout_summary.problems(summary))


def of_rollout(run: Rollout, start: Start, symbol: str, day: np.datetime64, first: int = 0) -> MinuteBars:
    """The bars of one start's trajectories, numbered from `first` on; those of lost trajectories are left out."""
    date = day + np.timedelta64(int(bars.nearest_minute(times.to_ns(start.time))), "m")
    return bars.of_dense(symbol, bars.SIMULATED, date, run.bars, first, ~rollout_summary.is_lost(run))
