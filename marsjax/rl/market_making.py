"""Market making to learn: quotes on both sides, an inventory that may not grow too large, fees.

An action is a row of a small table: how far from the best prices of the others a bid and an ask are to rest, and how
much of each.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax.agents import quotes as prices
from marsjax.agents.base import Resting
from marsjax.agents.requoting import two_sided
from marsjax.core import int64, limits
from marsjax.core.errors import InputError
from marsjax.core.records import EMPTY_SIDE_SPREAD, Array, Order
from marsjax.rl.base import ROOM, Judged, MarketSeen, StepTrades, TraderFills

FEATURES = ("inventory", "time_left", "spread", "imbalance", "depth_imbalance", "mid_change", "mid_drift", "volatility",
            "bought", "sold", "volume")
"""Of an observation, in this order."""
MOST = 100.0
MEMORY = 2**-4
"""Weight of the newest step in the mean of squared changes of the mid."""
_MOST_AWAY, _MOST_LOTS, _MOST_HALVES = 2**15, 2**15, 2**11
_MOST_MONEY = 1e30


class Quote(NamedTuple):
    """What an action asks for: a row of the table."""

    bid_away: int
    """Ticks below the best bid of the others; below 0: above it."""
    bid_lots: int
    """0: no bid."""
    ask_away: int
    """Ticks above the best ask of the others; below 0: below it."""
    ask_lots: int
    """0: no ask."""


TABLE = (
    Quote(0, 0, 0, 0), Quote(0, 1, 0, 1), Quote(1, 1, 1, 1), Quote(3, 1, 3, 1), Quote(-1, 1, -1, 1), Quote(0, 3, 0, 3),
    Quote(0, 1, 1, 1), Quote(1, 1, 0, 1), Quote(0, 1, 3, 1), Quote(3, 1, 0, 1), Quote(0, 1, 0, 0), Quote(0, 0, 0, 1),
)
"""Nothing; both sides alike, at five distances and sizes; one side nearer than the other; one side alone."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MakingParams:
    """What may change of market making; scalars."""

    lot: Array
    """int32 shares."""
    most_shares: Array
    """int32 shares, which the inventory never exceeds, long or short."""
    inventory_penalty: Array
    """float32 ticks a step for each share of the first lot that is held; n lots cost n times as much a share."""
    fee: Array
    """float32 basis points of the value of all trades; below 0: a rebate."""
    close_ticks: Array
    """int32 ticks beyond the mid at which what is held at the end counts as traded."""
    reward_unit: Array
    """float32, ticks x shares that are a reward of 1."""


class MakingState(NamedTuple):
    """How far a market maker is; scalars."""

    inventory: Array
    """int32 shares, below 0 where it is short."""
    mid_twice: Array
    """int32, twice the last mid that was known, 1e-4 of the currency; 0 before any."""
    start_twice: Array
    """int32, the same at the start."""
    change: Array
    """float32 ticks, of the mid in the last step."""
    variance: Array
    """float32 ticks squared, mean squared change of the mid in a step."""
    step: Array
    """int32, steps made."""
    bought: Array
    """int32 shares in the last step."""
    sold: Array
    """int32 shares in the last step."""
    volume: Array
    """float32 shares that all traded in the last step."""


