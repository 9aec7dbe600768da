"""Controlled futures of a start beside those of the same numbers that are left alone, and how well they fit."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from marsjax.agents.base import Agent
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import Time
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.observers.features import Features
from marsjax.sim.control import ControlModels, CurveGuide, guides
from marsjax.sim.control.guides import Guide
from marsjax.sim.control.lineages import ControlledRollout
from marsjax.sim.control.run import controlled
from marsjax.sim.control.spec import ControlSpec
from marsjax.sim.initial import Start, resize
from marsjax.sim.rollout import NO_HOOKS, Hooks
from marsjax.sim.specs import RolloutSpec
from marsjax.studies import futures, rollout_summary
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.progress import NOBODY_WATCHES, FuturesProgress, Watching

NEAR_BP = 5.0
"""Futures that end so far from what is wanted count as near."""
_LOW, _HIGH = 5, 95
"""Percentiles of tables."""

GuideOf = Callable[[Features], Guide]
"""What makes a guide of what is usual: features float32 [I, B] of futures that are left alone and are not lost."""


class ControlledMarket(NamedTuple):
    """Where controlled futures take place."""

    prepared: PreparedModel
    market: MarketSpec
    start: Start
    """One state for all."""
    agents: tuple[Agent, ...] = ()
    """Who else trades."""
    agent_starts: tuple[tuple[Any, Time], ...] = ()
    """State and first wake-up [B, ...] of each of them, instead of what its `init` gives."""
    models: ControlModels | None = None
    """What leads futures, where `ControlSpec.way` has them led."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """How well futures fit a guide, as means over those that are not lost; NaN where the guide wants no prices."""

    correlation: float
    """Of a future's mids by interval, from the start on, with the curve that is wanted."""
    rmse_bp: float
    """Root mean square of what they are off the curve, basis points."""
    terminal_error_bp: float
    """Mean of how far they end from its last value, basis points."""
    share_near: float
    """Of futures that end within NEAR_BP of it."""
    rmse: dict[str, float]
    """Root mean square of what they are off, by feature, in its own unit."""


class ControlStudy(NamedTuple):
    """Controlled futures, and those of the same numbers that are left alone."""

    guide: Guide
    controlled: ControlledRollout
    free: ControlledRollout


def simulate(at: ControlledMarket, spec: FuturesSpec, control: ControlSpec, guide: Guide, first: int = 0,
             hooks: Hooks = NO_HOOKS) -> ControlledRollout:
    """Controlled futures, `spec.trajectories` of `spec.minutes`, numbered from `first` on.

    All run at once. Where a side of a book gets full, be it of a future that is written over later, all are run again
    in twice the slots, unless the spec says how many there are. Errors are those of `sim.control.controlled`;
    InputError where they do not fit the device.
    """
    capacity = futures.first_capacity(spec, [at.start])
    rolled = RolloutSpec(spec.trajectories, spec.minutes, spec.seed, first, chunk_steps=spec.chunk_steps,
                         nearest_minutes=spec.nearest_minutes, devices=spec.devices)
    while True:
        simulator = at.prepared.simulator(dataclasses.replace(at.market, capacity=capacity), spec.temperature,
                                          at.agents)
        try:
            run = controlled(simulator, resize(at.start, capacity), rolled, control, guide,
                             agent_starts=at.agent_starts, hooks=hooks, models=at.models)
        except MemoryError as error:
            raise InputError(f"trajectories: {error}") from error
        more = futures.larger(spec, capacity, run.full_books)
        if not more:
            return run
        capacity = more


def study(at: ControlledMarket, spec: FuturesSpec, control: ControlSpec, guide: Guide | GuideOf, first: int = 0,
          watch: Watching = NOBODY_WATCHES) -> ControlStudy:
    """Futures that are left alone, and controlled ones of the same numbers.

    Args:
      at: model, market, start and agents.
      spec: how many, how long, of which draws.
      control: how they are controlled.
      guide: what is wanted, or what makes it of the features of the futures that are left alone.
      first: number of the first future.
      watch: who is told; `on_begin` is called twice, before those that are left alone and before the others.

    Examples:
      >>> from marsjax import testing
      >>> from marsjax.studies.order_model import prepare
      >>> model, market = testing.tiny_model(), testing.tiny_market()
      >>> at = ControlledMarket(prepare(model), market, testing.random_start(market, model))
      >>> guide = CurveGuide((-10.0, -20.0), scale_bp=5.0)
      >>> found = study(at, FuturesSpec(trajectories=64, minutes=1), ControlSpec(every_s=30), guide)
      >>> fit(found.controlled, guide).rmse_bp < fit(found.free, guide).rmse_bp
      True
    """
    nothing = CurveGuide((float("nan"),) * control.intervals(spec.minutes))
    runs = []
    with FuturesProgress(2, spec.minutes) as progress:
        hooks = Hooks(watch.with_bar(progress), on_memory=watch.on_memory)
        for number in range(2):
            progress.begin(number, 1)
            watch.begin(number, 1)
            if number == 0:
                runs.append(simulate(at, spec, dataclasses.replace(control, strength=0.0), nothing, first, hooks))
                continue
            made = guide_of(guide, runs[0])
            runs.append(simulate(at, spec, control, made, first, hooks))
    return ControlStudy(made, runs[1], runs[0])


def guide_of(guide: Guide | GuideOf, free: ControlledRollout) -> Guide:
    """A guide, made of what futures do that are left alone where it is not one yet; InputError where it is neither."""
    if hasattr(guide, "score"):
        return guide
    if not callable(guide):
        raise InputError(f"guide: expected a guide, or what makes one of features, got {guide!r}")
    return guide(free.kept_features)


