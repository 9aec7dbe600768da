"""The same engine as an environment: orders go in from outside, observations come out.

    env = Environment.of(order_model, market, step_ns=SECOND_NS, episode_ns=60 * SECOND_NS)
    seen, state = env.reset(key, start)
    seen, state, fills, done = env.step(key, state, orders)

One who trades from outside is an agent like any other: it wakes up every `step_ns`, and the simulation's step pauses
at its wake-ups until it is given orders. So a trajectory is that of a rollout in which an agent sends the same orders,
order for order, given the rollout's key (`step.key_of`). It is not woken at the end: an episode of 20 s in steps of
1 s takes 20 steps.

Everything is pure. A key and a state may be of one trajectory or of B: give `reset` keys [B] and starts [B], and `step`
keys [B] and orders [B, K]. All B go on together in one loop; `jax.vmap` over single ones gives the same and is slower,
as it copies the contexts in each pass. An environment is a pytree, so `jax.jit(Environment.step)(env, ...)` takes the
model's parameters as an argument; jit of `env.step` makes them constants of the program.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from marsjax.agents.base import NO_LATENCY, Action, Agent, AgentEvent, Latency, Observation
from marsjax.agents.requoting import less_what_was_met
from marsjax.checkpoint.load import LoadedModel
from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.keys import typed
from marsjax.core.records import Array, Int64, Kind, Order, Status, Time
from marsjax.core.specs import MarketSpec
from marsjax.market import orders as make
from marsjax.sim import event_queue
from marsjax.sim import step as sim_step
from marsjax.sim.event_loop import like
from marsjax.sim.event_queue import NextEvent
from marsjax.sim.initial import Start
from marsjax.sim.simulator import Simulator
from marsjax.sim.state import LOST, NOT_CARRIED, AgentState, SimState

_Tree = TypeVar("_Tree")


class OutsideFills(NamedTuple):
    """What came of the orders from outside since the step before."""

    bought: Array
    """int32 shares."""
    sold: Array
    """int32 shares."""
    cash: Int64
    """Change of the account's cash, 1e-4 of the currency."""
    accepted: Array
    """int32, orders that the exchange took, cancels among them."""
    refused: Array
    """int32, orders that it did not."""
    value: Int64
    """Sum of price x volume of its trades, bought and sold, 1e-4 of the currency."""


class OutsideState(NamedTuple):
    """What the engine keeps for the one outside."""

    orders: Order
    """[K], to be sent at the next wake-up."""
    allowed: Array
    """int32, wake-ups that it may have before the engine waits for orders: 1 when it was given some, else 0."""
    fills: OutsideFills


