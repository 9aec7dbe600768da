"""Watching a market: which intervals of a day an order model's futures of the same minutes do not account for.

Before every interval the order model writes futures from the state that the day had then. What really came is ranked
among them (`analysis.detection`), and then among intervals that are taken to be clean.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from marsjax.analysis import detection, interval_features, order_events
from marsjax.analysis.detection import DayTest
from marsjax.analysis.interval_features import FEATURES
from marsjax.analysis.order_events import Arrivals
from marsjax.analysis.quantities import OrderEvents
from marsjax.core import limits, times
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed
from marsjax.observers.trace_tables import Table
from marsjax.sim.initial import Start
from marsjax.sim.refusals import Refusals
from marsjax.sim.result import Rollout
from marsjax.studies import rollout_summary, starts
from marsjax.studies.checks import check_numbers
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS, continuous, spell

BY_FUTURES, BY_CLEAN = "p_futures", "p_clean"
"""Columns of p-values: among the futures, and of that among clean intervals."""
SIMPLE = {"volume_score": "traded_volume", "cancel_score": "cancel_ratio"}
"""Detectors that need no order model, and the feature that each goes by: high ones are strange."""
LEAST_CLEAN = 8
"""Clean intervals, fewer of which say nothing."""
LEAST_USUAL_MINUTES = 1.0
"""Below that a simple detector would go by a single clean interval."""


@dataclasses.dataclass(frozen=True)
class WatchSpec:
    """Which intervals of a day are looked at, and when there is an alarm."""

    minutes: int
    """Of an interval."""
    first_ns: int
    """Of the first interval, nanoseconds since midnight."""
    last_ns: int
    """No interval ends after it."""
    clean_until_ns: int
    """Intervals that end by then are taken to be clean: the others are ranked among them. `first_ns`: none are."""
    rate: float = 0.05
    """Of false alarms an interval."""
    combination: str = "ranks"
    """Of the features' distances (`detection.COMBINATIONS`)."""
    usual_minutes: float = 30.0
    """What is usual at a time of day, for the simple detectors, is that of clean intervals about so near."""

    def __post_init__(self) -> None:
        check_numbers(self, minutes=(1, limits.MINUTES))
        detection.check_rate(self.rate, "WatchSpec.rate")
        detection.combine(np.zeros(1), self.combination)
        if isinstance(self.usual_minutes, bool) or not LEAST_USUAL_MINUTES <= self.usual_minutes < np.inf:
            raise InputError(f"WatchSpec.usual_minutes: expected a number of {LEAST_USUAL_MINUTES} at least, got "
                             f"{self.usual_minutes!r}")

    def intervals(self, market: MarketSpec) -> list[int]:
        """Their beginnings, one after the other in every period of continuous trading; InputError for fewer than 2."""
        length = self.minutes * MINUTE_NS
        found = [begin for period in continuous(market.session) for begin in range(
            max(period.start_ns, self.first_ns), min(period.end_ns + SECOND_NS, self.last_ns) - length + 1, length)]
        if len(found) < 2:
            raise InputError(f"minutes, first_time, last_time: expected at least 2 intervals of {self.minutes} minutes "
                             f"from {spell(self.first_ns)} to {spell(self.last_ns)} in the session, got {len(found)}")
        return found

    def is_clean(self, begins_ns: Sequence[int] | np.ndarray) -> np.ndarray:
        """bool [T]; InputError where there are some, but too few, or where all are clean."""
        found = np.asarray(begins_ns) + self.minutes * MINUTE_NS <= self.clean_until_ns
        if self.clean_until_ns != self.first_ns and found.sum() < LEAST_CLEAN:
            raise InputError(f"clean_until: expected {LEAST_CLEAN} intervals of {self.minutes} minutes at least before "
                             f"it, got {int(found.sum())}; leave it out if none are known to be clean")
        if found.all():
            raise InputError(f"clean_until: expected a time before the end of the last interval, which begins at "
                             f"{spell(int(begins_ns[-1]))}, got {spell(self.clean_until_ns)}: nothing is left to watch")
        return np.asarray(found)

    def is_tested(self, begins_ns: Sequence[int], from_ns: int, until_ns: int) -> bool:
        """Whether a time, both ends included, lies in intervals that are not clean; each is without its begin."""
        tested = np.asarray(begins_ns)[~self.is_clean(begins_ns)]
        seconds = np.append(np.arange(from_ns, until_ns, SECOND_NS), until_ns)
        at = np.searchsorted(tested, seconds, side="left") - 1
        return bool(((at >= 0) & (seconds <= tested[at] + self.minutes * MINUTE_NS)).all())


class WatchedDay(NamedTuple):
    """A day, and the states before its intervals."""

    name: str
    events: OrderEvents
    known: Arrivals
    starts: list[Start]
    begins_ns: list[int]
    refused: Refusals


class Watched(NamedTuple):
    """What is known of the intervals of a day."""

    real: np.ndarray
    """float64 [T, F], FEATURES of what came."""
    futures: list[np.ndarray]
    """T of float64 [K, F], of the futures that got to their end."""
    spread_overlap: np.ndarray
    """float64 [T], overlap coefficient of the spreads after each order, of what came and of all futures together."""


