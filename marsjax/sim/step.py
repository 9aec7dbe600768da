"""The step: predict, sample, plan; then all that happens until the order model is asked again. One jitted call.

One step is at most one decision of the background agent in every trajectory. Clocks differ between trajectories; one
whose next order would come after its end has ended and is masked. Every draw is keyed by (seed, trajectory, step), or
by (seed, trajectory, agent, wake-up): a trajectory has the same draws alone, in any batch and in any chunks.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax.agents import background
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import Array, BookView, Order, Time
from marsjax.market import book as books
from marsjax.market import orders as make
from marsjax.model import ensemble as ensembles
from marsjax.model import kv_cache
from marsjax.model.prefix import Prefix
from marsjax.sim import event_loop, event_queue
from marsjax.sim.event_loop import NO_REFRESH
from marsjax.sim.event_queue import NextEvent
from marsjax.sim.initial import Start
from marsjax.sim.simulator import Simulator
from marsjax.sim.state import LOST, NOT_CARRIED, BackgroundPhase, End, SimState
from marsjax.tokens import encoding

NO_TOKEN = -1
"""Stands for a token that is yet to be sampled."""


class Draws(NamedTuple):
    """The random words of one decision, uint32; [B, ...]."""

    token: Array
    """[B, 2]."""
    values: Array
    """[B, 3], price, volume and interval within their bins."""
    tie: Array
    """[B], the last bit decides between two prices to cancel at, the others among orders alike, where a cancel takes
    back one of them (`ModelSpec.whole_cancels`)."""
    given_token: Array
    """int32 [B], a token that is not to be sampled, else NO_TOKEN."""
    agents: jax.Array | None = None
    """[B] typed keys that those of the other agents are folded from; may be None if there are none."""


class Decision(NamedTuple):
    """What the background agent decided in one step, [B, ...]. What came of it is an `Event` for the observers."""

    active: Array
    """bool, the trajectory decided; the rest has no meaning where it did not."""
    time: Time
    mid_price: Array
    token: Array
    planned: Order
    """With the time of its submission."""
    sent: Array
    """bool, it is not after the end."""


def begin(simulator: Simulator, start: Start, trajectory: Array, agent_starts: Sequence[tuple[Any, Time]] = (),
          until: Time | None = None) -> SimState:
    """B trajectories at their starts.

    Args:
      simulator: what they are simulated with; with a `prefix` there is one start, whose prefix it is.
      start: [B, ...], or one for all of them, whose context is then made once.
      trajectory: int32 [B], numbers that key their draws.
      agent_starts: the agents' states and first wake-ups, [B, ...] each; by default what `Agent.init` gives.
      until: [B], the trajectories' ends; by default all end at `SimulationSpec.end_ns`.

    InputError if the window is longer than the model's, or not every agent has a start, or there is no end.
    """
    spec, batch = simulator.spec, jnp.shape(trajectory)[0]

    def every(x: Any) -> jax.Array:
        return jnp.broadcast_to(x, (batch, *jnp.shape(x)))

    if until is None:
        if spec.end_ns is None:
            raise InputError("step.begin: expected SimulationSpec.end_ns or `until`, got neither")
        until = jax.tree.map(every, times.of_ns(spec.end_ns))
    if agent_starts and len(agent_starts) != len(spec.agents):
        raise InputError(f"agent_starts: expected one for each of {len(spec.agents)} agents, got {len(agent_starts)}")
    if jnp.ndim(start.count):
        cache = kv_cache.start(simulator.model, spec.cache, start.window, start.count)
    else:
        one = _context(simulator, start)
        cache, start = jax.tree.map(every, (jax.tree.map(lambda x: x[0], one), start))
        if simulator.prefix is not None:
            cache = dataclasses.replace(cache, of_prefix=cache.length)
    view = jax.vmap(lambda market: books.view(spec.market, market.book))(start.market)

    given = agent_starts or [jax.tree.map(every, agent.init()) for agent in spec.agents]
    agents = tuple(jax.vmap(functools.partial(event_queue.first_state, agent, number=1 + i))(*first, start.time)
                   for i, (agent, first) in enumerate(zip(spec.agents, given, strict=True)))
    observed = tuple(jax.vmap(observer.begin)(start.market, view, start.time) for observer in spec.observers)
    zero = jnp.zeros(batch, jnp.int32)
    state = SimState(
        start.market, view, start.token_state, cache, agents, observed, time=start.time, until=until, step=zero,
        trajectory=jnp.asarray(trajectory, jnp.int32), end=zero + End.RUNNING, number=zero + 1 + len(agents),
        phase=zero + BackgroundPhase.DECIDE, own_number=zero, planned=jax.tree.map(every, make.no_order()),
        tie=zero.astype(jnp.uint32), guide=None if simulator.ensemble is None else simulator.ensemble.nothing(batch))
    return jax.tree.map(jnp.asarray, state)


@jax.jit
def shared_prefix(simulator: Simulator, start: Start) -> Prefix:
    """What the contexts of all trajectories of one start begin with: `Simulator.prefix` before they `begin` there."""
    return kv_cache.prefix_of(simulator.model, simulator.spec.cache, _context(simulator, start))


def _context(simulator: Simulator, start: Start) -> kv_cache.State:
    """The context of one start, [1]."""
    window, count = jax.tree.map(lambda x: jnp.asarray(x)[None], (start.window, start.count))
    return kv_cache.start(simulator.model, simulator.spec.cache, window, count)


def draw(seed: Array, trajectory: Array, step: Array) -> Draws:
    """The draws of one decision of trajectories [B]: six words from fold_in(key_of(seed, trajectory), step)."""
    keys = jax.vmap(functools.partial(key_of, seed))(trajectory)
    return draw_from(keys, jnp.broadcast_to(step, jnp.shape(trajectory)))


def key_of(seed: Array | int, trajectory: Array | int) -> jax.Array:
    """The typed key that all draws of a trajectory are folded from."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), trajectory)


