"""The exchange of one symbol: sessions, call auctions, ids and accounts around the book. `vmap` it over symbols.

`submit` answers one order; `step` holds the call auctions that are due before it. Under `vmap` the test for a due
auction becomes a select that pays for it at every order: many markets at once are better driven period by period,
with `submit` inside one and `uncross` between them (as the replay does).
"""

import dataclasses

import jax
import jax.numpy as jnp

from marsjax.core import int64, sessions, times
from marsjax.core.errors import InputError
from marsjax.core.records import (
    EMPTY_PRICE,
    NO_ACCOUNT,
    NO_ID,
    NO_PRICE,
    Array,
    Conservation,
    Counters,
    Int64,
    Kind,
    Market,
    Order,
    Report,
    Side,
    Status,
    Time,
    Trades,
    Uncross,
)
from marsjax.core.sessions import Period, Phase
from marsjax.core.specs import AuctionRule, MarketSpec
from marsjax.market import accounts, auction, cancels, conditions, orders
from marsjax.market import book as books
from marsjax.market.refusals import first_reason


def open_market(spec: MarketSpec, first_id: int = 0, previous_close: int = NO_PRICE) -> Market:
    """An exchange before its session: empty book, empty accounts. Every array has a buffer of its own (donation).

    Examples:
      >>> market = open_market(MarketSpec(capacity=8, accounts=2))
      >>> market.book.price.shape, int(market.next_id)
      ((2, 8), 0)
    """
    zero, zeros = jnp.zeros((), jnp.int32), jnp.zeros(2, jnp.int32)
    counters = Counters(
        status=jnp.zeros(len(Status), jnp.int32), submitted=int64.of_int32(zeros), cancelled=int64.of_int32(zeros),
        traded=int64.of_int32(zero), value=int64.of_int32(zero), fills=zero, truncated_lists=zero, most_resting=zeros,
        auctions=zero)
    market = Market(books.empty(spec), accounts.empty(spec), counters, times.of_ns(0),
                    jnp.asarray(first_id, jnp.int32), jnp.asarray(previous_close, jnp.int32))
    return jax.tree.map(jnp.array, market)


def step(spec: MarketSpec, market: Market, order: Order) -> tuple[Market, Report]:
    """Holds the call auctions due before the order's time, then submits it."""
    return submit(spec, advance(spec, market, order.time), order)


def submit(spec: MarketSpec, market: Market, order: Order, only_continuous: Array | bool = False
           ) -> tuple[Market, Report]:
    """One order to the exchange: matched in continuous trading, collected in a call auction.

    Args:
      spec: sizes and session.
      market: the state before; no call auction may be due (`is_due`), else the answer is Status.AUCTION_DUE.
      order: scalars. Order id NO_ID takes the next id; a given one is kept, for replays.
      only_continuous: bool []; where it is True, the answer of a call auction is Status.CLOSED.

    Returns:
      The state after and the report. A cancel in a call auction takes effect at once but is stamped with price 0, as
      the auction's other transactions come at its end.

    Examples:
      >>> from marsjax.market import orders
      >>> spec = MarketSpec(capacity=8, accounts=1)
      >>> buy = orders.limit_order(Kind.BUY, 100_000, 200, account=0, time=times.of_ns(36_000 * 10**9))
      >>> market, report = submit(spec, open_market(spec), buy)
      >>> Status(int(report.status)).name, int(report.order_id), int(int64.to_int32(market.ledgers.reserved_cash)[0])
      ('ACCEPTED', 0, 20000000)
    """
    phase = sessions.phase_at(spec.session, order.time)
    order_id = jnp.where(order.order_id == NO_ID, market.next_id, order.order_id)
    refused = _refusal(spec, market, order, phase)
    collects = (phase != Phase.CONTINUOUS) & (refused == Status.ACCEPTED)
    refused = jnp.where(collects & (order.kind != Kind.NONE) & only_continuous, jnp.int32(Status.CLOSED), refused)
    kind = jnp.where(refused == Status.ACCEPTED, order.kind, jnp.int32(Kind.NONE))
    limit = books.limit_price(spec, market.book, order)
    taken = dataclasses.replace(order, kind=kind, order_id=order_id, price=limit)
    handled = books.handle(spec, market.book, taken, matching=phase == Phase.CONTINUOUS)
    book, trades = handled.book, handled.trades
    status = jnp.where(refused == Status.ACCEPTED, handled.status, refused)
    accepted = status == Status.ACCEPTED

    after = Market(
        book=book, ledgers=accounts.settle(spec, market.ledgers, handled.hit, taken, trades),
        counters=_count(spec, market.counters, handled.resting, order, trades, status),
        time=times.select(times.before(market.time, order.time) & (order.kind != Kind.NONE), order.time,
                               market.time),
        next_id=jnp.where(accepted, jnp.maximum(market.next_id, order_id + 1), market.next_id),
        previous_close=market.previous_close)
    is_auction_cancel = (phase != Phase.CONTINUOUS) & (kind == Kind.CANCEL)
    shown = _without_price(trades, is_auction_cancel)
    price = conditions.of_report(order, limit, book.last_price, accepted) if spec.conditions else order.price
    return after, Report(status, jnp.where(accepted, order_id, NO_ID), shown, price)