def fit(run: ControlledRollout, guide: Guide) -> Fit:
    """How well futures fit a guide whose wishes are known (`sim.control.guides.wanted`)."""
    wanted, kept = guides.wanted(guide), ~rollout_summary.is_lost(run.rollout)
    rmse = {name: _root_mean_square((np.asarray(getattr(run.features, name))[:, kept] - values[:, None])
                                    [np.isfinite(values)]) for name, values in wanted.items()}
    curve = wanted.get("return_bp", np.full(len(run.ess), np.nan))
    is_wanted = np.isfinite(curve)
    found = np.asarray(run.features.return_bp, np.float64)[:, kept][is_wanted]
    if not found.size:
        return Fit(np.nan, np.nan, np.nan, np.nan, rmse)
    curve = curve[is_wanted]
    off = np.abs(found[-1] - curve[-1])
    return Fit(_correlation(np.vstack([np.zeros(found.shape[1]), found]), np.concatenate([[0.0], curve])),
               rmse["return_bp"], float(off.mean()), float((off <= NEAR_BP).mean()), rmse)


class Followed(NamedTuple):
    """How much of what led futures were told they did, over the intervals of those that are not lost."""

    correlation: float
    """Of the moves of the mid that were told with those that came; NaN where either never differs."""
    slope: float
    """Basis points of the mid's move that came with each one more that was told, by least squares."""
    told_bp: float
    """Mean of the moves that were told."""
    came_bp: float
    """Mean of those that came."""


def followed(run: ControlledRollout) -> Followed | None:
    """How much of what futures were told they did; None where nothing was told."""
    if run.led is None:
        return None
    kept = ~rollout_summary.is_lost(run.rollout)
    told, came = (np.asarray(x.move_bp, np.float64)[:, kept] for x in (run.led.predicted, run.features))
    is_there = np.isfinite(told)
    told, came = told[is_there], came[is_there]
    if not told.size:
        return Followed(np.nan, np.nan, np.nan, np.nan)
    both, own, others = ((a - a.mean()) @ (b - b.mean()) for a, b in ((told, came), (told, told), (came, came)))
    return Followed(float(both / np.sqrt(own * others)) if own * others > 0 else np.nan,
                    float(both / own) if own > 0 else np.nan, float(told.mean()), float(came.mean()))


def feature_table(found: ControlStudy, start_ns: int) -> pd.DataFrame:
    """A row each interval and feature.

    Columns: interval, time_ns, clock (its end), feature, wanted (NaN: anything), told (the mean of what led futures
    were told, NaN where they were not led), and of the controlled futures and of those left alone (free_...) mean, low
    and high (percentiles 5 and 95).
    """
    wanted = guides.wanted(found.guide)
    parts = []
    for name in Features._fields:
        intervals = len(found.controlled.ess)
        columns = {"interval": np.arange(intervals), "feature": np.full(intervals, name),
                   "wanted": wanted.get(name, np.full(intervals, np.nan)), "told": _told(found.controlled, name)}
        for prefix, run in (("", found.controlled), ("free_", found.free)):
            values = np.asarray(getattr(run.features, name))[:, ~rollout_summary.is_lost(run.rollout)]
            empty = not values.size
            columns[f"{prefix}mean"] = np.full(intervals, np.nan) if empty else values.mean(axis=1)
            for end, share in (("low", _LOW), ("high", _HIGH)):
                columns[prefix + end] = (np.full(intervals, np.nan) if empty
                                         else np.percentile(values, share, axis=1))
        parts.append(pd.DataFrame(columns))
    return _timed(pd.concat(parts, ignore_index=True), found.controlled, start_ns).sort_values(
        "interval", kind="stable", ignore_index=True)


def island_table(run: ControlledRollout, start_ns: int) -> pd.DataFrame:
    """A row each interval and island: interval, time_ns, clock, island, ess, distinct, resampled."""
    intervals, islands = run.ess.shape
    table = pd.DataFrame({
        "interval": np.repeat(np.arange(intervals), islands), "island": np.tile(np.arange(islands), intervals),
        "ess": run.ess.ravel(), "distinct": run.distinct.ravel(), "resampled": run.resampled.ravel()})
    return _timed(table, run, start_ns)


def _timed(table: pd.DataFrame, run: ControlledRollout, start_ns: int) -> pd.DataFrame:
    """With the ends of intervals, the last of which is that of the futures."""
    last_ns = int(times.to_ns(run.rollout.state.until)[0])
    ends = np.minimum(start_ns + (table["interval"].to_numpy() + 1) * run.every_s * SECOND_NS, last_ns)
    table.insert(1, "time_ns", ends)
    table.insert(2, "clock", times.clock(ends))
    return table


def _told(run: ControlledRollout, name: str) -> np.ndarray:
    """Means over futures of a feature as it was told, float64 [I]; NaN where nothing was."""
    found = np.full(len(run.ess), np.nan)
    if run.led is not None:
        values = np.asarray(getattr(run.led.predicted, name), np.float64)[:, ~rollout_summary.is_lost(run.rollout)]
        is_there = np.isfinite(values).any(axis=1)
        found[is_there] = np.nanmean(values[is_there], axis=1)
    return found


def _root_mean_square(off: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(off, dtype=np.float64)))) if off.size else float("nan")


def _correlation(found: np.ndarray, curve: np.ndarray) -> float:
    """Mean of those of the columns [I, B] with a curve [I], of columns that move; NaN where nothing does."""
    found, curve = found - found.mean(axis=0), curve - curve.mean()
    size = np.sqrt((found**2).sum(axis=0) * (curve**2).sum())
    each = (found * curve[:, None]).sum(axis=0)[size > 0] / size[size > 0]
    return float(each.mean()) if each.size else float("nan")
