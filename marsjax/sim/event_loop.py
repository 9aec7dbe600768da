"""Events of B trajectories, in order of time, until the order model is asked again.

An event is an order that reaches the exchange or an agent that wakes up. The loop carries all of the state but the
contexts (`SimState.cache`): a loop over trajectories copies what it carries in every pass.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from marsjax.agents import background
from marsjax.agents.base import Agent, AgentEvent
from marsjax.core import int64
from marsjax.core import kernels as ways
from marsjax.core.records import Array, Kind, Ledgers, Order, Status
from marsjax.market.process import Event, MarketState, process
from marsjax.model import kv_cache
from marsjax.sim import event_queue
from marsjax.sim.event_queue import NextEvent
from marsjax.sim.simulator import Simulator
from marsjax.sim.state import NOT_CARRIED, AgentState, BackgroundPhase, NewTokens, SimState
from marsjax.tokens import encoding

NO_REFRESH = 2**31 - 1
"""Stands for a step at which no context is refreshed: a prime, so no multiple of a smaller number of steps."""
_AGENT_KEYS = 2**31
"""Agents' draws are keyed by numbers from here on, decisions of the background agent by smaller ones."""
Going: TypeAlias = tuple[SimState, NewTokens, NextEvent, jax.Array]
"""States without contexts, the tokens made, the next events, and which trajectories have theirs now, bool [B]."""
Pass: TypeAlias = tuple[SimState, kv_cache.State, jax.Array, jax.Array]
"""States without contexts, contexts, whether another pass is needed, and the number of the step."""


def no_tokens(batch: int, room: int) -> NewTokens:
    """Room for tokens, [B, room]."""
    return NewTokens(encoding.no_tokens((batch, room)), jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool))


def send(simulator: Simulator, state: SimState, made: NewTokens, order: Order, happens: Array, source: Array
         ) -> tuple[SimState, NewTokens]:
    """One order of one trajectory to the exchange, and all who hear of it; nothing changes unless it `happens`.

    `source` is 0 for the background agent, whose cancels name a price and a volume and take back orders of accounts
    below `SimulationSpec.owns_below`, and 1 + i for agents[i], who cancel orders of their own by id.
    """
    spec, is_background = simulator.spec, jnp.asarray(source == 0)
    by_price = background.by_price(simulator.model.spec, order, spec.owns_below, state.tie)
    by_price = by_price._replace(is_asked=is_background & by_price.is_asked)
    after, event = process(spec.market, simulator.table, MarketState(state.market, state.view, state.token_state),
                           order, happens=happens, source=source, by_price=by_price, own_only=~is_background)
    observed = tuple(observer.update(kept, event)
                     for observer, kept in zip(spec.observers, state.observed, strict=True))
    agents = tuple(_inform(i, agent, kept, event, state.market.ledgers, after.market.ledgers)
                   for i, (agent, kept) in enumerate(zip(spec.agents, state.agent_states, strict=True)))
    state = dataclasses.replace(state, market=after.market, view=after.view, token_state=after.token_state,
                                agent_states=agents, observed=observed)
    return state, _with_token(made, event.encoded)


def _inform(index: int, agent: Agent, kept: AgentState, event: Event, before: Ledgers, after: Ledgers) -> AgentState:
    was, now = (event_queue.account_of(ledgers, agent.account) for ledgers in (before, after))
    is_own = event.happened & (event.source == 1 + index)
    heard = AgentEvent(event.order.time, is_own, event.order, event.status, event.order_id, event.trades,
                       int64.subtract(now.holdings, was.holdings), int64.subtract(now.cash, was.cash))
    state = where(event.happened, agent.on_event(kept.state, heard), kept.state)
    refused = is_own & (event.status != Status.ACCEPTED)
    return dataclasses.replace(kept, state=state, sent=kept.sent + is_own, refused=kept.refused + refused)


def _with_token(made: NewTokens, encoded: encoding.Encoded) -> NewTokens:
    """One token more, or the last of them rewritten; there must be room."""
    room = made.tokens.kind.shape[0]
    makes = encoded.is_new | encoded.replaces
    rewrites = encoded.replaces & (made.made > 0)
    at = jnp.where(makes, made.made - rewrites, room)
    here = jnp.arange(room) == at
    tokens = jax.tree.map(lambda new, old: jnp.where(here.reshape(-1, *[1] * (old.ndim - 1)), new, old), encoded.token,
                          made.tokens)
    return NewTokens(tokens, made.made + (makes & ~rewrites), made.replaces | (encoded.replaces & (made.made == 0)))


def append(simulator: Simulator, cache: kv_cache.State, made: NewTokens, step: Array) -> kv_cache.State:
    """Contexts with the new tokens of B trajectories; `step` [B] decides when they are refreshed."""
    return kv_cache.append_all(simulator.model, simulator.spec.cache, cache, made.tokens, made.made, made.replaces,
                               step, simulator.prefix)


