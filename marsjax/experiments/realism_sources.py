"""A config -> orders that are compared: those of real days, those of rollouts from times of them, and noise."""

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from marsjax import start
from marsjax.agents.noise import NoiseSpec
from marsjax.analysis import order_events, quantities
from marsjax.analysis.order_events import Arrivals
from marsjax.analysis.quantities import MINUTE_NS, OF_STRETCHES, OrderEvents
from marsjax.analysis.realism_table import Compared, Fixed, Values, fix, values
from marsjax.experiments import forecast_evaluation, futures, markets, sources
from marsjax.outcome import Rollout
from marsjax.specs import SECOND_NS, MarketSpec, Period, Phase, Session
from marsjax.start import Start, from_feed_at
from marsjax.types import Status
from marsjax.watchers import trace_rows
from marsjax.watchers.trace import Log
from marsjax.watchers.trace_rows import Table

TRAINED = "trained"
"""Symbol that stands for the days that the checkpoint names."""
_MINUTE_S = 60
_PHASE_NS = 30 * SECOND_NS
"""Between two real stretches that the ceiling is drawn from."""


class Day(NamedTuple):
    """One market of one day and the starts in it."""

    name: str
    events: OrderEvents
    known: Arrivals
    starts: list[Start]
    fixed: Fixed
    earlier_ns: np.ndarray
    """int64 [K], starts of stretches as long as a rollout that end before the first start."""


def start_times(config: ConfigDict, market: MarketSpec) -> list[int]:
    """Times from `first_time` to `last_time` whose minutes end in their period; ValueError unless there are two."""
    first_ns = sources.time_ns(config, "first_time")
    markets.check_time(market, first_ns, config.minutes)
    end_ns = next(period.end_ns for period in market.session.periods
                  if period.phase == Phase.CONTINUOUS and period.start_ns <= first_ns <= period.end_ns)
    last_ns = end_ns - config.minutes * MINUTE_NS
    if config.last_time:
        last_ns = min(last_ns, sources.time_ns(config, "last_time"))
    found = list(range(first_ns, last_ns + 1, config.every_minutes * MINUTE_NS))
    if len(found) < 2:
        raise ValueError(f"config.first_time, last_time, every_minutes, minutes: expected at least 2 starts whose "
                         f"minutes end by {markets.spell(end_ns)}, got {len(found)}")
    if not len(_before(config, market, first_ns)[config.minutes]):
        raise ValueError(f"config.first_time: expected {config.minutes} minutes of trading before it, which fix the "
                         f"bins, got {config.first_time}")
    return found


def _before(config: ConfigDict, market: MarketSpec, first_ns: int) -> dict[int, np.ndarray]:
    """Starts of stretches of each length up to `minutes` that end before the first start, one every minute."""
    return {length: forecast_evaluation.past_times(market.session, 0, first_ns, _MINUTE_S, length)
            for length in range(1, config.minutes + 1)}


def open_days(config: ConfigDict, market: MarketSpec, about: dict[str, Any]) -> list[markets.Opened]:
    """The days that the config names, or by `trained` those that the checkpoint says it is trained on."""
    if config.source != "sse":
        raise ValueError(f"config.source: expected sse, got {config.source!r}")
    if config.symbol != TRAINED:
        return markets.open_feeds(config, market)
    named = sorted(set(re.findall(r"\b[0-9A-Za-z]+_\d{8}\b", str(about.get("source", "")))))
    if not named:
        raise ValueError(f"config.symbol: the checkpoint {config.model} names no days that it is trained on "
                         "(<symbol>_<date>): name the symbols to compare, symbol=A+B or symbol=all")
    chosen = config.copy_and_resolve_references()
    with chosen.unlocked():
        chosen.symbol = "all"
    found = [opened for opened in markets.open_feeds(chosen, market) if opened.name in named]
    missing = sorted(set(named) - {opened.name for opened in found})
    if missing:
        raise FileNotFoundError(f"config.folder {config.folder}: no {', '.join(missing)}, which the checkpoint "
                                f"{config.model} is trained on: name the symbols to compare, symbol=A+B or symbol=all")
    return found


def read(config: ConfigDict, market: MarketSpec, simulator: markets.Simulator, opened: markets.Opened,
         times_ns: Sequence[int]) -> Day:
    """One pass over a day; ValueError, under its name, where it cannot be used."""
    stops = sorted({*times_ns, times_ns[-1] + config.minutes * MINUTE_NS})
    table = jax.tree.map(np.asarray, simulator.table)
    try:
        with _on_host():
            found = list(from_feed_at(market, table, opened.feed, stops, simulator.model.spec.max_orders))
        passed = [part for _, part in found]
        events = order_events.of_passed(passed)
        before = _before(config, market, times_ns[0])
        fixed = fix(events, before, config.minutes)
    except ValueError as error:
        raise ValueError(f"{opened.name}: {error}") from error
    return Day(opened.name, events, order_events.arrivals_of(passed), [one for one, _ in found][: len(times_ns)], fixed,
               before[config.minutes])


def _on_host() -> contextlib.AbstractContextManager[Any]:
    """One book, one order after the other, is work for a CPU: an accelerator takes longer over it."""
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS names the accelerator alone
        return contextlib.nullcontext()


