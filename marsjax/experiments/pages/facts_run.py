"""A report of stylized facts, from what a page asks for to pictures, tables and files; of one stopped, what is done."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from marsjax.analysis import bars, fact_plots, forecast, forecast_plots, panel, stylized_facts, verdicts
from marsjax.analysis.bars import MinuteBars
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.json_text import json_text_of
from marsjax.experiments.pages.files import csv, pngs, zipped
from marsjax.experiments.pages.jobs import Job
from marsjax.experiments.pages.workshop import Workshop
from marsjax.sim.result import SoFar
from marsjax.studies import bars as made_bars
from marsjax.studies import futures, places
from marsjax.studies.bars import Gathered
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.progress import StoppedError, Watching
from marsjax.studies.session_times import MINUTE_NS

_CHUNK_ORDERS = 8192
_MOST_PATHS = 24


@dataclasses.dataclass(frozen=True)
class FactsAsk:
    """What a page asks for; InputError for a number out of range, and where no day is named."""

    model: str
    device: str
    days: tuple[str, ...]
    """Names of days that come with the model (`places.MADE`), each a symbol of the report; none: of real days."""
    real: tuple[str, ...]
    """Names of real days: their stretches, and futures from where these begin."""
    minutes: int = 26
    """Bars of a rollout, the first and the last of half a minute."""
    rollouts: int = 16
    """Of each start; of real days 0: none."""
    seed: int = 0
    resamples: int = 200
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        if not self.days and not self.real:
            raise InputError("FactsAsk.days: expected at least one, got none")
        limits.check_whole("FactsAsk.minutes", self.minutes, panel.FEWEST, limits.MINUTES)
        limits.check_whole("FactsAsk.resamples", self.resamples, 2, limits.RESAMPLES)
        if self.days or self.rollouts:
            _ = self.futures

    @property
    def futures(self) -> FuturesSpec:
        """Of each start: times are rounded to minutes, so there is one less to simulate than there are bars."""
        return FuturesSpec(self.rollouts, self.minutes - 1, self.seed, nearest_minutes=True)


class FactsResult(NamedTuple):
    """What a page shows, and gives away."""

    is_whole: bool
    """False of a report that was stopped: of the days that were done by then."""
    summary: str
    table: list[str]
    """Verdicts in Markdown, line by line."""
    counts: dict[str, dict[str, int]]
    """Source -> answer -> facts."""
    notes: list[str]
    pictures: dict[str, bytes]
    """PNG: verdicts, and fact_01 to fact_11."""
    files: dict[str, bytes]


class Walking(NamedTuple):
    """Futures of a day that still run."""

    name: str
    minutes: int
    found: SoFar

    def figure(self) -> Figure:
        """Their mids as far as they have come."""
        mids = forecast.mids_of_bars(self.found.bars, self.found.mid_twice_start)
        there = np.arange(mids.shape[1]) <= self.found.passed_ns[:, None] / MINUTE_NS
        shown = np.where(there, mids, np.nan)[:_MOST_PATHS]
        return forecast_plots.paths(shown, f"{self.name}: {len(shown)} of {len(mids)} futures", self.minutes)


class _Parts(NamedTuple):
    """Bars day by day, as they are made."""

    bars: list[MinuteBars]
    notes: list[str]


def run(shop: Workshop, ask: FactsAsk, job: Job[FactsResult]) -> FactsResult:
    """The report; StoppedError where it was stopped before a day was done, InputError, OSError."""
    with jax.default_device(shop.devices[ask.device]):
        job.say(f"loading the model {ask.model}")
        prepared = shop.model(ask.model, ask.device)
        parts, is_whole = _Parts([], []), True
        try:
            _gather(shop, ask, job, prepared, parts)
        except StoppedError as error:
            if not parts.bars:
                raise StoppedError("Stopped before the futures of a day were done: there are no returns to judge yet."
                                   ) from error
            is_whole = False
        job.said, job.share = "judging and drawing", 1.0
        return _result(shop, ask, is_whole, parts)


def _gather(shop: Workshop, ask: FactsAsk, job: Job[FactsResult], prepared: PreparedModel, parts: _Parts) -> None:
    """Puts bars into the parts, day by day."""
    names = ask.days or ask.real
    for number, name in enumerate(names):
        job.say(f"{name}: reading orders", number / len(names))
        watch = job.watch(len(names), functools.partial(Walking, name, ask.minutes), done=number, name=f"{name}: ")
        if ask.days:
            day = places.made_day(ask.model, name)
            place = places.in_made_day(prepared, day, places.warm_up_of(day), futures.ACCOUNT + 1)
            found = [made_bars.of_times(place.market, prepared, ask.futures, [(place.feed, [place.time_ns])], watch)]
        else:
            found = _real(shop, ask, job, prepared, name, watch)
        parts.bars.append(bars.join([each.bars for each in found]))
        parts.notes.extend(f"{name}: {problem}" for each in found for problem in each.problems)


def _real(shop: Workshop, ask: FactsAsk, job: Job[FactsResult], prepared: PreparedModel, name: str, watch: Watching
          ) -> list[Gathered]:
    """Stretches of a real day, and futures from where they begin."""
    feed = shop.days()[name]
    market = places.market_of(prepared, feed.venue, futures.ACCOUNT + 1)
    real = made_bars.replayed(market, [feed], ask.minutes, _CHUNK_ORDERS)
    lost = [problem for refused in real.refused.values() for problem in refused.problems()]
    found = [Gathered(bars.join(real.bars), {}, lost)]
    job.check()
    if ask.rollouts:
        found.append(made_bars.of_days(market, prepared, ask.futures, [feed], ask.minutes, watch))
    return found


def _result(shop: Workshop, ask: FactsAsk, is_whole: bool, parts: _Parts) -> FactsResult:
    every = bars.join(bars.numbered_on(parts.bars))
    rollouts, left_out = panel.dense(every, ask.minutes)
    if not left_out.kept:
        raise InputError("; ".join(left_out.lines()) + f": expected complete rollouts of {ask.minutes} minutes")
    tables, found = stylized_facts.tables(rollouts), verdicts.judge(rollouts, ask.seed, ask.resamples)
    pictures = pngs({"verdicts": functools.partial(fact_plots.effects, found)}) | pngs({
        f"fact_{fact:02d}": functools.partial(fact_plots.figure, fact, tables) for fact in fact_plots.FACTS}, dpi=110)
    record = json_text_of({
        "is_whole": is_whole, "verdicts": [dataclasses.asdict(each) | {"answer": str(each.answer)} for each in found],
        "answers": verdicts.counts(found), "rollouts": left_out.kept, "excluded": left_out.counts(),
        "asked": dataclasses.asdict(ask), **shop.about(ask.model, ask.device)})
    files = {"bars.csv.gz": zipped(every.frame()), "metrics.json": record.encode(),
             "verdicts.md": ("\n".join(verdicts.table_lines(found)) + "\n").encode(),
             **{f"{name}.csv": csv(table) for name, table in tables.items()}, "verdicts.png": pictures["verdicts"]}
    done = f"{len(parts.bars)} of {len(ask.days or ask.real)} days"
    summary = f"{left_out.kept:,} rollouts of {ask.minutes} bars from {done}"
    return FactsResult(is_whole, summary if is_whole else f"Stopped: {summary}", verdicts.table_lines(found),
                       verdicts.counts(found), parts.notes + (left_out.lines() if left_out.rollouts else []), pictures,
                       files)
