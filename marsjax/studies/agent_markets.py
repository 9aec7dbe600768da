"""Markets that agents are trained in and compared in: one task in three backgrounds, at times apart."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import limits, sessions, times
from marsjax.core.errors import InputError
from marsjax.core.records import Book
from marsjax.core.sessions import Phase
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed
from marsjax.rl import named, quotes
from marsjax.rl.base import Background, Task
from marsjax.rl.env import Core, MarketEnv, Params
from marsjax.rl.execution import Execution
from marsjax.rl.market_making import MarketMaking
from marsjax.rl.noise import NoiseStarts
from marsjax.rl.passing import Stride
from marsjax.rl.replay import Recording
from marsjax.rl.sliced import STEP_S, STEPS, SlicedExecution
from marsjax.sim.initial import resize
from marsjax.studies import starts
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.starts import NoiseMarket

BACKGROUNDS = ("replay", "model", "noise")
ACCOUNT = 2
"""Of the trader in the order model's market."""
_READ_FIRST = 3
"""Orders of continuous trading before the first start of an order model."""


@dataclasses.dataclass(frozen=True)
class EpisodeTimes:
    """How long episodes are, and where they start."""

    steps: int = 60
    step_s: float = 5.0
    """Seconds between two steps."""
    starts: int = 256
    """Times that episodes of the training start at, of each day; of noise, books."""
    held_starts: int = 64
    """Likewise of those that are held out."""

    def __post_init__(self) -> None:
        kind = type(self).__name__
        for name in ("starts", "held_starts"):
            limits.check_whole(f"{kind}.{name}", getattr(self, name), 1, 2**16)
        limits.check_whole(f"{kind}.steps", self.steps, 1, limits.STEPS_OF_A_CALL)
        if not 0.001 <= self.step_s <= 3600:
            raise InputError(f"{kind}.step_s: expected 0.001 to 3600 seconds, got {self.step_s}")
        try:
            self.task()
        except InputError as error:
            raise InputError(f"{kind}.{str(error).split('.', 1)[1]}") from None

    @property
    def step_ns(self) -> int:
        """Nanoseconds between two steps."""
        return round(self.step_s * SECOND_NS)

    @property
    def seconds(self) -> int:
        """Of an episode, rounded."""
        return round(self.steps * self.step_ns / SECOND_NS)

    @property
    def most_orders(self) -> int:
        """Of a step, that a background is made for."""
        return max(quotes.MOST_ORDERS, self.task().most_orders)

    def task(self) -> Task:
        """The task."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class EpisodeSpec(EpisodeTimes):
    """What is to be done in an episode: an execution.

    Examples:
      >>> EpisodeSpec(steps=60, step_s=5).seconds
      300
    """

    target: int = 6000
    """Shares."""
    lot: int = 100
    """Shares: actions send 1, 2 or 5 lots."""
    side: str = "random"
    """buy, sell or random."""
    drift_weight: float = 1.0
    """Lambda of the reward; 1: what counts is the price at the start, 0: what others pay in each step."""
    penalty_ticks: int = 5
    """Beyond the mid, at which shares that were not traded are charged at the end."""
    reward_unit: float = 6000.0
    """Ticks x shares that are a reward of 1."""

    def task(self) -> Task:
        """The task."""
        return Execution(self.target, self.lot, self.side, self.drift_weight, self.penalty_ticks, self.reward_unit)


@dataclasses.dataclass(frozen=True)
class SlicedSpec(EpisodeTimes):
    """What is to be done in an episode: an execution in slices, as MarS's paper trains one."""

    steps: int = STEPS
    step_s: float = float(STEP_S)
    target: int = 6000
    """Shares."""
    lot: int = 100
    """Shares."""
    side: str = "buy"
    """buy, sell or random."""
    alpha: float = 20.0
    """Basis points that a fulfilled target is worth, at first (`AgentTraining.alpha_factor`)."""

    def task(self) -> Task:
        """The task."""
        return SlicedExecution(self.target, self.lot, self.side, self.alpha, self.steps)


@dataclasses.dataclass(frozen=True)
class MarketMakingSpec(EpisodeTimes):
    """What is to be done in an episode: market making."""

    lot: int = 100
    """Shares: a quote has 1 or 3 lots."""
    most_lots: int = 10
    """Largest inventory."""
    inventory_penalty: float = 0.01
    """Ticks a step for each share of the first lot that is held; n lots cost n times as much a share."""
    fee_bp: float = 0.0
    """Of the value of all trades; below 0: a rebate."""
    close_ticks: int = 1
    """Beyond the mid, at which what is held at the end counts as traded."""
    reward_unit: float = 1000.0
    """Ticks x shares that are a reward of 1."""

    def task(self) -> MarketMaking:
        """The task."""
        return MarketMaking(self.lot, self.most_lots, self.inventory_penalty, self.fee_bp, self.close_ticks,
                            self.reward_unit)


