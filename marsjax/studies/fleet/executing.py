"""Market impact in many states: the futures of each with and without an execution, and the report over all of them."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from marsjax.analysis import impact_report
from marsjax.analysis.impact import Runs
from marsjax.analysis.impact_report import ImpactReport
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.studies import executions
from marsjax.studies.executions import ExecutionSpec, Study
from marsjax.studies.fleet import reached
from marsjax.studies.fleet.ledger import Columns
from marsjax.studies.fleet.states import FleetState, Job
from marsjax.studies.fleet.work import MadeState
from marsjax.studies.order_model import PreparedModel

SAME_DRAWS, OTHER_DRAWS, EXECUTED = "without, same draws", "without, other draws", "with"
"""Kinds of rollouts: without an execution, by the draws of those with it or by others, and with it."""
_MATRICES = ("mids", "volume", "shares", "cash")


def impacts(prepared: PreparedModel, market: MarketSpec, feed: DayFeed, job: Job, spec: ExecutionSpec
            ) -> Iterator[MadeState]:
    """The states of a job, each with an execution of every side and size and without one; one table each.

    `spec` is of one state. Its futures are numbered from state x 2 x trajectories on. A row a rollout: `state`,
    `market`, `time_ns`, `kind`, `trajectory`, `sign`, `ratio`, `target`, `lost`, and by minute `mids` (the start's
    first), `volume`, `shares` and `cash` (`marsjax.analysis.impact.Runs`).
    """
    found = reached.reach(market, prepared, feed, job, spec.minutes)
    for state in job:
        own = dataclasses.replace(spec, first=state.number * 2 * spec.count)
        start = found.starts[state.number]
        study = executions.study(prepared, market, own, [start], state.time_ns)
        lost = {name: count for name, count in executions.agent_counts(study.rollouts).items()
                if name in ("unsent", "late_wakes") and count}
        problems = [f"orders or wake-ups of the execution that did not fit: {lost}"] if lost else []
        problems += _problems(study)
        yield MadeState(state.number, _columns(state, study, own), found.problems[state.number] + tuple(problems))


def _problems(study: Study) -> list[str]:
    found: list[str] = []
    for run, starts in zip(study.rollouts, study.starts, strict=True):
        found += reached.problems_of(run, starts)
    return found


def _columns(state: FleetState, study: Study, spec: ExecutionSpec) -> Columns:
    without, executed = study.without.runs, study.executed.runs
    runs = {field.name: np.concatenate([getattr(without, field.name), getattr(executed, field.name)])
            for field in dataclasses.fields(Runs)}
    count = len(runs["number"])
    kinds = [SAME_DRAWS] * spec.count + [OTHER_DRAWS] * spec.count + [EXECUTED] * (count - 2 * spec.count)
    trajectory = ((runs["number"] - spec.first) % spec.count).astype(np.int32)
    return reached.with_name(state, count, {
        "kind": kinds, "trajectory": trajectory,
        **{name: runs[name] for name in ("sign", "ratio", "target", "lost", *_MATRICES)}})


def report(tables: Iterable[pd.DataFrame], minutes: int, resamples: int, seed: int) -> tuple[ImpactReport, Runs]:
    """The executions of all states as one study, and the markets without one.

    Args:
      tables: of the states.
      minutes: of an execution.
      resamples: of the bootstraps.
      seed: of the bootstraps.

    A rollout's `seed` is its state, its `number` counts through the states. One state's table is held at a time, of the
    others their arrays. InputError without a state.
    """
    parts: dict[str, list[Runs]] = {kind: [] for kind in (SAME_DRAWS, OTHER_DRAWS, EXECUTED)}
    count = 0
    for table in tables:
        for kind, some in parts.items():
            some.append(_runs(table[table["kind"] == kind], count))
        count += int(table["trajectory"].max()) + 1
    if not count:
        raise InputError("report: expected at least one state, got none")
    others = [dataclasses.replace(part, number=part.number + count) for part in parts.pop(OTHER_DRAWS)]
    baselines = _joined(parts.pop(SAME_DRAWS) + others)
    del others
    executed = _joined(parts.pop(EXECUTED))
    return impact_report.report(baselines, executed, minutes, resamples, seed), baselines


def _runs(rows: pd.DataFrame, first: int) -> Runs:
    """Rows of one kind of a state, whose trajectories are numbered from `first` on."""
    columns = {name: rows[name].to_numpy() for name in ("sign", "ratio", "target", "lost")}
    return Runs(number=first + rows["trajectory"].to_numpy(np.int64), seed=rows["state"].to_numpy(), **columns,
                **{name: np.stack(rows[name].to_list()) for name in _MATRICES})


def _joined(parts: list[Runs]) -> Runs:
    return Runs(**{field.name: np.concatenate([getattr(part, field.name) for part in parts])
                   for field in dataclasses.fields(Runs)})
