"""Rollouts of several starts for an experiment: sizes, progress, and whether all of them are whole."""

import dataclasses
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from marsjax import clock, exchange, rollout
from marsjax.analysis import forecast
from marsjax.experiments.markets import OWNER, Simulator
from marsjax.outcome import Rollout
from marsjax.rollout import Saving
from marsjax.simulate import End, SimulationSpec
from marsjax.specs import MarketSpec
from marsjax.start import Start, resize
from marsjax.types import Status
from marsjax.watchers.trace import Log

NOT_WHOLE = 3
"""Exit code of an experiment that was written but lost trajectories or orders on the way."""
LOST = (End.NO_MID, End.NOT_FINITE)
"""Ends of trajectories that did not get to the end of their time."""
_ROOM = 600
"""Free slots a side that a book gets at least for a rollout: with 384, one of 128 futures of the default forecast and
three of 800 of the default study of market impact were run again, and larger books cost less than compiling twice."""
_MOST = 32768
_STEP = 128
"""Sizes of books are multiples of it: few sizes, few compilations."""


class Progress:
    """A bar of simulated seconds a trajectory, with the speed and how many have ended."""

    def __init__(self, starts: int, minutes: int) -> None:
        self._seconds, self._done, self._bar = minutes * 60, 0, tqdm(
            total=starts * minutes * 60, unit="s", desc="simulated", disable=None)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self._bar.close()

    def begin(self, first: int, count: int) -> None:
        """`count` starts come now, from number `first` on; those before are done."""
        self._done, self._count = first * self._seconds, count
        self._bar.update(self._done - self._bar.n)

    def __call__(self, progress: rollout.Progress) -> None:
        """After a chunk."""
        self._bar.set_postfix_str(f"{progress.orders / max(progress.seconds, 1e-9):.0f} orders/s, "
                                  f"{progress.ended} ended")
        passed_s = int(progress.passed * self._seconds * self._count)
        self._bar.update(max(self._done + passed_s - self._bar.n, 0))


OnTrace = Callable[[np.ndarray, Log], None]
"""Called after each chunk with the trajectories of its rows, int [R] (-1 for none, of which there are no events), and
its events."""


