"""A trained policy as an agent of any market of marsjax: in rollouts, beside other agents, in studies.

It wakes up every `step_ns` from `start_ns` on, sees what its policy saw in training, and sends what its task makes of
the action; after `steps` steps, or when its task is done, it takes back what rests and stops.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax.agents.base import NO_LATENCY, Action, AgentEvent, Latency, Observation, Resting
from marsjax.core import int64, limits, times
from marsjax.core.errors import InputError
from marsjax.core.records import EMPTY_PRICE, NO_ID, Array, Int64, Kind, Status, Time
from marsjax.rl.base import MarketSeen, StepTrades, Task, TraderFills
from marsjax.rl.policy import Policy

MOST_LEVELS = 10
"""Of a side, whose volumes stand for the depth of the book: an agent sees no more of it."""


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

    Its depths are those of the ten best levels, where those of its training are of the whole book.
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
        shapes = jax.eval_shape(lambda key, seen: self.task.begin(self.params, key, seen), jax.random.key(0), _NOTHING)
        task = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        state = PolicyState(task, self.policy.begin(1)[0], jnp.int32(0), _no_fills(), _no_trades())
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
        trades = StepTrades(int64.add(state.trades.volume, _if(is_trade, event.trades.volume)),
                            int64.add(state.trades.value, _if(is_trade, event.trades.value)))
        return state._replace(fills=fills, trades=trades)

    def act(self, state: PolicyState, seen: Observation, key: jax.Array) -> Action:
        """One wake-up."""
        market = MarketSeen(seen.time, seen.view, _depth(seen), seen.tick)
        of_task, of_action = jax.random.split(key)
        is_first, is_last = state.step == 0, state.step >= self.steps
        judged = self.task.judge(self.params, state.task, market, state.fills, state.trades, is_last)
        fresh = self.task.begin(self.params, of_task, market)
        task = jax.tree.map(lambda new, old: jnp.where(is_first, new, old), fresh, judged.state)
        stops = ~is_first & (judged.is_done | is_last)
        passed = (state.step, jnp.int32(self.steps))
        memory, action = self.policy.act(state.memory[None], self.task.observe(self.params, task, market, passed)[None],
                                         is_first[None], of_action)
        # Action 0 takes back what rests.
        orders = self.task.orders(self.params, task, market, _few(seen.resting, self.task.most_orders - 1),
                                  jnp.where(stops, 0, action[0]))
        wake = times.add(seen.time, times.of_ns(self.step_ns))
        after = PolicyState(task, memory[0], state.step + 1, _no_fills(), _no_trades())
        return Action(after, orders, wake, stops=stops, unsent=jnp.zeros((), jnp.int32))


def _if(condition: Array, x: Int64) -> Int64:
    return jax.tree.map(lambda each: jnp.where(condition, each, jnp.zeros_like(each)), x)  # type: ignore[no-any-return]
