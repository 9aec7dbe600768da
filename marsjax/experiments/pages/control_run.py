"""Controlled futures, from what a page asks for to pictures, tables and files."""

import dataclasses
from typing import NamedTuple

import jax
import pandas as pd
from matplotlib.figure import Figure

from marsjax.core.errors import InputError
from marsjax.core.json_text import json_text_of
from marsjax.core.specs import MarketSpec
from marsjax.experiments import control_target
from marsjax.experiments.control_target import ControlTarget
from marsjax.experiments.pages import where
from marsjax.experiments.pages.files import csv, pngs, zipped
from marsjax.experiments.pages.jobs import Job
from marsjax.experiments.pages.where import WhereAsk
from marsjax.experiments.pages.workshop import Workshop
from marsjax.observers.market_tables import CURRENCY
from marsjax.sim.control import ControlModels, ControlSpec
from marsjax.sim.result import SoFar
from marsjax.studies import (
    control,
    control_comparison,
    control_models,
    control_report,
    forecasts,
    futures,
    rollout_summary,
)
from marsjax.studies.control_comparison import Comparison
from marsjax.studies.forecasts import ForecastStart
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.places import Place

SCALE_BP = 2.5
WORDS = "in words"
"""Beside the names of scenarios: a sentence says what is wanted."""
_FLAT = 5e-4
_CHOSEN = ("Control chooses among what the model writes by itself, so that few ancestors are left of many futures: "
           "those that share one share their first minutes.")
_TOLD = "Futures that are told their orders do little of what they are told."
_REMARKS = {"resample": _CHOSEN, "batch": _TOLD, "both": f"{_TOLD} {_CHOSEN}"}
"""By the way of control."""


@dataclasses.dataclass(frozen=True)
class ControlAsk:
    """What a page asks for; InputError for a number or word that cannot be."""

    model: str
    device: str
    where: WhereAsk
    futures: FuturesSpec
    control: ControlSpec
    scenario: str
    """A name of `sim.control.scenarios`, or WORDS."""
    strength: float = 0.0
    """Of the scenario; 0: the usual one."""
    text: str = ""
    """With WORDS: the sentence."""

    def __post_init__(self) -> None:
        if self.control.island and self.control.is_resampled and self.futures.trajectories % self.control.island:
            raise InputError(f"ControlSpec.island: expected a number that divides the rollouts, "
                             f"{self.futures.trajectories}, got {self.control.island}")
        if self.control.is_led and self.futures.minutes * 60 % self.control.every_s:
            raise InputError(f"FuturesSpec.minutes: expected whole intervals of {self.control.every_s} seconds, where "
                             f"futures are told their orders (way), got {self.futures.minutes}")
        _ = self.wanted

    @property
    def wanted(self) -> ControlTarget:
        """What the futures are to do."""
        if self.scenario == WORDS:
            return control_target.of_text(self.text, self.futures.minutes, self.control, SCALE_BP)
        return control_target.of_scenario(self.scenario, self.strength, self.futures.minutes, self.control, SCALE_BP)


class ControlSetting(NamedTuple):
    """Where the futures start, and what is shown of it."""

    at: ForecastStart
    market: MarketSpec
    minutes: int
    wanted: str

    @property
    def title(self) -> str:
        """Of the pictures."""
        return f"{self.at.name}: {self.wanted}"


class ControlFilling(NamedTuple):
    """Futures that still run, as they are before those that do not fit are written over."""

    setting: ControlSetting
    found: SoFar

    def figure(self) -> Figure:
        """Their fan as far as it has come."""
        return forecasts.fan(self.setting.at, self.found, self.setting.minutes, _FLAT, self.setting.title,
                             float(self.setting.market.units.price))


class ControlResult(NamedTuple):
    """What a page shows, and gives away."""

    summary: str
    table: pd.DataFrame
    """A row a kind of futures, in words."""
    said: list[str]
    """What else there is to say, in lines."""
    remark: str
    """What such control is, and is not."""
    notes: list[str]
    picture: bytes
    files: dict[str, bytes]


def run(shop: Workshop, ask: ControlAsk, job: Job[ControlResult]) -> ControlResult:
    """Both kinds of futures; StoppedError where they were stopped, InputError, OSError."""
    with jax.default_device(shop.devices[ask.device]):
        job.say(f"loading the model {ask.model}")
        prepared = shop.model(ask.model, ask.device)
        job.say("reading the orders before the start")
        minutes = ask.futures.minutes
        place = where.place(shop, prepared, ask.model, ask.where, minutes, futures.ACCOUNT + 1)
        models = _models(ask, prepared, place)
        at = forecasts.read_start(place.market, prepared, place.feed, place.time_ns, 0)
        setting = ControlSetting(at, place.market, minutes, ask.wanted.words)
        notes = [line] if (line := at.refused.line()) else []
        market = control.ControlledMarket(prepared, place.market, at.start, models=models)
        found = control_comparison.compare(
            market, ask.futures, ask.control, ask.wanted.guide, at.time_ns, keeps_orders=False,
            watch=job.watch(2, lambda so_far: ControlFilling(setting, so_far)))
        job.said, job.share = "drawing", 1.0
        return _result(shop, ask, setting, found, notes)


def _models(ask: ControlAsk, prepared: PreparedModel, place: Place) -> ControlModels | None:
    """What tells the futures their orders, where they are told; FileNotFoundError for a checkpoint without it."""
    if not ask.control.is_led:
        return None
    models, _ = control_models.load(ask.model, prepared)
    models.check(ask.control.every_s, ask.futures.trajectories)
    return control_models.with_past(models, place.market, place.feed, place.time_ns)


def _result(shop: Workshop, ask: ControlAsk, setting: ControlSetting, found: Comparison, notes: list[str]
            ) -> ControlResult:
    at, market = setting.at, setting.market
    runs = [kind.run.rollout for kind in found.kinds]
    summary = rollout_summary.summarize(runs, [at.start] * len(runs))
    cost = control_report.realism(found, ask.futures.seed)
    picture = pngs({"control": lambda: control_report.picture(found, at, setting.minutes, setting.title)})["control"]
    record = control_report.record(found)
    files = {"intervals.csv": csv(control_report.intervals(found, market, at.time_ns, setting.minutes)),
             "minutes.csv.gz": zipped(control_report.minutes(found, market, at.time_ns, CURRENCY)),
             "realism.csv": csv(cost), "control.png": picture,
             "results.json": json_text_of(record | {
                 "wanted": setting.wanted, "rollouts": summary, "asked": dataclasses.asdict(ask),
                 **shop.about(ask.model, ask.device)}).encode()}
    said = (f"{summary['trajectories']:,} futures, {summary['orders']:,} orders ({summary['run_s']:.1f} s; compiled in "
            f"{summary['compile_s']:.1f} s)")
    table = control_report.fit_table(found).rename(columns=_capital)
    notes = notes + rollout_summary.problems(summary) + control_report.problems(found)
    return ControlResult(said, table, control_report.lines(found, cost)[1 + len(found.kinds):],
                         _REMARKS[ask.control.way], notes, picture, files)


def _capital(name: str) -> str:
    """With a capital letter at first, as of a heading."""
    return name[:1].upper() + name[1:]