@dataclasses.dataclass(frozen=True)
class MarketMaking:
    """Rests a bid and an ask as an action's row of `table` says; the last action trades the inventory away.

    Distances are from the best prices of the others, so that a quote that is the best does not chase itself. A quote
    never reaches the other side, and is cut so that the inventory stays within `most_shares` whatever trades. Orders
    that stay at their price keep their place in the queue (`agents.requoting`). The last action takes the quotes back
    and sends what is held as an order at the best price of the other side; what does not trade of it rests there.

    The reward of a step is, in ticks x shares over `reward_unit`: the change of cash + inventory x mid, less the fee,
    less inventory_penalty x inventory x inventory / lot, less, at the end of an episode, close_ticks x inventory. The
    mid is that of the whole book, its own quotes among them; while a side is empty it is the last one known. Cash and
    inventory x mid are exact. All sums of money are 1e-4 of the currency x shares, over the tick.
    """

    lot: int = 10
    """Shares."""
    most_lots: int = 10
    """Largest inventory."""
    inventory_penalty: float = 0.01
    fee_bp: float = 0.0
    close_ticks: int = 1
    reward_unit: float = 1.0
    table: tuple[Quote, ...] = TABLE
    name: str = "market_making"

    def __post_init__(self) -> None:
        limits.check_whole("MarketMaking.most_lots", self.most_lots, 1, _MOST_LOTS)
        limits.check_whole("MarketMaking.lot", self.lot, 1, 2**30 // self.most_lots)
        limits.check_whole("MarketMaking.close_ticks", self.close_ticks, 0, 2**20)
        if not self.inventory_penalty >= 0:
            raise InputError(f"MarketMaking.inventory_penalty: expected at least 0, got {self.inventory_penalty!r}")
        if not -1e4 < self.fee_bp < 1e4:
            raise InputError(f"MarketMaking.fee_bp: expected basis points between -10,000 and 10,000, got "
                             f"{self.fee_bp!r}")
        if not self.reward_unit > 0:
            raise InputError(f"MarketMaking.reward_unit: expected a number above 0, got {self.reward_unit!r}")
        if not self.table:
            raise InputError("MarketMaking.table: expected a row at least, got none")
        for number, row in enumerate(self.table):
            for field, value in zip(Quote._fields, row, strict=True):
                low, high = (-_MOST_AWAY, _MOST_AWAY) if field.endswith("away") else (0, self.most_lots)
                limits.check_whole(f"MarketMaking.table: row {number}: {field}", value, low, high)

    @property
    def actions(self) -> int:
        """A row each, and one that trades the inventory away."""
        return len(self.table) + 1

    @property
    def features(self) -> int:
        """11, `FEATURES`."""
        return len(FEATURES)

    @property
    def most(self) -> float:
        """Of a feature."""
        return MOST

    @property
    def most_orders(self) -> int:
        """Of a step."""
        return 2 * ROOM + 2

    def default_params(self) -> MakingParams:
        """As the fields say."""
        return MakingParams(jnp.int32(self.lot), jnp.int32(self.lot * self.most_lots),
                            jnp.float32(self.inventory_penalty), jnp.float32(self.fee_bp), jnp.int32(self.close_ticks),
                            jnp.float32(self.reward_unit))

    def begin(self, params: MakingParams, key: jax.Array, seen: MarketSeen) -> MakingState:
        """Nothing is held."""
        del params, key
        zero, none = jnp.zeros((), jnp.int32), jnp.zeros(())
        mid = jnp.where(seen.view.has_mid, seen.view.mid_price_twice, 0).astype(jnp.int32)
        return MakingState(zero, mid, mid, none, none, zero, zero, zero, none)

    def orders(self, params: MakingParams, state: MakingState, seen: MarketSeen, resting: Resting, action: Array
               ) -> Order:
        """What an action sends."""
        row = jnp.array(self.table, jnp.int32)[jnp.minimum(action, len(self.table) - 1)]
        ask, bid = prices.others_best(seen.view, resting, seen.tick, _known(state, seen))
        lots, closes = jnp.stack([row[1], row[3]]) * params.lot, action >= len(self.table)
        quoted = within_market(params, state, seen, (ask, bid), (bid - row[0] * seen.tick, ask + row[2] * seen.tick))
        bought = jnp.where(closes, jnp.maximum(-state.inventory, 0), jnp.minimum(lots[0], quoted.bid_room))
        sold = jnp.where(closes, jnp.maximum(state.inventory, 0), jnp.minimum(lots[1], quoted.ask_room))
        return two_sided(resting, (jnp.where(closes, prices.within_limits(ask, seen.tick), quoted.bid), bought),
                         (jnp.where(closes, prices.within_limits(bid, seen.tick), quoted.ask), sold))

    def judge(self, params: MakingParams, state: MakingState, seen: MarketSeen, fills: TraderFills,
              trades: StepTrades, is_last: Array) -> Judged:
        """What a step was worth."""
        held = state.inventory + fills.bought - fills.sold
        is_known = seen.view.spread != EMPTY_SIDE_SPREAD
        mid = jnp.where(is_known, seen.view.mid_price_twice, state.mid_twice)
        # Twice the profit, exact: 2 cash + held x mid_twice, after less before.
        worth = int64.subtract(int64.multiply(held, mid), int64.multiply(state.inventory, state.mid_twice))
        tick = 1 / seen.tick
        profit = int64.to_float32(int64.add(worth, int64.add(fills.cash, fills.cash))) * (0.5 * tick)
        fee = int64.to_float32(fills.value) * (params.fee * 1e-4) * tick
        size = jnp.abs(held).astype(jnp.float32)
        penalty = (params.inventory_penalty * size) * (size * (1 / params.lot))
        close = jnp.where(is_last, params.close_ticks * size, 0.0)
        profit, fee, penalty, close = (_rounded(x) for x in (profit, fee, penalty, close))
        halves = jnp.where(state.mid_twice > 0, (mid - state.mid_twice) // seen.tick, 0)
        change = jnp.clip(halves, -_MOST_HALVES, _MOST_HALVES).astype(jnp.float32) * 0.5
        after = MakingState(
            held, mid, jnp.where(state.start_twice > 0, state.start_twice, mid), change,
            state.variance + MEMORY * (change * change - state.variance), state.step + 1, fills.bought, fills.sold,
            int64.to_float32(trades.volume))
        info = {"inventory": held, "held": size, "traded": fills.bought + fills.sold, "profit": profit, "fee": fee,
                "penalty": penalty, "close": close, "refused": fills.refused}
        reward = (profit - fee - penalty - close) * (1 / params.reward_unit)
        return Judged(after, reward.astype(jnp.float32), jnp.zeros((), bool), info)

    def observe(self, params: MakingParams, state: MakingState, seen: MarketSeen, passed: tuple[Array, Array]
                ) -> jax.Array:
        """`FEATURES`, float32 [11].

        inventory, bought and sold in the last step over `most_shares`; part of the time that is left; spread in ticks
        over 10; (bid - ask) / (bid + ask) of the shares at the best prices, and of all that rest; the mid's change in
        the last step in ticks, and since the start over 10; root of its mean squared change in ticks; shares that all
        traded in the last step over `most_shares`.
        """
        # By reciprocals: a compiler may make them of divisions, and not in every batch alike.
        most, tick = 1 / params.most_shares, 1 / seen.tick
        view = seen.view
        best = jnp.stack([int64.to_float32(jax.tree.map(lambda x: jnp.asarray(x)[0], side))
                          for side in (view.ask_volume, view.bid_volume)])
        spread = jnp.where(view.spread == EMPTY_SIDE_SPREAD, 0, view.spread)
        found = (
            state.inventory * most, (passed[1] - passed[0]) * (1 / passed[1]), spread * (0.1 * tick), _imbalance(best),
            _imbalance(int64.to_float32(seen.depth)), state.change,
            (state.mid_twice - state.start_twice) * (0.05 * tick), jnp.sqrt(state.variance), state.bought * most,
            state.sold * most, state.volume * most)
        return jnp.clip(jnp.stack([jnp.asarray(x, jnp.float32) for x in found]), -MOST, MOST)


class Allowed(NamedTuple):
    """Prices as they may be quoted, and how much; int32 scalars."""

    bid: Array
    ask: Array
    bid_room: Array
    """Shares that may be bought; 0 before any price is known."""
    ask_room: Array
    """Shares that may be sold."""


def within_market(params: MakingParams, state: MakingState, seen: MarketSeen, best: tuple[Array, Array],
                  quoted: tuple[Array, Array]) -> Allowed:
    """Quotes that wait: a bid below the others' best ask, an ask above their best bid, and room for the inventory.

    Args:
      params: of the task.
      state: of the task.
      seen: by the market maker.
      best: ask and bid of the others.
      quoted: bid and ask that are wanted.
    """
    (ask, bid), (wanted_bid, wanted_ask) = best, quoted
    low = prices.within_limits(jnp.minimum(wanted_bid, ask - seen.tick), seen.tick)
    # Above its own bid too: both may be wanted in the middle of a spread.
    high = prices.within_limits(jnp.maximum(jnp.maximum(wanted_ask, bid + seen.tick), low + seen.tick), seen.tick)
    is_known = state.mid_twice > 0
    room = [jnp.where(is_known, jnp.maximum(params.most_shares - held, 0), 0)
            for held in (state.inventory, -state.inventory)]
    return Allowed(low, high, *room)


def _rounded(x: Array) -> jax.Array:
    """The same: a product that is rounded before it is added to, in batches of any size alike (no fused operation)."""
    return jnp.clip(x, -_MOST_MONEY, _MOST_MONEY)


def _known(state: MakingState, seen: MarketSeen) -> jax.Array:
    """The last mid known, rounded down to a tick."""
    return jnp.asarray(state.mid_twice // (2 * seen.tick) * seen.tick)


def _imbalance(of_sides: jax.Array) -> jax.Array:
    """(bid - ask) / (bid + ask), 0 where both are 0."""
    total = of_sides[0] + of_sides[1]
    return (of_sides[1] - of_sides[0]) * (1 / jnp.maximum(total, 1.0))