def until_decision(simulator: Simulator, state: SimState, active: Array, keys: jax.Array, step: Array,
                   pauses: Callable[[SimState, NextEvent], Array] | None = None) -> SimState:
    """Events of B trajectories until each is about to decide again, or has nothing left to do before its end.

    Args:
      simulator: with agents.
      state: before.
      active: bool [B], trajectories that go on.
      keys: [B], that the agents' keys are folded from.
      step: int32 [B], numbers of these decisions; NO_REFRESH where a context is refreshed only when it is full.
      pauses: whether a trajectory also stops before an event, bool, of one trajectory (`marsjax.sim.env`).
    """
    spec, batch = simulator.spec, active.shape[0]
    few = ways.chosen(spec.kernels).further_turns

    def left(state: SimState, made: NewTokens, active: Array) -> tuple[NextEvent, jax.Array]:
        event = event_queue.next_event(state)
        waits = event_queue.decides(state, event) | (False if pauses is None else pauses(state, event))
        return event, jnp.asarray(active & (event.place >= 0) & ~waits & (made.made < spec.burst))

    def one_event(going: Going, active: Array, keys: jax.Array) -> Going:
        state, made, event, busy = going
        event = event._replace(place=jnp.where(busy, event.place, -1))
        state, made = like(jax.vmap(functools.partial(_one_event, simulator))(state, made, event, keys),
                           (state, made))
        return state, made, *jax.vmap(left)(state, made, active)

    def of_all(going: Going) -> Going:
        return one_event(going, active, keys)

    def of_few(going: Going) -> Going:
        chosen = jnp.nonzero(going[3], size=few, fill_value=batch)[0]
        some = jax.tree.map(lambda x: jnp.take(x, chosen, axis=0, mode="clip"), (going, active, keys))
        (state, made, event, busy), *rest = some
        after = one_event((state, made, event, busy & (chosen < batch)), *rest)
        return jax.tree.map(lambda old, new: old.at[chosen].set(new, mode="drop"), going, after)

    def one_pass(carry: Pass) -> Pass:
        state, cache, _, step = carry
        made = no_tokens(batch, spec.burst)
        going = state, made, *jax.vmap(left)(state, made, active)
        rest = of_all
        if few is not None and few < batch:
            going, rest = of_all(going), of_few
        state, made, _, _ = jax.lax.while_loop(lambda going: jnp.any(going[3]), rest, going)
        cache = append(simulator, cache, made, step)
        more = jax.vmap(left)(state, no_tokens(batch, spec.burst), active)[1]
        # Contexts are refreshed in the first pass of a step only: how many there are depends on other trajectories.
        return state, cache, jnp.any(more), jnp.full_like(step, NO_REFRESH)

    first = dataclasses.replace(state, cache=NOT_CARRIED), state.cache, jnp.ones((), bool), jnp.asarray(step, jnp.int32)
    state, cache, _, _ = jax.lax.while_loop(lambda carry: carry[2], one_pass, first)
    return dataclasses.replace(state, cache=cache)


def _one_event(simulator: Simulator, state: SimState, made: NewTokens, event: NextEvent, key: jax.Array
               ) -> tuple[SimState, NewTokens]:
    """The next event of one trajectory; nothing happens at place -1."""
    spec = simulator.spec
    own = event.place == event_queue.background_place(state.agent_states)
    agents, order, source = event_queue.take_order(state.agent_states, event)
    state = dataclasses.replace(state, agent_states=agents)
    state, made = send(simulator, state, made, where(own, state.planned, order), own | (order.kind != Kind.NONE),
                       jnp.where(own, 0, 1 + source))
    state = dataclasses.replace(
        state, phase=jnp.where(own, jnp.int32(BackgroundPhase.DECIDE), state.phase),
        own_number=jnp.where(own, state.number, state.own_number), number=state.number + own)
    return _wake(spec.agents, spec.market.tick, state, event, key), made


def _wake(agents: Sequence[Agent], tick: int, state: SimState, event: NextEvent, key: jax.Array) -> SimState:
    """The agent whose wake-up it is acts."""
    kept, number = list(state.agent_states), state.number
    for i, agent in enumerate(agents):
        woken = event.place == event_queue.wake_place(state.agent_states, i)
        own_key = jax.random.fold_in(jax.random.fold_in(key, jnp.uint32(_AGENT_KEYS + i)), kept[i].wakes)
        seen = event_queue.observe(agent, tick, state.market, state.view, event.time, state.observed)
        action = agent.act(kept[i].state, seen, own_key)
        after, given = event_queue.after_action(agent, kept[i], action, event.time, number)
        kept[i] = where(woken, after, kept[i])
        number = jnp.where(woken, given, number)
    return dataclasses.replace(state, agent_states=tuple(kept), number=number)


def where(condition: Array, new: Any, old: Any) -> Any:
    """Of two trees of arrays the new one where the condition holds, in the dtypes of the old one."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b).astype(jnp.asarray(b).dtype), new, old)


def like(new: Any, old: Any) -> Any:
    """`new` in the dtypes of `old`, as a loop's carry must be."""
    return jax.tree.map(lambda a, b: a.astype(b.dtype), new, old)
