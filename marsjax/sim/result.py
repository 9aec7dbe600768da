"""What a rollout came to, as numbers and as tables."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import Book, BookView, Status, Time
from marsjax.data.lobster_files import LobsterFiles
from marsjax.market.process import Event
from marsjax.observers import market_tables, trace_tables
from marsjax.observers.bars import Bars
from marsjax.observers.market_tables import CURRENCY, Table
from marsjax.observers.trace import Log
from marsjax.sim import frames
from marsjax.sim.frames import FREE, Before, Fees
from marsjax.sim.specs import SimulationSpec
from marsjax.sim.state import End, SimState

if TYPE_CHECKING:
    import pandas as pd

BACKGROUND = "order model"
"""Name of the background agent in tables."""

COUNTED = ("wakes", "sent", "refused", "unsent", "late_wakes")
"""What is counted of every agent (`AgentState`)."""


@dataclasses.dataclass(frozen=True)
class Trace:
    """The events that a `TraceObserver` kept, chunk by chunk."""

    chunks: tuple[tuple[np.ndarray, Log], ...] = ()
    """Whose they are, int [R] (-1: nobody's), and NumPy `Log` [R, ...]."""
    missing: str = frames.NOT_KEPT
    """Why they are not all that there were, and what to do about it; empty where they are."""
    starts: tuple[Book, Time] | None = None
    """[B, ...], the books and times at the start, NumPy arrays."""

    def start_of(self, trajectory: int) -> tuple[Book, int]:
        """The book at the start of a trajectory, and the time, nanoseconds; InputError where nothing was kept."""
        self._check()
        if self.starts is None:
            raise InputError(f"rollout: no books were kept: {frames.NOT_KEPT}")
        book, time = jax.tree.map(lambda x: x[trajectory], self.starts)
        return book, int(times.to_ns(time))

    def events_of(self, trajectory: int) -> Iterator[Event]:
        """The events of a trajectory, [N] in sequence, chunk by chunk."""
        for who, log in self.chunks:
            for row in np.flatnonzero(who == trajectory).tolist():
                count = int(log.count[row])
                yield jax.tree.map(lambda x, row=row, count=count: np.asarray(x)[row, :count], log.events)

    def tables(self) -> tuple[Table, Table]:
        """Orders and trades (`trace_tables`), trajectory by trajectory; InputError where some are missing."""
        self._check()
        tables = trace_tables.orders, trace_tables.trades
        orders, trades = (frames.together([make(log, who) for who, log in self.chunks], "trajectory", "i")
                          for make in tables)
        return trace_tables.shown(orders), trades

    def views(self) -> tuple[Table, BookView]:
        """The book after each order, and what the rows are of; InputError where some are missing."""
        self._check()
        parts = [trace_tables.views(log, who) for who, log in self.chunks]
        of = frames.together([part[0] for part in parts])
        order = np.lexsort((of["i"], of["trajectory"]))
        return jax.tree.map(lambda x: x[order], (of, jax.tree.map(lambda *x: np.concatenate(x),
                                                                  *(part[1] for part in parts))))

    def part(self, places: np.ndarray) -> "Trace":
        """Of some trajectories, int [B] their places among all, renumbered from 0 on."""
        most = max((int(who.max(initial=-1)) for who, _ in self.chunks), default=-1)
        new = np.full(max(most, int(places.max(initial=-1))) + 2, -1)
        new[places] = np.arange(len(places))
        chunks = []
        for who, log in self.chunks:
            renumbered = new[who]
            empty = np.where(renumbered < 0, 0, np.asarray(log.count))
            chunks.append((renumbered, dataclasses.replace(log, count=empty)))
        return dataclasses.replace(self, chunks=tuple(chunks),
                                   starts=jax.tree.map(lambda x: x[places], self.starts))

    def _check(self) -> None:
        if self.missing:
            raise InputError(f"rollout: no orders were kept for tables: {self.missing}" if not self.chunks else
                             f"rollout: not all orders were kept for tables: {self.missing}")


class SoFar(NamedTuple):
    """What has been simulated of B trajectories until now, NumPy arrays: of some all, of others nothing yet."""

    bars: Bars
    """[B, M]; the minute that a trajectory is in holds what there is of it."""
    mid_twice_start: np.ndarray
    """int32 [B], twice the float mid at the start."""
    passed_ns: np.ndarray
    """int64 [B], simulated time since the start; 0 of one that has not begun, all of it of one that has ended whole."""
    end: np.ndarray
    """int32 [B], an `End`."""
    agent_states: tuple[Any, ...]
    """The own states of `SimulationSpec.agents`, [B, ...]; zeros of trajectories that have not begun."""

    @classmethod
    def of(cls, bars: Bars, mid_twice_start: np.ndarray, state: SimState) -> "SoFar":
        """From minute bars and the state that they are of, both of NumPy arrays [B, ...]."""
        origin, end = times.to_ns(bars.origin), np.asarray(state.end)
        at = times.to_ns(Time(*(np.where(end == End.TIME, last, now)
                                for last, now in ((state.until.s, state.time.s), (state.until.ns, state.time.ns)))))
        passed = np.clip(at - origin, 0, np.maximum(times.to_ns(state.until) - origin, 0))
        return cls(bars, mid_twice_start, passed, end, tuple(each.state for each in state.agent_states))


@dataclasses.dataclass(frozen=True, eq=False)
class Rollout:
    """B trajectories after their end.

    The methods make pandas DataFrames. `prices` of theirs: `currency`, or `integer` for the integers of
    `MarketSpec.units`; the columns `price_unit` and `volume_unit` say what one stands for. `trajectory` counts from 0,
    and `i` the orders of a trajectory from 0 on: it is the same in all tables.

    Examples:
      >>> import marsjax
      >>> from marsjax import RolloutSpec, Simulator, testing
      >>> from marsjax.observers import TraceObserver
      >>> model, market = testing.tiny_model(), testing.tiny_market()
      >>> simulator = Simulator.of(model, market, observers=[TraceObserver(market)])
      >>> start = testing.random_start(market, model)
      >>> run = marsjax.rollout(simulator, start, RolloutSpec(trajectories=4, minutes=1, seed=1))
      >>> len(run.orders()) == run.order_count + sum(run.rejected.values())
      True
      >>> len(run.accounts().query("agent == 'order model'")), sorted(set(run.snapshots()["trajectory"].tolist()))
      (4, [0, 1, 2, 3])
    """

    state: SimState
    """The last state of the trajectories, on the device; `observed` is what the observers returned at the end. Where
    more were asked for than run at a time (`RolloutSpec.slots`), or they do not come out even on several devices, NumPy
    arrays, and no contexts."""
    bars: Bars
    """NumPy arrays, [B, M]."""
    mid_twice_start: np.ndarray
    """int32 [B], twice the float mid at the start."""
    status: np.ndarray
    """int32 [B, len(Status)], orders since the start by what became of them, each cancel counted."""
    exceeded: dict[str, np.ndarray]
    """int32 [B], what went beyond a size since the start: `truncated_lists` (raise MarketSpec.trade_width to see lists
    of transactions whole), `clipped_seconds` (tokens past the model's hours), `early_refreshes` (contexts that outgrew
    CacheSpec.margin), `trace_dropped` (events that found no room in the trace)."""
    spec: SimulationSpec
    """What it was a simulation of."""
    before: Before
    """What the accounts had at the start."""
    trace: Trace
    """What a `TraceObserver` kept, if there was one."""
    steps: int
    compile_s: float
    run_s: float

    @property
    def agent_names(self) -> tuple[str, ...]:
        """Of `SimulationSpec.agents`."""
        return tuple(agent.name for agent in self.spec.agents)

    @property
    def observed(self) -> tuple[Any, ...]:
        """What `SimulationSpec.observers` returned."""
        return self.state.observed

    @property
    def order_count(self) -> int:
        """Accepted orders of all trajectories, each cancel counted."""
        return int(self.status[:, Status.ACCEPTED].sum())

    @property
    def rejected(self) -> dict[str, int]:
        """Orders that the exchange refused, by `Status`."""
        return {reason.name: int(self.status[:, reason].sum()) for reason in Status
                if reason.is_refusal and self.status[:, reason].any()}

    @property
    def ended(self) -> dict[str, int]:
        """Trajectories by why they ended."""
        ends = np.asarray(self.state.end)
        return {reason.name: int((ends == reason).sum()) for reason in End if (ends == reason).any()}

    @property
    def counters(self) -> dict[str, int]:
        """`exceeded` of all trajectories together; 0 where nothing did."""
        return {name: int(counts.sum()) for name, counts in self.exceeded.items()}

    @property
    def agents(self) -> dict[str, dict[str, int]]:
        """By name: wakes, sent, refused, unsent, late_wakes of all trajectories (`AgentState`)."""
        return {agent: {name: int(np.sum(np.asarray(getattr(agent_state, name)))) for name in COUNTED}
                for agent, agent_state in zip(self.agent_names, self.state.agent_states, strict=True)}

    def so_far(self) -> SoFar:
        """As of a rollout that still runs."""
        state = dataclasses.replace(self.state, agent_states=jax.tree.map(np.asarray, self.state.agent_states))
        return SoFar.of(self.bars, self.mid_twice_start, state)

    def orders(self, prices: str = CURRENCY) -> "pd.DataFrame":
        """Every order and what became of it, a row each; needs a `TraceObserver` (InputError without one).

        Columns: trajectory, i, time_ns, clock, phase, agent, type (B, S, C), price (of a cancel, of the order that it
        hit), volume, order_id, cancel_type, cancel_id, agent_id (its account), status, traded; of the book after it
        ask, bid, ask_volume, bid_volume, mid_price, spread: prices that are not there are empty.
        """
        return frames.orders(self.spec.market, (BACKGROUND, *self.agent_names), self.trace.tables()[0], prices)

    def trades(self, prices: str = CURRENCY) -> "pd.DataFrame":
        """Every trade, a row each; needs a `TraceObserver` (InputError without one).

        Columns: trajectory, i (of the order that came), k (its k-th trade), time_ns, clock, phase, type (B, S: its
        side), price, volume, value, buy_id, sell_id, buy_agent_id, sell_agent_id (accounts), status.
        """
        return frames.trades(self.spec.market, self._trades(), prices)

    def snapshots(self, prices: str = CURRENCY) -> "pd.DataFrame":
        """The book after every order, a row each, `MarketSpec.levels` a side; needs a `TraceObserver`.

        Columns: trajectory, i, time_ns, clock, phase, status, last_price, mid_price, spread, ask_price_1 ...,
        ask_volume_1 ..., bid_price_1 ..., bid_volume_1 ...: prices that are not there are empty.
        """
        return frames.snapshots(self.spec.market, *self.trace.views(), prices)

    def depth(self, prices: str = CURRENCY) -> "pd.DataFrame":
        """The same as rows of single levels: ..., side (ask, bid), level (from 1), price, volume."""
        return frames.depth(self.spec.market, *self.trace.views(), prices)

    def resting(self, prices: str = CURRENCY) -> "pd.DataFrame":
        """The orders that rest at the end, a row each, with their places in the queue.

        Columns: trajectory, time_ns, clock, phase, side, price, volume, order_id, agent_id; orders_ahead and
        shares_ahead of it at its own price; shares_before: of all that trades before it; status.
        """
        table = market_tables.resting(self.state.market.book)
        return frames.state(self.spec.market, table, self._end(), "RESTING", prices)

    def accounts(self, prices: str = CURRENCY, fees: Fees = FREE) -> "pd.DataFrame":
        """What every account came to, a row each trajectory and account.

        Columns: trajectory, time_ns, clock, phase, agent_id, agent, cash, holdings, reserved_cash, reserved_shares,
        mark_price, equity, profit (since the start), fees, net_profit; bid_orders, bid_resting_shares,
        bid_shares_ahead (of its first order, all that trades before it; empty where it has none) and likewise of asks;
        status (why the trajectory ended). The exchange charges nothing: `fees` are those of the argument, on the
        trades that a `TraceObserver` kept.
        """
        market, after = self.state.market, np.asarray(self.state.view.mid_price_twice)
        trades = None if fees == FREE else self._trades()
        rows = frames.accounts(self.spec.market, self.before, Before(market.ledgers, after), fees, trades)
        rows = frames.in_queue(rows, market_tables.resting(market.book))
        ends = np.array([End(end).name for end in np.asarray(self.state.end)])
        names = {-1: "", self.spec.account: BACKGROUND, **{agent.account: agent.name for agent in self.spec.agents}}
        agent = np.array([names.get(account, "") for account in rows["agent_id"].tolist()])
        rows = {"trajectory": rows["trajectory"], "agent_id": rows["agent_id"], "agent": agent} | rows
        return frames.state(self.spec.market, rows, self._end(), ends[rows["trajectory"]], prices)

    def write_lobster(self, folder: str | os.PathLike[str], symbol: str = "simulated", date: str = "2000-01-01"
                      ) -> None:
        """Writes messages and order books in LOBSTER's format (`data.lobster_files`), a pair of files a trajectory.

        The folder is made where it is not there. Names of files say `symbol`-TRAJECTORY and `date`; needs a
        `TraceObserver` (InputError without one).
        """
        self._check_lists()
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        for trajectory in range(len(self.mid_twice_start)):
            with contextlib.closing(LobsterFiles(pathlib.Path(folder), self.spec.market, f"{symbol}-{trajectory}", date,
                                                 self.spec.market.levels)) as files:
                files.start(*self.trace.start_of(trajectory))
                for event in self.trace.events_of(trajectory):
                    files.events(event.order, event.status, event.order_id, event.trades, event.order.price)

    def _trades(self) -> Table:
        self._check_lists()
        return self.trace.tables()[1]

    def _check_lists(self) -> None:
        if self.exceeded["truncated_lists"].any():
            raise InputError(f"rollout: {int(self.exceeded['truncated_lists'].sum())} lists of trades were cut: raise "
                             f"MarketSpec.trade_width above {self.spec.market.trade_width}")

    def _end(self) -> Any:
        """Until when the trajectories ran."""
        return self.state.until

    def part(self, which: slice | np.ndarray) -> "Rollout":
        """Some of the trajectories; times are shared among all alike."""
        whole = len(self.mid_twice_start)
        share = len(np.arange(whole)[which]) / whole
        def chosen(x: Any) -> Any:
            return x[which]

        return dataclasses.replace(
            self, state=jax.tree.map(chosen, self.state), bars=jax.tree.map(chosen, self.bars),
            before=jax.tree.map(chosen, self.before), trace=self.trace.part(np.arange(whole)[which]),
            mid_twice_start=self.mid_twice_start[which],
            status=self.status[which], exceeded={name: counts[which] for name, counts in self.exceeded.items()},
            compile_s=self.compile_s * share, run_s=self.run_s * share)
