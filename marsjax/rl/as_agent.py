"""A trained policy as an agent of any market of marsjax: in rollouts, beside other agents, in studies.

    agent = PolicyAgent(policy, task, task.default_params(), start_ns, depth_at=0)
    simulator = Simulator.of(model, market, agents=[agent], observers=[DepthObserver()])

It wakes up every `step_ns` from `start_ns` on, sees what its policy saw in training, and sends what its task makes of
the action; after `steps` steps, or when its task is done, it takes back what rests and stops.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax.agents.base import NO_LATENCY, Action, AgentEvent, Latency, Observation
from marsjax.agents.requoting import first
from marsjax.core import int64, limits, times
from marsjax.core.errors import InputError
from marsjax.core.records import Array, BookView, Int64, Kind, Market, Side, Status, Time
from marsjax.core.specs import MarketSpec
from marsjax.market import book as books
from marsjax.market.process import Event
from marsjax.rl.base import ROOM, MarketSeen, StepTrades, Task, TraderFills, see
from marsjax.rl.policy import Policy


@dataclasses.dataclass(frozen=True)
class DepthObserver:
    """Keeps the shares of all orders of each side, as policies see them in training; Int64 [2], by `Side`."""

    def begin(self, market: Market, view: BookView, time: Time) -> Int64:
        """Of the book at the start."""
        del view, time
        return int64.total(market.book.volume)

    def update(self, state: Int64, event: Event) -> Int64:
        """What came to rest, less what was traded or cancelled."""
        order, trades = event.order, event.trades
        taken = event.happened & (event.status == Status.ACCEPTED)
        is_cancel = order.kind == Kind.CANCEL
        own = jnp.where(is_cancel, order.cancel_side, jnp.where(order.kind == Kind.BUY, Side.BID, Side.ASK))
        off = jnp.where(is_cancel, own, 1 - own)
        sides = jnp.arange(2)
        rest = int64.of_int32(jnp.where(taken & ~is_cancel & (sides == own), trades.rest, 0))
        gone = jax.tree.map(lambda x: jnp.where(taken & (sides == off), x, jnp.zeros_like(x)), trades.volume)
        return int64.subtract(int64.add(state, rest), gone)

    def end(self, state: Int64, market: Market, view: BookView, time: Time) -> Int64:
        """As it is."""
        del market, view, time
        return state


class PolicyState(NamedTuple):
    """What a `PolicyAgent` knows; of one trajectory."""

    task: Any
    """Of the task; at first that of nothing."""
    memory: Array
    """float32 [M], of the policy."""
    step: Array
    """int32, wake-ups so far."""
    fills: TraderFills
    """Since the last wake-up."""
    trades: StepTrades
    """Of the whole market since the last wake-up."""


@dataclasses.dataclass(frozen=True, eq=False)
class PolicyAgent:
    """Trades as a policy does, for a task such as `rl.Execution`. It has no latency, as in its training.

    A `DepthObserver` among the simulation's observers tells it how much rests in the whole book; without one, what it
    knows is the levels of the view, and it acts on other depths than those that it learnt by. Its policy and params are
    constants of what is compiled with it.
    """

    policy: Policy
    task: Task
    params: Any
    """Of the task: `task.default_params()`, or others."""
    start_ns: int
    """Of its first wake-up, nanoseconds since midnight."""
    steps: int = 60
    step_ns: int = 5 * times.SECOND_NS
    account: int = 2
    depth_at: int | None = None
    """Place of a `DepthObserver` in the simulation's observers; None: there is none."""
    name: str = "policy"
    latency: Latency = NO_LATENCY

    def __post_init__(self) -> None:
        limits.check_whole("PolicyAgent.start_ns", self.start_ns, 0, times.DAY_NS)
        limits.check_whole("PolicyAgent.steps", self.steps, 1, limits.STEPS_OF_A_CALL)
        limits.check_whole("PolicyAgent.step_ns", self.step_ns, 1, times.DAY_NS)
        if self.latency != NO_LATENCY:
            raise InputError("PolicyAgent.latency: expected none, which policies are trained without, got "
                             f"{self.latency}")
        reads = (self.policy.spec.observations, self.policy.spec.choices)
        if reads != (self.task.features, (self.task.actions,)):
            raise InputError(f"PolicyAgent: expected a policy for {self.task.features} features and "
                             f"{self.task.actions} actions of the task {self.task.name}, got one for {reads[0]} and "
                             f"{reads[1]}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PolicyAgent) and self._mark == other._mark

    def __hash__(self) -> int:
        return hash(self._mark)

    @property
    def _mark(self) -> tuple[Any, ...]:
        """What compiled calls tell it by: weights are constants of them, the same only where they are one object."""
        return (id(self.policy), self.task, id(self.params), self.start_ns, self.steps, self.step_ns, self.account,
                self.depth_at, self.name)

    @property
    def most_orders(self) -> int:
        """Of the task."""
        return self.task.most_orders

    @property
    def most_in_flight(self) -> int:
        """Those of one wake-up."""
        return self.task.most_orders

    def init(self) -> tuple[PolicyState, Time]:
        """Nothing done yet; it wakes up at its start."""
        shapes = jax.eval_shape(self.task.begin, self.params, jax.random.key(0), _nothing_seen())
        task = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        state = PolicyState(task, self.policy.begin(1)[0], jnp.int32(0), *_nothing())
        return jax.tree.map(jnp.asarray, state), times.of_ns(self.start_ns)

    def on_event(self, state: PolicyState, event: AgentEvent) -> PolicyState:
        """Counts what it traded, and what all did."""
        shares, fills, taken = int64.to_int32(event.shares), state.fills, event.status == Status.ACCEPTED
        is_trade = ((event.trades.kind == Kind.BUY) | (event.trades.kind == Kind.SELL)) & taken
        is_less = jnp.asarray(event.cash.hi) < 0
        fills = TraderFills(
            fills.bought + jnp.maximum(shares, 0), fills.sold + jnp.maximum(-shares, 0),
            int64.add(fills.cash, event.cash),
            int64.add(fills.value, int64.select(is_less, int64.negate(event.cash), event.cash)),
            fills.accepted + (event.is_own & taken), fills.refused + (event.is_own & ~taken))
        trades = StepTrades(int64.add(state.trades.volume, int64.only(is_trade, event.trades.volume)),
                            int64.add(state.trades.value, int64.only(is_trade, event.trades.value)))
        return state._replace(fills=fills, trades=trades)

    def act(self, state: PolicyState, seen: Observation, key: jax.Array) -> Action:
        """One wake-up."""
        market = MarketSeen(seen.time, seen.view, self._depth(seen), seen.tick)
        of_task, of_action = jax.random.split(key)
        is_first, is_last = jnp.asarray(state.step == 0), state.step >= self.steps
        judged = self.task.judge(self.params, state.task, market, state.fills, state.trades, is_last)
        fresh = self.task.begin(self.params, of_task, market)
        task = jax.tree.map(lambda new, old: jnp.where(is_first, new, old), fresh, judged.state)
        stops = ~is_first & (judged.is_done | is_last)
        passed = (state.step, jnp.int32(self.steps))
        features = self.task.observe(self.params, task, market, passed)
        memory, action = self.policy.act(jnp.asarray(state.memory)[None], features[None], is_first[None], of_action)
        # Action 0 takes back what rests.
        orders = self.task.orders(self.params, task, market, first(seen.resting, ROOM), jnp.where(stops, 0, action[0]))
        wake = times.add(seen.time, times.of_ns(self.step_ns))
        after = PolicyState(task, memory[0], state.step + 1, *_nothing())
        return Action(after, orders, wake, stops=stops, unsent=jnp.zeros((), jnp.int32))

    def _depth(self, seen: Observation) -> Int64:
        if self.depth_at is not None:
            return seen.observed[self.depth_at]  # type: ignore[no-any-return]
        sides = [int64.add_up(x) for x in (seen.view.ask_volume, seen.view.bid_volume)]
        return jax.tree.map(lambda *x: jnp.stack(x), *sides)  # type: ignore[no-any-return]


def _nothing() -> tuple[TraderFills, StepTrades]:
    zero, none = jnp.zeros((), jnp.int32), int64.of_int32(0)
    return TraderFills(zero, zero, none, none, zero, zero), StepTrades(none, none)


def _nothing_seen() -> MarketSeen:
    """Of an empty book, for its shapes."""
    spec = MarketSpec(capacity=1)
    book = books.empty(spec)
    return see(spec, book, books.view(spec, book), times.of_ns(0))
