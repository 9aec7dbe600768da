"""Replayed messages as a background: the orders of a real or made day go on as they came, beside the traders' own.

Others do not answer to what the traders do. Where a message cancels shares that a trader's order has already met, the
rest of them is cancelled; where all are gone, it does nothing.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents.requoting import shortened
from marsjax.core import sessions, times
from marsjax.core.errors import InputError
from marsjax.core.records import NO_ID, Array, Kind, Market, Order, Status, Time
from marsjax.core.sessions import Phase
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import LARGEST_ID, DayFeed
from marsjax.market import exchange
from marsjax.rl import passing
from marsjax.rl.base import Begun, Stepped, start_and_words, where
from marsjax.rl.passing import Flow, Passing, Stride
from marsjax.rl.quotes import MOST_ORDERS
from marsjax.sim.initial.given_orders import Chunk, PassSpec, Stop, pass_feeds

_COLUMNS = tuple(field.name for field in dataclasses.fields(Order) if field.name != "time")
_ROOM_FOR_IDS = 2**20
"""Ids that are left for orders of traders in one episode."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recording:
    """Messages of a day and the books to start from: what `Replay` reads."""

    messages: jax.Array
    """int32 [N, 10]: seconds, nanoseconds and the other fields of an `Order`; only those that the exchange took."""
    starts: Market
    """[S], books at the starts."""
    first: jax.Array
    """int32 [S], number of the first message after each start."""
    time: Time
    """[S], of the starts."""
    end: jax.Array
    """int32 [S], number of the message after the last one of each start's own day."""
    until: Time
    """[S], until when each start's day goes on."""

    @property
    def message_count(self) -> int:
        """N."""
        return int(self.messages.shape[0])

    @property
    def start_count(self) -> int:
        """S."""
        return int(self.first.shape[-1])

    def only(self, places: np.ndarray) -> "Recording":
        """With some of the starts: their numbers, or bool [S]."""
        # On the host: on a device each array would be a program of its own.
        kept = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[places]), (self.starts, self.first, self.time, self.end,
                                                               self.until))
        return Recording(self.messages, *kept)


class ReplayState(NamedTuple):
    """One replayed market in an episode."""

    market: Market
    next: Array
    """int32, number of the next message."""
    time: Time
    """The clock."""
    end: Array
    """int32, number of the message after the last one of its day."""
    until: Time
    """Until when its day goes on."""


@dataclasses.dataclass(frozen=True)
class Replay:
    """A market of replayed messages. It is over after its day's last message; in steps of time, at the day's end."""

    market: MarketSpec
    """The feed's (`DayFeed.venue`), with accounts for the traders."""
    accounts: tuple[int, ...]
    """Of the traders."""
    stride: Stride
    most_orders: int = MOST_ORDERS

    def __post_init__(self) -> None:
        passing.check_accounts("Replay", self.market, self.accounts, 0)

    def begin(self, data: Recording, key: jax.Array) -> Begun:
        """One of the starts, each as likely as the others."""
        number, _ = start_and_words(key, data.start_count)
        market, first, time, end, until = jax.tree.map(
            lambda x: x[number], (data.starts, data.first, data.time, data.end, data.until))
        seen, resting = passing.seen_of(self.market, self.accounts, market, time)
        return Begun(ReplayState(market, first, time, end, until), seen, resting)

    def renew(self, data: Recording, key: jax.Array, done: Array, old: Begun) -> Begun:
        """Where `done`, a new start."""
        return where(done, self.begin(data, key), old)

    def step(self, data: Recording, state: ReplayState, sent: Order) -> Stepped:
        """Sends the traders' orders at the clock's time, then the next messages."""
        flow = Flow(state.market, state.next, passing.no_fills(len(self.accounts)))
        flow = passing.send_own(self.market, self.accounts, flow, sent, state.time)
        span = self.stride.span_ns
        until = times.add(state.time, times.of_ns(span)) if span else state.time

        flow = passing.go_on(self.market, self.stride, Passing(self._pass_one, _is_due), data.messages,
                             (until, state.end), flow)
        time = until if span else times.select(times.before(state.time, flow.market.time), flow.market.time, state.time)
        after = state._replace(market=flow.market, next=flow.cursor, time=time)
        is_over = ~times.before(time, state.until) if span else flow.cursor >= state.end
        return passing.stepped(self.market, self.accounts, state.market, flow, (after, time, is_over))


    def _pass_one(self, messages: jax.Array, own: tuple[Time, Array], flow: Flow, happens: Array) -> Flow:
        order = _message(messages, flow.cursor, own[1])
        volume = shortened(order, passing.left_of(flow.market, order))
        kind = jnp.where(happens, order.kind, jnp.int32(Kind.NONE))
        market, _ = exchange.submit(self.market, flow.market, dataclasses.replace(order, kind=kind, volume=volume))
        fills = passing.counted(self.accounts, flow.market, market, flow.fills)
        return Flow(market, flow.cursor + jnp.asarray(happens).astype(jnp.int32), fills)


