"""The states that given orders lead to: a real day up to a time, or a warm-up replayed."""

import collections
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import sessions, times
from marsjax.core.errors import InputError
from marsjax.core.records import BookView, Order, Status
from marsjax.core.sessions import Phase
from marsjax.core.specs import MarketSpec
from marsjax.data.cursor import NO_ORDERS
from marsjax.data.feed import FeedChunk
from marsjax.market.process import MarketState
from marsjax.sim.initial import chunk_tokens
from marsjax.sim.initial.given_orders import Answer, Auctions, Chunk, PassSpec, Stop, opening, pass_feeds
from marsjax.sim.initial.state import Start
from marsjax.sim.refusals import Refusals
from marsjax.tokens import encoding
from marsjax.tokens.encoding import Encoded, TokenState, TokenTables

_Parts = TypeVar("_Parts")


class Passed(NamedTuple):
    """Orders of a day and what came of them, NumPy arrays [N, ...] on the host."""

    orders: Order
    """As sent."""
    status: np.ndarray
    """int32, a `Status`."""
    counts: np.ndarray
    """bool, sent by somebody, accepted and in continuous trading."""
    views: BookView
    """After each order."""
    ignored: Mapping[str, int] = {}
    """Messages of the feed that became no order, by reason."""
    adapted: Mapping[str, int] = {}
    """Messages of the feed that were read otherwise than they say, by reason."""


def from_feed(market: MarketSpec, table: TokenTables, feed: Iterator[FeedChunk], time_ns: int, context_length: int,
              first_id: int = 0, chunk_orders: int = 4096, *, allow_refused: bool = False) -> Start:
    """The state that given orders lead to: book, accounts, and the tokens that a model will have seen.

    Args:
      market: sizes and session; its call auctions before `time_ns` are held.
      table: bins to encode with.
      feed: the orders, in exchange order; those after `time_ns` are not read.
      time_ns: of the first decision, nanoseconds since midnight.
      context_length: most tokens kept, `ModelSpec.context_length`.
      first_id: id of the first order that comes without one.
      chunk_orders: orders of a compiled call.
      allow_refused: whether a state without orders that were refused is wanted all the same; `Start.refused` counts
        them.

    Raises InputError if orders were refused that a right spec would have let in, with what to set (`sim.refusals`), or
    if the orders make no token: a model has nothing to go by.

    Examples:
      >>> from marsjax import Simulator, testing
      >>> from marsjax.data.feed import FeedChunk
      >>> model, market = testing.tiny_model(), testing.tiny_market()
      >>> ten_o_clock = times.of_clock("10:00:00")
      >>> feed = iter([FeedChunk.of(testing.random_orders(ten_o_clock))])
      >>> table = Simulator.of(model, market).table
      >>> start = from_feed(market, table, feed, ten_o_clock, model.spec.context_length, chunk_orders=128)
      >>> int(start.count), start.refused
      (32, {})
    """
    return next(from_feed_at(market, table, feed, [time_ns], context_length, first_id, chunk_orders,
                             allow_refused=allow_refused))[0]


def after_orders(market: MarketSpec, table: TokenTables, orders: Order, time_ns: int, context_length: int,
                 chunk_orders: int = 4096, *, allow_refused: bool = False) -> Start:
    """The state that orders [N] of NumPy arrays lead to at a time; arguments and errors as of `from_feed`.

    Examples:
      >>> from marsjax import Simulator, testing
      >>> model, market = testing.tiny_model(), testing.tiny_market()
      >>> ten_o_clock = times.of_clock("10:00:00")
      >>> sent = testing.random_orders(ten_o_clock)
      >>> table = Simulator.of(model, market).table
      >>> start = after_orders(market, table, sent, ten_o_clock, model.spec.context_length, chunk_orders=128)
      >>> int(start.time.s)
      36000
    """
    return from_feed(market, table, iter([FeedChunk.of(orders)]), time_ns, context_length, chunk_orders=chunk_orders,
                     allow_refused=allow_refused)


