"""Whole futures as a service: a request in, rows out while they are made, and what they came to."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import pandas as pd

from marsjax.analysis import forecast, forecast_report
from marsjax.core import limits
from marsjax.core.errors import InputError, brief
from marsjax.core.specs import MarketSpec
from marsjax.data import frames
from marsjax.observers.market_tables import Table
from marsjax.sim.initial import resize
from marsjax.sim.result import Rollout
from marsjax.sim.rollout import Hooks, RolloutProgress
from marsjax.studies import forecasts, futures, places, rollout_summary
from marsjax.studies.forecasts import ForecastStart
from marsjax.studies.futures import Batch, FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.service.parts import ReadyRows
from marsjax.studies.service.wanted import Wanted
from marsjax.studies.session_times import check_time

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the labels in a result."""
_CAPACITIES = (1024, 4096, 16384)
"""Orders a side while given orders lead to a start: few sizes, few compilations."""


class Told(NamedTuple):
    """Something to tell whoever asked."""

    kind: str
    """start: what the futures start from. part: how far they are, with rows. again: a side of a book was full, all rows
    so far are void, and the futures begin again in larger books. result: what they came to; nothing comes after it."""
    facts: dict[str, Any]
    rows: Table | None = None


Tell = Callable[[Told], None]
"""Called in the thread that makes the futures; what it raises ends them."""


class WholeFutures:
    """Futures of a model from days that it has written, or from orders of the caller's."""

    def __init__(self, prepared: PreparedModel, model: str, days: tuple[str, ...], chunk_steps: int = 64,
                 most_programs: int = 16) -> None:
        """Reads the `days` (`places.MADE`) that come with the model of this name; errors of `places.made_day`.

        Futures of another number, length, temperature, tick or size of books are another program. After
        `most_programs` of them all that JAX has compiled in this process is dropped (`jax.clear_caches`).
        """
        limits.check_whole("most_programs", most_programs, 1, limits.TRAJECTORIES)
        self._prepared, self._chunk_steps, self._most_programs = prepared, chunk_steps, most_programs
        self._programs: set[tuple[Any, ...]] = set()
        self._days = {name: self._made(model, name) for name in days}

    def run(self, wanted: Wanted, tell: Tell) -> None:
        """Makes the futures that are wanted, and tells of them.

        Trajectory b draws as number b: the rows are those of `studies.futures.simulate` with the same seed. InputError
        where the orders do not lead to a start, or the futures do not fit the device or the session.
        """
        began = time.perf_counter()
        if len(self._programs) >= self._most_programs:
            jax.clear_caches()
            self._programs.clear()
        market, at = self._start(wanted)
        check_time(market.session, at.time_ns, wanted.minutes)
        tell(Told("start", forecasts.describe(market, at) | {
            "feed": at.refused.record(), "units": dataclasses.asdict(market.units)}))
        spec = FuturesSpec(wanted.trajectories, wanted.minutes, wanted.seed, wanted.temperature,
                           chunk_steps=self._chunk_steps, most_at_once=wanted.trajectories)
        capacity: int | None = futures.first_capacity(spec, [at.start])
        while capacity:
            run = self._attempt(wanted, dataclasses.replace(market, capacity=capacity), at, spec, tell)
            capacity = futures.next_capacity(spec, capacity, run)
            if capacity:
                tell(Told("again", {"capacity": capacity}))
        tell(Told("result", _result(wanted, run, at) | {"seconds": time.perf_counter() - began}))

    def _attempt(self, wanted: Wanted, market: MarketSpec, at: ForecastStart, spec: FuturesSpec, tell: Tell) -> Rollout:
        """One rollout, told of after each chunk."""
        self._programs.add((market, wanted.trajectories, wanted.minutes, wanted.temperature))
        rows = ReadyRows(wanted.rows, market, at.time_ns, wanted.trajectories, wanted.minutes)

        def on_chunk(progress: RolloutProgress) -> None:
            tell(Told("part", {"passed": progress.passed, "ended": progress.ended, "orders": progress.orders},
                      rows.ready(progress.so_far())))

        batch = Batch(resize(at.start, market.capacity), wanted.trajectories, slots=self._prepared.slots)
        hooks = Hooks(on_chunk, rows.add_log if wanted.rows == "orders" else None)
        return futures.simulate_batch(self._prepared, market, spec, batch, hooks)

    def _start(self, wanted: Wanted) -> tuple[MarketSpec, ForecastStart]:
        if wanted.orders is not None:
            return self._after_orders(wanted, wanted.orders)
        if wanted.day not in self._days:
            raise InputError(f"request: day: expected one of {', '.join(self._days) or 'none'}, got "
                             f"{brief(wanted.day)}")
        return self._days[wanted.day]

    def _made(self, model: str, name: str) -> tuple[MarketSpec, ForecastStart]:
        day = places.made_day(model, name)
        place = places.in_made_day(self._prepared, day, places.warm_up_of(day), futures.ACCOUNT + 1)
        return place.market, forecasts.read_start(place.market, self._prepared, place.feed, place.time_ns, 0)

    def _after_orders(self, wanted: Wanted, orders: pd.DataFrame) -> tuple[MarketSpec, ForecastStart]:
        """InputError where orders were refused that another table would have had accepted."""
        feed = frames.from_frame(orders, wanted.book, tick=wanted.tick, symbol="orders")
        count = sum(len(table) for table in (orders, wanted.book) if table is not None)
        capacity = next((size for size in _CAPACITIES if size >= count), _CAPACITIES[-1])
        # All orders become those of one account on the way to a start.
        venue = dataclasses.replace(feed.venue, accounts=1, capacity=capacity)
        market = places.market_of(self._prepared, venue, futures.ACCOUNT + 1)
        self._programs.add((market,))
        at = forecasts.read_start(market, self._prepared, feed, wanted.time_ns, 0)
        if problems := at.refused.problems():
            raise InputError(f"request: orders: {problems[0]}")
        return market, at


def _result(wanted: Wanted, run: Rollout, at: ForecastStart) -> dict[str, Any]:
    """What a run came to: the distribution of its labels (shares of the mid at the start), and what it lacks."""
    labels = rollout_summary.labels(run)
    summary = rollout_summary.summarize([run], [at.start])
    return {"forecast": forecast_report.record(forecast.distribution(labels, wanted.threshold, QUANTILES)),
            "orders": summary["orders"], "ended": summary["ended"], "rejected": summary["rejected"],
            "problems": rollout_summary.problems(summary), "trajectories": wanted.trajectories,
            "minutes": wanted.minutes, "seed": wanted.seed, "label_unit": "share of the mid at the start"}
