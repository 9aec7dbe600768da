"""What an order-batch model learns from: images of the minutes of real days, and of an order model's own futures."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.order_images import OrderBatchSpec
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed
from marsjax.observers.trace import Log
from marsjax.sim.initial import Start
from marsjax.sim.refusals import Refusals
from marsjax.studies import futures, own_futures, session_times, starts
from marsjax.studies.checks import check_numbers
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS
from marsjax.training import days
from marsjax.training.order_batch import data
from marsjax.training.order_batch.data import DayPart, Minutes, SeenOrders


@dataclasses.dataclass(frozen=True)
class OwnMinutes:
    """How many futures of real states are learnt from beside the real minutes.

    Examples:
      >>> OwnMinutes(trajectories=2, minutes=17).every_minutes
      20
    """

    trajectories: int = 8
    """Of each start."""
    minutes: int = 20
    every_minutes: int = 20
    """Between two starts of a day."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(self, trajectories=(1, limits.TRAJECTORIES), minutes=(1, limits.MINUTES),
                      every_minutes=(1, limits.MINUTES), seed=(0, limits.SEED))


def day_parts(market: MarketSpec, feeds: Sequence[DayFeed]) -> tuple[list[DayPart], dict[str, Refusals]]:
    """The periods of continuous trading of days, replayed, and what was refused of each day by its name.

    Errors are those of `training.days.replay_days`.
    """
    replayed = days.replay_days(market, [feed.read() for feed in feeds], [feed.name for feed in feeds])
    parts = [DayPart(seen, period.start_ns, period.end_ns + 1, market.tick, feed.name)
             for feed, seen in zip(feeds, map(data.of_day, replayed), strict=True)
             for period in session_times.continuous(session_times.hours(market.session, feed))]
    return parts, {day.name: day.refused for day in replayed}


def of_futures(prepared: PreparedModel, market: MarketSpec, feeds: Sequence[DayFeed], images: OrderBatchSpec,
               own: OwnMinutes, until_ns: int) -> list[Minutes]:
    """Intervals of futures that an order model writes from states of days before a time, a run for each.

    The states are `own.every_minutes` apart, from so long after the beginning of a period on; of their books the best
    orders are kept. Futures of different days share their draws. InputError where there is no state.
    """
    found: list[Minutes] = []
    spec = FuturesSpec(own.trajectories, own.minutes, own.seed)
    for feed in feeds:
        step = own.every_minutes * MINUTE_NS
        times_ns = [time for period in session_times.continuous(session_times.hours(market.session, feed))
                    for time in range(period.start_ns + step, min(period.end_ns, until_ns) - MINUTE_NS + 1, step)]
        if not times_ns:
            continue
        states = [own_futures.best_orders(start)
                  for start in starts.states_of_feed(market, prepared, feed, times_ns, on_host=True).starts]
        ready = [start for start in states if int(start.count) == prepared.model.spec.context_length]
        if ready:
            found += _of_starts(prepared, market, images, spec, ready, f"{feed.name} future")
    if not found:
        raise InputError("order batches: expected a state with orders before it to write futures from, got none; take "
                         "longer days, or no futures of the model's own (own_trajectories 0)")
    return found


def _of_starts(prepared: PreparedModel, market: MarketSpec, images: OrderBatchSpec, spec: FuturesSpec,
               states: Sequence[Start], source: str) -> list[Minutes]:
    parts: list[list[SeenOrders]] = [[] for _ in range(len(states) * spec.trajectories)]

    def on_trace(who: np.ndarray, log: Log) -> None:
        for row in np.flatnonzero(who >= 0).tolist():
            events = jax.tree.map(lambda x, row=row: np.asarray(x)[row, : int(log.count[row])], log.events)
            parts[int(who[row])].append(data.of_event(events))

    futures.simulate(prepared, market, spec, states, on_trace=on_trace)
    found = []
    for number, part in enumerate(parts):
        if not part:  # it ended before its first order
            continue
        time = states[number // spec.trajectories].time
        begin_ns = int(time.s) * SECOND_NS + int(time.ns)
        seen = SeenOrders(*(np.concatenate(x) for x in zip(*part, strict=True)))
        found.append(data.minutes(images, seen, market.tick, (begin_ns, begin_ns + spec.minutes * MINUTE_NS), source))
    return found
