"""The step and the rollout: model, sample, planned order, exchange, token, all in one jitted call.

One step is one decision of the background agent in every trajectory: predict from the tokens so far, sample the next
order, let the other agents have their turns until its time, send it, make its token. Clocks differ between
trajectories; one whose next order would come after the end has ended and is masked. Every draw is keyed by (seed,
trajectory, step), or by (seed, trajectory, agent, wake-up), so that a trajectory comes out the same alone, in any
batch and in any chunks.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax import book as books
from marsjax import clock, decode, schedule, tokens, turns
from marsjax.agents import background
from marsjax.agents.base import Agent
from marsjax.model import Params
from marsjax.schedule import Phase, Seat
from marsjax.specs import CacheSpec, MarketSpec, ModelSpec
from marsjax.start import Start
from marsjax.tokens import DrawTables, TokenState, TokenTables
from marsjax.turns import Live
from marsjax.types import Array, BookView, Market, Order, Time
from marsjax.watchers.base import Watcher

_FEW = 8
"""Rows of a block over those that have their further turns together."""
NO_TOKEN = -1
"""Stands for a token that is yet to be sampled."""


class End(enum.IntEnum):
    """Why a trajectory goes on or has ended."""

    RUNNING = 0
    TIME = 1
    """The next order would come after the end."""
    NO_MID = 2
    """Nothing rests and nothing ever traded: there is no price to decide around."""
    NOT_FINITE = 3
    """The model gave a logit that is no number."""


@dataclasses.dataclass(frozen=True)
class SimulationSpec:
    """What a rollout is made of; hashable, the static argument of its compiled calls."""

    market: MarketSpec
    model: ModelSpec
    cache: CacheSpec
    end_ns: int | None = None
    """No order is sent after it, nanoseconds since midnight; None: each trajectory has an end of its own."""
    owner: int = 1
    """The background agent's account."""
    owns_below: int = 2
    """Resting orders of accounts 0 to owns_below - 1 are the background agent's to cancel (its own, the noise's)."""
    temperature: float = 1.0
    agents: tuple[Agent, ...] = ()
    """Who else trades, in the order in which they are registered."""
    watchers: tuple[Watcher, ...] = ()
    """What is kept of every event."""
    burst: int = 8
    """Tokens of a trajectory that are made before they are appended to its context; with other agents only. More need
    another pass."""

    def __post_init__(self) -> None:
        if not 0 <= self.owner < self.market.owners:
            raise ValueError(f"SimulationSpec.owner: expected 0 to {self.market.owners - 1} (MarketSpec.owners), "
                             f"got {self.owner}")
        if not self.temperature > 0:
            raise ValueError(f"SimulationSpec.temperature: expected a number above 0, got {self.temperature}")
        if self.end_ns is not None and self.end_ns < 0:
            raise ValueError(f"SimulationSpec.end_ns: expected at least 0, got {self.end_ns}")
        if not 1 <= self.burst <= 1024:
            raise ValueError(f"SimulationSpec.burst: expected 1 to 1024, got {self.burst}")
        taken = {self.owner: "the background agent", **dict.fromkeys(range(self.owns_below), "the background agent")}
        for agent in self.agents:
            if agent.owner in taken:
                raise ValueError(f"agent {agent.name!r}: owner {agent.owner} is the account of {taken[agent.owner]}")
            if not 0 <= agent.owner < self.market.owners:
                raise ValueError(f"agent {agent.name!r}: expected an owner of 0 to {self.market.owners - 1} "
                                 f"(MarketSpec.owners), got {agent.owner}")
            if not 1 <= agent.most_orders <= agent.most_in_flight:
                raise ValueError(f"agent {agent.name!r}: expected 1 <= most_orders <= most_in_flight, got "
                                 f"{agent.most_orders} and {agent.most_in_flight}")
            taken[agent.owner] = f"agent {agent.name!r}"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Simulation:
    """The state of B trajectories."""

    market: Market
    view: BookView
    """Of the market's book."""
    token_state: TokenState
    cache: decode.State
    time: Time
    """[B], of the next decision."""
    until: Time
    """[B]: no order is sent after it."""
    step: Array
    """int32 [B], steps since its start; with the trajectory's number they key the draws."""
    trajectory: Array
    """[B], numbers that the draws are keyed by."""
    end: Array
    """[B], an `End`."""
    seats: tuple[Seat, ...]
    """Of `SimulationSpec.agents`."""
    number: Array
    """[B], events asked for so far, which orders those at equal times."""
    watched: tuple[Any, ...]
    """States of `SimulationSpec.watchers`."""


class Draws(NamedTuple):
    """The random words of one decision, uint32; [B, ...]."""

    token: Array
    """[B, 2]."""
    values: Array
    """[B, 3], price, volume and interval within their bins."""
    tie: Array
    """[B], the last bit decides between two prices to cancel at."""
    given_token: Array
    """int32 [B], a token that is not to be sampled, else NO_TOKEN."""
    agents: jax.Array | None = None
    """[B] typed keys that those of the other agents are folded from; may be None if there are none."""


class Decision(NamedTuple):
    """What the background agent decided in one step, [B, ...]. What came of it is an `Event` for the watchers."""

    active: Array
    """bool, the trajectory decided; the rest has no meaning where it did not."""
    time: Time
    mid_price: Array
    token: Array
    planned: Order
    """With the time of its submission."""
    sent: Array
    """bool, it was not after the end."""


