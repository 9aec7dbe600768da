"""Executions in many simulated markets, and the same markets without them: strategies, jobs, rollouts."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from marsjax.agents.base import Agent
from marsjax.agents.immediate import Immediate
from marsjax.agents.metered import Metered
from marsjax.agents.participation import Participation
from marsjax.agents.twap import LOT, Twap, check_target
from marsjax.agents.vwap import Vwap
from marsjax.analysis import forecast
from marsjax.analysis.impact import Runs
from marsjax.core import int64, limits
from marsjax.core.errors import InputError
from marsjax.core.records import Status
from marsjax.core.specs import MarketSpec
from marsjax.sim.initial import Start, resize
from marsjax.sim.result import Rollout, SoFar
from marsjax.sim.rollout import Hooks
from marsjax.studies import futures, rollout_summary
from marsjax.studies.checks import check_numbers
from marsjax.studies.futures import Batch, FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.progress import NOBODY_WATCHES, FuturesProgress, Watching

SIGNS = {"buy": 1, "sell": -1}
EXECUTOR = futures.ACCOUNT + 1
"""Account of the strategy."""


@dataclasses.dataclass(frozen=True)
class StrategySpec:
    """A strategy by name with its keys; each strategy reads its own."""

    strategy: str
    """twap, vwap, participation or immediate."""
    passive_seconds: int = 10
    idle_seconds: int = 5
    max_passive_volume_ratio: float = 0.9
    max_aggressive_volume_ratio: float = 1.0
    interval_seconds: int = 5
    participation_ratio: float = 0.25
    price_change: int = 0
    """Beyond the best price, 1e-4 of the currency."""
    sweep: int = 5000
    """Of `immediate`, the limit beyond the best price."""

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise InputError(f"StrategySpec.strategy: expected one of {', '.join(STRATEGIES)}, got {self.strategy!r}")


@dataclasses.dataclass(frozen=True)
class ExecutionSpec:
    """Which executions are made: every side and size in every market."""

    strategy: StrategySpec
    futures: FuturesSpec
    """Of each start, side and size; `minutes` are those of the execution."""
    seeds: int
    """Starting states."""
    sides: tuple[str, ...] = ("buy",)
    ratios: tuple[float, ...] = (0.1, 0.3, 0.5)
    """Targets over the mean volume of the same minutes without an execution."""
    targets: tuple[int, ...] = (0,)
    """Shares, instead of the ratios; 0 alone: as the ratios say."""
    after_minutes: int = 0
    """That the futures go on after the execution."""
    slots: int = 0
    """Futures that run at a time, on all devices together; 0: 64 on a CPU, as many as there are without an execution
    elsewhere."""
    first: int = 0
    """Number of the first future, the others count on; numbers key the draws."""

    def __post_init__(self) -> None:
        check_numbers(self, seeds=(1, limits.TRAJECTORIES), after_minutes=(0, limits.MINUTES),
                      slots=(0, limits.TRAJECTORIES), first=(0, limits.SEED))
        if not self.sides or len(set(self.sides)) < len(self.sides) or not set(self.sides) <= set(SIGNS):
            raise InputError(f"ExecutionSpec.sides: expected buy, sell or both, got {self.sides!r}")
        for target in self.targets:
            check_target("ExecutionSpec.targets", target)
        if any(self.targets) and not all(self.targets):
            raise InputError(f"ExecutionSpec.targets: expected shares above 0, or 0 alone, got {self.targets}")
        for ratio in self.ratios:
            if not 0 < ratio < 100:
                raise InputError(f"ExecutionSpec.ratios: expected numbers above 0 (and below 100), got {ratio}")
        if not self.ratios or len(set(self.ratios)) < len(self.ratios):
            raise InputError(f"ExecutionSpec.ratios: expected different numbers, got {self.ratios}")

    @property
    def count(self) -> int:
        """Futures of each side and size."""
        return self.seeds * self.futures.trajectories

    @property
    def minutes(self) -> int:
        """Of a future: those of the execution, and those after it."""
        return self.futures.minutes + self.after_minutes


@dataclasses.dataclass(frozen=True, eq=False)
class Jobs:
    """Rollouts to be made, NumPy arrays [B]."""

    seed: np.ndarray
    """Of the starting state."""
    number: np.ndarray
    """That the draws are keyed by."""
    sign: np.ndarray
    """1 buys, -1 sells."""
    ratio: np.ndarray
    """Target over the mean volume without it."""
    target: np.ndarray
    """Shares; 0 never trades."""

    def where(self, chosen: np.ndarray) -> "Jobs":
        """Those of the rows chosen."""
        return Jobs(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


OnJobs = Callable[[Jobs], None]


class Executed(NamedTuple):
    """Rollouts of jobs, in their order."""

    runs: Runs
    rollouts: list[Rollout]
    """All of them, in no order."""
    starts: list[Start]
    """Of each of `rollouts`, [B, ...]."""


class Study(NamedTuple):
    """The markets without an execution, twice (with the draws of the executions, and with others), and with them."""

    without: Executed
    executed: Executed
    volumes: np.ndarray
    """int [N, M], by minute of the execution, in the markets without one that are not lost."""

    @property
    def mean_volume(self) -> float | None:
        """Shares in the minutes of the execution, without it; None if all markets are lost."""
        return float(self.volumes.sum(axis=1).mean()) if len(self.volumes) else None

    @property
    def rollouts(self) -> list[Rollout]:
        """All of them."""
        return self.without.rollouts + self.executed.rollouts

    @property
    def starts(self) -> list[Start]:
        """Of each of `rollouts`."""
        return self.without.starts + self.executed.starts


def _twap(spec: StrategySpec, start_ns: int, minutes: int) -> Agent:
    return Twap(0, start_ns, minutes * 60, account=EXECUTOR, passive_seconds=spec.passive_seconds,
                idle_seconds=spec.idle_seconds, aggressive_price_change=spec.price_change,
                max_passive_volume_ratio=spec.max_passive_volume_ratio,
                max_aggressive_volume_ratio=spec.max_aggressive_volume_ratio)


def _vwap(spec: StrategySpec, start_ns: int, minutes: int) -> Agent:
    return Vwap(0, start_ns, (1,) * minutes, account=EXECUTOR, price_change=spec.price_change,
                interval_seconds=spec.interval_seconds)


def _participation(spec: StrategySpec, start_ns: int, minutes: int) -> Agent:
    return Participation(0, start_ns, minutes * 60, spec.participation_ratio, account=EXECUTOR,
                         interval_seconds=spec.interval_seconds, price_change=spec.price_change)


def _immediate(spec: StrategySpec, start_ns: int, minutes: int) -> Agent:
    return Immediate(0, start_ns, minutes * 60, account=EXECUTOR, price_change=spec.sweep)


STRATEGIES: dict[str, Callable[[StrategySpec, int, int], Agent]] = {
    "twap": _twap, "vwap": _vwap, "participation": _participation, "immediate": _immediate}


def metered_strategy(spec: ExecutionSpec, start_ns: int) -> Metered:
    """The strategy, with a meter that counts by minute; the jobs give its targets. InputError names its field.

    Examples:
      >>> spec = ExecutionSpec(StrategySpec("twap"), FuturesSpec(trajectories=16, minutes=5), seeds=1)
      >>> metered_strategy(spec, start_ns=36_000 * 10**9).agent.name, spec.count
      ('twap', 16)
    """
    agent = STRATEGIES[spec.strategy.strategy](spec.strategy, start_ns, spec.futures.minutes)
    return Metered(agent, start_ns, spec.minutes)


def jobs_without(spec: ExecutionSpec) -> Jobs:
    """The markets without an execution, twice: with the draws that executions have, and with others."""
    number = np.arange(2 * spec.count)
    none = np.zeros(2 * spec.count, np.int64)
    return Jobs(number % spec.count // spec.futures.trajectories, spec.first + number, none + 1, none.astype(float),
                none)


def jobs_of(spec: ExecutionSpec, mean_volume: float) -> Jobs:
    """Every side and size in every market; InputError where a target comes to less than a lot."""
    if any(spec.targets):
        sizes = [(target / max(mean_volume, 1.0), int(target)) for target in spec.targets]
    else:
        sizes = [(ratio, int(mean_volume * ratio) // LOT * LOT) for ratio in spec.ratios]
    groups = [(SIGNS[side], ratio, target) for side, (ratio, target) in itertools.product(spec.sides, sizes)]
    if not all(target for _, _, target in groups):
        raise InputError(f"ratios: expected targets of at least {LOT} shares, got ratios {spec.ratios} of a "
                         f"mean volume of {mean_volume:g}")
    sign, ratio, target = (np.repeat(np.array(column), spec.count) for column in zip(*groups, strict=True))
    number = np.tile(np.arange(spec.count), len(groups))
    return Jobs(number // spec.futures.trajectories, spec.first + number, sign, ratio.astype(float), target)


def study(prepared: PreparedModel, market: MarketSpec, spec: ExecutionSpec, starts: Sequence[Start], start_ns: int,
          watch: Watching = NOBODY_WATCHES, on_jobs: OnJobs | None = None) -> Study:
    """Runs all markets without an execution, then those with one, whose sizes and profile come from the first.

    Args:
      prepared: the order model.
      market: with an account for the strategy, EXECUTOR.
      spec: which executions.
      starts: one for each of `spec.seeds`.
      start_ns: their time, nanoseconds since midnight.
      watch: who is told of the rollouts while they are made, each of them a start of its own.
      on_jobs: called with the jobs of the rollouts that begin next.
    """
    capacity = futures.first_capacity(spec.futures, starts)
    engine = _Engine(prepared, market, spec, metered_strategy(spec, start_ns),
                     [resize(one, capacity) for one in starts], watch, on_jobs)
    jobs = jobs_without(spec)
    groups = len(spec.sides) * len(spec.targets if any(spec.targets) else spec.ratios)
    with FuturesProgress(len(jobs.number) + groups * spec.count, spec.minutes) as progress:
        without = engine.execute(jobs, None, progress)
        volumes = without.runs.volume[~without.runs.lost, : spec.futures.minutes]
        mean_volume = float(volumes.sum(axis=1).mean()) if len(volumes) else 0.0
        profile = volumes.mean(axis=0) if len(volumes) else None
        executed = engine.execute(jobs_of(spec, mean_volume), profile, progress, len(jobs.number))
    return Study(without, executed, volumes)


@dataclasses.dataclass(frozen=True, eq=False)
class _Engine:
    """Makes rollouts of jobs."""

    prepared: PreparedModel
    market: MarketSpec
    spec: ExecutionSpec
    metered: Metered
    starts: Sequence[Start]
    """In books of one size."""
    watch: Watching
    on_jobs: OnJobs | None

    def execute(self, jobs: Jobs, profile: np.ndarray | None, progress: FuturesProgress, done: int = 0) -> Executed:
        """Rollouts of jobs, some at a time; those where a side was full are run again, in larger books.

        `profile` is the market's volume by minute, which a VWAP goes by; `done` rollouts of those that `progress`
        counts were made before.
        """
        capacity = self.starts[0].market.book.price.shape[-1]
        every: Start = jax.tree.map(lambda *x: np.stack([np.asarray(y) for y in x])[jobs.seed], *self.starts)
        progress.begin(done, len(jobs.number))
        if self.on_jobs:
            self.on_jobs(jobs)
        self.watch.begin(done, len(jobs.number))
        # As many as there are without an execution, so that these and the others share one compiled call.
        slots = self.spec.slots or futures.slots_of(self.prepared, self.spec.futures) or 2 * self.spec.count
        batch = Batch(every, len(jobs.number), numbers=jobs.number, slots=slots, agents=(self.metered,),
                      agent_starts=(self._agent_starts(jobs, profile),))
        run = futures.simulate_batch(self.prepared, dataclasses.replace(self.market, capacity=capacity),
                                dataclasses.replace(self.spec.futures, minutes=self.spec.minutes), batch,
                                     Hooks(self.watch.with_bar(progress), on_memory=self.watch.on_memory))
        runs, more = runs_of(jobs, run.so_far()), futures.next_capacity(self.spec.futures, capacity, run)
        if not more:
            return Executed(runs, [run], [every])
        full = run.status[:, Status.SIDE_FULL] > 0
        larger = dataclasses.replace(self, starts=[resize(one, more) for one in self.starts])
        again = larger.execute(jobs.where(full), profile, progress, done)
        return Executed(runs.replaced(full, again.runs), [run.part(~full), *again.rollouts],
                        [jax.tree.map(lambda x: x[~full], every), *again.starts])

    def _agent_starts(self, jobs: Jobs, profile: np.ndarray | None) -> tuple[Any, Any]:
        """States and first wake-ups [B]."""
        agent: Any = self.metered.agent
        if isinstance(agent, Vwap) and profile is not None:
            agent = dataclasses.replace(agent, profile=tuple(max(round(v), 1) for v in profile.tolist()))
        return self.metered.starts(*agent.starts(jobs.target, jobs.sign > 0))


def runs_of(jobs: Jobs, found: SoFar) -> Runs:
    """Rollouts of jobs as far as they have come; a minute that has not passed holds what there is of it."""
    meter = found.agent_states[0]
    return Runs(
        jobs.number, jobs.seed, jobs.sign, jobs.ratio, jobs.target,
        mids=forecast.mids_of_bars(found.bars, found.mid_twice_start), volume=int64.to_numpy(found.bars.volume),
        shares=np.asarray(meter.shares).astype(np.int64), cash=int64.to_numpy(meter.cash),
        lost=rollout_summary.are_lost(found.end))


def agent_counts(runs: Sequence[Rollout]) -> dict[str, int]:
    """What is counted of the strategy (`Rollout.agents`), in all rollouts together."""
    found = [count for run in runs for count in run.agents.values()]
    return {name: sum(one[name] for one in found) for name in found[0]}
