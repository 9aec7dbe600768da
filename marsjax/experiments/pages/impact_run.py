"""A study of market impact, from what a page asks for to pictures, tables and files; of one stopped, what there is."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from marsjax.analysis import impact_plots, impact_report, impact_so_far
from marsjax.analysis.impact import Runs
from marsjax.analysis.impact_report import ImpactReport
from marsjax.core.errors import InputError
from marsjax.core.json_text import json_text_of
from marsjax.experiments.pages import where
from marsjax.experiments.pages.files import csv, pngs
from marsjax.experiments.pages.jobs import Job
from marsjax.experiments.pages.where import WhereAsk
from marsjax.experiments.pages.workshop import Workshop
from marsjax.sim.result import SoFar
from marsjax.studies import executions, rollout_summary, starts
from marsjax.studies.executions import ExecutionSpec, Jobs
from marsjax.studies.progress import StoppedError
from marsjax.studies.session_times import MINUTE_NS, spell

_RESAMPLES, _RESAMPLES_SO_FAR = 1000, 50
_IN_SLOTS = 64
PICTURES = ("volume", "price", "impact")


@dataclasses.dataclass(frozen=True)
class ImpactAsk:
    """What a page asks for."""

    model: str
    device: str
    where: WhereAsk
    spec: ExecutionSpec

    @property
    def is_even(self) -> bool:
        """Whether the strategy keeps to a straight line."""
        return self.spec.strategy.strategy in ("twap", "vwap")

    def in_slots(self) -> ExecutionSpec:
        """With executions in as many slots as there are markets without one: both then share what is compiled."""
        count = 2 * self.spec.count
        return self.spec if self.spec.slots or count > _IN_SLOTS else dataclasses.replace(self.spec, slots=count)


class Executing(NamedTuple):
    """A study that still runs: executions beside the markets without them, which are whole."""

    ask: ImpactAsk
    baselines: Runs
    executed: Runs
    passed_minutes: np.ndarray

    def report(self, resamples: int) -> ImpactReport | None:
        """What there is of it, if anything is."""
        found = impact_so_far.so_far(self.baselines, self.executed, self.passed_minutes, self.ask.spec.futures.minutes)
        return found and impact_report.report(*found, resamples, self.ask.spec.futures.seed)

    def figure(self) -> Figure | None:
        """Volume done against target, as far as it has come."""
        report = self.report(_RESAMPLES_SO_FAR)
        minutes = self.ask.spec.futures.minutes
        return None if report is None else impact_plots.volumes(report.minutes(self.ask.is_even, minutes), minutes)


class ImpactResult(NamedTuple):
    """What a page shows, and gives away."""

    start: str
    is_whole: bool
    """False of a study that was stopped."""
    summary: str
    rows: list[dict[str, Any]]
    """`ImpactReport.rows`."""
    laws: list[str]
    """By side, impact against size in words."""
    notes: list[str]
    pictures: dict[str, bytes]
    """PNG: volume, price and impact."""
    files: dict[str, bytes]


def run(shop: Workshop, ask: ImpactAsk, job: Job[ImpactResult]) -> ImpactResult:
    """The study; StoppedError where it was stopped before an execution had come a minute far, InputError, OSError."""
    with jax.default_device(shop.devices[ask.device]):
        job.say(f"loading the model {ask.model}")
        prepared = shop.model(ask.model, ask.device)
        job.say("reading the orders before the start")
        spec = ask.in_slots()
        place = where.place(shop, prepared, ask.model, ask.where, spec.minutes, executions.EXECUTOR + 1)
        executions.metered_strategy(spec, place.time_ns)  # for what is wrong of its numbers
        found = starts.states_of_feed(place.market, prepared, place.feed, [place.time_ns])
        followed = _Followed(ask)
        groups = len(spec.sides) * len(spec.ratios)
        watch = job.watch((2 + groups) * spec.count, followed.shown)
        named, summary = f"{place.feed.name} at {spell(place.time_ns)}", None
        try:
            study = executions.study(prepared, place.market, spec, found.starts, place.time_ns, watch, followed.begin)
            report = impact_report.report(study.without.runs, study.executed.runs, spec.futures.minutes, _RESAMPLES,
                                          spec.futures.seed)
            summary = rollout_summary.summarize(study.rollouts, study.starts)
            baselines = study.without.runs
        except StoppedError as error:
            latest = job.latest if isinstance(job.latest, Executing) else None
            partial = latest and latest.report(_RESAMPLES)
            if not latest or not partial:
                raise StoppedError("Stopped before half of the executions of a size had come a minute far: there is "
                                   "nothing to show yet.") from error
            report, baselines = partial, impact_so_far.first_minutes(latest.baselines, partial.common.volume.shape[1])
        job.said, job.share = "drawing", 1.0
        return _result(shop, ask, named, report, baselines, summary)


class _Followed:
    """Follows a study: first the markets without an execution, then those with one."""

    def __init__(self, ask: ImpactAsk) -> None:
        self._ask = ask
        self._jobs: Jobs | None = None
        self._baselines: Runs | None = None
        self._last: Runs | None = None

    def begin(self, jobs: Jobs) -> None:
        """Rollouts of these jobs begin."""
        is_first = self._jobs is not None and not self._jobs.target.any() and jobs.target.any()
        if is_first and self._last is not None:
            # None where some of them had to be run again, in larger books: the last ones are then not all.
            self._baselines = self._last if len(self._last.number) == 2 * self._ask.spec.count else None
        self._jobs = jobs

    def shown(self, found: SoFar) -> Executing | None:
        """What there is to show of the rollouts that run."""
        if self._jobs is None:
            return None
        self._last = executions.runs_of(self._jobs, found)
        if self._baselines is None or not self._jobs.target.any():
            return None
        return Executing(self._ask, self._baselines, self._last, found.passed_ns / MINUTE_NS)


def _result(shop: Workshop, ask: ImpactAsk, named: str, report: ImpactReport, baselines: Runs,
            summary: dict[str, Any] | None) -> ImpactResult:
    rows, laws, minutes = report.rows(), report.laws(), report.minutes(ask.is_even, ask.spec.futures.minutes)
    pictures = pngs({name: functools.partial(_figure, name, report, rows, laws, minutes) for name in PICTURES})
    tables = impact_report.tables(report, rows, minutes, baselines)
    record = json_text_of({
        "is_whole": summary is not None, "groups": rows, "power_law": {side: law._asdict() for side, law in
                                                                       laws.items()},
        "rollouts": summary, "asked": dataclasses.asdict(ask), **shop.about(ask.model, ask.device)})
    files = {f"{name}.csv": csv(table) for name, table in tables.items()} | {"metrics.json": record.encode()}
    notes = rollout_summary.problems(summary) if summary else []
    return ImpactResult(named, summary is not None, _spoken(ask, report, summary), rows,
                        impact_report.lines(rows, laws)[1:], notes, pictures,
                        files | {f"{name}.png": data for name, data in pictures.items()})


def _figure(name: str, *given: Any) -> Figure:
    return impact_report.figures(*given)[name]


def _spoken(ask: ImpactAsk, report: ImpactReport, summary: dict[str, Any] | None) -> str:
    if summary is None:
        return (f"Stopped: the first {report.end} of {ask.spec.futures.minutes} minutes, of the executions that had "
                f"come so far: " + ", ".join(f"{len(group.runs.lost)} of {group.name}" for group in report.groups))
    return (f"{summary['trajectories']:,} markets, {summary['orders']:,} orders, {summary['orders_per_s']:,} a second "
            f"({summary['run_s']:.1f} s; compiled in {summary['compile_s']:.1f} s)")


def ratios_of(text: str) -> tuple[float, ...]:
    """Volume ratios from a text like 0.1, 0.3; InputError names what is no number."""
    found = []
    for word in text.replace(";", ",").split(","):
        try:
            found.append(float(word))
        except ValueError:
            raise InputError(f"ExecutionSpec.ratios: expected numbers like 0.1, 0.3, 0.5, got {word.strip()!r}"
                             ) from None
    return tuple(found)


def table_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The groups in words, a row each: means with their intervals."""
    def interval(one: dict[str, float], scale: float = 1.0, digits: int = 1) -> str:
        value, low, high = (scale * one[name] for name in ("value", "low", "high"))
        if not np.isfinite(value):
            return "-"
        return f"{value:.{digits}f}" + (f"  [{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite(low) else "")

    return pd.DataFrame([{
        "Group": row["group"], "Target, shares": f"{row['target']:,}", "Rollouts": row["rollouts"] - row["lost"],
        "Done, %": interval(row["fulfilled"], 100, 0), "Impact at the end, bp": interval(row["impact_bp"]),
        "Slippage, bp": interval(row["slippage_bp"]), "Shortfall, bp": interval(row["shortfall_bp"]),
        "Share of the volume, %": interval(row["participation"], 100, 0)} for row in rows])
