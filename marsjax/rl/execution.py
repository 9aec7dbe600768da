"""An execution to learn: so many shares are to be bought or sold within an episode, at good prices.

Actions, features and reward are those of JaxMARL-HFT's execution agent with 13 actions, in exact arithmetic.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax.agents.base import Resting
from marsjax.core import int64, limits
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Int64, Order
from marsjax.rl import quotes
from marsjax.rl.base import ROOM, Judged, MarketSeen, StepTrades, TraderFills

FEATURES = ("executed", "start_price", "is_sell", "far_price", "near_price", "far_depth", "near_depth", "remaining",
            "time_left", "spread", "step", "target")
"""Of an observation, in this order."""
MOST = 10_000.0
_SIZES = (1, 2, 5)
SIDES = {"random": -1, "sell": 0, "buy": 1}
"""As `ExecutionParams.side` counts them."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ExecutionParams:
    """What may change of an execution; scalars."""

    target: Array
    """int32 shares."""
    lot: Array
    """int32 shares: actions send 1, 2 or 5 lots."""
    side: Array
    """int32, 1 buys, 0 sells, -1: as drawn at the start."""
    drift_weight: Array
    """float32, lambda of the reward."""
    penalty: Array
    """int32 ticks beyond the mid at which shares that were not traded are charged at the end."""
    reward_unit: Array
    """float32, ticks x shares that are a reward of 1."""


class ExecutionState(NamedTuple):
    """How far an execution is; scalars."""

    is_buy: Array
    """bool."""
    filled: Array
    """int32 shares."""
    start_price: Array
    """int32, mid at the start, rounded down to a tick, 1e-4 of the currency: where an empty book is quoted."""
    step: Array
    """int32, steps made."""
    start_twice: Array
    """int32, twice the mid at the start, which may be half a tick; what prices are measured from."""
    before_twice: Array
    """int32, twice the mid before the orders of the step that comes."""

    @classmethod
    def start(cls, side: Array, key: jax.Array, seen: MarketSeen) -> "ExecutionState":
        """Nothing is traded; the side is drawn where it is -1. A start has a mid (`rl.make` refuses others)."""
        zero, twice = jnp.zeros((), jnp.int32), jnp.asarray(seen.view.mid_price_twice)
        is_buy = jnp.where(side < 0, jax.random.bernoulli(key), side == 1)
        return cls(is_buy, zero, jnp.asarray(seen.view.mid_price), zero, twice, twice)

    def after(self, traded: Array, seen: MarketSeen) -> "ExecutionState":
        """A step later, in which so many shares were traded."""
        before = jnp.where(seen.view.has_mid, seen.view.mid_price_twice, self.before_twice)
        return self._replace(filled=self.filled + traded, step=self.step + 1, before_twice=before)