def read(market: MarketSpec, prepared: PreparedModel, feed: DayFeed, begins_ns: Sequence[int], minutes: int
         ) -> WatchedDay:
    """One pass over a day; InputError, under its name, where it cannot be used."""
    stops = sorted({*begins_ns, *(begin + minutes * MINUTE_NS for begin in begins_ns)})
    try:
        states = starts.states_of_feed(market, prepared, feed, stops, on_host=True)
        events = order_events.of_passed(states.sent)
    except InputError as error:
        raise InputError(f"{feed.name}: {error}") from error
    by_time = dict(zip(stops, states.starts, strict=True))
    return WatchedDay(feed.name, events, order_events.arrivals_of(states.passed),
                      [by_time[begin] for begin in begins_ns], list(begins_ns), states.refused)


def watched(day: WatchedDay, runs: Sequence[Rollout], sent: Sequence[Table], minutes: int) -> Watched:
    """The features of a day and of its futures.

    Args:
      day: with one start an interval.
      runs: futures of each start.
      sent: the accepted orders of every trajectory of them, in order (`realism.SentOrders`).
      minutes: of an interval.
    """
    real, made, overlaps = [], [], []
    first = 0
    for begin, run in zip(day.begins_ns, runs, strict=True):
        lost = rollout_summary.is_lost(run)
        some = [order_events.of_trace(rows, day.known) for rows in sent[first : first + len(lost)]]
        kept = [events for events, is_lost in zip(some, lost, strict=True) if not is_lost]
        first += len(lost)
        real.append(interval_features.of_interval(day.events, begin, minutes))
        made.append(features(kept, begin, minutes))
        came = day.events.between(begin, begin + minutes * MINUTE_NS).spread
        overlaps.append(detection.overlap(came, np.concatenate([np.zeros(0), *(each.spread for each in kept)])))
    return Watched(np.stack(real), made, np.array(overlaps))


def features(made: Sequence[OrderEvents], begin_ns: int, minutes: int) -> np.ndarray:
    """float64 [K, F], FEATURES of K futures."""
    rows = [interval_features.of_interval(events, begin_ns, minutes) for events in made]
    return np.stack(rows) if rows else np.zeros((0, len(FEATURES)))


def table(begins_ns: Sequence[int], found: Watched, spec: WatchSpec) -> pd.DataFrame:
    """A row an interval: time_ns, clock, is_clean, p-values, distance, alarm, simple detectors, features.

    `p_futures` ranks it among its futures. `p_clean` ranks how far it lies from them among clean intervals, a clean one
    among the others; NaN where there are none. `alarm` goes by `p_clean`, or where there is none by `p_futures`.
    `volume_score` and `cancel_score` are the simple detectors, in standard deviations above what is usual; NaN without
    clean intervals. `NAME` and `NAME_p` are a feature and its rank p-value among the futures.
    """
    at = np.asarray(begins_ns)
    is_clean = spec.is_clean(at)
    evened = interval_features.evened
    by_futures = [detection.rank_test(evened(real), evened(made), spec.combination)
                  for real, made in zip(found.real, found.futures, strict=True)]
    p_clean = _among_clean(found, is_clean, spec.combination)
    p_futures = np.array([each.p_value for each in by_futures])
    used = p_clean if is_clean.any() else p_futures
    rows = {"time_ns": at, "clock": times.clock(at, 0), "is_clean": is_clean, BY_FUTURES: p_futures, BY_CLEAN: p_clean,
            "distance": np.array([each.distance for each in by_futures]), "alarm": used <= spec.rate,
            "spread_overlap": found.spread_overlap}
    rows |= {name: _unusual(interval_features.column(found.real, feature), at, is_clean, spec)
             for name, feature in SIMPLE.items()}
    for number, name in enumerate(FEATURES):
        rows[name] = found.real[:, number]
        rows[f"{name}_p"] = np.array([each.feature_p[number] for each in by_futures])
    return pd.DataFrame(rows)


def day_test(rows: pd.DataFrame, found: Watched, spec: WatchSpec) -> DayTest:
    """The intervals that are not clean, as one day; `rows` are of `table`."""
    tested = rows[~rows["is_clean"]]
    clean = int(rows["is_clean"].sum())
    if clean:
        return detection.shared_pool_test(tested[BY_CLEAN].to_numpy(), spec.rate, clean)
    pools = np.array([len(each) for each in found.futures])
    return detection.own_pools_test(tested[BY_FUTURES].to_numpy(), spec.rate, pools)


def away_from_futures(found: Watched) -> np.ndarray:
    """float64 [T, F], how far each interval lies from its futures, signed, in their robust standard deviations."""
    evened = interval_features.evened
    rows = [detection.standardised(evened(real), evened(made)) if len(made) else np.full(len(FEATURES), np.nan)
            for real, made in zip(found.real, found.futures, strict=True)]
    return np.clip(np.stack(rows), -100, 100)


def _among_clean(found: Watched, is_clean: np.ndarray, combination: str) -> np.ndarray:
    if not is_clean.any():
        return np.full(len(is_clean), np.nan)
    away = away_from_futures(found)
    numbers = np.arange(len(is_clean))
    return np.array([detection.rank_test(away[i], away[is_clean & (numbers != i)], combination).p_value
                     for i in numbers])


def _unusual(values: np.ndarray, at_ns: np.ndarray, is_clean: np.ndarray, spec: WatchSpec) -> np.ndarray:
    """Of each interval by clean ones, a clean one by the others; NaN where fewer than 2 of these have a value."""
    if not is_clean.any():
        return np.full(len(values), np.nan)
    width, numbers = round(spec.usual_minutes * MINUTE_NS), np.arange(len(values))
    found = []
    for i in numbers:
        others = is_clean & (numbers != i)
        found.append(detection.of_time_of_day(values[i : i + 1], at_ns[i : i + 1], (values[others], at_ns[others]),
                                              width)[0])
    return np.array(found)
