"""A config -> executions in many simulated markets: strategies, starting states, batches of one compiled call."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from marsjax import clock, rollout, start
from marsjax.agents.base import Agent
from marsjax.agents.immediate import Immediate
from marsjax.agents.metered import Metered
from marsjax.agents.noise import NoiseSpec
from marsjax.agents.participation import Participation
from marsjax.agents.twap import Twap, check_target
from marsjax.agents.vwap import Vwap
from marsjax.analysis import forecast
from marsjax.analysis.impact import Runs
from marsjax.experiments import futures, markets, sources
from marsjax.experiments.markets import OWNER, Simulator
from marsjax.outcome import Rollout
from marsjax.simulate import SimulationSpec
from marsjax.specs import SECOND_NS, MarketSpec
from marsjax.start import Start
from marsjax.types import Status

STRATEGIES = ("twap", "vwap", "participation", "immediate")
_EXECUTOR = OWNER + 1
"""Account of the strategy."""


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


class Made(NamedTuple):
    """Rollouts of jobs, in their order."""

    runs: Runs
    rollouts: list[Rollout]
    """All of them, in no order."""
    begun: list[Start]
    """Of each of `rollouts`, [B, ...]."""


def market_spec(config: ConfigDict) -> MarketSpec:
    """The market of a config, with an account for the strategy."""
    if config.session != "continuous":
        raise ValueError(f"config.session: expected continuous, got {config.session!r}")
    return dataclasses.replace(markets.market_spec(config), owners=_EXECUTOR + 1)


def check(config: ConfigDict, market: MarketSpec) -> int:
    """The time of the starts, ns since midnight; ValueError with the key that is wrong, before anything is run."""
    markets.check_rollouts(config)
    for key, least in (("seeds", 1), ("after_minutes", 0), ("bootstrap", 1), ("slots", 0)):
        markets.whole(config, key, least)
    if config.strategy not in STRATEGIES:
        raise ValueError(f"config.strategy: expected one of {', '.join(STRATEGIES)}, got {config.strategy!r}")
    if not config.sides or len(set(config.sides)) < len(config.sides) or not set(config.sides) <= {"buy", "sell"}:
        raise ValueError(f"config.sides: expected buy, sell or both, got {config.sides!r}")
    for target in config.targets:
        check_target("config.targets", target)
    if any(config.targets) and not all(config.targets):
        raise ValueError(f"config.targets: expected shares above 0, or 0 alone, got {config.targets}")
    for ratio in config.ratios:
        if not 0 < ratio < 100:
            raise ValueError(f"config.ratios: expected numbers above 0 (and below 100), got {ratio}")
    if not config.ratios or len(set(config.ratios)) < len(config.ratios):
        raise ValueError(f"config.ratios: expected different numbers, got {config.ratios}")
    warmup = markets.warmup(config)
    start_ns = warmup.start_ns + warmup.duration_ns
    strategy(config, start_ns)
    markets.check_time(market, start_ns, config.minutes + config.after_minutes)
    return start_ns


def strategy(config: ConfigDict, start_ns: int) -> Metered:
    """The strategy that a config names, with a meter; its targets are given by `agent_starts`."""
    seconds = config.minutes * 60
    agent: Agent
    try:
        if config.strategy == "twap":
            agent = Twap(0, start_ns, seconds, owner=_EXECUTOR, passive_seconds=config.passive_seconds,
                         idle_seconds=config.idle_seconds, aggressive_price_change=config.price_change,
                         max_passive_volume_ratio=config.max_passive_volume_ratio,
                         max_aggressive_volume_ratio=config.max_aggressive_volume_ratio)
        elif config.strategy == "vwap":
            agent = Vwap(0, start_ns, (1,) * config.minutes, owner=_EXECUTOR, price_change=config.price_change,
                         interval_seconds=config.interval_seconds)
        elif config.strategy == "participation":
            agent = Participation(0, start_ns, seconds, config.participation_ratio, owner=_EXECUTOR,
                                  interval_seconds=config.interval_seconds, price_change=config.price_change)
        else:
            agent = Immediate(0, start_ns, seconds, owner=_EXECUTOR, price_change=config.sweep)
    except ValueError as error:
        raise ValueError(f"config, keys of {config.strategy} and config.minutes = {config.minutes}: {error}") from error
    return Metered(agent, start_ns, config.minutes + config.after_minutes)


def strategy_starts(config: ConfigDict, metered: Metered, jobs: Jobs, profile: np.ndarray | None) -> tuple[Any, Any]:
    """States and first wake-ups [B]; `profile` is the market's volume by minute, which a VWAP goes by."""
    agent: Any = metered.agent
    if config.strategy == "vwap" and profile is not None:
        agent = dataclasses.replace(agent, profile=tuple(max(round(v), 1) for v in profile.tolist()))
    return metered.starts(*agent.starts(jobs.target, jobs.sign > 0))


