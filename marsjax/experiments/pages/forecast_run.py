"""A forecast, from what a page asks for to pictures, tables and files; of a run that was stopped, of what there is."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from marsjax.analysis import depth_plots, forecast, forecast_report, label_plots
from marsjax.analysis.forecast import Distribution
from marsjax.core import limits
from marsjax.core.json_text import json_text_of
from marsjax.core.specs import MarketSpec
from marsjax.experiments.pages import where
from marsjax.experiments.pages.files import csv, pngs, zipped
from marsjax.experiments.pages.jobs import Job
from marsjax.experiments.pages.where import WhereAsk
from marsjax.experiments.pages.workshop import Workshop
from marsjax.sim.result import Rollout, SoFar
from marsjax.sim.step import End
from marsjax.studies import adapted, forecast_evaluation, forecasts, futures, rollout_summary
from marsjax.studies.forecast_evaluation import LabelSpec
from marsjax.studies.forecasts import ForecastStart
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.kept_traces import KeptTraces
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.progress import StoppedError

MOST_TRACED = 8
"""Trajectories whose orders are kept, at most."""


@dataclasses.dataclass(frozen=True)
class ForecastAsk:
    """What a page asks for; InputError for a number out of range."""

    model: str
    device: str
    where: WhereAsk
    futures: FuturesSpec
    traced: int = 1
    """Trajectories, the first ones, of which every order, trade and book is kept."""
    threshold_bp: float = 0.0
    """Labels beyond it are up, beyond its negative down; 0: the one that calls a third of past labels flat."""
    adapt_steps: int = 0
    """Of a real day, that the model is taught by its orders before the start."""

    def __post_init__(self) -> None:
        limits.check_whole("ForecastAsk.traced", self.traced, 0, min(MOST_TRACED, self.futures.trajectories))
        limits.check_whole("ForecastAsk.adapt_steps", self.adapt_steps, 0, limits.STEPS_OF_A_CALL)
        _ = self.labels

    @property
    def labels(self) -> LabelSpec:
        """How labels become classes."""
        return LabelSpec(self.futures.minutes, self.threshold_bp / 1e4 if self.threshold_bp else -1.0)


class Setting(NamedTuple):
    """All that the pictures of a forecast show beside its futures."""

    at: ForecastStart
    facts: dict[str, Any]
    """Of the start, in numbers."""
    market: MarketSpec
    minutes: int
    threshold: float

    @property
    def title(self) -> str:
        """Of the fan."""
        return f"{self.at.name} from {self.facts['time']}"

    @property
    def unit(self) -> float:
        """Currency that one unit of a price stands for."""
        return float(self.market.units.price)


class Filling(NamedTuple):
    """A forecast that still runs."""

    setting: Setting
    found: SoFar

    def figure(self) -> Figure:
        """The fan as far as it has come."""
        return _fan(self.setting, self.found)


class ForecastResult(NamedTuple):
    """What a page shows, and gives away."""

    setting: Setting
    is_whole: bool
    """False of a run that was stopped."""
    distribution: Distribution
    summary: str
    notes: list[str]
    """What there is to know of the start, and why the result is not complete."""
    pictures: dict[str, bytes]
    """PNG: fan, label, and depth_K of each trajectory K that was kept."""
    files: dict[str, bytes]
    """To download, by their names."""


def run(shop: Workshop, ask: ForecastAsk, job: Job[ForecastResult]) -> ForecastResult:
    """The forecast; StoppedError where it was stopped before anything was simulated, InputError, OSError."""
    with jax.default_device(shop.devices[ask.device]):
        job.say(f"loading the model {ask.model}")
        prepared = shop.model(ask.model, ask.device)
        job.say("reading the orders before the start")
        place = where.place(shop, prepared, ask.model, ask.where, ask.futures.minutes, futures.ACCOUNT + 1)
        minutes = ask.futures.minutes
        at = forecasts.read_start(place.market, prepared, place.feed, place.time_ns, place.known_minutes(minutes))
        limit = forecast_evaluation.threshold(ask.labels, place.market.session, at.past, 0, place.time_ns)
        setting = Setting(at, forecasts.describe(place.market, at), place.market, minutes, limit)
        notes = [line] if (line := at.refused.line()) else []
        if ask.where.source == where.REAL and ask.adapt_steps:
            job.say("teaching the model the day so far")
            prepared, said = adapted.to_day(prepared, place.market, place.feed, place.time_ns, ask.adapt_steps)
            notes += [said] if said else []
        return _simulated(shop, ask, job, prepared, setting, notes)


def _simulated(shop: Workshop, ask: ForecastAsk, job: Job[ForecastResult], prepared: PreparedModel, setting: Setting,
               notes: list[str]) -> ForecastResult:
    traces = KeptTraces(setting.market, range(ask.traced))
    watch = job.watch(1, lambda found: Filling(setting, found), traces.begin)
    whole: Rollout | None = None
    try:
        (whole,) = futures.simulate(prepared, setting.market, ask.futures, [setting.at.start],
                                    on_trace=traces if ask.traced else None, watch=watch)
        found = whole.so_far()
    except StoppedError:
        if not isinstance(job.latest, Filling):
            raise
        found = job.latest.found
    job.said, job.share = "drawing", 1.0
    summary = rollout_summary.summarize([whole], [setting.at.start]) if whole else None
    notes += rollout_summary.problems(summary) if summary else []
    if traces.dropped:
        notes.append(f"{traces.dropped} events found no room in the trace")
    return _result(shop, ask, setting, found, traces, summary, notes)


def _result(shop: Workshop, ask: ForecastAsk, setting: Setting, found: SoFar, traces: KeptTraces,
            summary: dict[str, Any] | None, notes: list[str]) -> ForecastResult:
    labels = forecasts.labels_so_far(found)
    distribution = forecast.distribution(labels, setting.threshold, ask.labels.quantiles)
    came = forecasts.realized(setting.at, setting.minutes, setting.threshold)
    figures = {"fan": functools.partial(_fan, setting, found), "label": functools.partial(
        label_plots.distribution, labels, setting.threshold, float("nan") if came is None else came["label"])}
    files = {"labels.csv": csv(forecasts.label_table(found, labels, setting.market, setting.at.time_ns)),
             "minutes.csv": csv(forecasts.minute_table(found, setting.market, setting.at.time_ns))}
    kept = traces.trajectories()
    if kept:
        trades = traces.trades()
        files |= {"orders.csv.gz": zipped(traces.orders()), "trades.csv.gz": zipped(trades)}
        for number in kept:
            figures[f"depth_{number}"] = functools.partial(
                depth_plots.heat_map, traces.depth(number), f"the book of future {number}",
                trades[trades["trajectory"] == number])
    pictures = pngs(figures)
    files["metrics.json"] = json_text_of({
        "is_whole": summary is not None, "forecast": forecast_report.record(distribution),
        "threshold": setting.threshold, "realized": came, "start": setting.facts, "rollouts": summary,
        "asked": dataclasses.asdict(ask), **shop.about(ask.model, ask.device)}).encode()
    return ForecastResult(setting, summary is not None, distribution, _spoken(found, summary), notes, pictures,
                          files | {f"{name}.png": data for name, data in pictures.items()})


def percentiles(result: ForecastResult) -> pd.DataFrame:
    """Of the labels, in words, a row each."""
    rows = [(f"{level:.0%}", value) for level, value in result.distribution.quantiles.items()]
    return pd.DataFrame({"Percentile": [name for name, _ in rows],
                         "Label, basis points": [f"{value * 1e4:+.2f}" if np.isfinite(value) else "-"
                                                 for _, value in rows],
                         "Mean mid": [f"{result.setting.facts['mid'] * result.setting.unit * (1 + value):.4f}"
                                      if np.isfinite(value) else "-" for _, value in rows]})


def _fan(setting: Setting, found: SoFar) -> Figure:
    return forecasts.fan(setting.at, found, setting.minutes, setting.threshold, setting.title, setting.unit)


def _spoken(found: SoFar, summary: dict[str, Any] | None) -> str:
    count, ended = len(found.end), int((found.end != End.RUNNING).sum())
    if summary is None:
        least = float(np.min(found.passed_ns)) / 60e9
        return (f"Stopped: {ended} of {count} futures had ended, all had come {least:.1f} minutes far. Labels are of "
                "those that had ended: the quieter ones, as all make their orders in step.")
    return (f"{summary['trajectories']:,} futures, {summary['orders']:,} orders, {summary['orders_per_s']:,} a second "
            f"({summary['run_s']:.1f} s; compiled in {summary['compile_s']:.1f} s)")
