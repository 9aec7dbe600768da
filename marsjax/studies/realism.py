"""Orders that are compared: those of real days, those of rollouts from times of them, and the noise agent's."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from marsjax.agents.noise import NoiseSpec
from marsjax.analysis import order_events, quantities
from marsjax.analysis.lob_bench import messages
from marsjax.analysis.lob_bench.messages import OrderMessages
from marsjax.analysis.order_events import Arrivals
from marsjax.analysis.quantities import OF_STRETCHES, OrderEvents
from marsjax.analysis.realism_table import Compared, Fixed, Values, fix, values
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.records import Status
from marsjax.core.sessions import Period, Session
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed
from marsjax.observers import trace_tables
from marsjax.observers.trace import Log
from marsjax.observers.trace_tables import Table
from marsjax.sim.initial import Start, Warmup
from marsjax.sim.refusals import Refusals
from marsjax.sim.result import Rollout
from marsjax.studies import rollout_summary, starts
from marsjax.studies.checks import check_numbers
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS, check_time, continuous, past_times, spell
from marsjax.studies.starts import NoiseMarket

_MINUTE_S = 60
_BETWEEN_NS = 30 * SECOND_NS
"""Between two real stretches that the ceiling is drawn from."""


@dataclasses.dataclass(frozen=True)
class StretchSpec:
    """Which stretches of a day are compared."""

    minutes: int
    """Of a rollout."""
    first_ns: int
    """Of the first start, nanoseconds since midnight; orders before it fix the bins."""
    last_ns: int | None = None
    """Of the last start; None: as long as its minutes end in the period of trading."""
    every_minutes: int = 5
    """Between two starts."""

    def __post_init__(self) -> None:
        check_numbers(self, minutes=(1, limits.MINUTES), every_minutes=(1, limits.MINUTES))

    def times(self, session: Session) -> list[int]:
        """The starts, nanoseconds since midnight; InputError unless there are two, and minutes before the first."""
        end_ns = check_time(session, self.first_ns, self.minutes).end_ns
        last_ns = end_ns - self.minutes * MINUTE_NS
        if self.last_ns is not None:
            last_ns = min(last_ns, self.last_ns)
        found = list(range(self.first_ns, last_ns + 1, self.every_minutes * MINUTE_NS))
        if len(found) < 2:
            raise InputError(f"first_time, last_time, every_minutes, minutes: expected at least 2 starts whose "
                             f"minutes end by {spell(end_ns)}, got {len(found)}")
        if not len(self.before(session)[self.minutes]):
            raise InputError(f"first_time: expected {self.minutes} minutes of trading before it, which fix the bins, "
                             f"got {spell(self.first_ns)}")
        return found

    def before(self, session: Session) -> dict[int, np.ndarray]:
        """Starts of stretches of each length up to `minutes` that end before the first start, one every minute."""
        return {length: past_times(session, 0, self.first_ns, _MINUTE_S, length)
                for length in range(1, self.minutes + 1)}


class Day(NamedTuple):
    """One market of one day and the starts in it."""

    name: str
    symbol: str
    events: OrderEvents
    messages: OrderMessages
    known: Arrivals
    starts: list[Start]
    times_ns: list[int]
    """Of the starts."""
    fixed: Fixed
    earlier_ns: np.ndarray
    """int64 [K], starts of stretches as long as a rollout that end before the first start."""
    refused: Refusals
    """Of the orders of the day."""


class StartValues(NamedTuple):
    """What is compared of one start."""

    history: Values
    simulated: list[Values]
    """Of as many rollouts as got to their end."""
    real: dict[str, float]
    """Of all minutes together."""
    rollouts: list[dict[str, float]]
    """Likewise, of every rollout; NaN for lost ones."""


class Floor(NamedTuple):
    """The noise agent's orders, and the starts of its stretches."""

    events: OrderEvents
    messages: OrderMessages
    times_ns: np.ndarray
    """int64 [K]."""
    init_price: int
    """Around which its prices are, 1e-4 of the currency."""


def read(market: MarketSpec, prepared: PreparedModel, feed: DayFeed, spec: StretchSpec, session: Session) -> Day:
    """One pass over a day, whose stretches lie in `session`; InputError, under its name, where it cannot be used."""
    times_ns, before = spec.times(session), spec.before(session)
    stops = sorted({*times_ns, times_ns[-1] + spec.minutes * MINUTE_NS})
    try:
        states = starts.states_of_feed(market, prepared, feed, stops, on_host=True)
        events = order_events.of_passed(states.sent)
        fixed = fix(events, before, spec.minutes)
    except InputError as error:
        raise InputError(f"{feed.name}: {error}") from error
    return Day(feed.name, feed.symbol, events, messages.of_passed(states.sent), order_events.arrivals_of(states.passed),
               states.starts[: len(times_ns)], times_ns, fixed, before[spec.minutes], states.refused)


class SentOrders:
    """Accepted orders of the trajectories of rollouts, kept chunk by chunk."""

    def __init__(self) -> None:
        self._parts: list[Table] = []
        self.unlisted = 0
        """Cancels of decisions that hit more orders than are listed."""

    def __call__(self, numbers: np.ndarray, log: Log) -> None:
        """Keeps a chunk of trajectories `numbers`."""
        rows = trace_tables.orders(log, numbers)
        keep = rows["status"] == Status.ACCEPTED.name
        self._parts.append({name: rows[name][keep] for name in ("trajectory", *order_events.COLUMNS)})
        taken, by_price = log.events.trades, np.asarray(log.events.is_by_price)
        logged = np.arange(by_price.shape[1]) < np.asarray(log.count)[:, None]
        more = np.maximum(np.asarray(taken.count) - np.asarray(taken.price).shape[-1], 0)
        self.unlisted += int(more[logged & by_price].sum())

    def by_trajectory(self, count: int) -> list[Table]:
        """The orders of trajectories 0 to count - 1, each in sequence."""
        table = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        order = np.argsort(table["trajectory"], kind="stable")
        ends = np.searchsorted(table["trajectory"][order], np.arange(count + 1))
        return [{name: column[order[a:b]] for name, column in table.items()} for a, b in itertools.pairwise(ends)]