def noise_starts(config: ConfigDict, market: MarketSpec, simulator: Simulator, start_ns: int) -> list[Start]:
    """A starting state for each of `config.seeds`, in books of one size."""
    agent = NoiseSpec(init_price=config.init_price, interval_ns=round(config.interval_s * SECOND_NS))
    _, sent = start.noise(market, agent, markets.warmup(config), config.noise_seed, config.seeds)
    found = [start.from_feed(market, simulator.table, iter([sources.as_chunk(orders)]), start_ns,
                             simulator.model.spec.max_orders) for orders in sent]
    capacity = futures.first_capacity(config, found)
    return [start.resize(one, capacity) for one in found]


def simulate(config: ConfigDict, market: MarketSpec, simulator: Simulator, metered: Metered, starts: Sequence[Start],
             jobs: Jobs, profile: np.ndarray | None, progress: futures.Progress, done: int = 0) -> Made:
    """Rollouts of the jobs, some of them at a time; those where a side was full again, in larger books.

    `done` rollouts of those that `progress` counts were made before.
    """
    capacity = starts[0].market.book.price.shape[-1]
    run, begun = _rollout(config, dataclasses.replace(market, capacity=capacity), simulator, metered, starts, jobs,
                          profile, progress, done)
    runs = _runs(jobs, run)
    more = futures.next_capacity(config, capacity, run)
    if not more:
        return Made(runs, [run], [begun])
    full = run.status[:, Status.SIDE_FULL] > 0
    again = simulate(config, market, simulator, metered, [start.resize(one, more) for one in starts],
                     jobs.where(full), profile, progress, done)
    return Made(runs.replaced(full, again.runs), [run.part(~full), *again.rollouts],
                [jax.tree.map(lambda x: x[~full], begun), *again.begun])


def _rollout(config: ConfigDict, market: MarketSpec, simulator: Simulator, metered: Metered, starts: Sequence[Start],
             jobs: Jobs, profile: np.ndarray | None, progress: futures.Progress, done: int) -> tuple[Rollout, Start]:
    count = len(jobs.number)
    # As many as there are without an execution, so that these and the others share one compiled call.
    slots = config.slots or simulator.slots or 2 * config.seeds * config.trajectories
    spec = SimulationSpec(market, simulator.model.spec, simulator.cache, owner=OWNER, owns_below=OWNER + 1,
                          temperature=config.temperature, agents=(metered,))
    every = jax.tree.map(lambda *x: np.stack([np.asarray(y) for y in x])[jobs.seed], *starts)
    progress.begin(done, count)
    try:
        run = rollout.rollout(
            simulator.model.params, spec, simulator.table, simulator.draws, every, trajectories=count,
            minutes=metered.minutes, seed=config.seed, numbers=jobs.number, slots=slots,
            chunk_steps=config.chunk_steps, agent_starts=[strategy_starts(config, metered, jobs, profile)],
            on_chunk=progress)
    except MemoryError as error:
        raise ValueError(f"config.slots: {error}") from error
    return run, every


def _runs(jobs: Jobs, made: Rollout) -> Runs:
    seat = made.simulation.seats[0].state
    return Runs(
        jobs.number, jobs.seed, jobs.sign, jobs.ratio, jobs.target,
        mids=forecast.mids_of_bars(made.bars, made.mid_twice_start), volume=clock.wide_to_numpy(made.bars.volume),
        shares=np.asarray(seat.shares).astype(np.int64), cash=clock.wide_to_numpy(seat.cash),
        lost=futures.is_lost(made))