@dataclasses.dataclass(frozen=True)
class Outside:
    """The agent that sends what it is given."""

    step_ns: int
    """Between two of its wake-ups."""
    account: int = 2
    most_orders: int = 4
    latency: Latency = NO_LATENCY
    name: str = "outside"
    is_among: bool = False
    """Whether others from outside send their orders at the same time: they may meet what it takes back. Then no more
    than is left is taken back, and its new orders of that side are less by what was missing."""

    def __post_init__(self) -> None:
        _check_whole("step_ns", self.step_ns)
        _check_whole("most_orders", self.most_orders)

    @property
    def most_in_flight(self) -> int:
        """Orders that can be on their way at once: those of every step that begins while the first of them travel."""
        delay_ns = 2 * self.latency.communication_ns + self.latency.computation_ns
        return self.most_orders * (1 + delay_ns // self.step_ns)

    def init(self) -> tuple[OutsideState, Time]:
        """Nothing to send; it wakes up as soon as the trajectory starts."""
        zero = jnp.zeros((), jnp.int32)
        fills = OutsideFills(zero, zero, int64.of_int32(zero), zero, zero, int64.of_int32(zero))
        return OutsideState(no_orders(self.most_orders), zero, fills), times.of_ns(0)

    def on_event(self, state: OutsideState, event: AgentEvent) -> OutsideState:
        """Adds up its fills."""
        shares, fills = int64.to_int32(event.shares), state.fills
        accepted = event.status == Status.ACCEPTED
        spent = int64.select(event.cash.hi < 0, int64.negate(event.cash), event.cash)
        return state._replace(fills=OutsideFills(
            fills.bought + jnp.maximum(shares, 0), fills.sold + jnp.maximum(-shares, 0),
            int64.add(fills.cash, event.cash), fills.accepted + (event.is_own & accepted),
            fills.refused + (event.is_own & ~accepted), int64.add(fills.value, spent)))

    def act(self, state: OutsideState, seen: Observation, key: jax.Array) -> Action:
        """Sends the orders it was given."""
        del key
        orders = less_what_was_met(state.orders, seen.resting) if self.is_among else state.orders
        kind = jnp.where(state.allowed > 0, orders.kind, jnp.int32(Kind.NONE))
        after = state._replace(allowed=jnp.maximum(state.allowed - 1, 0))
        return Action(after, dataclasses.replace(orders, kind=kind),
                      times.add(seen.time, times.of_ns(self.step_ns)), stops=jnp.zeros((), bool),
                      unsent=jnp.zeros((), jnp.int32))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Environment:
    """A market with an order model and a place for a trader from outside, the last of the simulator's agents.

    The last ones may be several `Outside`, A of them, with one `step_ns` and no latency. They send their orders one
    after the other; what is seen is what the first of them sees, before any has sent. Orders are then [A, K], or
    [B, A, K], and fills have an axis A.

    Examples:
      >>> import jax.numpy as jnp
      >>> from marsjax import Environment, testing
      >>> from marsjax.core.records import Kind
      >>> from marsjax.sim.step import key_of
      >>> model, market = testing.tiny_model(), testing.tiny_market()
      >>> env = Environment.of(model, market, step_ns=10**9, episode_ns=3 * 10**9, most_orders=1)
      >>> seen, state = env.reset(key_of(0, 0), testing.random_start(market, model))
      >>> done, steps = False, 0
      >>> while not done:
      ...     buy = make.limit_order(jnp.array([Kind.BUY]), seen.view.ask_price[:1], 100)
      ...     seen, state, fills, done = env.step(key_of(0, 0), state, buy)
      ...     steps += 1
      >>> steps, int(int64.to_int32(seen.account.holdings)) > 0
      (3, True)
    """

    simulator: Simulator
    """Its last agent is the `Outside`, or its last A ones are."""
    episode_ns: int | None = dataclasses.field(default=None, metadata={"static": True})
    """From the start to the end; None: until `SimulationSpec.end_ns`."""

    def __post_init__(self) -> None:
        agents = self.simulator.spec.agents
        if not agents or not isinstance(agents[-1], Outside):
            raise InputError(f"Environment: expected an Outside as the last agent, got {agents}; see Environment.of")
        if (self.episode_ns is None) == (self.simulator.spec.end_ns is None):
            raise InputError("Environment: expected episode_ns or SimulationSpec.end_ns, one of them, got "
                             f"{self.episode_ns} and {self.simulator.spec.end_ns}")
        if self.episode_ns is not None:
            _check_whole("episode_ns", self.episode_ns)
        several = self.outsides
        if len(several) > 1 and not all(each.is_among and each.latency == NO_LATENCY and
                                        each.step_ns == several[0].step_ns for each in several):
            raise InputError("Environment: expected several Outside with is_among, one step_ns and no latency, got "
                             f"{several}")

    @classmethod
    def of(cls, order_model: LoadedModel, market: MarketSpec, *, step_ns: int, episode_ns: int,
           agents: Sequence[Agent] = (), account: int | Sequence[int] = 2, most_orders: int = 4,
           latency: Latency = NO_LATENCY) -> "Environment":
        """An environment around a loaded model, with the defaults of `Simulator.of`.

        For another cache, or one time at which all episodes end, make the simulator yourself:
        `Environment(Simulator.of(order_model, market, agents=(*agents, Outside(step_ns)), cache=..., end_ns=...))`.

        Args:
          order_model: with its bin converters.
          market: sizes and session; it needs the account of the trader from outside.
          step_ns: between two of its wake-ups.
          episode_ns: from the start to the end.
          agents: who else trades.
          account: of the trader from outside, or of each of several.
          most_orders: K, orders of one of them in a step.
          latency: delays of the trader from outside.

        InputError for a number out of range or an account that is taken.
        """
        accounts = [account] if isinstance(account, int) else list(account)
        several = len(accounts) > 1
        outsides = [Outside(step_ns, each, most_orders, latency, f"outside_{number}" if several else "outside", several)
                    for number, each in enumerate(accounts, 1)]
        return cls(Simulator.of(order_model, market, agents=(*agents, *outsides)), episode_ns)

    @property
    def outsides(self) -> tuple[Outside, ...]:
        """The traders from outside, as the engine sees them."""
        found: list[Outside] = []
        for agent in reversed(self.simulator.spec.agents):
            if not isinstance(agent, Outside):
                break
            found.insert(0, agent)
        return tuple(found)

    @property
    def outside(self) -> Outside:
        """The first of them."""
        return self.outsides[0]

    def reset(self, key: jax.Array, start: Start) -> tuple[Observation, SimState]:
        """A trajectory up to the first wake-up; keys [B] with starts [B] for many.

        Args:
          key: that all draws are folded from; the same one is given to `step`.
          start: where it starts.
        """
        key = typed(key)
        if key.ndim == 0:
            return _first(self.reset(key[None], _alone(start)))
        return self.first(key, self.begin(start))

    def begin(self, start: Start) -> SimState:
        """Trajectories [B] at starts [B], before anything is drawn: what `reset` makes of a start without its key."""
        until = None
        if self.episode_ns is not None:
            until = times.add(start.time, times.of_ns(self.episode_ns))
        return sim_step.begin(self.simulator, start, jnp.zeros(jnp.shape(start.count), jnp.int32), until=until)

    def first(self, key: jax.Array, state: SimState) -> tuple[Observation, SimState]:
        """Trajectories [B] of `begin` up to the first wake-up, under keys [B]."""
        seen, state, _ = _advance(self, key, state, jnp.ones(key.shape, bool))
        return seen, state

    def step(self, key: jax.Array, state: SimState, orders: Order
             ) -> tuple[Observation, SimState, OutsideFills, jax.Array]:
        """Sends orders and goes on to the next wake-up.

        Args:
          key: as given to `reset`. Another one gives other draws from here on.
          state: before.
          orders: int32 [K], or [B, K], of several [A, K] or [B, A, K]; their times, ids and accounts are filled in.
            Kind.NONE is no order.

        Returns:
          What the one outside sees then, the state, what came of its orders since, and whether the trajectory is over:
          a step after that changes nothing.
        """
        key = typed(key)
        if key.ndim == 0:
            return _first(self.step(key[None], _alone(state), _alone(orders)))
        self._check_orders(orders, key.shape)
        count = len(self.outsides)
        each = [orders] if count == 1 else [jax.tree.map(lambda x, i=i: x[:, i], orders) for i in range(count)]
        given = [_given(one, mine) for one, mine in zip(each, state.agent_states[-count:], strict=True)]
        state = dataclasses.replace(state, agent_states=(*state.agent_states[:-count], *given))
        seen, state, done = _advance(self, key, state, jnp.zeros(key.shape, bool))
        fills = [mine.state.fills for mine in state.agent_states[-count:]]
        return seen, state, fills[0] if count == 1 else jax.tree.map(lambda *x: jnp.stack(x, axis=1), *fills), done

    def _check_orders(self, orders: Order, batch: tuple[int, ...]) -> None:
        most, count = self.outside.most_orders, len(self.outsides)
        shape = (*batch, most) if count == 1 else (*batch, count, most)
        for name in ("kind", "price", "volume", "cancel_side", "cancel_id"):
            found = getattr(orders, name)
            if found.shape != shape or found.dtype != jnp.int32:
                raise InputError(f"Environment.step: orders.{name}: expected int32{list(shape)} "
                                 f"(most_orders={most}), got {found.dtype}{list(found.shape)}")


def _given(orders: Order, mine: AgentState) -> AgentState:
    """One from outside who was given orders, with nothing filled yet."""
    nothing = jax.tree.map(jnp.zeros_like, mine.state.fills)
    # In the dtypes of the state, not as weakly typed as they may come: one compiled call for all.
    given = jax.tree.map(lambda new, old: jnp.broadcast_to(new, old.shape).astype(old.dtype), orders,
                         mine.state.orders)
    return dataclasses.replace(mine, state=OutsideState(given, jnp.ones_like(mine.state.allowed), nothing))


def no_orders(count: int) -> Order:
    """Kind.NONE, [count]."""
    return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.int32), (count,)), make.no_order())


