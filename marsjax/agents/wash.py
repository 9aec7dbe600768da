"""Wash trades: an account trades with itself, so that a market looks busier than it is.

The exchange lets an account's orders trade with one another: cash and holdings come out as they were. For research on
how to find it: `studies.detection`.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents import execution
from marsjax.agents.base import NO_LATENCY, Action, AgentEvent, Latency, Observation
from marsjax.agents.twap import LOT, MOST_SECONDS
from marsjax.core import int64, limits, times
from marsjax.core.errors import InputError
from marsjax.core.records import EMPTY_PRICE, Array, Kind, Order, Time
from marsjax.market import orders as make

_ROOM = 4
"""Cancels of one wake-up: what is left of two orders and of the two before."""


class WashState(NamedTuple):
    """What differs between trajectories, and how far the agent is; scalars."""

    size: Array
    """int32, shares in all; 0: it never acts."""
    is_buy: Array
    """bool, whether its buys come in last and take its sales."""
    washed: Array
    """int32, shares that it traded with itself."""
    wakes: Array
    """int32, wake-ups so far."""
    begin: Time
    """Of its first trade."""


@dataclasses.dataclass(frozen=True)
class WashTrades:
    """Buys about `size` shares from itself, an equal part at each wake-up, at a price within the spread.

    Where the spread has no tick within, it first takes what rests at the best price of the side that it comes in on, if
    that is `most_swept` shares at most, and trades there: those shares it keeps. Else it waits for its next wake-up.

    Examples:
      >>> agent = WashTrades(size=6_000, start_ns=36_000 * 10**9, total_seconds=60)
      >>> agent.lot
      100
    """

    size: int
    """Shares, a multiple of 100."""
    start_ns: int
    """Of its first orders, nanoseconds since midnight."""
    total_seconds: int
    """A multiple of `interval_seconds`."""
    direction: str = "buy"
    """Of the order that comes in last, buy or sell."""
    most_swept: int = 2_000
    """Shares of others."""
    interval_seconds: int = 1
    """Between two wake-ups."""
    account: int = 2
    name: str = "wash"
    latency: Latency = NO_LATENCY

    def __post_init__(self) -> None:
        execution.check("WashTrades", self.direction, self.size, self.start_ns, self.most_orders, 0)
        execution.check_seconds("WashTrades.total_seconds", self.total_seconds, self.interval_seconds, MOST_SECONDS)
        limits.check_whole("WashTrades.most_swept", self.most_swept, 0, 2**29)
        if self.latency != NO_LATENCY:
            raise InputError("WashTrades.latency: expected none, as its two orders must meet, got "
                             f"{self.latency}")

    @property
    def lot(self) -> int:
        """Shares of one wake-up, where all trajectories have the record's own size."""
        return int(_lot(np.asarray(self.size), self.total_seconds // self.interval_seconds))

    @property
    def most_orders(self) -> int:
        """Cancels of what is left, and two orders."""
        return _ROOM + 2

    @property
    def most_in_flight(self) -> int:
        """Those of one wake-up."""
        return self.most_orders

    def init(self) -> tuple[WashState, Time]:
        """Nothing done yet; it wakes up at its start."""
        return jax.tree.map(jnp.asarray, self.starts(self.size, self.direction == "buy"))

    def starts(self, size: np.ndarray | int, is_buy: np.ndarray | bool,
               begin_ns: np.ndarray | int | None = None) -> tuple[WashState, Time]:
        """States and first wake-ups of B trajectories with sizes of their own, for `rollout(agent_starts=...)`.

        A size of 0 never trades: the same market without the agent. `begin_ns` takes the place of `start_ns`, int64 [B]
        or for all: markets at other times of day then share what is compiled.
        """
        shares = execution.begin(size, is_buy)
        zero = np.zeros_like(shares.target)
        wake = execution.first_wake(zero.shape, self.start_ns if begin_ns is None else begin_ns)
        return WashState(shares.target, shares.is_buy, zero, zero.copy(), jax.tree.map(np.copy, wake)), wake

    def on_event(self, state: WashState, event: AgentEvent) -> WashState:
        """Counts what traded with itself: its order traded, and that much less its holdings changed."""
        traded = jnp.where(event.is_own & (event.order.kind != Kind.CANCEL), int64.to_int32(event.trades.volume), 0)
        return state._replace(washed=state.washed + jnp.asarray(traded) - jnp.where(
            event.is_own, jnp.abs(int64.to_int32(event.shares)), 0))

    def act(self, state: WashState, seen: Observation, key: jax.Array) -> Action:
        """Two orders that meet."""
        is_over = (times.subtract(seen.time, state.begin).s >= self.total_seconds) | (state.size == 0)
        cancels, _, unsent = execution.cancel_both(seen, _ROOM)
        pair = self._pair(state, seen, key)
        pair = dataclasses.replace(pair, kind=jnp.where(is_over, Kind.NONE, pair.kind).astype(jnp.int32))
        orders = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), cancels, pair)
        return Action(state._replace(wakes=state.wakes + 1), orders,
                      execution.wake_after(state.begin, self.interval_seconds, state.wakes), stops=is_over,
                      unsent=unsent)

    def _pair(self, state: WashState, seen: Observation, key: jax.Array) -> Order:
        """[2] limit orders; Kind.NONE where they cannot meet."""
        ask, bid = jnp.asarray(seen.view.ask_price)[0], jnp.asarray(seen.view.bid_price)[0]
        both = (ask != EMPTY_PRICE) & (bid != EMPTY_PRICE)
        within = jnp.where(both, (ask - bid) // seen.tick - 1, 0)
        step = jax.random.randint(key, (), 1, jnp.maximum(within, 1) + 1)
        last, first = (jnp.where(state.is_buy, a, b) for a, b in ((Kind.BUY, Kind.SELL), (Kind.SELL, Kind.BUY)))
        lot = _lot(state.size, self.total_seconds // self.interval_seconds)
        lot = jnp.where(state.size > state.washed, lot, 0)
        there = jnp.where(state.is_buy, int64.to_int32(_best(seen.view.ask_volume)),
                          int64.to_int32(_best(seen.view.bid_volume)))
        sweeps = within < 1
        # Within the spread its own order rests first; else it takes the level, and what is left of that order rests.
        price = jnp.where(sweeps, jnp.where(state.is_buy, ask, bid), bid + step * seen.tick)
        goes = both & (lot > 0) & (~sweeps | (there <= self.most_swept))
        kinds = jnp.where(goes, jnp.where(sweeps, jnp.stack([last, first]), jnp.stack([first, last])), Kind.NONE)
        volumes = jnp.where(sweeps, jnp.stack([there + lot, lot]), jnp.stack([lot, lot]))
        return make.limit_order(kinds, price, volumes)


def _best(volume: int64.Int64) -> int64.Int64:
    """Of the best level."""
    return int64.Int64(jnp.asarray(volume.hi)[0], jnp.asarray(volume.lo)[0])


def _lot(size: Array, rounds: int) -> Array:
    """Of a wake-up, rounded up to whole lots."""
    of_all = rounds * LOT
    return (size + (of_all - 1)) // of_all * LOT