def simulate(simulator: Simulator, market: MarketSpec, config: ConfigDict, starts: Sequence[Start], first: int = 0,
             on_trace: OnTrace | None = None, saving: Saving | None = None) -> list[Rollout]:
    """Rollouts of each start, `config.trajectories` of `config.minutes`.

    Trajectory b of start i draws as number (first + i) x trajectories + b. As many starts as `config.most_at_once`
    trajectories make are run at once. Books get the capacity of `config.rollout_capacity`, or if that is 0 what rests
    at the fullest start and some more; where a side gets full nevertheless, those starts are run again in twice the
    slots, which is the same run but for the orders refused (not where `on_trace` has seen them). With `saving` all
    starts must be one batch. ValueError where they do not fit the device.
    """
    capacity = first_capacity(config, starts)
    at_once = max(config.most_at_once // config.trajectories, 1)
    if saving and at_once < len(starts):
        raise ValueError(f"config.save_folder: expected one batch, at most {config.most_at_once} trajectories "
                         f"(config.most_at_once), got {len(starts) * config.trajectories}")
    done: list[Rollout] = []
    with Progress(len(starts), config.minutes) as progress:
        while len(done) < len(starts):
            batch = [resize(one, capacity) for one in starts[len(done) : len(done) + at_once]]
            progress.begin(len(done), len(batch))
            sized = dataclasses.replace(market, capacity=capacity)
            run = _batch(simulator, sized, config, batch, first + len(done), progress, on_trace, saving)
            more = None if on_trace or saving else next_capacity(config, capacity, run)
            if more:
                capacity = more
                continue
            count = config.trajectories
            done += [run.part(slice(i * count, (i + 1) * count)) for i in range(len(batch))]
    return done


def first_capacity(config: ConfigDict, starts: Sequence[Start]) -> int:
    """Slots a side of the books of rollouts: what the config says, or 0, what rests at the fullest start and more."""
    fullest = max(int((np.asarray(one.market.book.volume) > 0).sum(axis=1).max()) for one in starts)
    return int(config.rollout_capacity) or min(-(-(fullest + _ROOM) // _STEP) * _STEP, _MOST)


def next_capacity(config: ConfigDict, capacity: int, run: Rollout) -> int | None:
    """Slots to repeat a run with in which a side was full; None if none was, or the config says how many there are."""
    if config.rollout_capacity or capacity >= _MOST or not run.rejected.get(Status.SIDE_FULL.name):
        return None
    books = int((run.status[:, Status.SIDE_FULL] > 0).sum())
    print(f"a side of {books} books was full: again with {min(2 * capacity, _MOST)} slots a side", flush=True)
    return min(2 * capacity, _MOST)


def _batch(simulator: Simulator, market: MarketSpec, config: ConfigDict, starts: Sequence[Start], number: int,
           progress: Progress, on_trace: OnTrace | None, saving: Saving | None) -> Rollout:
    begin = number * config.trajectories
    spec = SimulationSpec(market, simulator.model.spec, simulator.cache, owner=OWNER, owns_below=OWNER + 1,
                          temperature=config.temperature)
    every = jax.tree.map(lambda *x: np.repeat(np.stack([np.asarray(y) for y in x]), config.trajectories, axis=0),
                         *starts)

    def traced(who: np.ndarray, log: Log) -> None:
        if on_trace:
            on_trace(np.where(who >= 0, begin + who, -1), log)

    try:
        return rollout.rollout(
            simulator.model.params, spec, simulator.table, simulator.draws, every,
            trajectories=len(starts) * config.trajectories, minutes=config.minutes, seed=config.seed,
            first=begin, slots=None if saving else simulator.slots, chunk_steps=config.chunk_steps,
            nearest_minutes=config.get("nearest_minutes", False), on_chunk=progress,
            on_trace=traced if on_trace else None, saving=saving)
    except MemoryError as error:
        raise ValueError(f"config.most_at_once, config.trajectories: {error}") from error


def is_lost(run: Rollout) -> np.ndarray:
    """bool [B], the trajectory broke off before its time was over."""
    return np.isin(np.asarray(run.simulation.end), [int(end) for end in LOST])


def labels(run: Rollout) -> np.ndarray:
    """Labels of the trajectories, float64 [B]; NaN where no order came or the trajectory is lost."""
    found = forecast.labels_of_bars(run.bars, run.mid_twice_start)
    return np.where(is_lost(run), np.nan, found)


def tally(runs: Sequence[Rollout], starts: Sequence[Start]) -> dict[str, Any]:
    """What happened in all rollouts together: orders, rejections, ends, overflows, conservation, speed."""
    def added(name: str) -> dict[str, int]:
        total: dict[str, int] = {}
        for run in runs:
            for key, count in getattr(run, name).items():
                total[key] = total.get(key, 0) + count
        return total

    run_s, orders = sum(run.run_s for run in runs), sum(run.orders for run in runs)

    def shares(name: str) -> int:
        return sum(int((clock.wide_to_numpy(getattr(run.simulation.market.counters, name))
                        - clock.wide_to_numpy(getattr(one.market.counters, name))).sum())
                   for run, one in zip(runs, starts, strict=True))

    return {
        "trajectories": sum(len(run.mid_twice_start) for run in runs), "orders": orders,
        "rejected": added("rejected"), "ended": added("ended"), "lost": sum(int(is_lost(run).sum()) for run in runs),
        "shares_traded": shares("traded"), "shares_cancelled": shares("cancelled"), "exceeded": added("counters"),
        "most_resting": max(int(np.max(run.simulation.market.counters.most_resting)) for run in runs),
        "capacity": max(run.simulation.market.book.price.shape[-1] for run in runs),
        "conserved": all(_is_conserved(run) for run in runs),
        "steps": max(run.steps for run in runs), "compile_s": round(sum(run.compile_s for run in runs), 3),
        "run_s": round(run_s, 3), "orders_per_s": round(orders / max(run_s, 1e-9))}


_conservation = jax.jit(jax.vmap(exchange.conservation))


def _is_conserved(run: Rollout) -> bool:
    return not any(np.any(np.asarray(x)) for x in jax.tree.leaves(_conservation(run.simulation.market)))


def complaints(told: dict[str, Any]) -> list[str]:
    """Why a tally is not that of whole rollouts."""
    found = []
    lost = {name: told["ended"][name] for name in (end.name for end in LOST) if name in told["ended"]}
    if lost:
        found.append(f"{told['lost']} of {told['trajectories']} trajectories lost, not part of any number: {lost}")
    full = told["rejected"].get(Status.SIDE_FULL.name, 0)
    if full:
        found.append(f"{full} orders refused, a side was full: set config.rollout_capacity above {told['capacity']}")
    dropped = told["exceeded"].get("trace_dropped", 0)
    if dropped:
        found.append(f"{dropped} events found no room in the trace")
    if not told["conserved"]:
        found.append("shares or cash were not conserved")
    return found