def _is_due(messages: jax.Array, own: tuple[Time, Array], flow: Flow) -> Array:
    """Whether a message of the day is left that came by the end of the step."""
    until, end = own
    return (flow.cursor < end) & ~times.before(until, _message(messages, flow.cursor, end).time)


def _message(messages: jax.Array, number: Array, end: Array) -> Order:
    """One message; Kind.NONE from number `end` on."""
    row = messages[jnp.minimum(number, messages.shape[0] - 1)]
    order = Order(Time(row[0], row[1]), **{name: row[2 + i] for i, name in enumerate(_COLUMNS)})
    return dataclasses.replace(order, kind=jnp.where(number < end, order.kind, jnp.int32(Kind.NONE)))


def record(market: MarketSpec, feed: DayFeed, starts_ns: Sequence[int], until_ns: int, chunk_orders: int = 4096
           ) -> Recording:
    """Passes a day through the exchange once, and keeps the books at some times and the messages after the first.

    Args:
      market: the spec of `Replay.market`, with accounts for the traders, which the feed does not name.
      feed: the day.
      starts_ns: when episodes may start, nanoseconds since midnight, rising; all of them, and `until_ns`, in one
        period of continuous trading.
      until_ns: messages after it are not read.
      chunk_orders: orders of a compiled call; no result depends on it.

    Messages that the exchange refuses are left out: they change nothing. InputError where no message follows a start.
    """
    _check_times(market, starts_ns, until_ns)
    spec = PassSpec(market, chunk_orders, with_views=False)
    orders: list[Order] = []
    books: list[Market] = []
    first: list[int] = []
    for passed in pass_feeds(spec, [feed.read()], stops_ns=starts_ns, until_ns=until_ns):
        if isinstance(passed, Chunk):
            report = passed.answers.report
            count = len(passed.orders[0].kind)
            status, number = (np.asarray(x)[0, :count] for x in (report.status, report.order_id))
            taken = status == Status.ACCEPTED
            orders.append(jax.tree.map(lambda x, taken=taken: np.asarray(x)[taken],
                                       dataclasses.replace(passed.orders[0], order_id=number)))
        elif isinstance(passed, Stop):
            # Copies: the states themselves are used up by the orders that come next.
            books.append(jax.tree.map(lambda x: np.array(x[0]), passed.states.market))
            first.append(sum(len(part.kind) for part in orders))
    every = jax.tree.map(lambda *x: np.concatenate(x), *orders) if orders else None
    if every is None or first[-1] >= len(every.kind):
        raise InputError(f"record: {feed.name or 'the feed'}: expected messages after each start, got none after "
                         f"{starts_ns[-1]} ns up to {until_ns} ns")
    skipped = first[0]
    rows = np.stack([every.time.s, every.time.ns, *(getattr(every, name) for name in _COLUMNS)], axis=-1)[skipped:]
    starts = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *books)
    starts = dataclasses.replace(starts, next_id=jnp.maximum(starts.next_id, _free_id(every)))
    time, until = (jax.tree.map(jnp.asarray, times.from_ns(np.array(x)))
                   for x in (starts_ns, [until_ns] * len(starts_ns)))
    return Recording(jnp.asarray(rows, jnp.int32), starts, jnp.asarray(np.array(first) - skipped, jnp.int32), time,
                     jnp.full(len(first), len(rows), jnp.int32), until)


def _free_id(orders: Order) -> int:
    """The first id beyond all of the feed's: traders' orders are given those from there on."""
    largest = int(max(orders.order_id.max(), np.where(orders.kind == Kind.CANCEL, orders.cancel_id, NO_ID).max()))
    if largest > LARGEST_ID - _ROOM_FOR_IDS:
        raise InputError(f"record: expected ids of at most {LARGEST_ID - _ROOM_FOR_IDS}, which leaves some for the "
                         f"traders' orders, got {largest}: number the orders of the feed anew")
    return largest + 1


def _check_times(market: MarketSpec, starts_ns: Sequence[int], until_ns: int) -> None:
    every = [*starts_ns, until_ns]
    if not starts_ns or any(b <= a for a, b in itertools.pairwise(every)):
        raise InputError(f"record: expected starts_ns that rise and lie before until_ns, got {every}")
    period = [p for p in market.session.periods if p.start_ns <= every[0] <= p.end_ns]
    is_open = sessions.phases_of(market.session, np.array(every)) == Phase.CONTINUOUS
    if not is_open.all() or until_ns > period[0].end_ns:
        raise InputError(f"record: expected starts_ns and until_ns in one period of continuous trading, got {every} in "
                         f"{market.session}")