def from_feed_at(market: MarketSpec, table: TokenTables, feed: Iterator[FeedChunk], times_ns: Sequence[int],
                 context_length: int, first_id: int = 0, chunk_orders: int = 4096, *, allow_refused: bool = False
                 ) -> Iterator[tuple[Start, Passed]]:
    """The states at several times of one day, in one pass over its orders; each equals that of `from_feed`.

    Args:
      market: sizes and session; its call auctions before each time are held.
      table: bins to encode with.
      feed: the orders, in exchange order; those after the last time are not read.
      times_ns: of the first decisions, nanoseconds since midnight, rising.
      context_length: most tokens kept, `ModelSpec.context_length`.
      first_id: id of the first order that comes without one.
      chunk_orders: orders of a compiled call; no result depends on it.
      allow_refused: as of `from_feed`.

    Yields each state with the orders since the one before. Raises InputError as `from_feed` does.
    """
    if not times_ns or any(b <= a for a, b in itertools.pairwise(times_ns)):
        raise InputError(f"start: expected times that rise, got {list(times_ns)}")
    spec = PassSpec(market, chunk_orders, first_id=first_id)
    parts: list[Passed] = []
    made: list[Encoded] = []
    refused = Refusals(market)
    nobodys: list[np.ndarray] = []
    between, nothing = chunk_tokens.before_all(market), _nothing(market)
    for passed in pass_feeds(spec, [feed], stops_ns=times_ns, until_ns=times_ns[-1]):
        if isinstance(passed, Chunk):
            (sent,) = passed.orders
            ours, later = np.split(np.concatenate(nobodys), [len(sent.kind)])
            nobodys = [later]
            parts.append(_passed(market, sent, passed.answers, ~ours))
            refused.add(sent, parts[-1].status)
            between, encoded = chunk_tokens.tokens_of(market, table, between, passed, 0, parts[-1].counts)
            made.append(encoded)
        elif isinstance(passed, list):
            for _, chunk in passed:
                refused.messages(chunk.ignored, chunk.adapted)
                parts.append(nothing._replace(ignored=chunk.ignored, adapted=chunk.adapted))
                none = np.zeros(len(chunk.orders.kind), bool)
                nobodys.append(none if chunk.is_synthetic is None else chunk.is_synthetic)
        elif isinstance(passed, Auctions):
            between = between._replace(before=jax.tree.map(lambda x: x[0], passed.view))
        elif isinstance(passed, Stop):
            if not allow_refused and (problems := refused.problems()):
                raise InputError(f"start: {'; '.join(problems)} (allow_refused=True starts without them)")
            made = [_joined(made)] if made else made
            yield (_start(passed.states, between.state, made, passed.time_ns, context_length),
                   joined([nothing, *parts]))
            parts = []


def joined(passed: Sequence[Passed]) -> Passed:
    """Stretches of one day, one after the other, as one; at least one."""
    ignored, adapted = collections.Counter[str](), collections.Counter[str]()
    for part in passed:
        ignored.update(part.ignored)
        adapted.update(part.adapted)
    return Passed(*_joined([part[:4] for part in passed]), dict(ignored), dict(adapted))


def _passed(market: MarketSpec, sent: Order, answers: Answer, is_sent: np.ndarray) -> Passed:
    is_open = sessions.phases_of(market.session, times.to_ns(sent.time)) == Phase.CONTINUOUS
    status, views = jax.tree.map(lambda x: np.asarray(x)[0, :len(sent.kind)], (answers.report.status, answers.view))
    return Passed(sent, status, (status == Status.ACCEPTED) & is_open & is_sent, views)


def _nothing(market: MarketSpec) -> Passed:
    """No orders, with views of this market's shape."""
    views = jax.tree.map(lambda x: np.zeros((0, *x.shape), x.dtype), jax.eval_shape(lambda: opening(market).view))
    return Passed(NO_ORDERS, np.zeros(0, np.int32), np.zeros(0, bool), views)


def _joined(parts: list[_Parts]) -> _Parts:
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _start(states: MarketState, token_state: TokenState, made: list[Encoded], time_ns: int, context_length: int
           ) -> Start:
    # Copies: the states themselves are used up by the orders that come next.
    opened, token_state = jax.tree.map(jnp.array, (jax.tree.map(lambda x: x[0], states.market), token_state))
    if not int(token_state.count):
        raise InputError(f"start: the orders up to {time_ns} ns make no token; a model needs at least one")
    window, _ = encoding.collect(made[0])
    window = jax.tree.map(lambda x: x[-context_length:], window)
    count = len(window.kind)
    padded = jax.tree.map(lambda x: np.pad(x, [(0, context_length - count)] + [(0, 0)] * (x.ndim - 1)), window)
    return Start(opened, token_state, padded, np.array(count, np.int32), times.from_ns(time_ns))
