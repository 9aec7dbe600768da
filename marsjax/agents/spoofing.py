"""Spoofing and layering: orders that are not meant to trade, to move the price towards a real order.

False orders on one side make the market look as if many wanted to buy (or sell). They are taken back once the price
has moved, before they trade, and the real order on the other side has a better price by then. What the law calls
layering is the same at several prices. For research on how to find it: `studies.detection`.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents import execution
from marsjax.agents.base import NO_LATENCY, Action, AgentEvent, Latency, Observation
from marsjax.agents.quotes import within_limits
from marsjax.agents.twap import LOT, MOST_SECONDS, check_target
from marsjax.core import limits, times
from marsjax.core.errors import InputError
from marsjax.core.records import EMPTY_PRICE, Array, Kind, Order, Side, Time
from marsjax.market import orders as make

MOST_LEVELS = 16


class SpoofingState(NamedTuple):
    """What differs between trajectories, and how far the agent is; scalars."""

    is_buy: Array
    """bool, whether the false orders are bids."""
    size: Array
    """int32, shares of all false orders; 0: it never acts."""
    wakes: Array
    """int32, wake-ups so far."""
    is_placed: Array
    """bool, the orders have been sent."""
    is_closing: Array
    """bool, they are being taken back."""
    first_mid_twice: Array
    """int32, twice the mid when they were sent."""
    begin: Time
    """When it sends them."""


@dataclasses.dataclass(frozen=True)
class Spoofing:
    """Sends `size` shares of false orders, `levels` of them, and takes them back.

    That is when the mid has moved by `move_ticks` their way, when the price comes so near that one of them is the best
    of its side, or after `total_seconds`. The real order waits at the best price of the other side; what is left of it
    is taken back, too.

    Examples:
      >>> agent = Spoofing(size=20_000, start_ns=36_000 * 10**9, total_seconds=60, levels=4)
      >>> int(agent.init()[0].size), agent.most_orders
      (20000, 5)
    """

    size: int
    """Shares of all false orders, a multiple of 100."""
    start_ns: int
    """When it sends them, nanoseconds since midnight; where there is no mid, a wake-up later."""
    total_seconds: int
    """Until they are taken back at the latest, a multiple of `interval_seconds`."""
    direction: str = "buy"
    """Of the false orders, buy or sell; of the real one the other."""
    ticks_behind: int = 1
    """From the best price of their side to the nearest of them."""
    levels: int = 1
    """Prices, one tick after the other, with equal shares in whole lots each; 1: spoofing, more: layering."""
    real_size: int = 1_000
    """Shares of the real order; 0: there is none."""
    move_ticks: int = 5
    """Of the mid."""
    interval_seconds: int = 1
    """Between two wake-ups."""
    account: int = 2
    name: str = "spoofing"
    latency: Latency = NO_LATENCY

    def __post_init__(self) -> None:
        execution.check("Spoofing", self.direction, self.size, self.start_ns, self.most_orders, 0)
        execution.check_seconds("Spoofing.total_seconds", self.total_seconds, self.interval_seconds, MOST_SECONDS)
        for name, low, high in (("levels", 1, MOST_LEVELS), ("ticks_behind", 1, 1_000), ("move_ticks", 1, 100_000)):
            limits.check_whole(f"Spoofing.{name}", getattr(self, name), low, high)
        if self.size and self.size < self.levels * LOT:
            raise InputError(f"Spoofing.size: expected {LOT} shares a level at least, {self.levels * LOT}, got "
                             f"{self.size}")
        check_target("Spoofing.real_size", self.real_size)

    @property
    def most_orders(self) -> int:
        """The false orders and the real one, or their cancels."""
        return self.levels + 1

    @property
    def most_in_flight(self) -> int:
        """With latency several wake-ups' cancels travel at once."""
        return execution.in_flight(self.most_orders, self.latency, self.interval_seconds)

    def init(self) -> tuple[SpoofingState, Time]:
        """Nothing sent yet; it wakes up at its start."""
        return jax.tree.map(jnp.asarray, self.starts(self.size, self.direction == "buy"))

    def starts(self, size: np.ndarray | int, is_buy: np.ndarray | bool,
               begin_ns: np.ndarray | int | None = None) -> tuple[SpoofingState, Time]:
        """States and first wake-ups of B trajectories with sizes of their own, for `rollout(agent_starts=...)`.

        A size of 0 never trades: the same market without the agent. `begin_ns` takes the place of `start_ns`, int64 [B]
        or for all: markets at other times of day then share what is compiled.
        """
        shares = execution.begin(size, is_buy)
        zero, no = np.zeros_like(shares.target), np.zeros(shares.target.shape, bool)
        wake = execution.first_wake(zero.shape, self.start_ns if begin_ns is None else begin_ns)
        begin = jax.tree.map(np.copy, wake)
        return SpoofingState(shares.is_buy, shares.target, zero, no, no.copy(), zero.copy(), begin), wake

    def on_event(self, state: SpoofingState, event: AgentEvent) -> SpoofingState:
        """It goes by what it sees rest."""
        del event
        return state

    def act(self, state: SpoofingState, seen: Observation, key: jax.Array) -> Action:
        """Sends the orders, waits, takes them back."""
        del key
        start = state.begin
        view, side = seen.view, jnp.where(state.is_buy, Side.BID, Side.ASK)
        best = jnp.where(state.is_buy, jnp.asarray(view.bid_price)[0], jnp.asarray(view.ask_price)[0])
        other = jnp.where(state.is_buy, jnp.asarray(view.ask_price)[0], jnp.asarray(view.bid_price)[0])
        both = (best != EMPTY_PRICE) & (other != EMPTY_PRICE)
        is_over = times.subtract(seen.time, start).s >= self.total_seconds
        sends = ~state.is_placed & both & (state.size > 0) & ~is_over

        moved = (view.mid_price_twice - state.first_mid_twice) * jnp.where(state.is_buy, 1, -1)
        is_reached = jnp.any((jnp.asarray(seen.resting.price)[side] == best) & (seen.resting.volume[side] > 0))
        closes = is_over | (moved >= 2 * self.move_ticks * seen.tick) | is_reached
        is_closing = state.is_closing | (state.is_placed & closes) | is_over | (state.size == 0)

        taken, _, unsent = execution.cancel_both(seen, self.most_orders)
        stops = is_closing & jnp.all(seen.resting.volume == 0) & self._is_settled(state, seen.time)
        orders = jax.tree.map(lambda a, b: jnp.where(sends, a, b), self._orders(state, seen.tick, best, other), taken)
        kind = jnp.where(sends | is_closing, orders.kind, Kind.NONE)
        after = state._replace(
            wakes=state.wakes + 1, is_placed=state.is_placed | sends, is_closing=is_closing,
            first_mid_twice=jnp.where(sends, view.mid_price_twice, state.first_mid_twice).astype(jnp.int32))
        return Action(after, dataclasses.replace(orders, kind=kind.astype(jnp.int32)),
                      execution.wake_after(start, self.interval_seconds, state.wakes), stops=stops,
                      unsent=jnp.where(is_closing, unsent, 0))

    def _is_settled(self, state: SpoofingState, now: Time) -> jax.Array:
        """bool, nothing that it sent can still be on its way."""
        if self.latency == NO_LATENCY:
            return jnp.ones((), bool)
        delay_s = 1 + (2 * self.latency.communication_ns + self.latency.computation_ns) // times.SECOND_NS
        return jnp.asarray(times.subtract(now, state.begin).s > self.total_seconds + delay_s)

    def _orders(self, state: SpoofingState, tick: Array, best: Array, other: Array) -> Order:
        """[K], the false orders from the nearest on, then the real one."""
        away = jnp.where(state.is_buy, -1, 1) * tick
        level = jnp.arange(self.levels)
        lots = state.size // LOT
        false = (lots // self.levels + (level < lots % self.levels)) * LOT
        volume = jnp.append(false, self.real_size)
        price = within_limits(jnp.append(best + away * (self.ticks_behind + level), other), tick)
        kind = jnp.where(jnp.append(jnp.broadcast_to(state.is_buy, level.shape), ~state.is_buy), Kind.BUY, Kind.SELL)
        return make.limit_order(jnp.where(volume > 0, kind, Kind.NONE), price, volume)
