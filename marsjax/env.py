"""The same engine as an environment: orders go in from outside, observations come out.

    env = Environment.of(order_model, market, step_ns=SECOND_NS, episode_ns=60 * SECOND_NS)
    seen, state = env.reset(key, start)
    seen, state, fills, done = env.step(key, state, orders)

One who trades from outside is an agent like any other: it wakes up every `step_ns`, and a step goes from one of its
wake-ups to the next, through whatever the order model and the other agents do between them. So a trajectory is that
of a rollout in which an agent sends the same orders, order for order, given the rollout's key (`simulate.key_of`).

Everything is pure. A key and a state may be of one trajectory or of B: give `reset` keys [B] and starts [B], and `step`
keys [B] and orders [B, K]. All B go on together in one loop; `jax.vmap` over single ones gives the same and is slower,
as it copies the contexts in each pass. An environment is a pytree, so `jax.jit(Environment.step)(env, ...)` takes the
model's parameters as an argument; jit of `env.step` makes them constants of the program.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax import clock, decode, schedule, simulate, tokens, turns
from marsjax import orders as make
from marsjax.agents.base import NO_LATENCY, Action, Agent, Latency, News, Observation
from marsjax.bins import Converter
from marsjax.model import Params
from marsjax.order_model import LoadedModel
from marsjax.schedule import Phase, Turn
from marsjax.simulate import End, Simulation, SimulationSpec
from marsjax.specs import CacheSpec, MarketSpec
from marsjax.start import Start
from marsjax.tokens import DrawTables, TokenTables
from marsjax.turns import Live
from marsjax.types import Array, Order, Status, Time, Wide

_BROKEN = (End.NO_MID, End.NOT_FINITE)
_CACHED = ("keys", "values")
"""Fields of `decode.State` whose axis of trajectories is the second."""


class Fills(NamedTuple):
    """What came of the orders from outside since the step before."""

    bought: Array
    """int32 shares."""
    sold: Array
    """int32 shares."""
    cash: Wide
    """Change of the account's cash, 1e-4 of the currency."""
    accepted: Array
    """int32, orders that the exchange took, cancels among them."""
    refused: Array
    """int32, orders that it did not."""


class OutsideState(NamedTuple):
    """What the engine keeps for the one outside."""

    orders: Order
    """[K], to be sent at the next wake-up."""
    allowed: Array
    """int32, wake-ups that it may have before the engine waits for orders."""
    fills: Fills