class Sent:
    """Accepted orders of the trajectories of rollouts, kept chunk by chunk."""

    def __init__(self) -> None:
        self._parts: list[Table] = []
        self.unlisted = 0
        """Cancels of decisions that hit more orders than are listed."""

    def __call__(self, numbers: np.ndarray, log: Log) -> None:
        """Keeps a chunk of trajectories `numbers`."""
        rows = trace_rows.orders(log, numbers)
        keep = rows["status"] == Status.ACCEPTED.name
        self._parts.append({name: rows[name][keep] for name in ("trajectory", *order_events.COLUMNS)})
        taken = log.events.cancelled.trades
        logged = np.arange(log.events.is_bulk.shape[1]) < np.asarray(log.count)[:, None]
        more = np.maximum(np.asarray(taken.count) - np.asarray(taken.price).shape[-1], 0).sum(axis=-1)
        self.unlisted += int(more[logged & np.asarray(log.events.is_bulk)].sum())

    def by_trajectory(self, count: int) -> list[Table]:
        """The orders of trajectories 0 to count - 1, each in sequence."""
        whole = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        order = np.argsort(whole["trajectory"], kind="stable")
        ends = np.searchsorted(whole["trajectory"][order], np.arange(count + 1))
        return [{name: column[order[a:b]] for name, column in whole.items()} for a, b in itertools.pairwise(ends)]


def noise_times(config: ConfigDict, market: MarketSpec, starts: int) -> np.ndarray:
    """Starts of the noise agent's stretches and the end of the last, int64 [K + 1], one after the other.

    As many as there are starts, if the longest period of trading has room for them after `noise_minutes`; ValueError if
    it has room for none.
    """
    period = _longest(market)
    first_ns = period.start_ns + markets.whole(config, "noise_minutes", 1) * MINUTE_NS
    room = int((period.end_ns - first_ns) // (config.minutes * MINUTE_NS))
    if room < 1:
        raise ValueError(f"config.noise_minutes: expected {config.minutes} minutes of trading after them, got "
                         f"{config.noise_minutes} from {markets.spell(period.start_ns)} on, which ends at "
                         f"{markets.spell(period.end_ns)}")
    return first_ns + config.minutes * MINUTE_NS * np.arange(min(starts, room) + 1)


def _longest(market: MarketSpec) -> Period:
    return max((period for period in market.session.periods if period.phase == Phase.CONTINUOUS),
               key=lambda period: period.end_ns - period.start_ns)


def noise(config: ConfigDict, market: MarketSpec, simulator: markets.Simulator, times_ns: np.ndarray
          ) -> tuple[OrderEvents, np.ndarray]:
    """Orders of the noise agent alone until the last of `times_ns`, and the starts of its stretches, the others.

    Its session is the one period: it has no call auction that would have to be held first.
    """
    market = dataclasses.replace(market, session=Session((_longest(market),)))
    end_ns = int(times_ns[-1])
    begin_ns = int(times_ns[0]) - config.noise_minutes * MINUTE_NS
    agent = NoiseSpec(init_price=config.init_price, interval_ns=round(config.interval_s * SECOND_NS))
    warmup = start.Warmup(start_ns=begin_ns, duration_ns=end_ns - begin_ns)
    table = jax.tree.map(np.asarray, simulator.table)
    with _on_host():
        _, sent = start.noise(market, agent, warmup, config.noise_seed)
        ((_, passed),) = from_feed_at(market, table, iter([sources.as_chunk(sent[0])]), [end_ns],
                                      simulator.model.spec.max_orders)
    return order_events.of_passed([passed]), times_ns[:-1]


def compared(config: ConfigDict, day: Day, times_ns: Sequence[int], rows: Sequence[Table], runs: Sequence[Rollout],
             floor: tuple[OrderEvents, np.ndarray]) -> Compared:
    """The values of one day's stretches; those of lost trajectories are none.

    The noise agent's orders do not depend on the level of prices: its market is moved to the day's mid.
    """
    count, minutes = config.trajectories, config.minutes
    simulated: list[list[Values]] = []
    rollouts: list[list[dict[str, float]]] = []
    for number, (begin, run) in enumerate(zip(times_ns, runs, strict=True)):
        lost = futures.is_lost(run)
        made = [None if lost[b] else order_events.of_trace(rows[number * count + b], day.known) for b in range(count)]
        simulated.append([values(each, begin, minutes) for each in made if each])
        rollouts.append([_stretch(each, begin, minutes) for each in made])
    events, begins = floor
    level = runs[0].mid_twice_start[0] / 2 - config.init_price
    moved = dataclasses.replace(events, mid_before=events.mid_before + level, mid_after=events.mid_after + level)
    return Compared(
        day.name, day.fixed, [values(day.events, begin, minutes) for begin in times_ns], simulated,
        [values(day.events, begin, minutes) for begin in range(times_ns[0], times_ns[-1] + 1, _PHASE_NS)],
        [values(moved, int(begin), minutes) for begin in begins],
        [values(day.events, int(begin), minutes) for begin in day.earlier_ns],
        [_stretch(day.events, begin, minutes) for begin in times_ns], rollouts, count)


def _stretch(events: OrderEvents | None, begin: int, minutes: int) -> dict[str, float]:
    if events is None:
        return dict.fromkeys(OF_STRETCHES, float("nan"))
    return quantities.of_stretch(events, begin, minutes)
