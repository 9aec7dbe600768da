"""The states of a job, in one pass over their day, and those of them that are simulated together."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.sim.initial import Passed, Start
from marsjax.sim.refusals import Refusals
from marsjax.sim.result import Rollout
from marsjax.studies import rollout_summary, starts
from marsjax.studies.fleet.ledger import Columns
from marsjax.studies.fleet.states import FleetState, Job
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS


class ReachedStates(NamedTuple):
    """What one pass over a day leads to."""

    starts: dict[int, Start]
    """By the number of the state."""
    passed: list[Passed]
    """Orders up to the end of the last state's minutes."""
    sent: list[Passed]
    """Of these, what somebody sent."""
    problems: dict[int, tuple[str, ...]]
    """Why the book at a state is not that of the feed, by its number."""


def reach(market: MarketSpec, prepared: PreparedModel, feed: DayFeed, job: Job, minutes: int) -> ReachedStates:
    """The states of a job, and the orders that came in the `minutes` after each."""
    stops = [*(state.time_ns for state in job), job[-1].time_ns + minutes * MINUTE_NS]
    found = starts.states_of_feed(market, prepared, feed, stops, on_host=True)
    refusals, problems = Refusals(market, feed.publishes_fills), {}
    for state, part in zip(job, found.passed, strict=False):
        refusals.add(part.orders, part.status)
        refusals.messages(part.ignored, part.adapted)
        problems[state.number] = tuple(f"before it: {problem}" for problem in refusals.problems())
    states = {state.number: start for state, start in zip(job, found.starts, strict=False)}
    return ReachedStates(states, found.passed, found.sent, problems)


def problems_of(run: Rollout, start: Start) -> tuple[str, ...]:
    """Why the futures of a state are not complete."""
    return tuple(rollout_summary.problems(rollout_summary.summarize([run], [start])))


def together(job: Job, prepared: PreparedModel, spec: FuturesSpec) -> Iterator[tuple[Job, int]]:
    """States of numbers that follow one another, as many as are simulated at once, and how many that is.

    On a CPU no result depends on who shares a batch. An accelerator's rounding depends on the size of a batch, so there
    it is always the same, and filled up where fewer states are left.
    """
    at_once = max(spec.most_at_once // spec.trajectories, 1)
    runs = itertools.groupby(enumerate(job), key=lambda pair: pair[1].number - pair[0])
    for _, pairs in runs:
        states = tuple(state for _, state in pairs)
        for first in range(0, len(states), at_once):
            some = states[first : first + at_once]
            yield some, len(some) if prepared.slots else at_once


def filled(found: ReachedStates, some: Job, size: int) -> list[Start]:
    """The starts of some states, the last of them again until there are `size`."""
    own = [found.starts[state.number] for state in some]
    return own + [own[-1]] * (size - len(own))


def named(state: FleetState, rows: int) -> dict[str, np.ndarray | Sequence[str]]:
    """The columns that every table begins with: which state it is."""
    return {"state": np.full(rows, state.number, np.int64), "market": [state.day] * rows,
            "time_ns": np.full(rows, state.time_ns, np.int64)}


def with_name(state: FleetState, rows: int, columns: Columns) -> Columns:
    """A state's table."""
    return {**named(state, rows), **columns}
