"""Studies of many states as independent jobs, on many machines; the config says which: configs/fleet.py."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

import marsjax
from marsjax.core import limits, times
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.experiments import fleet_summary, fleet_work, launcher, run_folder, setup, table_files
from marsjax.studies import order_model
from marsjax.studies.fleet import actors, alone, ledger, states
from marsjax.studies.fleet.actors import ActorSpec
from marsjax.studies.fleet.ledger import Ledger
from marsjax.studies.fleet.states import DayTimes, Grid, Part
from marsjax.studies.fleet.tally import Tally
from marsjax.studies.fleet.work import Work
from marsjax.studies.session_times import check_time, hours, start_times

_OF_THE_RUN = ("address", "workers", "cores", "tries", "most_jobs", "part", "batch", "output", "quantiles",
               "probability_edges", "resamples")
"""Keys that no state depends on: a fleet goes on where they have changed."""


def main(config: ConfigDict) -> int:
    """Makes the states that are left; returns 0, or INCOMPLETE with the reasons on stderr."""
    began = time.perf_counter()
    with setup.named("config"):
        part = Part.of(config.part)
    crew = setup.spec_of(ActorSpec, config)
    setup.at_least(config, "batch", 1)
    table_files.check_form(table_files.PARQUET)
    days = fleet_work.days_of(config)
    grid = Grid(tuple(DayTimes(name, _times(config, *day)) for name, day in days.items()))
    fleet_work.check(config, grid.count)
    if not config.part:
        jax.config.update("jax_platforms", "cpu")  # the accelerators are the workers'
    prepared = setup.load_order_model(config)
    sha256 = order_model.parameters_hash(prepared.model.model)
    with setup.named("config.output"):
        book = ledger.open_ledger(config.output or run_folder.RUNS / f"fleet_{config.study}",
                                  _record(config, grid, sha256))
    tally, (first, end) = Tally(), part.bounds(grid.count)
    done = book.done(grid.count, tally.tell)
    print(order_model.headline(prepared, config.model), flush=True)
    print(f"{grid.count} states of {len(grid.days)} days, {int(done.sum())} done before; {book.folder}", flush=True)
    given = Work(fleet_work.CALL, {
        "config": config.to_dict(), "first_times_ns": {day.name: day.times_ns[0] for day in grid.days},
        "model_sha256": sha256}, folder=str(Path.cwd()))
    with tally.shown(done=int(done[first:end].sum()), of=end - first):
        if not done[first:end].all():
            jobs = states.jobs(grid, part, config.batch, lambda number: bool(done[number]))
            if config.part:
                alone.run(given, book, jobs, tally)
            else:
                actors.run(given, book, jobs, tally, crew)
    return _finish(config, book, grid, tally, began)


def _finish(config: ConfigDict, book: Ledger, grid: Grid, tally: Tally, began: float) -> int:
    """What is told at the end; the summary, if no other process is to make a state."""
    together = Tally()  # what other processes have made too
    left = grid.count - int(book.done(grid.count, together.tell).sum())
    is_last = not left or config.part in ("", "1/1")
    seconds = time.perf_counter() - began
    print(f"{tally.made} states made in {seconds:.1f} s, {tally.failed} failed, {tally.lost_workers} workers replaced; "
          f"{left} of {grid.count} left", flush=True)
    if is_last and left < grid.count:
        about = {"states": grid.count, "left": left, "incomplete": together.incomplete, "seconds": round(seconds, 3)}
        print("\n".join(fleet_summary.write(config, book, about)))
    reasons = {**together.reasons, **tally.reasons}
    told = [f"state {number}: {reason}" for number, reason in sorted(reasons.items())]
    if tally.failed:
        told.append(f"{tally.failed} states failed; the same command tries them again")
    if together.incomplete:
        told.append(f"{together.incomplete} states are not complete, which their files say")
    print(f"results in {book.folder}")
    return launcher.finish(told)


def _times(config: ConfigDict, market: MarketSpec, feed: DayFeed) -> tuple[int, ...]:
    """The times of one day's states; InputError names the day."""
    minutes = config.minutes + (config.after_minutes if config.study == fleet_work.MARKET_IMPACT else 0)
    session = hours(market.session, feed)
    with setup.named(feed.name):
        if not config.times:
            for key in ("first_minute", "every_minutes"):
                setup.at_least(config, key, 1, limits.MINUTES)
            return tuple(start_times(session, config.first_minute, config.every_minutes, minutes))
        found = []
        for text in config.times:
            with setup.named(f"config.times: expected times HH:MM:SS, got {text!r}"):
                found.append(times.of_clock(text))
            check_time(session, found[-1], minutes)
        return tuple(sorted(set(found)))


def _record(config: ConfigDict, grid: Grid, model_sha256: str) -> Mapping[str, Any]:
    """What the states are of."""
    days = {day.name: [int(ns) for ns in day.times_ns] for day in grid.days}
    kept = {name: value for name, value in config.to_dict().items() if name not in _OF_THE_RUN}
    taught = {"threads": _threads(config)} if config.adapt_steps else {}
    return {"config": kept, "days": days, "model_sha256": model_sha256, "version": marsjax.__version__, **taught}


def _threads(config: ConfigDict) -> int:
    """Of a process that makes states, on the CPU: XLA's sums, so the weights that a day teaches, depend on them."""
    if not config.part:
        return int(config.cores)
    given = os.environ.get("NPROC", "")  # as XLA reads it
    return int(given) if given.isdecimal() and int(given) else len(os.sched_getaffinity(0))


if __name__ == "__main__":
    launcher.run("fleet", main, starts_device=False)
