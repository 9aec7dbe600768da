"""Turns of one trajectory: an order to the exchange, or an agent waking up, until the order model is asked again."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax import book as books
from marsjax import clock, exchange, schedule, tokens
from marsjax.agents import background, cancels
from marsjax.agents.base import Agent, News
from marsjax.decode import State
from marsjax.model import LEVELS
from marsjax.schedule import Phase, Seat, Turn
from marsjax.specs import MarketSpec
from marsjax.tokens import TokenState, TokenTables
from marsjax.types import NO_ID, Array, BookView, Kind, Market, Order, Report, Status, Time, Token, Trades
from marsjax.watchers.base import Event, Watcher

_AGENT_KEYS = 2**31
"""Agents' draws are keyed by numbers from here on, decisions of the background agent by smaller ones."""


class Held(NamedTuple):
    """Tokens on their way to the context, N at most."""

    tokens: Token
    """[N]."""
    made: Array
    """int32 [], how many."""
    replaces: Array
    """bool [], the first of them rewrites the newest token of the context (a merged cancel)."""


class Live(NamedTuple):
    """All of a trajectory but its context: what the loop over turns carries."""

    market: Market
    view: BookView
    token_state: TokenState
    seats: tuple[Seat, ...]
    watched: tuple[Any, ...]
    number: Array
    """int32, for the next event that is asked for."""
    phase: Array
    """A `Phase`: what the background agent does next, at `own_time` and with the number `own_number`."""
    own_time: Time
    own_number: Array
    held: Held


def nothing_held(batch: int, room: int) -> Held:
    """No tokens, [B, room]."""
    columns = {field.name: jnp.zeros((batch, room), jnp.int32) for field in dataclasses.fields(Token)}
    empty = Token(**{**columns, "levels": jnp.zeros((batch, room, LEVELS), jnp.int32)})
    return Held(empty, jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool))


def take(spec: MarketSpec, table: TokenTables, agents: Sequence[Agent], watchers: Sequence[Watcher], owns_below: int,
         live: Live, order: Order, happens: Array, source: Array, tie: Array) -> Live:
    """One order to the exchange, its token, and the news of it; scalars, nothing changes unless it `happens`.

    `source` is 0 for the background agent, whose cancels name a price and a volume and take back orders of accounts
    below `owns_below`, and 1 + i for agents[i], who cancel orders of their own by id.
    """
    is_bulk = happens & (source == 0) & background.is_cancel(order)
    is_foreign = (source > 0) & (order.kind == Kind.CANCEL) & ~_rests(live.market, order)
    goes = happens & ~is_bulk & ~is_foreign
    single = dataclasses.replace(order, kind=jnp.where(goes, order.kind, jnp.int32(Kind.NONE)))
    market, report = exchange.submit(spec, live.market, single)
    own = (live.market.book.owner >= 0) & (live.market.book.owner < owns_below)
    shares = cancels.nearest(live.market.book, own, order.price, order.volume, (tie & 1) == 1)
    market, cancelled = exchange.cancel_many(spec, market, jnp.where(is_bulk, shares, 0), order.time)
    report = dataclasses.replace(report, status=jnp.where(is_foreign, jnp.int32(Status.UNKNOWN_ID), report.status))
    view = books.view(spec, market.book)

    one, trades, counts = _as_one_order(order, is_bulk, report, cancelled)
    token_state, encoded = tokens.encode(spec, table, live.token_state, one, trades, live.view, view, happens & counts)
    accepted = jnp.where(is_bulk, jnp.sum(cancelled.trades.count, dtype=jnp.int32), report.status == Status.ACCEPTED)
    event = Event(happens, source, order, is_bulk, report, cancelled, jnp.where(happens, accepted, 0), live.view, view,
                  encoded)
    watched = tuple(watcher.update(kept, event) for watcher, kept in zip(watchers, live.watched, strict=True))
    seats = tuple(_tell(i, agent, seat, event, trades, live.market, market)
                  for i, (agent, seat) in enumerate(zip(agents, live.seats, strict=True)))
    return live._replace(market=market, view=view, token_state=token_state, seats=seats, watched=watched,
                         held=_hold(live.held, encoded))


