"""Orders through the exchange beside traders whose fills are counted: what replays and noise have in common."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax.agents.base import Resting
from marsjax.agents.requoting import less_met, side_of
from marsjax.core import int64, kernels, limits, times
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Int64, Kind, Market, Order, Status, Time
from marsjax.core.specs import MarketSpec
from marsjax.market import book as books
from marsjax.market import exchange
from marsjax.rl.base import MarketSeen, Stepped, StepTrades, TraderFills, addressed, resting_of, see
from marsjax.rl.batches import by_whole_batches


@dataclasses.dataclass(frozen=True)
class Stride:
    """How far a step goes: a number of messages, or a span of time; one of them is 0."""

    messages: int = 1
    """M, of a feed or wake-ups of the noise agent."""
    span_ns: int = 0
    """Nanoseconds."""

    def __post_init__(self) -> None:
        limits.check_whole("Stride.messages", self.messages, 0, limits.STEPS_OF_A_CALL)
        limits.check_whole("Stride.span_ns", self.span_ns, 0, times.DAY_NS)
        if bool(self.messages) == bool(self.span_ns):
            raise InputError(f"Stride: expected messages or span_ns above 0, one of them, got {self.messages} and "
                             f"{self.span_ns}")


class Flow(NamedTuple):
    """A market on its way through a step."""

    market: Market
    cursor: Any
    """Where the background stands: which message, or wake-up, is next."""
    fills: TraderFills
    """[A]."""


def check_accounts(name: str, market: MarketSpec, accounts: Sequence[int], taken: int) -> None:
    """InputError unless each trader has an account of its own that the market keeps, beyond the first `taken`."""
    good = accounts and len(set(accounts)) == len(accounts)
    if not good or not all(taken <= account < market.accounts for account in accounts):
        raise InputError(f"{name}.accounts: expected different ones of {taken} to {market.accounts - 1} "
                         f"(MarketSpec.accounts={market.accounts}), got {tuple(accounts)}")


def no_fills(count: int) -> TraderFills:
    """Of A traders that have traded nothing, [A]."""
    zero = jnp.zeros(count, jnp.int32)
    return TraderFills(zero, zero, int64.of_int32(zero), int64.of_int32(zero), zero, zero)


def counted(accounts: Sequence[int], before: Market, after: Market, fills: TraderFills) -> TraderFills:
    """`fills` [A] with what one message did to the traders: by it each of them bought or sold, not both."""
    rows = jnp.array(accounts)

    def change(new: Int64, old: Int64) -> Int64:
        return int64.subtract(jax.tree.map(lambda x: jnp.asarray(x)[rows], new),
                              jax.tree.map(lambda x: jnp.asarray(x)[rows], old))

    shares = int64.to_int32(change(after.ledgers.holdings, before.ledgers.holdings))
    cash = change(after.ledgers.cash, before.ledgers.cash)
    return fills._replace(
        bought=fills.bought + jnp.maximum(shares, 0), sold=fills.sold + jnp.maximum(-shares, 0),
        cash=int64.add(fills.cash, cash),
        value=int64.add(fills.value, int64.select(jnp.asarray(cash.hi) < 0, int64.negate(cash), cash)))


def send_own(spec: MarketSpec, accounts: Sequence[int], flow: Flow, sent: Order, time: Time) -> Flow:
    """The traders' orders [A, K], one trader after the other, at one time.

    What a trader takes back may have met an order of one before it: then no more than is left is taken back, and its
    new orders of that side are less by what was missing, so that targets and bounds of inventories hold.
    """
    own = [addressed(jax.tree.map(lambda x, i=i: jnp.asarray(x)[i], sent), account, time)
           for i, account in enumerate(accounts)]
    every = jax.tree.map(lambda *x: jnp.concatenate(x), *own)
    rows = jnp.array(accounts)

    def one(carry: tuple[Flow, jax.Array], order: Order) -> tuple[tuple[Flow, jax.Array], None]:
        flow, missing = carry
        is_own = rows == order.account
        here = is_own[:, None] & (jnp.arange(2) == side_of(order))
        order, change = less_met(order, left_of(flow.market, order),
                                 jnp.sum(jnp.where(here, missing, 0), dtype=jnp.int32))
        missing += jnp.where(here, change, 0)
        market, report = exchange.submit(spec, flow.market, order)
        fills = counted(accounts, flow.market, market, flow.fills)
        is_own, is_taken = is_own & (order.kind != Kind.NONE), report.status == Status.ACCEPTED
        fills = fills._replace(accepted=fills.accepted + (is_own & is_taken),
                               refused=fills.refused + (is_own & ~is_taken))
        return (flow._replace(market=market, fills=fills), missing), None

    return jax.lax.scan(one, (flow, jnp.zeros((len(accounts), 2), jnp.int32)), every)[0][0]


def left_of(market: Market, order: Order) -> jax.Array:
    """int32 shares that still rest of the order that a cancel names."""
    book = market.book
    rests = jnp.asarray(book.order_id)[order.cancel_side] == order.cancel_id
    return jnp.sum(jnp.where(rests, jnp.asarray(book.volume)[order.cancel_side], 0), dtype=jnp.int32)


class Passing(NamedTuple):
    """What passes one market's next message, and whether one is left.

    Both are functions of what all markets share (recorded messages), what is a market's own, and its flow.
    """

    one: Callable[[Any, Any, Flow, Array], Flow]
    """Its last argument: whether it happens. Where not, nothing changes."""
    is_due: Callable[[Any, Any, Flow], Array]


def go_on(spec: MarketSpec, stride: Stride, how: Passing, shared: Any, own: Any, flow: Flow) -> Flow:
    """One message after the other: as many as the stride says, or while one is due.

    Under `vmap` markets with fewer due messages wait for the others. The loop is of the whole batch: one that `vmap`
    batches would choose between the old and the new books of all markets in every pass.
    """
    if stride.messages:
        return jax.lax.fori_loop(  # type: ignore[no-any-return]
            0, stride.messages, lambda _, flow: how.one(shared, own, flow, jnp.ones((), bool)), flow)
    at_a_time = kernels.chosen(spec.kernels).steps_a_look

    def due(shared: Any, own: Any, flow: Flow) -> Array:
        return jax.vmap(how.is_due, (None, 0, 0))(shared, own, flow)  # type: ignore[no-any-return]

    def together(shared: Any, own: Any, flow: Flow) -> Flow:
        def pass_one(_: Array, flow: Flow) -> Flow:
            return jax.vmap(how.one, (None, 0, 0, 0))(  # type: ignore[no-any-return]
                shared, own, flow, due(shared, own, flow))

        return jax.lax.while_loop(  # type: ignore[no-any-return]
            lambda flow: jnp.any(due(shared, own, flow)),
            lambda flow: jax.lax.fori_loop(0, at_a_time, pass_one, flow), flow)

    return by_whole_batches(together)(shared, own, flow)


def seen_of(spec: MarketSpec, accounts: Sequence[int], market: Market, time: Time
            ) -> tuple[MarketSeen, tuple[Resting, ...]]:
    """What traders see of a market."""
    seen = see(spec, market.book, books.view(spec, market.book), time)
    return seen, tuple(resting_of(market.book, account) for account in accounts)


def stepped(spec: MarketSpec, accounts: Sequence[int], before: Market, flow: Flow, rest: tuple[Any, Time, Array]
            ) -> Stepped:
    """What a step comes to; `rest` is the background's state then, the clock, and whether the market is over."""
    state, time, is_over = rest
    seen, resting = seen_of(spec, accounts, flow.market, time)
    counters, old = flow.market.counters, before.counters
    trades = StepTrades(int64.subtract(counters.traded, old.traded), int64.subtract(counters.value, old.value))
    each = tuple(jax.tree.map(lambda x, i=i: x[i], flow.fills) for i in range(len(accounts)))
    return Stepped(state, seen, resting, each, trades, is_over)