class Spans(NamedTuple):
    """Which part of a day is trained on and which is held out, nanoseconds since midnight."""

    begin_ns: int
    held_ns: int
    """Episodes of the training are over by then, the others begin then."""
    until_ns: int


class AgentMarket(NamedTuple):
    """One task in one market."""

    name: str
    """Of the background."""
    core: Core
    train: Params
    """With the starts that are trained on."""
    held: Params
    """With those that are held out."""
    blocks: np.ndarray
    """int [S], of each start that is held out: its block of time. What is of one block is not independent."""

    @property
    def env(self) -> MarketEnv:
        """To be trained in."""
        return MarketEnv(self.core, self.train)


def replayed(spec: EpisodeTimes, market: MarketSpec, feeds: Sequence[DayFeed], spans: Sequence[Spans]) -> AgentMarket:
    """Days replayed; InputError where a day has no place for an episode in one of its spans."""
    found: list[list[Recording]] = [[], []]
    background: Background | None = None
    for feed, span in zip(feeds, spans, strict=True):
        for into, between, count in ((found[0], (span.begin_ns, span.held_ns), spec.starts),
                                     (found[1], (span.held_ns, span.until_ns), spec.held_starts)):
            _check_room(spec, feed.name, between)
            with starts.host_device():
                background, data = named.replayed(spec.steps, feed=feed, between_ns=between, starts=count,
                                                  market=market, stride=Stride(0, spec.step_ns),
                                                  most_orders=spec.most_orders)
            into.append(two_sided(feed.name, data))
    if background is None:
        raise InputError("agent_markets: expected a day of orders at least, got none")
    blocks = blocks_of(spec, [times.to_ns(jax.tree.map(np.asarray, each.time)) for each in found[1]])
    return _of(spec, "replay", background, (joined(found[0]), joined(found[1])), blocks)


def noisy(spec: EpisodeTimes, market: MarketSpec, noise: NoiseMarket) -> AgentMarket:
    """The noise agent; books that are held out come of other draws."""
    market = dataclasses.replace(market, accounts=2)
    background, _ = named.noisy(spec.steps, starts=1, agent=noise.agent, market=market, warmup=noise.warmup,
                                stride=Stride(0, spec.step_ns), most_orders=spec.most_orders)
    train, held = (background.starts(count, seed=seed, warmup=noise.warmup)  # type: ignore[attr-defined]
                   for count, seed in ((spec.starts, noise.seed), (spec.held_starts, noise.seed + 1)))
    train, held = (_two_sided_books(each) for each in (train, held))
    return _of(spec, "noise", background, (train, held), np.arange(held.start_count))


def modelled(spec: EpisodeTimes, market: MarketSpec, prepared: PreparedModel, feeds: Sequence[DayFeed],
             spans: Sequence[Spans]) -> AgentMarket:
    """An order model that answers, from the states of days at the times that replays start from."""
    market = dataclasses.replace(market, accounts=max(market.accounts, ACCOUNT + 1))
    states: list[list[Any]] = [[], []]
    days: list[np.ndarray] = []
    for feed, span in zip(feeds, spans, strict=True):
        parts = []
        for between, count in (((span.begin_ns, span.held_ns), spec.starts), ((span.held_ns, span.until_ns),
                                                                              spec.held_starts)):
            _check_room(spec, feed.name, between)
            parts.append(start_times(spec, between, count))
        first_ns = _first_of_model(market, feed)
        times_ns = [time_ns for time_ns in sorted({*parts[0], *parts[1]}) if time_ns > first_ns]
        every = starts.states_of_feed(market, prepared, feed, times_ns, on_host=True).starts if times_ns else []
        at = dict(zip(times_ns, every, strict=True))
        kept = [[time_ns for time_ns in part if time_ns in at and _are_two_sided(at[time_ns].market.book).all()]
                for part in parts]
        for into, part in zip(states, kept, strict=True):
            into += [at[time_ns] for time_ns in part]
        days.append(np.array(kept[1], np.int64))
    if not all(states):
        raise InputError(f"{', '.join(feed.name for feed in feeds)}: expected starts with orders on both sides, got "
                         "none; begin later")
    capacity = market.capacity
    (background, train), (_, held) = (named.BACKGROUNDS["model"](
        spec.steps, model=prepared.model, market=market, starts=[resize(one, capacity) for one in part],
        step_ns=spec.step_ns, account=ACCOUNT, most_orders=spec.most_orders) for part in states)
    return _of(spec, "model", background, (train, held), blocks_of(spec, days))