def cancel_nearest(spec: MarketSpec, market: Market, of: tuple[int, int], named: tuple[Array, ...], time: Time,
                   asked: Array) -> tuple[Market, Report]:
    """The cancels of continuous trading that `cancels.nearest` says, all at one time, in one pass.

    Each of them is an order of its own: it has an id and counts as an order, in order of priority. Where there is
    nothing to take, no message is sent to the exchange (reference: background agent): the status is NOTHING_TO_CANCEL
    at any time, counted once, and nothing else changes.

    Args:
      spec: sizes and session.
      market: the state before.
      of: first and last account whose orders may be taken back; static.
      named: price, volume and upper_wins, scalars.
      time: of all of them; outside continuous trading nothing is cancelled and the status is CLOSED (BAD_TIME if it
        lies before the last order, AUCTION_DUE if a call auction should have been held).
      asked: bool []; False if no cancel was asked for: nothing changes and the status is NO_ORDER.

    Returns:
      The state after, and one report, of the side that lost shares: `order_id` is the id of the first cancel, NO_ID
      where there is none.
    """
    asked, none = jnp.asarray(asked), jnp.zeros((), jnp.int32)
    refused, is_open = _cancels_refused(spec, market, time)
    done = cancels.take_nearest(spec, market.book, of, named, asked, (refused == Status.ACCEPTED) & is_open)
    trades = done.trades
    is_bid = trades.side == Side.BID
    shares = int64.select(jnp.arange(2) == trades.side, trades.volume, int64.of_int32(none))
    after, status = _cancelled(market, asked, done.sent, refused, is_open, shares,
                               jnp.asarray(trades.is_truncated, jnp.int32))
    after = dataclasses.replace(
        after, book=done.book, ledgers=accounts.give_back(market.ledgers, is_bid, done.hit),
        time=times.select(trades.count > 0, time, market.time), next_id=market.next_id + trades.count)
    return after, Report(status, jnp.where(trades.count > 0, market.next_id, NO_ID), trades, none + EMPTY_PRICE)


def _cancels_refused(spec: MarketSpec, market: Market, time: Time) -> tuple[jax.Array, jax.Array]:
    """Why cancels at a time do not even reach the book, or ACCEPTED, and whether trading is continuous."""
    phase = sessions.phase_at(spec.session, time)
    probe = dataclasses.replace(orders.no_order(time), kind=jnp.zeros((), jnp.int32) + Kind.CANCEL)
    return _refusal(spec, market, probe, phase), phase == Phase.CONTINUOUS


def _cancelled(market: Market, asked: Array | bool, sent: Array, refused: jax.Array, is_open: jax.Array, volume: Int64,
               truncated: Array) -> tuple[Market, jax.Array]:
    """The market with cancels counted: `sent` of them, the shares [2] taken, lists cut; and their status."""
    collects = ~is_open & (refused == Status.ACCEPTED)
    status = first_reason(
        (jnp.logical_not(asked), Status.NO_ORDER), (jnp.asarray(sent == 0), Status.NOTHING_TO_CANCEL),
        (collects, Status.CLOSED), otherwise=refused)
    counted = jnp.where(status == Status.NOTHING_TO_CANCEL, 1, sent)
    counters = dataclasses.replace(
        market.counters,
        status=market.counters.status + jnp.where(_at_status(status), counted, 0),
        cancelled=int64.add(market.counters.cancelled, volume),
        truncated_lists=market.counters.truncated_lists + truncated)
    return dataclasses.replace(market, counters=counters), status


def count_nothing(market: Market, asked: Array) -> Market:
    """The market after a cancel that found nothing to take back, where `asked`, bool []: it is counted."""
    is_it = _at_status(jnp.int32(Status.NOTHING_TO_CANCEL)) & asked
    counters = dataclasses.replace(market.counters, status=market.counters.status + is_it)
    return dataclasses.replace(market, counters=counters)


def advance(spec: MarketSpec, market: Market, time: Time) -> Market:
    """Holds every call auction whose time lies before `time`."""
    for _ in _auctions(spec):
        market = jax.lax.cond(is_due(spec, market, time), lambda m: uncross(spec, m)[0], lambda m: m, market)
    return market


def is_due(spec: MarketSpec, market: Market, time: Time) -> jax.Array:
    """bool []: a call auction should have been held before `time`."""
    due = jnp.zeros((), bool)
    for number, period in enumerate(_auctions(spec)):
        due |= (market.counters.auctions == number) & times.before(_uncross_time(period), time)
    return due


