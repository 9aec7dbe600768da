"""Realism in many states: the orders of futures beside those of the real minutes, and the table over all markets.

The table has no ceilings, no earlier hours and no noise, which are of days and not of states:
`marsjax.experiments.realism` makes them of some days.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from marsjax.analysis import order_events, realism_table
from marsjax.analysis.realism_table import Compared, Fixed, Key, Values
from marsjax.core.sessions import Session
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.observers.trace import Log
from marsjax.studies import futures
from marsjax.studies.fleet import reached
from marsjax.studies.fleet.ledger import Columns
from marsjax.studies.fleet.states import FleetState, Job
from marsjax.studies.fleet.work import MadeState
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.progress import Watching
from marsjax.studies.realism import SentOrders, StartValues, StretchSpec, start_values

HISTORY, SIMULATED, REAL, ROLLOUTS = "history", "simulated", "real", "rollouts"
"""Rows of values of single minutes and orders (of one rollout each), and of all minutes together."""
BINS, CLASSES, USUAL = "bins", "classes", "usual"
"""Rows of what the orders before the day's first state fix (`realism_table.Fixed`)."""


def comparisons(prepared: PreparedModel, market: MarketSpec, feed: DayFeed, job: Job, spec: FuturesSpec,
                hours: Session, first_ns: int) -> Iterator[MadeState]:
    """The values of the states of a job, one table each.

    Args:
      prepared: the order model.
      market: of the day.
      feed: the day.
      job: some of its states.
      spec: which futures; trajectory b of a state draws as number state x trajectories + b.
      hours: in which the day has orders.
      first_ns: the day's first state, before which orders fix the bins.

    A row a quantity of history, or of one rollout: `state`, `market`, `time_ns`, `kind`, `trajectory` (of `simulated`
    and `rollouts`, else -1), `of`, `quantity`, `minute` and `values`, a list.
    """
    found = reached.reach(market, prepared, feed, job, spec.minutes)
    events, known = order_events.of_passed(found.sent), order_events.arrivals_of(found.passed)
    fixed = realism_table.fix(events, StretchSpec(spec.minutes, first_ns).before(hours), spec.minutes)
    for some, size in reached.together(job, prepared, spec):
        kept = _Kept(some[0].number * spec.trajectories)
        runs = futures.simulate(prepared, market, spec, reached.filled(found, some, size), first=some[0].number,
                                on_trace=kept, watch=Watching(on_begin=kept.begin))
        sent = kept.orders.by_trajectory(size * spec.trajectories)
        for place, (state, run) in enumerate(zip(some, runs, strict=False)):
            mine = sent[place * spec.trajectories :][: spec.trajectories]
            made = start_values(events, known, run, mine, state.time_ns, spec.minutes)
            yield MadeState(state.number, _columns(state, made, fixed),
                       found.problems[state.number] + reached.problems_of(run, found.starts[state.number]))


class _Kept:
    """The orders of one batch; what came of it in books too small is gone when it begins again."""

    def __init__(self, first: int) -> None:
        self.orders, self._first = SentOrders(), first

    def begin(self, first: int, count: int) -> None:
        del first, count
        self.orders = SentOrders()

    def __call__(self, numbers: np.ndarray, log: Log) -> None:
        self.orders(np.where(numbers >= 0, numbers - self._first, -1), log)


def _columns(state: FleetState, made: StartValues, fixed: Fixed) -> Columns:
    rows: list[tuple[str, int, str, str, int, np.ndarray]] = []

    def add(kind: str, trajectory: int, some: Values) -> None:
        rows.extend((kind, trajectory, *key, column) for key, column in some.items())

    add(HISTORY, -1, made.history)
    for number, one in enumerate(made.simulated):
        add(SIMULATED, number, one)
    for kind, number, stretch in [(REAL, -1, made.real), *((ROLLOUTS, n, one) for n, one in enumerate(made.rollouts))]:
        add(kind, number, {_of_all(name): np.array([value]) for name, value in stretch.items()})
    add(BINS, -1, {Key(of, name, realism_table.ALL_MINUTES): edges for (of, name), edges in fixed.bins.items()})
    add(CLASSES, -1, {_of_all(name): edges for name, edges in fixed.classes.items()})
    add(USUAL, -1, {_of_all(name): np.array([value]) for name, value in fixed.usual.items()})
    kind, trajectory, of, quantity, minute, values = zip(*rows, strict=True)
    return reached.with_name(state, len(rows), {
        "kind": kind, "trajectory": np.array(trajectory, np.int32), "of": of, "quantity": quantity,
        "minute": np.array(minute, np.int32), "values": [np.asarray(each, np.float64) for each in values]})


def _of_all(name: str) -> Key:
    return Key(realism_table.MINUTE, name, realism_table.ALL_MINUTES)


def table(tables: Iterable[pd.DataFrame], minutes: int, seed: int, resamples: int) -> pd.DataFrame:
    """`realism_table.table` over all states; one market is held at a time.

    Args:
      tables: of the states, those of one market one after the other.
      minutes: of a rollout.
      seed: of the bootstrap.
      resamples: of the bootstrap.
    """
    markets = itertools.groupby(tables, key=lambda one: str(one["market"].iloc[0]))
    return realism_table.table((_compared(name, list(some)) for name, some in markets), minutes, seed, resamples)


def _compared(market: str, states: list[pd.DataFrame]) -> Compared:
    kinds = [dict(list(one.groupby("kind"))) for one in states]
    first = kinds[0]
    bins = {(key.of, key.quantity): column for key, column in _values(first[BINS]).items()}
    classes = {key.quantity: column for key, column in _values(first[CLASSES]).items()}
    usual = {name: int(value) for name, value in _stretch(first[USUAL]).items()}
    rollouts = [[_stretch(each) for _, each in one[ROLLOUTS].groupby("trajectory")] for one in kinds]
    simulated = [[_values(each) for _, each in one[SIMULATED].groupby("trajectory")] if SIMULATED in one else []
                 for one in kinds]
    return Compared(market, Fixed(bins, classes, usual), [_values(one[HISTORY]) for one in kinds], simulated,
                    nearby=[], noise=[], earlier=[], real=[_stretch(one[REAL]) for one in kinds], rollouts=rollouts,
                    trajectories=len(rollouts[0]))


def _values(rows: pd.DataFrame) -> Values:
    names = zip(rows["of"], rows["quantity"], rows["minute"], rows["values"], strict=True)
    return {Key(of, quantity, int(minute)): np.asarray(column) for of, quantity, minute, column in names}


def _stretch(rows: pd.DataFrame) -> dict[str, Any]:
    return {key.quantity: float(column[0]) for key, column in _values(rows).items()}