def _first_of_model(market: MarketSpec, feed: DayFeed) -> int:
    """When the first orders of continuous trading have come that an order model reads, nanoseconds since midnight.

    The first starts its clock and makes no token.
    """
    found = 0
    for chunk in feed.read():
        at_ns = times.to_ns(chunk.orders.time)
        at_ns = at_ns[sessions.phases_of(market.session, at_ns) == Phase.CONTINUOUS]
        if found + len(at_ns) >= _READ_FIRST:
            return int(at_ns[_READ_FIRST - found - 1])
        found += len(at_ns)
    return times.DAY_NS


def start_times(spec: EpisodeTimes, between_ns: tuple[int, int], count: int) -> list[int]:
    """At most `count` times, evenly spaced, whose episodes fit in a span of a day."""
    last_ns = between_ns[1] - spec.steps * spec.step_ns
    return [int(x) for x in np.unique(np.linspace(between_ns[0], last_ns, count).astype(np.int64))]


def blocks_of(spec: EpisodeTimes, days: Sequence[np.ndarray]) -> np.ndarray:
    """int [S], the block of each start, those of all days one after the other.

    Episodes overlap whose starts are less than an episode apart. A block is of one day, and the starts of a day are cut
    into blocks of two episodes' length at least; a shorter day is one block.

    Args:
      spec: of the episodes.
      days: times of the starts of each day, int64 nanoseconds since midnight.
    """
    found: list[np.ndarray] = []
    for time_ns in days:
        if time_ns.size:
            after = time_ns - time_ns.min()
            length = int(after.max()) + 1
            count = max(length // (2 * spec.steps * spec.step_ns), 1)
            block = np.minimum(after // (length // count), count - 1)
            found.append(block + (found[-1].max() + 1 if found else 0))
    return np.concatenate(found)


def spans_of(feed: DayFeed, share: float, between_ns: tuple[int, int] | None = None) -> Spans:
    """The first `share` of a time to be trained on, the rest held out.

    Args:
      feed: the day.
      share: above 0 and below 1.
      between_ns: that time; by default the first period of continuous trading.
    """
    if not 0 < share < 1:
        raise InputError(f"spans_of: share: expected above 0 and below 1, got {share}")
    if between_ns is None:
        period = next(p for p in feed.venue.session.periods if p.uncross_ns is None)
        between_ns = (period.start_ns, period.end_ns)
    begin_ns, until_ns = between_ns
    return Spans(begin_ns, begin_ns + round((until_ns - begin_ns) * share), until_ns)


def joined(recordings: Sequence[Recording]) -> Recording:
    """Recordings of several days as one: an episode starts in any of them, and knows the messages of that day alone."""
    passed = np.cumsum([0, *(each.message_count for each in recordings[:-1])])
    moved = [dataclasses.replace(each, first=each.first + int(n), end=each.end + int(n))
             for each, n in zip(recordings, passed, strict=True)]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *moved)  # type: ignore[no-any-return]


def two_sided(name: str, recording: Recording) -> Recording:
    """Without the starts at which a side of the book is empty: there is no price to measure from.

    InputError where there is no other.
    """
    keeps = np.flatnonzero(_are_two_sided(recording.starts.book))
    if not keeps.size:
        raise InputError(f"{name}: expected starts with orders on both sides, got none; begin later")
    return recording.only(keeps)


def _two_sided_books(data: NoiseStarts) -> NoiseStarts:
    """Likewise of books of the noise agent."""
    keeps = np.flatnonzero(_are_two_sided(data.starts.book))
    if not keeps.size:
        raise InputError("the noise agent: expected starts with orders on both sides, got none; a longer warm-up")
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[keeps]), data)  # type: ignore[no-any-return]


def _are_two_sided(book: Book) -> np.ndarray:
    """bool [...] of books [...]."""
    return np.all(np.any(np.asarray(book.volume) > 0, axis=-1), axis=-1)  # type: ignore[no-any-return]


def _check_room(spec: EpisodeTimes, name: str, between_ns: tuple[int, int]) -> None:
    if between_ns[1] - between_ns[0] < spec.steps * spec.step_ns:
        begin, end = (times.clock(np.array([each]), 0)[0] for each in between_ns)
        raise InputError(f"{name}: expected a span of {spec.seconds} s at least, an episode, got {begin} to {end}: "
                         "fewer steps, shorter ones, or a longer span")


def _of(spec: EpisodeTimes, name: str, background: Background, data: tuple[Any, Any], blocks: np.ndarray
        ) -> AgentMarket:
    core = Core(background, (spec.task(),))
    train, held = (core.default_params(each, spec.steps) for each in data)
    return AgentMarket(name, core, train, held, blocks)
