"""Minute bars of stretches of real days, and of rollouts of an order model."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from marsjax.analysis import bars
from marsjax.analysis.bars import MinuteBars, OrderTrace
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.sessions import Session
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.sim import replay
from marsjax.sim.initial import Start
from marsjax.sim.refusals import Refusals
from marsjax.sim.result import Rollout
from marsjax.studies import futures, rollout_summary, starts
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.progress import NOBODY_WATCHES, Watching
from marsjax.studies.session_times import MINUTE_NS, continuous, hours
from marsjax.studies.starts import NoiseMarket

_NO_DATE = np.datetime64("1970-01-01", "s")
"""Of what was traded on no day: by the noise agent, or in a file that names none."""


class Gathered(NamedTuple):
    """Bars, and where they are from."""

    bars: MinuteBars
    about: dict[str, Any]
    """Plain numbers and names, for a report."""
    problems: list[str]
    """Why they are not all that was asked for."""


class ReplayedBars(NamedTuple):
    """Bars of real days."""

    bars: list[MinuteBars]
    refused: dict[str, Refusals]
    """Of the orders of each day, by its name."""


def replayed(market: MarketSpec, feeds: Sequence[DayFeed], minutes: int, chunk_orders: int) -> ReplayedBars:
    """Stretches of `minutes` bars, one after the other from the beginning of each period of continuous trading.

    The stretches of one feed are its rollouts.
    """
    length_ns = (minutes - 1) * MINUTE_NS
    traces: list[list[OrderTrace]] = [[] for _ in feeds]
    refused = [Refusals(market, feed.publishes_fills) for feed in feeds]
    for event in replay.replay(market, [feed.read() for feed in feeds], chunk_orders=chunk_orders):
        if isinstance(event, replay.Stretch) and event.views is not None:
            traces[event.market].append(bars.trace(event.orders, event.reports, event.views))
            refused[event.market].add(event.orders, event.reports.status)
        elif isinstance(event, replay.Published):
            refused[event.market].messages(event.ignored, event.adapted)
    parts = []
    for feed, trace in zip(feeds, traces, strict=True):
        date = _NO_DATE if feed.day is None else feed.day
        parts += [bars.of_traces(trace, date, feed.symbol, rollout=number, from_ns=begin, until_ns=begin + length_ns)
                  for number, begin in enumerate(stretches(hours(market.session, feed), minutes))] if trace else []
    return ReplayedBars(parts, {feed.name: each for feed, each in zip(feeds, refused, strict=True)})


def stretches(session: Session, minutes: int) -> list[int]:
    """When stretches of `minutes` bars begin, nanoseconds since midnight; they are a minute shorter than their bars."""
    length_ns = (minutes - 1) * MINUTE_NS
    return [begin for period in continuous(session)
            for begin in range(period.start_ns, period.end_ns + 1 - length_ns, length_ns)]


def of_days(market: MarketSpec, prepared: PreparedModel, spec: FuturesSpec, feeds: Sequence[DayFeed], minutes: int,
            watch: Watching = NOBODY_WATCHES) -> Gathered:
    """Futures from the beginning of every stretch of real days but the first of each, before which no order came.

    Args:
      market: sizes and session.
      prepared: the order model.
      spec: how many futures; their length is that of `minutes` bars.
      feeds: the days.
      minutes: bars of a stretch.
      watch: who is told of the futures while they are made.
    """
    begins = {feed.name: stretches(hours(market.session, feed), minutes)[1:] for feed in feeds}
    for name, each in begins.items():
        if not each:
            raise InputError(f"{name}: minutes: expected stretches that begin after the first, got one of {minutes}")
    return of_times(market, prepared, spec, [(feed, begins[feed.name]) for feed in feeds], watch)


def of_times(market: MarketSpec, prepared: PreparedModel, spec: FuturesSpec,
             days: Sequence[tuple[DayFeed, Sequence[int]]], watch: Watching = NOBODY_WATCHES) -> Gathered:
    """Futures from times of days, nanoseconds since midnight; those of one day are rollouts of its symbol."""
    found: list[Start] = []
    names: list[tuple[str, np.datetime64]] = []
    for feed, begins in days:
        found += starts.states_of_feed(market, prepared, feed, begins).starts
        day = _NO_DATE if feed.day is None else feed.day.astype("datetime64[s]")
        names += [(feed.symbol, day)] * len(begins)
    runs = futures.simulate(prepared, market, spec, found, watch=watch)
    return _gathered([of_rollout(run, start, symbol, day, spec.trajectories * number)
                      for number, (run, start, (symbol, day)) in enumerate(zip(runs, found, names, strict=True))],
                     runs, found)


def of_noise(market: MarketSpec, prepared: PreparedModel, spec: FuturesSpec, noise: NoiseMarket, count: int,
             watch: Watching = NOBODY_WATCHES) -> Gathered:
    """Futures from the ends of `count` noise markets, each a symbol of its own."""
    found = starts.noise_starts(market, noise, prepared, count)
    runs = futures.simulate(prepared, market, spec, found, watch=watch)
    return _gathered([of_rollout(run, start, f"noise_{number}", _NO_DATE)
                      for number, (run, start) in enumerate(zip(runs, found, strict=True))], runs, found)


def _gathered(parts: list[MinuteBars], runs: list[Rollout], found: list[Start]) -> Gathered:
    summary = rollout_summary.summarize(runs, found)
    return Gathered(bars.join(parts), {"rollouts": summary}, rollout_summary.problems(summary))


def of_rollout(run: Rollout, start: Start, symbol: str, day: np.datetime64, first: int = 0) -> MinuteBars:
    """The bars of one start's trajectories, numbered from `first` on; those of lost trajectories are left out."""
    date = day + np.timedelta64(int(bars.nearest_minute(times.to_ns(start.time))), "m")
    return bars.of_dense(symbol, bars.SIMULATED, date, run.bars, first, ~rollout_summary.is_lost(run))
