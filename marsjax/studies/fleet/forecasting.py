"""Forecasts of many states: futures of each and what really came, and their scores over all states."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from marsjax.analysis import forecast, forecast_baselines, forecast_scores
from marsjax.analysis.evaluation_table import CLASSES, MODEL
from marsjax.analysis.forecast import History, Move
from marsjax.core.errors import InputError
from marsjax.core.sessions import Session
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.sim.result import Rollout
from marsjax.sim.step import End
from marsjax.studies import forecast_evaluation, futures, rollout_summary
from marsjax.studies.fleet import reached
from marsjax.studies.fleet.ledger import Columns
from marsjax.studies.fleet.states import FleetState, Job
from marsjax.studies.fleet.work import MadeState
from marsjax.studies.forecast_evaluation import LabelSpec
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS, spell


def forecasts(prepared: PreparedModel, market: MarketSpec, feed: DayFeed, job: Job, spec: FuturesSpec, labels: LabelSpec
              ) -> Iterator[MadeState]:
    """Futures of the states of a job, one table each.

    Trajectory b of a state draws as number state x trajectories + b. A row a trajectory: `state`, `market`, `time_ns`,
    `trajectory`, `label` (NaN without one), `orders`, `end`, `mid_start` and `mids` (at the start and after each
    minute, 1e-4 of the currency), `realized` (the label of what came), `threshold` (of its classes, by what came before
    the state; NaN where that is too little).
    """
    found = reached.reach(market, prepared, feed, job, spec.minutes)
    seen = forecast.history(found.passed)
    for some, size in reached.together(job, prepared, spec):
        starts = reached.filled(found, some, size)
        runs = futures.simulate(prepared, market, spec, starts, first=some[0].number)
        for state, run in zip(some, runs, strict=False):
            columns = _columns(state, run, seen, labels, market.session)
            problems = found.problems[state.number] + reached.problems_of(run, found.starts[state.number])
            yield MadeState(state.number, columns, problems)


def _columns(state: FleetState, run: Rollout, seen: History, labels: LabelSpec, session: Session) -> Columns:
    count = len(run.mid_twice_start)
    came = forecast.labels_of_history(seen, np.array([state.time_ns]), labels.minutes * MINUTE_NS)[0]
    try:
        limit = forecast_evaluation.threshold(labels, session, seen, 0, state.time_ns)
    except InputError:  # too little came before it
        limit = np.nan
    mids = forecast.mids_of_bars(run.bars, run.mid_twice_start)
    return reached.with_name(state, count, {
        "trajectory": np.arange(count, dtype=np.int32), "label": rollout_summary.labels(run),
        "orders": np.asarray(run.bars.orders).sum(axis=1).astype(np.int64),
        "end": [End(int(end)).name for end in np.asarray(run.state.end)], "mid_start": mids[:, 0], "mids": mids,
        "realized": np.full(count, came), "threshold": np.full(count, limit)})


def summary(tables: Iterable[pd.DataFrame], quantiles: Sequence[float]) -> pd.DataFrame:
    """A row a state, of the tables of states: the columns that `evaluation_table.scores` reads.

    A state without a threshold or without a label of what came has an empty class.
    """
    rows = []
    for table in tables:
        first = table.iloc[0]
        limit, realized = float(first["threshold"]), float(first["realized"])
        has_class = not (np.isnan(limit) or np.isnan(realized))
        each = forecast.distribution(table["label"].to_numpy(), 0.0 if np.isnan(limit) else limit, quantiles)
        row = {"state": int(first["state"]), "market": first["market"], "time": spell(int(first["time_ns"])),
               "time_ns": int(first["time_ns"]), "threshold": limit, "realized": realized,
               "class": CLASSES[int(forecast.classes(np.array(realized), limit))] if has_class else "",
               "with_label": each.count, "without_label": each.without, "mean": each.mean,
               "standard_deviation": each.standard_deviation}
        row |= {f"quantile_{level:g}": each.quantiles[level] for level in quantiles}
        flat = forecast_baselines.no_change(1, len(table))
        for name, counts, label in ((MODEL, np.array([each.counts]), each.mean), ("no change", flat, 0.0)):
            smoothed = forecast_scores.smoothed(counts)[0]
            row |= {f"{name}: {CLASSES[move]}": smoothed[move] for move in Move} | {f"{name}: label": label}
        rows.append(row)
    return pd.DataFrame(rows)