def _check_whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"Environment.{name}: expected a whole number of at least 1, got {value!r}")


def _alone(tree: _Tree) -> _Tree:
    """A batch of one."""
    return jax.tree.map(lambda x: jnp.asarray(x)[None], tree)  # type: ignore[no-any-return]


def _first(tree: _Tree) -> _Tree:
    """The one of a batch of one."""
    return jax.tree.map(lambda x: x[0], tree)  # type: ignore[no-any-return]


@jax.jit
def _advance(env: Environment, keys: jax.Array, state: SimState, asked: jax.Array
             ) -> tuple[Observation, SimState, jax.Array]:
    """Goes on until each of B trajectories waits for orders or is over; `asked` bool [B] decide first.

    Returns what the one outside sees, the states, and which trajectories are over, bool [B].
    """
    simulator = env.simulator.prepared()
    spec = simulator.spec
    place = len(spec.agents) - len(env.outsides)

    def is_wake(state: SimState, event: NextEvent) -> Array:
        return event.place == event_queue.wake_place(state.agent_states, place)

    def pauses(state: SimState, event: NextEvent) -> Array:
        return (is_wake(state, event) & (state.agent_states[place].state.allowed == 0)
                & times.before(event.time, state.until))

    def ahead(state: SimState) -> tuple[Array, Array, Time]:
        """Whether the background agent decides next, whether the one outside is woken, and when."""
        event = event_queue.next_event(state)
        alive = ~jnp.isin(state.end, jnp.array(LOST))
        return event_queue.decides(state, event) & alive, pauses(state, event) & alive, event.time

    def one_step(carry: tuple[SimState, jax.Array, jax.Array]) -> tuple[SimState, jax.Array, jax.Array]:
        state, asked, _ = carry
        words = sim_step.draw_from(keys, state.step)
        after = like(sim_step.step(simulator, state, words, asked, pauses)[0], state)
        asked = jnp.asarray(jax.vmap(ahead)(dataclasses.replace(after, cache=NOT_CARRIED))[0])
        return after, asked, jnp.any(asked)

    # The first step is made even where none is asked: it takes the wake-up that the orders are for.
    first = jax.tree.map(jnp.asarray, state), asked, jnp.ones((), bool)
    state, _, _ = jax.lax.while_loop(lambda carry: carry[2], one_step, first)
    _, waits, time = jax.vmap(ahead)(dataclasses.replace(state, cache=NOT_CARRIED))
    now = times.select(waits, time, state.until)
    observe = functools.partial(event_queue.observe, spec.agents[place], spec.market.tick)
    return jax.vmap(observe)(state.market, state.view, now, state.observed), state, jnp.asarray(~waits)
