"""Executions by rule, in the environment that a policy is trained in: the same starts, clock, accounts and reward.

`Measured` stands for an execution task, adds to `info` what comparisons need, and, given rules, sends what the one says
that an action names. So a policy and the rules differ in their orders alone. The rules are those of
`marsjax.agents` (TWAP, VWAP, participation, immediate execution), at the environment's steps in place of seconds, and
all of them send what is left at the last step.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from marsjax.agents.base import Resting
from marsjax.core import int64, limits
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Order
from marsjax.rl import quotes
from marsjax.rl.base import Judged, MarketSeen, StepTrades, TraderFills
from marsjax.rl.execution import excess

MOST_WEIGHT = 2**15
"""Of a profile, all its steps together: products of two of them stay in int32."""


class Progress(NamedTuple):
    """How far an execution is; scalars."""

    step: Array
    """int32, steps made."""
    target: Array
    """int32 shares."""
    lot: Array
    """int32 shares."""
    filled: Array
    """int32 shares."""
    others: Array
    """float32 shares that others traded among themselves since the start."""


class WantedRest(NamedTuple):
    """What is to rest after a wake-up."""

    volume: Array
    """int32 shares, no more than is left."""
    reach: Array
    """int32 ticks beyond the best price of the other side (it trades as far as there is something); below 0: at the
    best price of the own side, where it waits."""


class ExecutionRule(Protocol):
    """An execution by rule: a frozen, hashable record."""

    @property
    def name(self) -> str:
        """In tables."""

    def wanted(self, progress: Progress, steps: int) -> WantedRest:
        """At one wake-up of an episode of so many steps."""


@dataclasses.dataclass(frozen=True)
class Immediately:
    """All of it at once, up to `reach` ticks beyond the best price; what is left of it rests there."""

    reach: int = 50
    name: str = "immediate"

    def wanted(self, progress: Progress, steps: int) -> WantedRest:
        """All that is left."""
        del steps
        return WantedRest(progress.target - progress.filled, jnp.int32(self.reach))


@dataclasses.dataclass(frozen=True)
class Scheduled:
    """Trades, at the best price of the other side, what a schedule asks for by the next step: TWAP or VWAP.

    With `patience`, what is due waits at the best price of the own side first; once a part of it has waited for so many
    steps, all that is due trades. The schedule is in whole lots, rounded down, and its last entry is the target.

    Examples:
      >>> int(Scheduled().due(Progress(0, 1_000, 100, 0, 0.0), 4))
      200
      >>> int(Scheduled(profile=(3, 1)).due(Progress(0, 1_000, 100, 0, 0.0), 2))
      700
    """

    profile: tuple[int, ...] = ()
    """Weight of each step, in any unit, 2**15 in all at most: what others traded in it at other starts (VWAP). Empty:
    all alike (TWAP)."""
    patience: int = 0
    """Steps for which a part waits at the best price of the own side before it trades; 0: it trades at once."""
    name: str = "twap"

    def __post_init__(self) -> None:
        for weight in self.profile:
            limits.check_whole("Scheduled.profile", weight, 0, 2**31 - 1)
        if self.profile and not sum(self.profile):
            raise InputError("Scheduled.profile: expected a weight above 0, got none")
        if sum(self.profile) > MOST_WEIGHT:
            raise InputError(f"Scheduled.profile: expected a sum of at most {MOST_WEIGHT}, got {sum(self.profile)}; "
                             "take a larger unit")
        limits.check_whole("Scheduled.patience", self.patience, 0, limits.STEPS_OF_A_CALL)

    def due(self, progress: Progress, steps: int, ago: int = 0) -> jax.Array:
        """int32 shares that ought to have traded by the next step; what was due `ago` steps before now."""
        weights = self.profile or (1,) * min(steps, MOST_WEIGHT)
        if len(weights) != steps:
            raise InputError(f"Scheduled.profile: expected a weight of each of {steps} steps, got {len(weights)}")
        so_far = jnp.cumsum(jnp.array(weights, jnp.int32))
        step, total = jnp.minimum(progress.step - ago, steps - 1), so_far[-1]
        part = jnp.where(step < 0, 0, so_far[jnp.maximum(step, 0)])
        lots = progress.target // progress.lot
        # lots x part / total, rounded down, without passing 2**31.
        due = lots // total * part + lots % total * part // total
        return jnp.where(part == total, progress.target, due * progress.lot)

    def wanted(self, progress: Progress, steps: int) -> WantedRest:
        """What is due: to wait, or to trade where a part has waited long enough, and at the last step."""
        missing = jnp.maximum(self.due(progress, steps) - progress.filled, 0)
        overdue = self.due(progress, steps, self.patience) - progress.filled
        trades = (overdue > 0) | (self.patience == 0) | (progress.step >= steps - 1)
        return WantedRest(missing, jnp.where(trades, 0, -1))


@dataclasses.dataclass(frozen=True)
class Participating:
    """Trades at once, at the best price of the other side, a part of what others have traded among themselves."""

    ratio: float
    """Shares for each that others trade."""
    name: str = "participation"

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise InputError(f"Participating.ratio: expected above 0 and at most 1, got {self.ratio!r}")

    def wanted(self, progress: Progress, steps: int) -> WantedRest:
        """Its part so far, in whole lots; at the last step all that is left."""
        lots = jnp.floor(progress.others * self.ratio / progress.lot)
        due = jnp.minimum(lots, (progress.target // progress.lot).astype(jnp.float32)).astype(jnp.int32) * progress.lot
        due = jnp.where(progress.step >= steps - 1, progress.target, due)
        return WantedRest(jnp.maximum(due - progress.filled, 0), jnp.int32(0))


class MeasuredState(NamedTuple):
    """The task's state, and what is counted beside it; scalars."""

    task: Any
    step: Array
    """int32."""
    others: Array
    """float32 shares."""
    spread: Array
    """float32 ticks, at the start; NaN where a side was empty."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """An execution task whose `info` says what comparisons need, by a rule or by actions.

    Of each step: traded (shares), excess (sum of volume x (price - mid at the start), 1e-4 of the currency x shares),
    others_traded and others_excess likewise of trades in which it had no part; at the last step left (shares) and
    left_excess, as if they traded at the other side's best price then. The same at all steps: buys (1 or 0),
    start_price, start_spread (ticks), target. An episode goes on to its last step, also where all is traded before: it
    earns nothing more, and what others trade is measured over the same time for all.
    """

    task: Any
    """An execution: its state has is_buy, filled, start_price and start_twice, its params target and lot."""
    steps: int
    """Of an episode."""
    rules: tuple[ExecutionRule, ...] = ()
    """An action is the number of one of them, so that one program compares them all; none: actions are the task's."""

    def __post_init__(self) -> None:
        limits.check_whole("Measured.steps", self.steps, 1, limits.STEPS_OF_A_CALL)

    @property
    def name(self) -> str:
        """The task's."""
        return str(self.task.name)

    @property
    def actions(self) -> int:
        """The task's, or one of each rule."""
        return len(self.rules) or int(self.task.actions)

    @property
    def features(self) -> int:
        """The task's."""
        return int(self.task.features)

    @property
    def most(self) -> float:
        """The task's."""
        return float(self.task.most)

    @property
    def most_orders(self) -> int:
        """Of a step."""
        return max(int(self.task.most_orders), quotes.MOST_ORDERS)

    def default_params(self) -> Any:
        """The task's."""
        return self.task.default_params()

    def begin(self, params: Any, key: jax.Array, seen: MarketSeen) -> MeasuredState:
        """The task's, nothing counted."""
        ask, bid = jnp.asarray(seen.view.ask_price)[0], jnp.asarray(seen.view.bid_price)[0]
        spread = jnp.where(seen.view.has_mid & (ask > bid), (ask - bid) / seen.tick, jnp.nan)
        return MeasuredState(self.task.begin(params, key, seen), jnp.zeros((), jnp.int32), jnp.zeros(()),
                             spread.astype(jnp.float32))

    def orders(self, params: Any, state: MeasuredState, seen: MarketSeen, resting: Resting, action: Array) -> Order:
        """What the rule wants, or the action."""
        mine = state.task
        if not self.rules:
            return self.task.orders(params, mine, seen, resting, action)  # type: ignore[no-any-return]
        progress = Progress(state.step, params.target, params.lot, mine.filled, state.others)
        every = [rule.wanted(progress, self.steps) for rule in self.rules]
        wanted = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(each, jnp.int32) for each in x])[action], *every)
        ask, bid = quotes.touch(seen.view, seen.tick, mine.start_price)
        far, near = jnp.where(mine.is_buy, ask, bid), jnp.where(mine.is_buy, bid, ask)
        beyond = jnp.where(mine.is_buy, 1, -1) * jnp.maximum(wanted.reach, 0) * seen.tick
        price = quotes.within_limits(jnp.where(wanted.reach < 0, near, far + beyond), seen.tick)
        return quotes.requote(resting, mine.is_buy, price,
                              jnp.clip(wanted.volume, 0, params.target - mine.filled))

    def judge(self, params: Any, state: MeasuredState, seen: MarketSeen, fills: TraderFills, trades: StepTrades,
              is_last: Array) -> Judged:
        """The task's judgement, with more in `info`."""
        judged = self.task.judge(params, state.task, seen, fills, trades, is_last)
        twice, mine = state.task.start_twice, judged.state
        own = int64.add(int64.of_int32(fills.bought), int64.of_int32(fills.sold))
        others, value = int64.subtract(trades.volume, own), int64.subtract(trades.value, fills.value)
        ask, bid = quotes.touch(seen.view, seen.tick, state.task.start_price)
        left = jnp.where(is_last, params.target - mine.filled, 0).astype(jnp.float32)
        traded = int64.to_float32(others)
        numbers = {
            "traded": int64.to_float32(own), "excess": excess(fills.value, twice, own), "others_traded": traded,
            "others_excess": excess(value, twice, others), "left": left,
            "left_excess": left * ((2 * jnp.where(mine.is_buy, ask, bid) - twice) / 2), "buys": mine.is_buy,
            "start_price": twice / 2, "start_spread": state.spread, "target": params.target, "tick": seen.tick}
        info = judged.info | {name: jnp.asarray(x, jnp.float32) for name, x in numbers.items()}
        # Never done before its time, so that all contenders are measured against the same span of others' trades.
        return Judged(MeasuredState(mine, state.step + 1, state.others + traded, state.spread), judged.reward,
                      jnp.zeros((), bool), info)

    def observe(self, params: Any, state: MeasuredState, seen: MarketSeen, passed: tuple[Array, Array]) -> jax.Array:
        """The task's."""
        return self.task.observe(params, state.task, seen, passed)  # type: ignore[no-any-return]