def _rests(market: Market, order: Order) -> jax.Array:
    """bool: the order that is to be cancelled rests, and is of the same owner."""
    sides = jnp.arange(2, dtype=jnp.int32)[:, None]
    return jnp.any((market.book.order_id == order.cancel_id) & (market.book.owner == order.owner)
                   & (sides == order.cancel_side) & (order.cancel_id != NO_ID))


def _as_one_order(order: Order, is_bulk: Array, report: Report, cancelled: Report) -> tuple[Order, Trades, Array]:
    """What the token is made of: the order, or all cancels of one decision, which merge into one."""
    side = jnp.argmax(cancelled.trades.count).astype(jnp.int32)
    taken = jax.tree.map(lambda x: x[side], cancelled.trades)
    trades = jax.tree.map(lambda c, o: jnp.where(is_bulk, c, o), taken, report.trades)
    one = dataclasses.replace(order, volume=jnp.where(is_bulk, clock.to_int32(taken.volume), order.volume),
                              order_id=jnp.full_like(order.kind, NO_ID))
    return one, trades, jnp.where(is_bulk, taken.count > 0, report.status == Status.ACCEPTED)


def _tell(index: int, agent: Agent, seat: Seat, event: Event, trades: Trades, before: Market, after: Market) -> Seat:
    was, now = (schedule.account(market.ledgers, agent.owner) for market in (before, after))
    is_own = event.happened & (event.source == 1 + index)
    news = News(event.order.time, is_own, event.order, event.report.status, event.report.order_id, trades,
                clock.subtract(now.holdings, was.holdings), clock.subtract(now.cash, was.cash))
    state = _where(event.happened, agent.told(seat.state, news), seat.state)
    refused = is_own & (event.report.status != Status.ACCEPTED)
    return dataclasses.replace(seat, state=state, sent=seat.sent + is_own, refused=seat.refused + refused)


def _hold(held: Held, encoded: tokens.Encoded) -> Held:
    """Tokens with one more, or with the last of them rewritten; there must be room."""
    makes = encoded.is_new | encoded.replaces
    rewrites = encoded.replaces & (held.made > 0)
    at = jnp.where(makes, held.made - rewrites, held.tokens.kind.shape[0])
    here = jnp.arange(held.tokens.kind.shape[0]) == at
    kept = jax.tree.map(lambda new, old: jnp.where(here.reshape(-1, *[1] * (old.ndim - 1)), new, old), encoded.token,
                        held.tokens)
    return Held(kept, held.made + (makes & ~rewrites), held.replaces | (encoded.replaces & (held.made == 0)))