@dataclasses.dataclass(frozen=True)
class Outside:
    """The agent that sends what it is given."""

    step_ns: int
    owner: int
    most_orders: int
    most_in_flight: int
    latency: Latency
    name: str = "outside"

    def init(self) -> tuple[OutsideState, Time]:
        """Nothing to send; it wakes up as soon as the trajectory starts."""
        zero = jnp.zeros((), jnp.int32)
        return (OutsideState(no_orders(self.most_orders), zero, Fills(zero, zero, clock.wide(zero), zero, zero)),
                clock.static_time(0))

    def told(self, state: OutsideState, news: News) -> OutsideState:
        """Adds up its fills."""
        shares, fills = clock.to_int32(news.shares), state.fills
        accepted = news.status == Status.ACCEPTED
        return state._replace(fills=Fills(
            fills.bought + jnp.maximum(shares, 0), fills.sold + jnp.maximum(-shares, 0),
            clock.add(fills.cash, news.cash), fills.accepted + (news.is_own & accepted),
            fills.refused + (news.is_own & ~accepted)))

    def act(self, state: OutsideState, seen: Observation, key: jax.Array) -> Action:
        """Sends the orders it was given."""
        del key
        return Action(state, state.orders, clock.add_time(seen.time, clock.static_time(self.step_ns)),
                      stops=jnp.zeros((), bool), unsent=jnp.zeros((), jnp.int32))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EnvState:
    """Where a trajectory, or B of them, wait for orders."""

    simulation: Simulation
    """Its `step` counts the decisions of the order model."""
    phase: Array
    """A `Phase`: what the background agent does next, at `own_time` and with the number `own_number`."""
    own_time: Time
    own_number: Array
    planned: Order
    """The background agent's."""
    tie: Array
    """uint32, its random word."""
    done: Array
    """bool, the one outside is not woken any more: the trajectory is over."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Environment:
    """A market with an order model and a place for a trader from outside."""

    params: Params
    table: TokenTables
    draws: DrawTables
    spec: SimulationSpec = dataclasses.field(metadata={"static": True})
    """Sizes, and the agents who trade besides. In `hop` contexts are cut when they are full, not at common steps."""
    step_ns: int = dataclasses.field(metadata={"static": True})
    """Between two wake-ups."""
    owner: int = dataclasses.field(default=2, metadata={"static": True})
    """The account of the trader from outside."""
    most_orders: int = dataclasses.field(default=4, metadata={"static": True})
    """K, orders of one step."""
    episode_ns: int | None = dataclasses.field(default=None, metadata={"static": True})
    """From the start to the end; None: until `SimulationSpec.end_ns`."""
    latency: Latency = dataclasses.field(default=NO_LATENCY, metadata={"static": True})

    def __post_init__(self) -> None:
        for name, value, low in (("step_ns", self.step_ns, 1), ("most_orders", self.most_orders, 1),
                                 ("episode_ns", 1 if self.episode_ns is None else self.episode_ns, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"Environment.{name}: expected a whole number of at least {low}, got {value!r}")
        if (self.episode_ns is None) == (self.spec.end_ns is None):
            raise ValueError("Environment: expected episode_ns or SimulationSpec.end_ns, one of them, got "
                             f"{self.episode_ns} and {self.spec.end_ns}")
        _ = self.inner  # refuses an account that is taken

    @classmethod
    def of(cls, order_model: LoadedModel, market: MarketSpec, *, step_ns: int, episode_ns: int,
           agents: Sequence[Agent] = (), owner: int = 2, most_orders: int = 4, cache: CacheSpec | None = None
           ) -> "Environment":
        """An environment around a loaded model; `cache` is rolling for one layer and hop for more, unless given."""
        converters: Mapping[str, Converter] = order_model.converters
        cache = cache or CacheSpec(mode="rolling" if order_model.spec.layers == 1 else "hop",
                                   compute=order_model.compute)
        spec = SimulationSpec(market, order_model.spec, cache, end_ns=None, agents=tuple(agents))
        return cls(order_model.params, tokens.tables(order_model.spec.tokens, converters),
                   tokens.draw_tables(order_model.spec.tokens, converters), spec, step_ns, owner, most_orders,
                   episode_ns)

    @property
    def agent(self) -> Outside:
        """The trader from outside, as the engine sees it."""
        delay_ns = 2 * self.latency.communication_ns + self.latency.computation_ns
        return Outside(self.step_ns, self.owner, self.most_orders,
                       self.most_orders * (1 + delay_ns // self.step_ns), self.latency)

    @property
    def inner(self) -> SimulationSpec:
        """The simulation with the trader from outside, the last of its agents."""
        return dataclasses.replace(self.spec, agents=(*self.spec.agents, self.agent))

    def reset(self, key: jax.Array, start: Start) -> tuple[Observation, EnvState]:
        """A trajectory up to the first wake-up; keys [B] with starts [B] for many.

        Args:
          key: typed, that all draws are folded from; the same one is given to `step`.
          start: where it starts.
        """
        if key.ndim == 0:
            seen, state = self.reset(key[None], jax.tree.map(lambda x: jnp.asarray(x)[None], start))
            return jax.tree.map(lambda x: x[0], seen), _move(state, lambda x, axis: jnp.squeeze(x, axis))
        until = None
        if self.episode_ns is not None:
            until = clock.add_time(start.time, clock.static_time(self.episode_ns))
        spec, zero = self.inner, jnp.zeros(key.shape, jnp.int32)
        simulation = simulate.begin(self.params, spec, start, zero, until=until)
        nothing = jax.tree.map(lambda x: jnp.broadcast_to(x, key.shape), make.no_order())
        state = EnvState(simulation, zero + Phase.DECIDE, simulation.time, zero, nothing,
                         zero.astype(jnp.uint32), zero.astype(bool))
        return _advance(self, key, state, jnp.ones(key.shape, bool))

    def step(self, key: jax.Array, state: EnvState, orders: Order
             ) -> tuple[Observation, EnvState, Fills, jax.Array]:
        """Sends orders and goes on to the next wake-up.

        Args:
          key: as given to `reset`. Another one gives other draws from here on.
          state: before.
          orders: int32 [K], or [B, K]; their times, ids and owners are filled in. Kind.NONE is no order.

        Returns:
          What the one outside sees then, the state, what came of its orders since, and whether the trajectory is over:
          a step after that changes nothing.
        """
        if key.ndim == 0:
            many = _move(state, jnp.expand_dims)
            seen, many, fills, done = self.step(key[None], many, jax.tree.map(lambda x: jnp.asarray(x)[None], orders))
            first = jax.tree.map(lambda x: x[0], (seen, fills, done))
            return first[0], _move(many, lambda x, axis: jnp.squeeze(x, axis)), first[1], first[2]
        self._check_orders(orders, key.shape)
        *others, seat = state.simulation.seats
        nothing = jax.tree.map(jnp.zeros_like, seat.state.fills)
        # As the dtype of the state, not as weakly typed as they may come: one compiled call for all.
        given = jax.tree.map(lambda new, old: jnp.broadcast_to(new, old.shape).astype(old.dtype), orders,
                             seat.state.orders)
        seat = dataclasses.replace(seat, state=OutsideState(given, seat.state.allowed + 1, nothing))
        simulation = dataclasses.replace(state.simulation, seats=(*others, seat))
        state = dataclasses.replace(state, simulation=simulation)
        seen, state = _advance(self, key, state, jnp.zeros(key.shape, bool))
        return seen, state, state.simulation.seats[-1].state.fills, jnp.asarray(state.done)

    def _check_orders(self, orders: Order, batch: tuple[int, ...]) -> None:
        for name in ("kind", "price", "volume", "cancel_side", "cancel_id"):
            found = getattr(orders, name)
            if found.shape != (*batch, self.most_orders) or found.dtype != jnp.int32:
                raise ValueError(f"Environment.step: orders.{name}: expected int32{[*batch, self.most_orders]} "
                                 f"(most_orders={self.most_orders}), got {found.dtype}{list(found.shape)}")


def no_orders(count: int) -> Order:
    """Kind.NONE, [count]."""
    return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.int32), (count,)), make.no_order())


def _move(state: EnvState, change: Any) -> EnvState:
    """`change(leaf, axis)` of every leaf, axis being that of its trajectories."""
    cache = state.simulation.cache
    moved = jax.tree.map(lambda x: change(x, 0), state)
    cached = {name: change(getattr(cache, name), 1) for name in _CACHED if getattr(cache, name) is not None}
    simulation = moved.simulation
    return dataclasses.replace(moved, simulation=dataclasses.replace(
        simulation, cache=dataclasses.replace(simulation.cache, **cached)))


@jax.jit
def _advance(env: Environment, keys: jax.Array, state: EnvState, asked: jax.Array) -> tuple[Observation, EnvState]:
    """Goes on until each of B trajectories waits for orders or is over; `asked` bool [B] decide first."""
    spec, agent = env.inner, env.agent
    place = len(spec.agents) - 1

    def pauses(live: Live, turn: Turn) -> Array:
        seat = live.seats[place]
        return (turn.place == schedule.wake_turn(live.seats, place)) & (seat.wakes >= seat.state.allowed)

    def append(cache: decode.State, held: turns.Held, step: Array) -> decode.State:
        return decode.append_all(env.params, spec.model, spec.cache, cache, held.tokens, held.made, held.replaces, step)

    def ahead(state: EnvState) -> tuple[Array, Array, Time]:
        """Whether the background agent decides next, bool [B], or the one outside is woken, and when."""
        def one(seats: Sequence[schedule.Seat], phase: Array, *own: Any) -> tuple[Array, Array, Time]:
            turn = schedule.next_turn(seats, phase, *own)
            decides = (turn.place == schedule.own_turn(seats)) & (phase == Phase.DECIDE)
            return decides, turn.place == schedule.wake_turn(seats, place), turn.time

        sim = state.simulation
        alive = ~jnp.isin(sim.end, jnp.array(_BROKEN))
        decides, waits, time = jax.vmap(one)(sim.seats, state.phase, state.own_time, state.own_number, sim.until)
        return decides & alive, waits & alive, time

    def one_pass(carry: tuple[EnvState, jax.Array]) -> tuple[EnvState, jax.Array]:
        state, asked = carry
        state = _decided(env, keys, state, asked)
        sim = state.simulation
        alive = ~jnp.isin(sim.end, jnp.array(_BROKEN))
        live = Live(sim.market, sim.view, sim.token_state, sim.seats, sim.watched, sim.number, state.phase,
                    state.own_time, state.own_number, turns.nothing_held(len(keys), spec.burst))
        take = functools.partial(turns.take, spec.market, env.table, spec.agents, spec.watchers, spec.owns_below)
        live, cache = turns.until_decision(take, append, spec.agents, sim.until, live, sim.cache, alive, state.planned,
                                           state.tie, keys, jnp.int32(turns.NO_CUT), pauses)
        sim = dataclasses.replace(sim, market=live.market, view=live.view, token_state=live.token_state, cache=cache,
                                  seats=live.seats, number=live.number, watched=live.watched)
        state = dataclasses.replace(state, simulation=sim, phase=live.phase, own_number=live.own_number)
        return state, jnp.asarray(ahead(state)[0])

    # The first pass is made even where none is asked: it takes the wake-up that the orders are for.
    state, _ = _while_asked(one_pass, state, asked)
    sim = state.simulation
    _, waits, time = ahead(state)
    now = clock.select_time(waits, time, sim.until)
    seen = jax.vmap(functools.partial(schedule.observe, agent))(sim.market, sim.view, now, sim.watched)
    return seen, dataclasses.replace(state, done=~waits)


def _while_asked(one_pass: Any, state: EnvState, asked: jax.Array) -> tuple[EnvState, jax.Array]:
    """`one_pass` at least once, and again while any trajectory is asked; one scalar test for all of them."""
    def go(carry: tuple[EnvState, jax.Array, jax.Array]) -> tuple[EnvState, jax.Array, jax.Array]:
        after, left = one_pass(carry[:2])
        after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, carry[0])
        return after, left, jnp.any(left)

    state = jax.tree.map(jnp.asarray, state)
    return jax.lax.while_loop(lambda carry: carry[2], go, (state, asked, jnp.ones((), bool)))[:2]


def _decided(env: Environment, keys: jax.Array, state: EnvState, asked: jax.Array) -> EnvState:
    """The background agents that are asked plan their next orders."""
    sim = dataclasses.replace(state.simulation, time=state.own_time)
    words = simulate.draw_from(keys, sim.step)
    decision, end = simulate.decide(env.params, env.inner, env.draws, sim, words, asked)
    chosen = functools.partial(_where, asked)
    sent = jnp.where(decision.sent, Phase.SEND, Phase.NOTHING)
    is_last = decision.active & ~decision.sent
    simulation = dataclasses.replace(
        sim, end=jnp.where(is_last, jnp.int32(End.TIME), end), step=sim.step + asked, number=sim.number + asked)
    return dataclasses.replace(
        state, simulation=simulation, phase=chosen(sent, state.phase), planned=chosen(decision.planned, state.planned),
        own_time=chosen(decision.planned.time, state.own_time), own_number=chosen(sim.number, state.own_number),
        tie=chosen(words.tie, state.tie))


def _where(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b).astype(jnp.asarray(b).dtype), new, old)