def noise_times(session: Session, minutes: int, noise_minutes: int, count: int) -> np.ndarray:
    """Starts of the noise agent's stretches and the end of the last, int64 [K + 1], one after the other.

    As many as `count`, if the longest period of trading has room for them after `noise_minutes`; InputError if it has
    room for none.
    """
    period = _longest(session)
    first_ns = period.start_ns + noise_minutes * MINUTE_NS
    room = int((period.end_ns - first_ns) // (minutes * MINUTE_NS))
    if room < 1:
        raise InputError(f"noise_minutes: expected {minutes} minutes of trading after them, got {noise_minutes} from "
                         f"{spell(period.start_ns)} on, which ends at {spell(period.end_ns)}")
    return first_ns + minutes * MINUTE_NS * np.arange(min(count, room) + 1)


def _longest(session: Session) -> Period:
    return max(continuous(session), key=lambda period: period.end_ns - period.start_ns)


def read_noise(market: MarketSpec, prepared: PreparedModel, agent: NoiseSpec, times_ns: np.ndarray, seed: int) -> Floor:
    """Orders of the noise agent alone until the last of `noise_times`.

    Its session is the longest period of trading: it has no call auction that would have to be held first.
    """
    period = _longest(market.session)
    market, end_ns = dataclasses.replace(market, session=Session((period,))), int(times_ns[-1])
    noise = NoiseMarket(agent, Warmup(start_ns=period.start_ns, duration_ns=end_ns - period.start_ns), seed)
    (feed,) = starts.noise_feeds(market, noise, 1, on_host=True)
    passed = starts.states_of_feed(market, prepared, feed, [end_ns], on_host=True).passed
    return Floor(order_events.of_passed(passed), messages.of_passed(passed), times_ns[:-1], agent.init_price)


def compare(days: Sequence[Day], runs: Sequence[Rollout], sent: Sequence[Table], floor: Floor, minutes: int
            ) -> list[Compared]:
    """The values of all days; `runs` are of their starts in order, and `sent` the orders of all trajectories."""
    found, first, count = [], 0, len(sent) // len(runs)
    for day in days:
        end = first + len(day.starts)
        found.append(compared(day, sent[first * count : end * count], runs[first:end], floor, minutes))
        first = end
    return found


def bin_counts(days: Sequence[Day]) -> dict[str, dict[str, int]]:
    """Day -> kind and name of quantity -> bins."""
    return {day.name: {"_".join(key): len(edges) + 1 for key, edges in day.fixed.bins.items()} for day in days}


def compared(day: Day, sent: Sequence[Table], runs: Sequence[Rollout], floor: Floor, minutes: int) -> Compared:
    """The values of one day's stretches; those of lost trajectories are none.

    `sent` are the orders of all trajectories of `runs`, one run a start. The noise agent's orders do not depend on the
    level of prices: its market is moved to the day's mid.
    """
    count, begins = len(sent) // len(runs), day.times_ns
    found = [start_values(day.events, day.known, run, sent[number * count :][:count], begin, minutes)
             for number, (begin, run) in enumerate(zip(begins, runs, strict=True))]
    level = runs[0].mid_twice_start[0] / 2 - floor.init_price
    moved = dataclasses.replace(floor.events, mid_before=floor.events.mid_before + level,
                                mid_after=floor.events.mid_after + level)

    def of(events: OrderEvents, times_ns: Sequence[int] | np.ndarray | range) -> list[Values]:
        return [values(events, int(begin), minutes) for begin in times_ns]

    return Compared(
        day.name, day.fixed, [one.history for one in found], [one.simulated for one in found],
        of(day.events, range(begins[0], begins[-1] + 1, _BETWEEN_NS)), of(moved, floor.times_ns),
        of(day.events, day.earlier_ns), [one.real for one in found], [one.rollouts for one in found], count)


def start_values(events: OrderEvents, known: Arrivals, run: Rollout, sent: Sequence[Table], start_ns: int,
                 minutes: int) -> StartValues:
    """The values of one start.

    Args:
      events: of the day.
      known: orders that may have rested at the start.
      run: its rollouts.
      sent: the accepted orders of each of them.
      start_ns: its time, nanoseconds since midnight.
      minutes: of a rollout.
    """
    made = list(_events(known, run, sent))
    return StartValues(values(events, start_ns, minutes), [values(each, start_ns, minutes) for each in made if each],
                       _of_stretch(events, start_ns, minutes), [_of_stretch(each, start_ns, minutes) for each in made])


def _events(known: Arrivals, run: Rollout, sent: Sequence[Table]) -> Iterator[OrderEvents | None]:
    """Of each trajectory of one start; None for a lost one."""
    for lost, rows in zip(rollout_summary.is_lost(run), sent, strict=True):
        yield None if lost else order_events.of_trace(rows, known)


def _of_stretch(events: OrderEvents | None, begin: int, minutes: int) -> dict[str, float]:
    if events is None:
        return dict.fromkeys(OF_STRETCHES, float("nan"))
    return quantities.of_stretch(events, begin, minutes)
