"""A day that is watched, from what a page asks for to a picture, a table by interval and files."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import pandas as pd

from marsjax.analysis import detection_plots, detection_report
from marsjax.core import limits, times
from marsjax.core.errors import InputError
from marsjax.core.json_text import json_text_of
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.experiments.pages.files import csv, pngs
from marsjax.experiments.pages.jobs import Job
from marsjax.experiments.pages.workshop import Workshop
from marsjax.sim.result import Rollout
from marsjax.studies import adapted, detection, futures, manipulated_day, manipulations, places, rollout_summary
from marsjax.studies.detection import WatchedDay, WatchSpec
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.manipulated_day import ManipulatedDay
from marsjax.studies.manipulations import Manipulation
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.progress import StoppedError
from marsjax.studies.realism import SentOrders
from marsjax.studies.session_times import MINUTE_NS, continuous, hours, spell

MADE, REAL, FILE = "day of the model", "real day", "file"
"""Where a day comes from."""
_COLUMNS = {"clock": "Begin", "is_clean": "Clean", "p_futures": "p among its futures", "p_clean": "p among clean ones",
            "alarm": "Alarm", "orders": "Orders", "traded_volume": "Shares traded", "largest_order": "Largest order",
            "cancel_ratio": "Share of cancels", "return_bp": "Return, bp", "spread_overlap": "Overlap of spreads"}
"""What the page's table shows of `studies.detection.table`."""


@dataclasses.dataclass(frozen=True)
class DetectionAsk:
    """What a page asks for; InputError for a number, a time or a file that cannot be."""

    model: str
    device: str
    source: str
    """MADE, REAL or FILE."""
    day: str
    """Name of a day; of a file its name."""
    minutes: int
    """Of an interval."""
    rollouts: int
    """Futures of each interval."""
    seed: int = 0
    first_time: str = ""
    """Of the first interval, HH:MM:SS; empty: an interval after the first trading."""
    last_time: str = ""
    """No interval ends after it; empty: the end of the day."""
    clean_until: str = ""
    """Intervals up to here are taken to be clean; empty: none are."""
    manipulation: Manipulation | None = None
    """Put into the day."""
    inject_time: str = ""
    """Of its first order; empty: in the middle interval that is not clean."""
    adapt_steps: int = 0
    """Of a day that the model does not know, that it is taught by the orders before the first interval."""
    content: bytes = dataclasses.field(default=b"", repr=False)
    """Of a file: a CSV of orders (feed `csv`)."""

    def __post_init__(self) -> None:
        limits.check_whole("DetectionAsk.minutes", self.minutes, 1, limits.MINUTES)
        _ = self.futures
        for name in ("first_time", "last_time", "clean_until", "inject_time"):
            self.time_ns(name)
        if self.manipulation is not None and not self.manipulation.size:
            raise InputError("Manipulation.size: expected shares above 0, got 0")
        if self.source == FILE and not self.content:
            raise InputError("DetectionAsk.content: expected a CSV of orders, got none")

    @property
    def futures(self) -> FuturesSpec:
        """Of each interval."""
        return FuturesSpec(self.rollouts, self.minutes, self.seed)

    def time_ns(self, name: str) -> int | None:
        """A time by its field, nanoseconds since midnight; None where it is empty."""
        text = getattr(self, name)
        if not text:
            return None
        try:
            return times.of_clock(text)
        except InputError as error:
            raise InputError(f"DetectionAsk.{name}: expected HH:MM:SS, as 10:00:00, got {text!r}") from error

    def record(self) -> dict[str, Any]:
        """What was asked for, without the bytes of a file."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "content"}


class DetectionResult(NamedTuple):
    """What a page shows, and gives away."""

    summary: str
    said: list[str]
    """The report, in lines."""
    notes: list[str]
    table: pd.DataFrame
    """A row an interval, in words."""
    picture: bytes
    files: dict[str, bytes]


class _Watching(NamedTuple):
    """A day, how it is watched, and what is put into it."""

    feed: DayFeed
    market: MarketSpec
    watch: WatchSpec
    begins: list[int]
    inject_ns: int


def run(shop: Workshop, ask: DetectionAsk, job: Job[DetectionResult]) -> DetectionResult:
    """The day; StoppedError where it was stopped, InputError, OSError."""
    with jax.default_device(shop.devices[ask.device]), TemporaryDirectory() as folder:
        job.say(f"loading the model {ask.model}")
        prepared = shop.model(ask.model, ask.device)
        job.say("reading the day")
        try:
            return _watched(shop, ask, job, prepared, _watching(shop, ask, prepared, Path(folder)))
        except InputError as error:  # of a file that was given, which lies there for the time of the run alone
            raise InputError(str(error).replace(f"{folder}/", "")) from error


def _watched(shop: Workshop, ask: DetectionAsk, job: Job[DetectionResult], prepared: PreparedModel, of: _Watching
             ) -> DetectionResult:
    prepared, said = adapted.to_day(prepared, of.market, of.feed, of.begins[0], ask.adapt_steps)
    notes, case = [said] if said else [], None
    if ask.manipulation is not None:
        job.say("putting the manipulator into the day")
        case = manipulated_day.put_into(of.market, prepared, of.feed, ask.manipulation, of.inject_ns)
        job.say("reading the day with it")
    day = detection.read(of.market, prepared, of.feed if case is None else case.injected.feed, of.begins, ask.minutes)
    notes += [line] if (line := day.refused.line()) else []
    sent = SentOrders()
    try:
        runs = futures.simulate(prepared, of.market, ask.futures, day.starts, on_trace=sent,
                                watch=job.watch(len(day.starts), lambda found: None))
    except StoppedError as error:
        raise StoppedError("Stopped before all intervals had their futures: there is nothing to rank yet.") from error
    job.said, job.share = "ranking and drawing", 1.0
    return _result(shop, ask, of, (day, case), (runs, sent), notes)


def _watching(shop: Workshop, ask: DetectionAsk, prepared: PreparedModel, folder: Path) -> _Watching:
    """The day that is asked for; InputError where there is none, or where times do not fit it."""
    end_ns = None
    if ask.source == MADE:
        made = places.made_day(ask.model, ask.day)
        feed, end_ns = made.feed, made.start_ns
    elif ask.source == FILE:
        feed = _of_file(ask, folder)
    else:
        days = shop.days()
        if ask.day not in days:
            raise InputError(f"day: expected one of {', '.join(list(days)[:20]) or 'none'}, got {ask.day!r}")
        feed = days[ask.day]
    market = places.market_of(prepared, feed.venue, manipulations.ACCOUNT + 1)
    watch = watch_of(ask, market, end_ns)
    begins = watch.intervals(market)
    watch.is_clean(begins)
    inject_ns = 0
    if ask.manipulation is not None:
        try:
            inject_ns = manipulated_day.begin_ns(market, watch, begins, ask.manipulation, ask.time_ns("inject_time"))
        except InputError as error:
            raise InputError(f"DetectionAsk.inject_time: {error}") from error
    return _Watching(feed, market, watch, begins, inject_ns)


def watch_of(ask: DetectionAsk, market: MarketSpec, end_ns: int | None) -> WatchSpec:
    """Which intervals are looked at; `end_ns` is that of the day where it is before that of the session."""
    minutes, periods = ask.minutes, continuous(market.session)
    end_ns = periods[-1].end_ns if end_ns is None else end_ns
    first_ns, last_ns, clean_ns = (ask.time_ns(name) for name in ("first_time", "last_time", "clean_until"))
    first_ns = periods[0].start_ns + minutes * MINUTE_NS if first_ns is None else first_ns
    if clean_ns is not None and clean_ns <= first_ns:
        raise InputError(f"DetectionAsk.clean_until: expected a time after the first interval's begin, "
                         f"{spell(first_ns)}, got {ask.clean_until!r}")
    return WatchSpec(minutes, first_ns, end_ns if last_ns is None else min(last_ns, end_ns),
                     first_ns if clean_ns is None else clean_ns)


def _of_file(ask: DetectionAsk, folder: Path) -> DayFeed:
    """A file's day; where it says no hours, trading goes from its first order to its last."""
    path = folder / Path(ask.day).name
    path.write_bytes(ask.content)
    (feed,) = places.real_days("csv", str(path))
    return dataclasses.replace(feed, venue=dataclasses.replace(feed.venue, session=hours(feed.venue.session, feed)))


