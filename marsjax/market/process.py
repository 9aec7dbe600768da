"""The one way for an order: the exchange, the view after it, its token; returned as one event, for all who hear of it.

Replays, starting states, the noise agent's warm-up, training and simulation all send their orders through `process`.
All functions are of one market; `vmap` them.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core import int64, sessions
from marsjax.core.records import (
    NO_ID,
    NO_PRICE,
    Array,
    Book,
    BookView,
    Kind,
    Market,
    Order,
    Status,
    Trades,
    Uncross,
)
from marsjax.core.sessions import Phase
from marsjax.core.specs import MarketSpec
from marsjax.market import book as books
from marsjax.market import cancels, exchange, orders
from marsjax.tokens import encoding
from marsjax.tokens.encoding import Encoded, TokenState, TokenTables

NOT_MADE: Any = None
"""Stands for the views and tokens of a market that makes none."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MarketState:
    """One symbol's market while orders pass through it; views and tokens are NOT_MADE unless they are asked for."""

    market: Market
    view: BookView
    """Of the market's book."""
    token_state: TokenState
    """What the next order's token depends on; needs views."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Event:
    """One order and what it did. The cancels that a cancel by price comes to are one event."""

    happened: Array
    """bool; the rest has no meaning where it did not."""
    source: Array
    """int32, who sent it: 0 the background agent (or a feed), 1 + i the i-th other agent."""
    order: Order
    """As it reached the exchange, at the limit price that it came to have (`Report.price`); of an accepted cancel by
    price `cancel_side` is the side that it took shares off."""
    is_by_price: Array
    """bool, a cancel that names a price and a volume; its transactions are cancels of single orders."""
    status: Array
    """int32, a `Status`: what became of it, whatever it was."""
    order_id: Array
    """int32, its id; the first of those of a cancel by price; NO_ID if it was not accepted."""
    trades: Trades
    """Its transactions."""
    orders: Array
    """int32, accepted orders, each cancel of a cancel by price counted."""
    before: BookView
    """Before it."""
    view: BookView
    """After it."""
    encoded: Encoded
    """Its token."""


class ByPrice(NamedTuple):
    """How a cancel without an id finds its orders (`market.cancels`)."""

    is_asked: Array
    """bool, the order is such a cancel."""
    accounts: tuple[int, int]
    """First and last account whose resting orders it takes back; static."""
    upper_wins: Array
    """bool, which of two prices at equal distance is taken."""
    word: Array | None = None
    """uint32, random: the cancel takes back one whole order, and this word says which of several alike; None: it takes
    shares off the oldest (reference: cancels of noise and background agents)."""


def open_state(spec: MarketSpec, first_id: int = 0, previous_close: int = NO_PRICE, *, with_view: bool = True,
               with_tokens: bool = True) -> MarketState:
    """A market before its session; tokens need views."""
    market = exchange.open_market(spec, first_id, previous_close)
    return MarketState(market, books.view(spec, market.book) if with_view or with_tokens else NOT_MADE,
                       encoding.start() if with_tokens else NOT_MADE)


def process(spec: MarketSpec, table: TokenTables | None, state: MarketState, order: Order, *,
            happens: Array | bool = True, source: Array | int = 0, by_price: ByPrice | None = None,
            own_only: Array | bool = False) -> tuple[MarketState, Event]:
    """One order through the exchange.

    Args:
      spec: sizes and session.
      table: bins to encode with; may be None if the state has no tokens.
      state: before; no call auction may be due (else Status.AUCTION_DUE).
      order: scalars.
      happens: bool []; where it is False nothing changes.
      source: int32 [], for the event.
      by_price: whether and how the order is resolved as a cancel by price; None: it never is.
      own_only: bool []; a cancel of another account's order is answered with Status.UNKNOWN_ID.

    Returns:
      The state after and the event. An order makes a token if it is accepted in continuous trading.
    """
    happens = jnp.asarray(happens)
    asked = happens & by_price.is_asked if by_price is not None else jnp.zeros_like(happens)
    is_foreign = ~asked & own_only & (order.kind == Kind.CANCEL) & ~_rests(state.market, order)
    goes = happens & ~asked & ~is_foreign
    single = dataclasses.replace(order, kind=jnp.where(goes, order.kind, jnp.int32(Kind.NONE)))
    if is_whole := by_price is not None and by_price.word is not None:
        single = _of_whole_order(spec, state.market.book, single, order, by_price, asked)
    market, report = exchange.submit(spec, state.market, single, only_continuous=asked)
    report = dataclasses.replace(report, status=jnp.where(is_foreign, jnp.int32(Status.UNKNOWN_ID), report.status))
    sent = dataclasses.replace(order, price=jnp.where(goes, report.price, order.price)) if spec.conditions else order
    count = (report.status == Status.ACCEPTED).astype(jnp.int32)
    if is_whole:
        is_nothing = asked & (single.kind == Kind.NONE)
        market = exchange.count_nothing(market, is_nothing)
        report = dataclasses.replace(
            report, status=jnp.where(is_nothing, jnp.int32(Status.NOTHING_TO_CANCEL), report.status))
        is_taken = asked & (report.status == Status.ACCEPTED)
        sent = dataclasses.replace(sent, cancel_side=jnp.where(is_taken, single.cancel_side, order.cancel_side))
    elif by_price is not None:
        # Where it is asked for, no single order went before it.
        named = (order.price, order.volume, jnp.asarray(by_price.upper_wins))
        market, taken = exchange.cancel_nearest(spec, market, by_price.accounts, named, order.time, asked)
        report = jax.tree.map(lambda new, old: jnp.where(asked, new, old), taken, report)
        sent = dataclasses.replace(sent, cancel_side=jnp.where(asked, taken.trades.side, order.cancel_side))
        count = jnp.where(asked, report.trades.count, count)
    view, token_state, encoded = state.view, state.token_state, NOT_MADE
    if view is not NOT_MADE:
        view = books.view(spec, market.book)
    if token_state is not NOT_MADE and table is not None:
        # Cancels of one decision merge into one token, of all their shares.
        volume = jnp.where(asked, int64.to_int32(report.trades.volume), order.volume)
        is_open = sessions.phase_at(spec.session, order.time) == Phase.CONTINUOUS
        token_state, encoded = encoding.encode(
            spec, table, state.token_state, dataclasses.replace(sent, volume=volume), report.trades, state.view, view,
            happens & (report.status == Status.ACCEPTED) & is_open)
    event = Event(happens, jnp.asarray(source, jnp.int32), sent, asked, report.status, report.order_id, report.trades,
                  jnp.where(happens, count, 0),
                  state.view, view, encoded)
    return MarketState(market, view, token_state), event


def event_shape(spec: MarketSpec, market: Market, view: BookView) -> Event:
    """Shapes and dtypes of an event of this market, view and token included."""
    def one(market: Market, view: BookView) -> Event:
        no = jnp.zeros((), bool)
        _, event = process(spec, None, MarketState(market, view, NOT_MADE), orders.no_order(), happens=no)
        return dataclasses.replace(event, encoded=Encoded(encoding.no_tokens(()), no, no))

    return jax.eval_shape(one, market, view)


def hold_auction(spec: MarketSpec, state: MarketState) -> tuple[MarketState, Uncross]:
    """Holds the next call auction of the session (`exchange.uncross`); its transactions make no token."""
    market, result = exchange.uncross(spec, state.market)
    view = NOT_MADE if state.view is NOT_MADE else books.view(spec, market.book)
    return MarketState(market, view, state.token_state), result


def _rests(market: Market, order: Order) -> jax.Array:
    """bool: the order that is to be cancelled rests, and is of the same account."""
    sides = jnp.arange(2, dtype=jnp.int32)[:, None]
    return jnp.any((market.book.order_id == order.cancel_id) & (market.book.account == order.account)
                   & (sides == order.cancel_side) & (order.cancel_id != NO_ID))


def _of_whole_order(spec: MarketSpec, book: Book, single: Order, order: Order, by_price: ByPrice, asked: Array
                    ) -> Order:
    """Where asked, the cancel of the one resting order that the cancel by price takes back, else `single`.

    It goes the way of all orders, is refused as they are, and a pass over the book serves both. Kind.NONE where there
    is no such order; outside continuous trading it is refused whatever rests (a book that collects may be crossed).
    """
    word = jnp.asarray(by_price.word)
    volume, number, side = cancels.whole_order(
        spec, book, by_price.accounts, (order.price, order.volume, jnp.asarray(by_price.upper_wins), word), asked)
    is_sent = (volume > 0) | (sessions.phase_at(spec.session, order.time) != Phase.CONTINUOUS)
    kind = jnp.where(is_sent, jnp.int32(Kind.CANCEL), jnp.int32(Kind.NONE))
    named = dataclasses.replace(order, kind=kind, volume=volume, cancel_id=number, cancel_side=side)
    return jax.tree.map(lambda new, old: jnp.where(asked, new, old), named, single)
