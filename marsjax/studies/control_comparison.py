"""Controlled futures beside uncontrolled ones, and beside those in which an execution trades, with their orders.

All three are of the same start and the same numbers; what differs is the control, and the execution.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from marsjax.analysis import control_realism, order_events, quantities
from marsjax.analysis.order_events import Arrivals
from marsjax.analysis.quantities import OrderEvents
from marsjax.core import int64, limits
from marsjax.core.errors import InputError
from marsjax.observers.trace import Log
from marsjax.sim.control import ControlledRollout, ControlSpec, CurveGuide, Guide
from marsjax.sim.rollout import Hooks, RolloutProgress
from marsjax.studies import control, executions, rollout_summary
from marsjax.studies.control import ControlledMarket, GuideOf
from marsjax.studies.executions import ExecutionSpec, StrategySpec
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.progress import NOBODY_WATCHES, FuturesProgress, Watching
from marsjax.studies.realism import SentOrders

UNCONTROLLED, CONTROLLED, EXECUTED = "uncontrolled", "controlled", "controlled, with an execution"
_OF_INTERVALS = ("volatility_bp", "volume", "orders", "imbalance", "spread_ticks", "depth")
"""Features that realism is measured of, beside the orders."""
_NOBODY = Arrivals(*(np.zeros(0, np.int64) for _ in range(3)))


@dataclasses.dataclass(frozen=True)
class ControlledExecution:
    """An execution in controlled futures."""

    strategy: StrategySpec
    side: str = "buy"
    ratio: float = 0.1
    """Its target over the mean volume of the uncontrolled futures."""

    def __post_init__(self) -> None:
        if self.side not in executions.SIGNS:
            raise InputError(f"ControlledExecution.side: expected {' or '.join(executions.SIGNS)}, got {self.side!r}")
        if isinstance(self.ratio, bool) or not 0 < self.ratio < 100:
            raise InputError("ControlledExecution.ratio: expected a number above 0 (and below 100), got "
                             f"{self.ratio!r}")


class FuturesKind(NamedTuple):
    """Futures of one kind."""

    name: str
    run: ControlledRollout
    events: list[OrderEvents | None]
    """The orders of each future, from the start on; None of a lost one. Empty where none were kept."""

    @property
    def is_lost(self) -> np.ndarray:
        """bool [B], of futures that broke off."""
        return rollout_summary.is_lost(self.run.rollout)

    def values(self) -> control_realism.Values:
        """What realism is measured of, by quantity: of single orders (order: ...) and intervals (interval: ...)."""
        found: dict[str, list[np.ndarray]] = {}
        for events in self.events:
            if events is not None:
                for name, values in quantities.of_orders(events).items():
                    found.setdefault(f"order: {name}", []).append(values)
        for name in _OF_INTERVALS:
            seen = np.asarray(getattr(self.run.features, name), np.float64)[:, ~self.is_lost]
            found[f"interval: {name}"] = list(seen.T)
        return found


class Comparison(NamedTuple):
    """Futures of the same start and numbers, of each kind."""

    guide: Guide
    free: FuturesKind
    controlled: FuturesKind
    executed: FuturesKind | None
    """With an execution, if one was asked for."""
    shares: int
    """Of the execution's target, 0 without one."""
    done: np.ndarray
    """int64 [B], shares that it traded in each future; of none where there is none."""

    @property
    def kinds(self) -> tuple[FuturesKind, ...]:
        """All of them, uncontrolled ones first."""
        return (self.free, self.controlled) if self.executed is None else (self.free, self.controlled, self.executed)


class _Orders:
    """Keeps the orders of controlled futures, those of the last run where some had to be run again."""

    def __init__(self) -> None:
        self._sent = SentOrders()

    def chunk(self) -> None:
        """After a chunk: orders are told of when a run is over, so those that are kept are of a run before this one."""
        self._sent = SentOrders()

    def __call__(self, places: np.ndarray, log: Log) -> None:
        self._sent(places, log)

    def events(self, run: ControlledRollout) -> list[OrderEvents | None]:
        """Of each future."""
        lost = rollout_summary.is_lost(run.rollout)
        return [None if is_lost else order_events.of_trace(rows, _NOBODY)
                for is_lost, rows in zip(lost, self._sent.by_trajectory(len(lost)), strict=True)]