def _result(shop: Workshop, ask: DetectionAsk, of: _Watching, days: tuple[WatchedDay, ManipulatedDay | None],
            made: tuple[Sequence[Rollout], SentOrders], notes: list[str]) -> DetectionResult:
    (day, case), (runs, sent), minutes = days, made, ask.minutes
    count = sum(len(run.mid_twice_start) for run in runs)
    found = detection.watched(day, runs, sent.by_trajectory(count), minutes)
    rows = detection.table(of.begins, found, of.watch)
    truth = None if case is None else (case.from_ns, case.until_ns)
    result = detection_report.record(rows, detection.day_test(rows, found, of.watch), of.watch.rate, minutes, truth)
    if case is not None and ask.manipulation is not None:
        result["manipulation"] |= {"kind": ask.manipulation.kind, "orders": len(case.injected.sent.kind),
                                   "refused": case.injected.refused,
                                   "move_bp": manipulated_day.move_bp(case, day.events)}
    summary = rollout_summary.summarize(runs, day.starts)
    title = f"{day.name} in intervals of {minutes} minutes, order model {Path(ask.model).name}"
    picture = pngs({"detection": functools.partial(detection_plots.figure, rows, day.events, minutes, of.watch.rate,
                                                   title, truth)})["detection"]
    files = {"intervals.csv": csv(rows), "detection.png": picture, "results.json": json_text_of({
        "detection": result, "rollouts": summary, "asked": ask.record(), **shop.about(ask.model, ask.device)}).encode()}
    said = (f"{result['alarms']} alarms in {result['intervals']} intervals; {summary['trajectories']:,} futures, "
            f"{summary['orders']:,} orders ({summary['run_s']:.1f} s; compiled in {summary['compile_s']:.1f} s)")
    return DetectionResult(said, detection_report.lines(result), notes + rollout_summary.problems(summary),
                           table_of(rows), picture, files)


def table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The intervals in words; without the columns that say nothing where no interval is clean."""
    names = [name for name in _COLUMNS if rows["is_clean"].any() or name not in ("is_clean", "p_clean")]
    return rows[names].round(3).rename(columns=_COLUMNS)