def draw_from(keys: jax.Array, step: Array) -> Draws:
    """The draws of decisions `step`, int32 [B], of trajectories with typed keys [B]."""
    bits = jax.vmap(lambda key, number: jax.random.bits(jax.random.fold_in(key, number), (6,), jnp.uint32))(keys, step)
    return Draws(bits[:, :2], bits[:, 2:5], bits[:, 5], jnp.full(keys.shape, NO_TOKEN, jnp.int32), keys)


def step(simulator: Simulator, state: SimState, words: Draws, asked: Array | None = None,
         pauses: Callable[[SimState, NextEvent], Array] | None = None) -> tuple[SimState, Decision]:
    """One decision of every trajectory that is asked, and all that happens up to its next one.

    Args:
      simulator: model, tables and spec.
      state: before, [B].
      words: random words of this step, or given tokens.
      asked: bool [B], trajectories that decide; by default all that have not ended.
      pauses: whether a trajectory also stops before an event (`event_loop.until_decision`).
    """
    spec = simulator.spec
    asked = state.end == End.RUNNING if asked is None else asked
    decision, end = decide(simulator, state, words, asked)
    is_last = decision.active & ~decision.sent
    number, guide = state.step + 1, state.guide
    state = dataclasses.replace(
        state, guide=NOT_CARRIED, end=jnp.where(is_last, jnp.int32(End.TIME), end),
        step=jnp.where(asked, number, state.step), time=times.select(decision.sent, decision.planned.time, state.time))
    refresh = jnp.where(asked, number, NO_REFRESH)
    if spec.agents:
        if words.agents is None:
            raise InputError("step: expected Draws.agents, keys for the agents' draws, got None")
        state = _planned(state, decision, words, asked)
        alive = ~jnp.isin(state.end, jnp.array(LOST))
        state = event_loop.until_decision(simulator, state, alive, words.agents, refresh, pauses)
        return dataclasses.replace(state, guide=guide), decision

    # With no one else to act the planned order is all that happens.
    def one(state: SimState, made: event_loop.NewTokens, decision: Decision) -> tuple[SimState, event_loop.NewTokens]:
        return event_loop.send(simulator, state, made, decision.planned, decision.sent, jnp.int32(0))

    after, made = jax.vmap(one)(dataclasses.replace(state, cache=NOT_CARRIED, tie=words.tie),
                                event_loop.no_tokens(asked.shape[0], 1), decision)
    cache = event_loop.append(simulator, state.cache, made, refresh)
    return dataclasses.replace(after, cache=cache, tie=state.tie, guide=guide), decision


def _planned(state: SimState, decision: Decision, words: Draws, asked: Array) -> SimState:
    """The state with the background agents' next events."""
    def chosen(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(asked, a, b).astype(b.dtype), new, old)

    phase = jnp.where(decision.sent, BackgroundPhase.SEND, BackgroundPhase.NOTHING)
    return dataclasses.replace(
        state, phase=chosen(phase, state.phase), own_number=chosen(state.number, state.own_number),
        number=state.number + asked, planned=chosen(decision.planned, state.planned), tie=chosen(words.tie, state.tie))


def decide(simulator: Simulator, state: SimState, words: Draws, asked: Array) -> tuple[Decision, jax.Array]:
    """What the background agent plans in trajectories that are asked, bool [B], and the trajectories' `End` then."""
    spec = simulator.spec
    hidden = kv_cache.predict(simulator.model, spec.cache, state.cache, simulator.prefix)
    if simulator.ensemble is not None and state.guide is not None:
        hidden = ensembles.change(simulator.ensemble, spec.cache, hidden, state.guide)
    sampled, finite = kv_cache.sample(simulator.model, spec.cache, hidden, words.token, spec.temperature,
                                      simulator.weights)
    token = jnp.where(words.given_token == NO_TOKEN, sampled, words.given_token)
    end = jnp.where(asked & ~finite, jnp.int32(End.NOT_FINITE), state.end)
    end = jnp.where(asked & finite & ~state.view.has_mid, jnp.int32(End.NO_MID), end)
    plan = jax.vmap(functools.partial(_plan, simulator))
    return plan(state.view, state.time, state.until, asked & (end == End.RUNNING), token, words.values), end


def _plan(simulator: Simulator, view: BookView, now: Time, until: Time, active: Array, token: Array, words: Array
          ) -> Decision:
    """Plans one trajectory's order."""
    plan = encoding.draw_plan(simulator.model.spec.tokens, simulator.draws, token, words)
    planned = background.planned_order(plan, view.mid_price, now, simulator.spec.account)
    late = times.before(until, planned.time)
    return Decision(active, now, view.mid_price, token, planned, active & ~late)