def compare(at: ControlledMarket, spec: FuturesSpec, how: ControlSpec, guide: Guide | GuideOf, start_ns: int,
            execution: ControlledExecution | None = None, keeps_orders: bool = True, watch: Watching = NOBODY_WATCHES
            ) -> Comparison:
    """Runs uncontrolled futures, controlled ones, and with `execution` controlled ones in which it trades.

    Args:
      at: model, market (for an execution with its account, `executions.EXECUTOR`) and start, without agents.
      spec: how many of each kind, how long, of which draws.
      how: the control.
      guide: what is wanted, or what makes it of the features of the uncontrolled futures.
      start_ns: time of the start, nanoseconds since midnight.
      execution: who trades in the third kind.
      keeps_orders: whether all orders of the first two kinds are kept, for what control costs in realism.
      watch: who is told; each kind is a start of its own.
    """
    count = 2 + (execution is not None)
    nothing = CurveGuide((float("nan"),) * how.intervals(spec.minutes))
    with FuturesProgress(count, spec.minutes) as progress:
        def kind(number: int, name: str, where: ControlledMarket, how: ControlSpec, guide: Guide) -> FuturesKind:
            progress.begin(number, 1)
            watch.begin(number, 1)
            # Of an execution none are kept: a trace has room for the order model's own, one a step.
            return kind_of(name, where, spec, how, guide, watch.with_bar(progress), watch,
                         keeps_orders and not where.agents)

        free = kind(0, UNCONTROLLED, at, dataclasses.replace(how, strength=0.0), nothing)
        made = control.guide_of(guide, free.run)
        held = kind(1, CONTROLLED, at, how, made)
        if execution is None:
            return Comparison(made, free, held, None, 0, np.zeros(0, np.int64))
        shares = _shares(free, execution)
        executed = kind(2, EXECUTED, _with_execution(at, spec, execution, start_ns, shares), how, made)
    meter = executed.run.rollout.state.agent_states[0].state
    return Comparison(made, free, held, executed, shares,
                      np.abs(np.asarray(meter.shares).astype(np.int64).sum(axis=1)))


def kind_of(name: str, at: ControlledMarket, spec: FuturesSpec, how: ControlSpec, guide: Guide,
            told: Callable[[RolloutProgress], None], watch: Watching = NOBODY_WATCHES, keeps_orders: bool = True
            ) -> FuturesKind:
    """Runs futures of one kind, with their orders; `told` hears of each chunk of steps, `watch` of the memory."""
    orders = _Orders()

    def on_chunk(progress: RolloutProgress) -> None:
        orders.chunk()
        told(progress)

    hooks = Hooks(on_chunk, orders if keeps_orders else None, on_memory=watch.on_memory)
    run = control.simulate(at, spec, how, guide, hooks=hooks)
    return FuturesKind(name, run, orders.events(run) if keeps_orders else [])


def _shares(free: FuturesKind, execution: ControlledExecution) -> int:
    volume = int64.to_numpy(free.run.rollout.bars.volume)[~free.is_lost].sum(axis=1)
    mean = float(volume.mean()) if len(volume) else 0.0
    shares = int(mean * execution.ratio) // executions.LOT * executions.LOT
    if not shares:
        raise InputError(f"ControlledExecution.ratio: expected a target of at least {executions.LOT} shares, got "
                         f"{execution.ratio} of a mean volume of {mean:g}")
    return shares


def _with_execution(at: ControlledMarket, spec: FuturesSpec, execution: ControlledExecution, start_ns: int, shares: int
                    ) -> ControlledMarket:
    """The market with the strategy in it, which has the whole of the futures' time."""
    metered = strategy_of(execution, spec, start_ns)
    agent: Any = metered.agent
    size = np.full(spec.trajectories, shares)
    began = metered.starts(*agent.starts(size, size > 0 if execution.side == "buy" else size < 0))
    return at._replace(agents=(metered,), agent_starts=(began,))


def strategy_of(execution: ControlledExecution, spec: FuturesSpec, start_ns: int) -> executions.Metered:
    """The strategy with its meter; InputError where its keys do not fit the minutes."""
    return executions.metered_strategy(ExecutionSpec(execution.strategy, spec, seeds=1, sides=(execution.side,),
                                                     ratios=(execution.ratio,)), start_ns)


class Point(NamedTuple):
    """A run of a sweep."""

    strength: float
    """Of the control."""
    trajectories: int
    run: ControlledRollout


def sweep(at: ControlledMarket, spec: FuturesSpec, how: ControlSpec, guide: Guide, strengths: Sequence[float],
          counts: Sequence[int], watch: Watching = NOBODY_WATCHES) -> Iterator[Point]:
    """Controlled futures of other strengths of the control, and of other numbers of them, one run after the other.

    Nothing is kept of orders.
    """
    every = [(strength, spec.trajectories) for strength in strengths] + [(how.strength, count) for count in counts]
    for strength, count in every:
        limits.check_whole("counts", count, 1, limits.TRAJECTORIES)
        run = control.simulate(at, dataclasses.replace(spec, trajectories=count), dataclasses.replace(
            how, strength=strength), guide, hooks=Hooks(watch.on_chunk, on_memory=watch.on_memory))
        yield Point(strength, count, run)
