"""An execution in slices, as MarS's paper trains one: how much of each slice waits, and how far the rest reaches.

The paper says what its agent decides every 30 s for 5 minutes, and that its reward is alpha x fulfilment + price
advantage, alpha falling once 95% are fulfilled. How a slice is sent, and the unit of the advantage, are marsjax's.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from marsjax.agents.base import Resting
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Order
from marsjax.rl import quotes
from marsjax.rl.base import ROOM, Judged, MarketSeen, StepTrades, TraderFills
from marsjax.rl.execution import FEATURES, MOST, SIDES, ExecutionState, against_others, look

RATIOS, REACHES = 11, 6
"""Passive ratios of 0 to 1 in tenths, and aggressiveness of 0 to 5 ticks."""
STEP_S, STEPS = 30, 10
"""Of the paper: a decision every 30 s, for 5 minutes."""
FULFILMENT = 0.95
"""From here on alpha falls."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SlicedParams:
    """What may change of a sliced execution; scalars."""

    target: Array
    """int32 shares."""
    lot: Array
    """int32 shares: slices are whole lots."""
    side: Array
    """int32, 1 buys, 0 sells, -1: as drawn at the start."""
    alpha: Array
    """float32, reward of fulfilling the whole target."""
    slices: Array
    """int32, steps in which the target is due."""


@dataclasses.dataclass(frozen=True)
class SlicedExecution:
    """Buys (or sells) `target` shares in equal slices; what is left of a slice goes into the next one.

    In step k what is due is the target x (k + 1) / slices, rounded up to lots, less what is filled. Action
    6 r + a has r tenths of it, rounded down to lots, wait at the near touch, and the rest sent as a limit order a ticks
    beyond the far touch. What rests elsewhere is taken back; what waits at the near touch keeps its place.

    The reward of a step is alpha x traded / target + the price advantage: the sum over its trades of
    volume x (V - price) for a buy, its negative for a sell, over target x the mid at the start, in basis points. V is
    the mean price of what others traded in the step; where they traded nothing, the mid before the step's orders.
    `lowered` makes alpha smaller.
    """

    target: int = 6_000
    """Shares."""
    lot: int = 100
    side: str = "buy"
    """buy, sell or random."""
    alpha: float = 1.0
    slices: int = STEPS
    name: str = "sliced"

    def __post_init__(self) -> None:
        limits.check_whole("SlicedExecution.target", self.target, 1, 2**30)
        limits.check_whole("SlicedExecution.lot", self.lot, 1, self.target)
        limits.check_whole("SlicedExecution.slices", self.slices, 1, 2**15)
        if self.side not in SIDES:
            raise InputError(f"SlicedExecution.side: expected one of {', '.join(SIDES)}, got {self.side!r}")
        if not math.isfinite(self.alpha):
            raise InputError(f"SlicedExecution.alpha: expected a finite number, got {self.alpha!r}")

    @property
    def actions(self) -> int:
        """66."""
        return RATIOS * REACHES

    @property
    def features(self) -> int:
        """12, `execution.FEATURES`."""
        return len(FEATURES)

    @property
    def most(self) -> float:
        """Of a feature."""
        return MOST

    @property
    def most_orders(self) -> int:
        """Of a step."""
        return ROOM + 2

    def default_params(self) -> SlicedParams:
        """As the fields say."""
        return SlicedParams(jnp.int32(self.target), jnp.int32(self.lot), jnp.int32(SIDES[self.side]),
                            jnp.float32(self.alpha), jnp.int32(self.slices))

    def begin(self, params: SlicedParams, key: jax.Array, seen: MarketSeen) -> ExecutionState:
        """Nothing is traded."""
        return ExecutionState.start(params.side, key, seen)

    def orders(self, params: SlicedParams, state: ExecutionState, seen: MarketSeen, resting: Resting, action: Array
               ) -> Order:
        """What an action sends: cancels, what waits, and what reaches out."""
        ask, bid = quotes.touch(seen.view, seen.tick, state.start_price)
        ratio, reach = jnp.asarray(action, jnp.int32) // REACHES, jnp.asarray(action, jnp.int32) % REACHES
        left = params.target - state.filled
        due = jnp.clip(_due(params, state.step) - state.filled, 0, left)
        # Whole lots x ratio / 10, rounded down, without passing 2**31.
        lots, whole = due // params.lot, RATIOS - 1
        waits = (lots // whole * ratio + lots % whole * ratio // whole) * params.lot
        near, far = jnp.where(state.is_buy, bid, ask), jnp.where(state.is_buy, ask, bid)
        far += jnp.where(state.is_buy, reach, -reach) * seen.tick
        # One order waits and one reaches out, so that no more than R ever rest.
        kept = quotes.requote(resting, state.is_buy, quotes.within_limits(near, seen.tick), waits, most=ROOM - 1)
        sent = quotes.limit(state.is_buy, quotes.within_limits(far, seen.tick), due - waits)
        return jax.tree.map(lambda many, one: jnp.concatenate([many, one[None]]), kept, sent)

    def judge(self, params: SlicedParams, state: ExecutionState, seen: MarketSeen, fills: TraderFills,
              trades: StepTrades, is_last: Array) -> Judged:
        """What a step was worth."""
        traded = fills.bought + fills.sold
        advantage, _ = against_others(state, fills, trades)
        sign = jnp.where(state.is_buy, -1.0, 1.0).astype(jnp.float32)
        part = 1 / params.target.astype(jnp.float32)
        better = sign * advantage * part * (2e4 / jnp.maximum(state.start_twice, 1).astype(jnp.float32))
        after = state.after(traded, seen)
        info = {"filled": after.filled, "unfilled": jnp.where(is_last, params.target - after.filled, 0),
                "advantage": better, "fulfilment": after.filled * part, "refused": fills.refused}
        return Judged(after, params.alpha * (traded * part) + better, after.filled >= params.target, info)

    def observe(self, params: SlicedParams, state: ExecutionState, seen: MarketSeen, passed: tuple[Array, Array]
                ) -> jax.Array:
        """The features (`execution.look`)."""
        return look(params.target, state, seen, passed)


def lowered(alpha: Array | float, fulfilment: Array | float, factor: float = 0.9) -> jax.Array:
    """Alpha, times `factor` where the mean fulfilment of a learner's last episodes has come to 0.95.

    A learner calls it between two updates and puts the result into `Params.tasks`.

    Examples:
      >>> float(lowered(1.0, 0.9)), float(lowered(1.0, 0.96, factor=0.5))
      (1.0, 0.5)
    """
    return jnp.where(jnp.asarray(fulfilment) >= FULFILMENT, jnp.float32(alpha) * factor, jnp.float32(alpha))


def _due(params: SlicedParams, step: Array) -> jax.Array:
    """int32 shares that are to be filled by the end of a step, in whole lots; no more than the target."""
    lots = -(-params.target // params.lot)
    number = jnp.minimum(step + 1, params.slices)
    # lots x number / slices, rounded up, without passing 2**31.
    whole, rest = lots // params.slices, lots % params.slices
    return jnp.minimum((whole * number + -(-rest * number // params.slices)) * params.lot, params.target)
