r"""What LOB-Bench compares: real days, rollouts from times of them, and what stands beside both.

    real, other = (lob_bench.read_feed(market, feed) for feed in (day, run))      # two feeds, of one market
    sources = lob_bench.of_feeds("A", real, other, begins_ns, minutes=5)
    print("\n".join(report.lines(table.table([sources], TableSpec()))))

A run's orders are such a feed: its CSV or LOBSTER files are read as those of a venue are. Where rollouts are at hand,
`SentMessages` takes their orders as they come, and `of_rollouts` makes what the program `realism` compares.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from marsjax.analysis.lob_bench import messages
from marsjax.analysis.lob_bench.messages import OrderMessages
from marsjax.analysis.lob_bench.table import Parts, Sources
from marsjax.core import sessions, times
from marsjax.core.errors import InputError
from marsjax.core.records import Status
from marsjax.core.sessions import Phase
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed, FeedChunk
from marsjax.observers.trace import Log
from marsjax.observers.trace_tables import Table
from marsjax.sim.initial import Passed, joined
from marsjax.sim.replay import Stretch, replay
from marsjax.sim.result import Rollout
from marsjax.studies import rollout_summary, starts
from marsjax.studies.realism import Day, Floor
from marsjax.studies.session_times import MINUTE_NS

_BETWEEN_NS = MINUTE_NS
"""Between two real stretches that the ceiling is drawn from."""


class SentMessages:
    """Accepted orders of the trajectories of rollouts with the book around them, kept chunk by chunk."""

    def __init__(self) -> None:
        self._parts: list[Table] = []

    def __call__(self, numbers: np.ndarray, log: Log) -> None:
        """Keeps a chunk of trajectories `numbers`."""
        self._parts.append(messages.of_log(log, numbers))

    def by_trajectory(self, count: int) -> list[OrderMessages]:
        """The orders of trajectories 0 to count - 1, each in sequence."""
        return messages.by_trajectory(self._parts, count)


def read_feed(market: MarketSpec, feed: DayFeed) -> OrderMessages:
    """The orders of continuous trading of a whole feed that were accepted, with the book around each.

    Synthetic ones are left out. InputError for a feed without orders; other errors are the feed's.
    """
    by_none: list[np.ndarray] = []

    def chunks() -> Iterator[FeedChunk]:
        for chunk in feed.read():
            by_none.append(starts.synthetic(chunk))
            yield chunk

    passed = []
    for event in replay(market, [chunks()]):
        if isinstance(event, Stretch) and event.views is not None:
            phase = sessions.phases_of(market.session, times.to_ns(event.orders.time))
            status = np.asarray(event.reports.status)
            counts = (status == Status.ACCEPTED) & (phase == Phase.CONTINUOUS)
            passed.append(Passed(event.orders, status, counts, event.views))
    if not passed:
        raise InputError(f"{feed.name}: expected orders, got none")
    whole = joined(passed)
    return messages.of_passed([whole._replace(counts=whole.counts & ~np.concatenate(by_none))])


def stretches(one: OrderMessages, begins_ns: Sequence[int] | np.ndarray, minutes: int) -> Parts:
    """The orders in the `minutes` after each time, nanoseconds since midnight: one sequence a stretch."""
    return [[one.between(int(begin), int(begin) + minutes * MINUTE_NS)] for begin in begins_ns]


def of_feeds(name: str, real: OrderMessages, other: OrderMessages, begins_ns: Sequence[int], minutes: int,
             others: Mapping[str, Parts] | None = None) -> Sources:
    """Two feeds over the same times of the day; `others` as in `Sources`."""
    return Sources(name, stretches(real, begins_ns, minutes), stretches(other, begins_ns, minutes), list(begins_ns),
                   minutes, *_nearby(real, begins_ns, minutes), others or {})


def of_rollouts(days: Sequence[Day], runs: Sequence[Rollout], sent: Sequence[OrderMessages], floor: Floor, minutes: int
                ) -> list[Sources]:
    """All days and what was generated from their starts.

    Args:
      days: with starts.
      runs: one of each start, day after day.
      sent: orders of all their trajectories; those of lost ones are left out.
      floor: the noise agent's orders.
      minutes: of a stretch.
    """
    found, first, count = [], 0, len(sent) // len(runs)
    for day in days:
        generated = []
        for number in range(first, first + len(day.times_ns)):
            lost = rollout_summary.is_lost(runs[number])
            made = sent[number * count : (number + 1) * count]
            generated.append([each for each, is_lost in zip(made, lost, strict=True) if not is_lost])
        first += len(day.times_ns)
        others = {"earlier": stretches(day.messages, day.earlier_ns, minutes),
                  "floor": stretches(floor.messages, floor.times_ns, minutes)}
        same = [one for one in days if one is not day and one.symbol == day.symbol]
        if same:
            others["other_day"] = [part for one in same for part in stretches(one.messages, day.times_ns, minutes)]
        found.append(Sources(day.name, stretches(day.messages, day.times_ns, minutes), generated, day.times_ns, minutes,
                             *_nearby(day.messages, day.times_ns, minutes), others))
    return found


def _nearby(real: OrderMessages, begins_ns: Sequence[int], minutes: int) -> tuple[Parts, list[int]]:
    """Real stretches that begin between the first start and the last, and when they do."""
    begins = list(range(int(begins_ns[0]), int(begins_ns[-1]) + 1, _BETWEEN_NS))
    return stretches(real, begins, minutes), begins