@dataclasses.dataclass(frozen=True)
class Execution:
    """Buys or sells `target` shares; each action says what is to rest, and all else that rests is taken back.

    Action 0 rests nothing. Action 1 + 4 i + j rests the i-th of 1, 2 and 5 lots, no more than is left to do, at the
    j-th of these prices: the far touch (it trades at once), the mid (rounded to the tick away from the far touch), the
    near touch, a tick behind it. Orders that stay at their price keep their place in the queue (`rl.quotes.requote`).

    With q shares traded in a step at prices p, V the mean price of what others traded in it (where they traded
    nothing, the mid before the step's orders, which those cannot move), s the mid at the start and d = 1 for a sell,
    -1 for a buy, the reward is
    d (sum(p q) - V sum(q)) + lambda d (V - s) sum(q), in ticks x shares over `reward_unit`. When the time of an episode
    is over, what is left counts as traded `penalty` ticks beyond the mid.
    """

    target: int = 600
    """Shares."""
    lot: int = 10
    """Shares."""
    side: str = "random"
    """buy, sell or random."""
    drift_weight: float = 0.0
    penalty_ticks: int = 5
    reward_unit: float = 1.0
    name: str = "execution"

    def __post_init__(self) -> None:
        limits.check_whole("Execution.target", self.target, 1, 2**30)
        limits.check_whole("Execution.lot", self.lot, 1, 2**30 // max(_SIZES))
        limits.check_whole("Execution.penalty_ticks", self.penalty_ticks, 0, 2**20)
        if self.side not in SIDES:
            raise InputError(f"Execution.side: expected one of {', '.join(SIDES)}, got {self.side!r}")
        if not 0 < self.reward_unit < math.inf:
            raise InputError(f"Execution.reward_unit: expected a finite number above 0, got {self.reward_unit!r}")
        if not math.isfinite(self.drift_weight):
            raise InputError(f"Execution.drift_weight: expected a finite number, got {self.drift_weight!r}")

    @property
    def actions(self) -> int:
        """13."""
        return 1 + 4 * len(_SIZES)

    @property
    def features(self) -> int:
        """12, `FEATURES`."""
        return len(FEATURES)

    @property
    def most(self) -> float:
        """Of a feature."""
        return MOST

    @property
    def most_orders(self) -> int:
        """Of a step."""
        return ROOM + 1

    def default_params(self) -> ExecutionParams:
        """As the fields say."""
        return ExecutionParams(
            jnp.int32(self.target), jnp.int32(self.lot), jnp.int32(SIDES[self.side]), jnp.float32(self.drift_weight),
            jnp.int32(self.penalty_ticks), jnp.float32(self.reward_unit))

    def begin(self, params: ExecutionParams, key: jax.Array, seen: MarketSeen) -> ExecutionState:
        """Nothing is traded."""
        return ExecutionState.start(params.side, key, seen)

    def orders(self, params: ExecutionParams, state: ExecutionState, seen: MarketSeen, resting: Resting, action: Array
               ) -> Order:
        """What an action sends."""
        ask, bid = quotes.touch(seen.view, seen.tick, state.start_price)
        far, near = jnp.where(state.is_buy, ask, bid), jnp.where(state.is_buy, bid, ask)
        behind = jnp.where(state.is_buy, bid - seen.tick, ask + seen.tick)
        twice = 2 * seen.tick
        mid = jnp.where(state.is_buy, (ask + bid) // twice, -(-(ask + bid) // twice)) * seen.tick
        which = jnp.maximum(jnp.asarray(action, jnp.int32) - 1, 0)
        price = jnp.stack([far, mid, near, behind])[which % 4]
        lots = jnp.where(action > 0, jnp.array(_SIZES, jnp.int32)[which // 4], 0)
        volume = jnp.minimum(lots * params.lot, params.target - state.filled)
        return quotes.requote(resting, state.is_buy, quotes.within_limits(price, seen.tick), volume)

    def judge(self, params: ExecutionParams, state: ExecutionState, seen: MarketSeen, fills: TraderFills,
              trades: StepTrades, is_last: Array) -> Judged:
        """What a step was worth."""
        traded = fills.bought + fills.sold
        left = params.target - state.filled - traded
        charged = jnp.where(is_last, left, 0)
        advantage, vwap = against_others(state, fills, trades)
        sign = jnp.where(state.is_buy, -1.0, 1.0).astype(jnp.float32)
        # In 1e-4 of the currency x shares, prices less that of the start.
        mid = above(seen, state.start_twice)
        worst = mid - sign * params.penalty * seen.tick
        gain = sign * (advantage + (worst - vwap) * charged)
        drift = sign * vwap * (traded + charged)
        reward = (gain + params.drift_weight * drift) * (1 / (seen.tick * params.reward_unit))
        after = state.after(traded, seen)
        info = {"filled": after.filled, "unfilled": charged, "advantage": gain / seen.tick, "drift": drift / seen.tick,
                "refused": fills.refused}
        return Judged(after, reward.astype(jnp.float32), left <= 0, info)

    def observe(self, params: ExecutionParams, state: ExecutionState, seen: MarketSeen, passed: tuple[Array, Array]
                ) -> jax.Array:
        """The features (`look`)."""
        return look(params.target, state, seen, passed)


def look(target: Array, state: ExecutionState, seen: MarketSeen, passed: tuple[Array, Array]) -> jax.Array:
    """`FEATURES`, float32 [12]: prices less the start's over 10 (currency), depths over 1,000, parts of the target."""
    # By reciprocals: a compiler may make them of divisions, and not in every batch alike.
    step, part, whole = passed[0], 1 / target, 1 / passed[1]
    ask, bid = quotes.touch(seen.view, seen.tick, state.start_price)
    far, near = jnp.where(state.is_buy, ask, bid), jnp.where(state.is_buy, bid, ask)
    depth = int64.to_float32(seen.depth)
    # Row 0 of the depths are asks, which a buy trades with.
    far_depth, near_depth = depth[jnp.where(state.is_buy, 0, 1)], depth[jnp.where(state.is_buy, 1, 0)]
    found = (
        state.filled * part, state.start_twice / 2e7, ~state.is_buy, (2 * far - state.start_twice) / 2e5,
        (2 * near - state.start_twice) / 2e5, far_depth / 1e3, near_depth / 1e3,
        (target - state.filled) * part, 1 - step * whole, (ask - bid) / 1e4, step / 30, 1.0)
    return jnp.clip(jnp.stack([jnp.asarray(x, jnp.float32) for x in found]), -MOST, MOST)


def above(seen: MarketSeen, twice: Array) -> jax.Array:
    """float32: the mid less half of `twice`, 1e-4 of the currency; 0 where there is no mid."""
    mid = jnp.where(seen.view.has_mid, seen.view.mid_price_twice, twice)
    return (mid - twice).astype(jnp.float32) / 2


def against_others(state: ExecutionState, fills: TraderFills, trades: StepTrades) -> tuple[jax.Array, jax.Array]:
    """How a trader's prices compare with the others' in a step, exact up to the last division.

    Args:
      state: before the step.
      fills: the trader's.
      trades: all of the market.

    Returns:
      float32, sum over its trades of volume x (price - V), 1e-4 of the currency x shares; and float32, V less the
      mid at the start. V is the mean price of trades in which the trader had no part; where there were none, the mid
      before the step's orders: a mid after them could be moved by the trader's own.
    """
    own = int64.add(int64.of_int32(fills.bought), int64.of_int32(fills.sold))
    others, value = int64.subtract(trades.volume, own), int64.subtract(trades.value, fills.value)
    volume = int64.to_float32(others)
    before = (state.before_twice - state.start_twice).astype(jnp.float32) / 2
    vwap = jnp.where(volume > 0, excess(value, state.start_twice, others) / jnp.maximum(volume, 1), before)
    return excess(fills.value, state.start_twice, own) - vwap * int64.to_float32(own), vwap


def excess(value: Int64, twice: Array, volume: Int64) -> jax.Array:
    """float32, value - volume x twice / 2, exact up to the rounding."""
    return int64.to_float32(int64.subtract(int64.add(value, value), int64.scale(volume, twice))) / 2