def begin(params: Params, spec: SimulationSpec, start: Start, trajectory: Array,
          agent_starts: Sequence[tuple[Any, Time]] = (), until: Time | None = None) -> Simulation:
    """B trajectories from starts [B, ...]; `trajectory`, int32 [B], keys their draws.

    `agent_starts` are the agents' states and first wake-ups, [B, ...] each; by default what `Agent.init` gives.
    `until` [B] are the trajectories' ends; by default all end at `SimulationSpec.end_ns`.

    ValueError if the window is longer than the model's, or not every agent has a start, or there is no end.
    """
    batch = start.count.shape[0]
    if until is None:
        if spec.end_ns is None:
            raise ValueError("simulate.begin: expected SimulationSpec.end_ns or `until`, got neither")
        until = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch,)), clock.static_time(spec.end_ns))
    if agent_starts and len(agent_starts) != len(spec.agents):
        raise ValueError(f"agent_starts: expected one for each of {len(spec.agents)} agents, got {len(agent_starts)}")
    cache = decode.start(params, spec.model, spec.cache, start.window, start.count)
    view = jax.vmap(lambda market: books.view(spec.market, market.book))(start.market)
    given = agent_starts or [jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *jnp.shape(x))), agent.init())
                             for agent in spec.agents]
    seats = tuple(jax.vmap(functools.partial(schedule.seat, agent, number=1 + i))(*first, start.time)
                  for i, (agent, first) in enumerate(zip(spec.agents, given, strict=True)))
    watched = tuple(jax.vmap(watcher.begin)(start.market, view, start.time) for watcher in spec.watchers)
    zero = jnp.zeros(batch, jnp.int32)
    state = Simulation(
        start.market, view, start.token_state, cache, start.time, until, zero,
        jnp.asarray(trajectory, jnp.int32), zero + End.RUNNING, seats, number=zero + 1 + len(seats), watched=watched)
    return jax.tree.map(jnp.asarray, state)


def map_trajectories(change: Callable[..., Any], *states: Simulation) -> Simulation:
    """`change(axis, *leaves)` of every array of states; trajectories lie along the axis, 1 in contexts and 0 else."""
    def without(state: Simulation) -> Simulation:
        return dataclasses.replace(state, cache=dataclasses.replace(state.cache, keys=None, values=None))

    changed = jax.tree.map(functools.partial(change, 0), *map(without, states))
    contexts = {name: None if getattr(states[0].cache, name) is None else change(
        1, *(getattr(state.cache, name) for state in states)) for name in ("keys", "values")}
    return dataclasses.replace(changed, cache=dataclasses.replace(changed.cache, **contexts))


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


def step(params: Params, spec: SimulationSpec, table: TokenTables, draws: DrawTables, state: Simulation,
         words: Draws) -> tuple[Simulation, Decision]:
    """One decision of every trajectory, and all that happens up to the next.

    Args:
      params: of the order model.
      spec: sizes.
      table: bins to encode with.
      draws: bins to draw with.
      state: before.
      words: random words of this step, or given tokens.
    """
    decision, end = decide(params, spec, draws, state, words, state.end == End.RUNNING)
    is_last = decision.active & ~decision.sent
    live = Live(
        state.market, state.view, state.token_state, state.seats, state.watched, state.number,
        jnp.where(decision.sent, Phase.SEND, Phase.NOTHING).astype(jnp.int32), decision.planned.time, state.number,
        turns.nothing_held(decision.active.shape[0], spec.burst if spec.agents else 1))
    live = live._replace(number=live.number + 1)

    def append(cache: decode.State, held: turns.Held, step: Array) -> decode.State:
        return decode.append_all(params, spec.model, spec.cache, cache, held.tokens, held.made, held.replaces, step)

    take = functools.partial(turns.take, spec.market, table, spec.agents, spec.watchers, spec.owns_below)
    if spec.agents:
        few = spec.cache.rows and -(-spec.cache.rows // _FEW)
        if words.agents is None:
            raise ValueError("simulate.step: expected Draws.agents, keys for the agents' draws, got None")
        live, cache = turns.until_decision(
            take, append, spec.agents, state.until, live, state.cache, decision.active,
            decision.planned, words.tie, words.agents, state.step + 1, few=few)
    else:
        own = jnp.int32(0)
        live = jax.vmap(take, in_axes=(0, 0, 0, None, 0))(live, decision.planned, decision.sent, own, words.tie)
        cache = append(state.cache, live.held, state.step + 1)
    return Simulation(
        live.market, live.view, live.token_state, cache,
        clock.select_time(decision.sent, decision.planned.time, state.time), state.until, state.step + 1,
        state.trajectory, jnp.where(is_last, jnp.int32(End.TIME), end), live.seats, live.number, live.watched), decision


def decide(params: Params, spec: SimulationSpec, draws: DrawTables, state: Simulation, words: Draws, asked: Array
           ) -> tuple[Decision, jax.Array]:
    """What the background agent plans in trajectories that are asked, bool [B], and the trajectories' `End` then."""
    hidden = decode.predict(params, spec.model, spec.cache, state.cache)
    sampled, finite = decode.sample(params, spec.cache, hidden, words.token, spec.temperature)
    token = jnp.where(words.given_token == NO_TOKEN, sampled, words.given_token)
    end = jnp.where(asked & ~finite, jnp.int32(End.NOT_FINITE), state.end)
    end = jnp.where(asked & finite & ~state.view.has_mid, jnp.int32(End.NO_MID), end)
    plan = jax.vmap(functools.partial(_plan, spec, draws))
    return plan(state.view, state.time, state.until, asked & (end == End.RUNNING), token, words.values), end


def _plan(spec: SimulationSpec, draws: DrawTables, view: BookView, now: Time, until: Time, active: Array,
          token: Array, words: Array) -> Decision:
    """Plans one trajectory's order."""
    plan = tokens.draw_plan(spec.model.tokens, draws, token, words)
    planned = background.planned_order(plan, view.mid_price, now, spec.owner)
    late = clock.before(until, planned.time)
    return Decision(active, now, view.mid_price, token, planned, active & ~late)