def uncross(spec: MarketSpec, market: Market) -> tuple[Market, Uncross]:
    """Holds the next call auction of the session (reference: call auctions); nothing happens if none is left.

    Its reference price is that of the last continuous trade; before the first the previous close, or by Shenzhen's rule
    the price of the auction before.
    """
    number = market.counters.auctions
    held = number < len(_auctions(spec))
    last = market.book.last_price
    book, result = auction.uncross(spec, market.book, jnp.where(last > 0, last, market.previous_close), held)
    time = market.time
    for index, period in enumerate(_auctions(spec)):
        due = _uncross_time(period)
        time = times.select((number == index) & times.before(time, due), due, time)
    fill = result.fill[Side.BID]
    value = int64.total_product(jnp.broadcast_to(jnp.maximum(result.price, 0), fill.shape), fill)
    counters = dataclasses.replace(
        market.counters, traded=int64.add(market.counters.traded, result.volume),
        value=int64.add(market.counters.value, value), auctions=jnp.where(held, number + 1, number))
    close = market.previous_close
    if spec.auction_rule == AuctionRule.SHENZHEN:
        close = jnp.where(result.price > 0, result.price, close)
    return dataclasses.replace(
        market, book=book, ledgers=accounts.settle_auction(spec, market.ledgers, result), counters=counters,
        time=time, previous_close=close), result


def conservation(market: Market) -> Conservation:
    """What was lost or made since the market opened; all 0 in a correct one.

    Examples:
      >>> lost = conservation(open_market(MarketSpec(capacity=8)))
      >>> int64.to_int32(lost.shares).tolist(), int64.to_int32(lost.holdings).tolist()
      ([0, 0], 0)
    """
    book, counters, ledgers = market.book, market.counters, market.ledgers
    gone = int64.add(int64.add(_both_sides(counters.traded), counters.cancelled), int64.total(book.volume))
    bids = int64.total_product(book.price[Side.BID], book.volume[Side.BID])
    asks = int64.total(book.volume[Side.ASK])
    return Conservation(
        shares=int64.subtract(counters.submitted, gone),
        cash=int64.add_up(ledgers.cash), holdings=int64.add_up(ledgers.holdings),
        reserved_cash=int64.subtract(int64.add_up(ledgers.reserved_cash), bids),
        reserved_shares=int64.subtract(int64.add_up(ledgers.reserved_shares), asks))


def _auctions(spec: MarketSpec) -> list[Period]:
    return [period for period in spec.session.periods if period.uncross_ns is not None]


def _uncross_time(period: Period) -> Time:
    if period.uncross_ns is None:
        raise InputError(f"period {period.phase.name}: no call auction")
    return times.of_ns(period.uncross_ns)


def _refusal(spec: MarketSpec, market: Market, order: Order, phase: jax.Array) -> jax.Array:
    """Why the order does not even reach the book, or ACCEPTED."""
    is_order = order.kind != Kind.NONE
    return first_reason(
        (is_order & times.before(order.time, market.time), Status.BAD_TIME),
        (is_order & (phase == Phase.CLOSED), Status.CLOSED),
        (is_order & is_due(spec, market, order.time), Status.AUCTION_DUE),
        (is_order & ((order.account < NO_ACCOUNT) | (order.account >= spec.accounts)), Status.BAD_ACCOUNT),
        otherwise=jnp.int32(Status.ACCEPTED))


def _count(spec: MarketSpec, counters: Counters, resting: Array, order: Order, trades: Trades, status: jax.Array
           ) -> Counters:
    accepted = status == Status.ACCEPTED
    is_cancel = order.kind == Kind.CANCEL
    sides = jnp.arange(2, dtype=jnp.int32)
    submitted = jnp.where((sides == order.kind) & accepted & ~is_cancel, order.volume, 0)
    cancelled = jnp.where((sides == trades.side) & accepted & is_cancel, order.volume, 0)
    traded = accepted & ~is_cancel
    if spec.conditions:
        dropped = order.volume - int64.to_int32(trades.volume) - trades.rest
        cancelled += jnp.where((sides == order.kind) & traded, dropped, 0)
    return dataclasses.replace(
        counters,
        status=jnp.where(_at_status(status) & (order.kind != Kind.NONE), counters.status + 1, counters.status),
        submitted=int64.add(counters.submitted, int64.of_int32(submitted)),
        cancelled=int64.add(counters.cancelled, int64.of_int32(cancelled)),
        traded=int64.add(counters.traded, int64.only(traded, trades.volume)),
        value=int64.add(counters.value, int64.only(traded, trades.value)),
        fills=counters.fills + jnp.where(traded, trades.count, 0),
        truncated_lists=counters.truncated_lists + trades.is_truncated.astype(jnp.int32),
        most_resting=jnp.maximum(counters.most_resting, resting))


def _at_status(status: jax.Array) -> jax.Array:
    """bool [len(Status)], True at one."""
    return jnp.arange(len(Status), dtype=jnp.int32) == status


def _without_price(trades: Trades, is_auction_cancel: jax.Array) -> Trades:
    return dataclasses.replace(trades, price=jnp.where(is_auction_cancel, EMPTY_PRICE, trades.price),
                               value=int64.only(~is_auction_cancel, trades.value))


def _both_sides(amount: Int64) -> Int64:
    return Int64(jnp.stack([amount.hi] * 2), jnp.stack([amount.lo] * 2))