def until_decision(take: Callable[..., Live], append: Callable[[State, Held, Array], State], agents: Sequence[Agent],
                   end: Time, live: Live, cache: State, active: Array, planned: Order, tie: Array, keys: jax.Array,
                   step: Array, pauses: Callable[[Live, Turn], Array] | None = None, few: int | None = None
                   ) -> tuple[Live, State]:
    """Turns of B trajectories until each is about to decide again, or has nothing left to do before `end`.

    Args:
      take: `take` above, of one trajectory, but for its first arguments.
      append: puts held tokens into the contexts, given the number of the step.
      agents: who wakes up.
      end: [B], no event after it.
      live: [B, ...], before.
      cache: of B trajectories; it stands outside of the loop over turns, which would copy it.
      active: bool [B], trajectories that have not ended.
      planned: Order [B] of the background agent.
      tie: uint32 [B], its random word.
      keys: [B], that the agents' keys are folded from.
      step: [] or [B], number of this decision.
      pauses: whether a trajectory also stops before a turn, bool, of one trajectory (`marsjax.env`).
      few: after the first turn of all, so many trajectories have theirs at a time, of those that have another; by
        default all are computed until the last has none. For a CPU, which computes row by row (64 trajectories with a
        TWAP each: 19 ms of processor time a step instead of 28).
    """
    room = live.held.tokens.kind.shape[1]

    def next_turn(live: Live, active: Array, end: Time) -> tuple[Turn, Array]:
        turn = schedule.next_turn(live.seats, live.phase, live.own_time, live.own_number, end)
        decides = (turn.place == schedule.own_turn(live.seats)) & (live.phase == Phase.DECIDE)
        waits = decides if pauses is None else decides | pauses(live, turn)
        return turn, active & (turn.place >= 0) & ~waits

    def one(live: Live, turn: Turn, busy: Array, planned: Order, tie: Array, key: jax.Array) -> Live:
        turn = turn._replace(place=jnp.where(busy, turn.place, -1))
        own = turn.place == schedule.own_turn(live.seats)
        seats, order, source = schedule.take_order(live.seats, turn)
        after = take(live._replace(seats=tuple(seats)), _where(own, planned, order),
                     own | (order.kind != Kind.NONE), jnp.where(own, 0, 1 + source), tie)
        after = after._replace(
            phase=jnp.where(own, jnp.int32(Phase.DECIDE), after.phase),
            own_number=jnp.where(own, after.number, after.own_number), number=after.number + own)
        return _wake(agents, after, turn, key)

    def turns(live: Live, turn: Turn, busy: Array, mine: tuple[Any, ...]) -> tuple[Live, Turn, Array]:
        planned, tie, keys, active, end = mine
        live = _like(jax.vmap(one)(live, turn, busy, planned, tie, keys), live)
        turn, left = jax.vmap(next_turn)(live, active, end)
        return live, turn, left & (live.held.made < room)

    batch, mine = active.shape[0], (planned, tie, keys, active, end)

    def turns_of_all(carry: tuple[Live, Turn, Array]) -> tuple[Live, Turn, Array]:
        return turns(*carry, mine)

    def turns_of_few(carry: tuple[Live, Turn, Array]) -> tuple[Live, Turn, Array]:
        chosen = jnp.nonzero(carry[2], size=few, fill_value=batch)[0]
        some = jax.tree.map(lambda x: jnp.take(x, chosen, axis=0, mode="clip"), (carry, mine))
        (live, turn, busy), others = some
        after = turns(live, turn, busy & (chosen < batch), others)
        return jax.tree.map(lambda old, new: old.at[chosen].set(new, mode="drop"), carry, after)

    def pass_of_turns(carry: tuple[Live, State, jax.Array, jax.Array]) -> tuple[Live, State, jax.Array, jax.Array]:
        live, cache, _, step = carry
        turn, left = jax.vmap(next_turn)(live, active, end)
        if few is None or few >= batch:
            live, _, _ = jax.lax.while_loop(lambda c: jnp.any(c[2]), turns_of_all, (live, turn, left))
        else:
            first = turns_of_all((live, turn, left))
            live, _, _ = jax.lax.while_loop(lambda c: jnp.any(c[2]), turns_of_few, first)
        cache = append(cache, live.held, step)
        live = live._replace(held=nothing_held(active.shape[0], room))
        # Contexts are cut at the first pass of a step only: how many there are depends on the other trajectories.
        return live, cache, jnp.any(jax.vmap(next_turn)(live, active, end)[1]), jnp.full_like(step, NO_CUT)

    first = (live, cache, jnp.ones((), bool), jnp.asarray(step, jnp.int32))
    live, cache, _, _ = jax.lax.while_loop(lambda c: c[2], pass_of_turns, first)
    return live, cache


NO_CUT = 2**31 - 1
"""Stands for a step at which no context is cut: a prime, so no multiple of a hop of less (of 1 it is one)."""


def _wake(agents: Sequence[Agent], live: Live, turn: Turn, key: jax.Array) -> Live:
    """The agent whose turn it is acts."""
    seats, number = list(live.seats), live.number
    for i, agent in enumerate(agents):
        woken = turn.place == schedule.wake_turn(live.seats, i)
        own_key = jax.random.fold_in(jax.random.fold_in(key, jnp.uint32(_AGENT_KEYS + i)), seats[i].wakes)
        seen = schedule.observe(agent, live.market, live.view, turn.time, live.watched)
        action = agent.act(seats[i].state, seen, own_key)
        after, given = schedule.acted(agent, seats[i], action, turn.time, number)
        seats[i] = _where(woken, after, seats[i])
        number = jnp.where(woken, given, number)
    return live._replace(seats=tuple(seats), number=number)


def _where(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b).astype(jnp.asarray(b).dtype), new, old)


def _like(new: Any, old: Any) -> Any:
    """`new` in the dtypes of `old`, as a loop's carry must be."""
    return jax.tree.map(lambda a, b: a.astype(b.dtype), new, old)
