"""Forecasts from many times of real days against what came, beside forecasts that need no model."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from marsjax.analysis import forecast, forecast_baselines, forecast_scores
from marsjax.analysis.evaluation_table import CLASSES, MODEL
from marsjax.analysis.forecast import Distribution, History, Move
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.sessions import Phase, Session
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.sim.initial import Start
from marsjax.sim.refusals import Refusals
from marsjax.studies import starts
from marsjax.studies.checks import check_numbers
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS, past_times, spell, start_times


@dataclasses.dataclass(frozen=True)
class LabelSpec:
    """Labels and their classes."""

    minutes: int
    """Horizon of a label."""
    threshold: float = -1.0
    """Labels beyond it are up, beyond its negative down; below 0: the one that calls a third of past labels flat."""
    quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
    """Of the labels of a start's trajectories."""
    fit_every_s: int = 10
    """Between two past labels that are fitted on."""

    def __post_init__(self) -> None:
        check_numbers(self, minutes=(1, limits.MINUTES), fit_every_s=(1, 60 * limits.MINUTES))
        forecast.distribution(np.zeros(1), max(self.threshold, 0.0), self.quantiles)


@dataclasses.dataclass(frozen=True)
class EvaluationSpec:
    """From when a day is forecast."""

    minutes: int
    first_minute: int = 5
    """From the beginning of the session to the first start."""
    every_minutes: int = 5
    """Between two starts."""
    fit_fraction: float = 0.5
    """First part of the starts, used to fit the threshold and the baselines only."""
    probability_edges: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """Bins of P(up) in the reliability table."""

    def __post_init__(self) -> None:
        check_numbers(self, first_minute=(1, limits.MINUTES), every_minutes=(1, limits.MINUTES))
        if not 0 < self.fit_fraction < 1:
            raise InputError(f"EvaluationSpec.fit_fraction: expected a fraction between 0 and 1, got "
                             f"{self.fit_fraction}")
        forecast_scores.reliability(np.zeros(0), np.zeros(0), self.probability_edges)

    @property
    def overlap(self) -> int:
        """Starts whose horizons reach into that of one start, on one side."""
        return -(-self.minutes // self.every_minutes) - 1

    def times(self, session: Session) -> tuple[list[int], list[int]]:
        """Starts to fit on, and starts that are forecast, nanoseconds since midnight; at least one each."""
        found = start_times(session, self.first_minute, self.every_minutes, self.minutes)
        count = min(max(round(len(found) * self.fit_fraction), 1), len(found) - 1)
        return found[:count], found[count:]


class EvaluatedDay(NamedTuple):
    """The starts of one day, and what came."""

    name: str
    starts: list[Start]
    times_ns: np.ndarray
    """int64 [K]."""
    seen: History
    realized: np.ndarray
    """float64 [K], labels."""
    threshold: float
    fit_ns: np.ndarray
    """int64 [N], times whose labels end before the first start."""
    refused: Refusals
    """Of the orders of the day."""


class Method(NamedTuple):
    """Forecasts of K starts."""

    probabilities: np.ndarray
    """float64 [K, 3]."""
    label: np.ndarray
    """float64 [K]."""


def read_day(market: MarketSpec, prepared: PreparedModel, feed: DayFeed, spec: LabelSpec,
             times: tuple[list[int], list[int]]) -> EvaluatedDay:
    """One pass over a day, of the times of `EvaluationSpec.times`."""
    fit, judged = times
    last_ns = judged[-1] + spec.minutes * MINUTE_NS
    found, passed, refused, _ = starts.states_of_feed(market, prepared, feed, [*judged, last_ns])
    seen, at = forecast.history(passed), np.array(judged, np.int64)
    return EvaluatedDay(feed.name, found[:-1], at, seen,
                        forecast.labels_of_history(seen, at, spec.minutes * MINUTE_NS),
                        threshold(spec, market.session, seen, fit[0], judged[0]),
                        past_times(market.session, fit[0], judged[0], spec.fit_every_s, spec.minutes),
                        refused)


def threshold(spec: LabelSpec, session: Session, seen: History, first_ns: int, end_ns: int) -> float:
    """`spec.threshold`, or if that is below 0 the one that calls a third of the labels before `end_ns` flat."""
    if spec.threshold >= 0:
        return float(spec.threshold)
    at = past_times(session, first_ns, end_ns, spec.fit_every_s, spec.minutes)
    return forecast.balanced_threshold(forecast.labels_of_history(seen, at, spec.minutes * MINUTE_NS))


def forecast_table(day: EvaluatedDay, forecasts: Sequence[Distribution], spec: LabelSpec, trajectories: int
                   ) -> pd.DataFrame:
    """A row a start: what came, and every method's forecast (the columns are those that `evaluation_table` reads)."""
    has_label = ~np.isnan(day.realized)
    came = np.full(len(day.realized), -1)
    came[has_label] = forecast.classes(day.realized[has_label], day.threshold)
    table = pd.DataFrame({
        "market": day.name, "time": [spell(int(ns)) for ns in day.times_ns], "time_ns": day.times_ns,
        "phase": Phase.CONTINUOUS.name, "status": np.where(has_label, "LABELLED", "NO_LABEL"),
        "label_unit": "share of the mid at the start", "threshold": day.threshold,
        "realized": day.realized, "class": ["" if move < 0 else CLASSES[move] for move in came],
        "with_label": [each.count for each in forecasts], "without_label": [each.without for each in forecasts]})
    for level in spec.quantiles:
        table[f"quantile_{level:g}"] = [each.quantiles[level] for each in forecasts]
    for name, method in _methods(day, forecasts, spec.minutes, trajectories).items():
        for move in Move:
            table[f"{name}: {CLASSES[move]}"] = method.probabilities[:, move]
        table[f"{name}: label"] = method.label
    return table


def _methods(day: EvaluatedDay, forecasts: Sequence[Distribution], minutes: int, trajectories: int
             ) -> dict[str, Method]:
    """The order model's forecasts and the baselines', which are fitted on labels that end before the first start."""
    past = forecast.labels_of_history(day.seen, day.fit_ns, minutes * MINUTE_NS)
    at, past = day.fit_ns[~np.isnan(past)], past[~np.isnan(past)]
    if not len(past):
        raise InputError(f"{day.name}: expected labels before the first start to fit on, got none: raise "
                         "fit_fraction")
    was = forecast.classes(past, day.threshold)
    counts = np.bincount(was, minlength=len(Move))
    mean_of = np.bincount(was, past, minlength=len(Move)) / np.maximum(counts, 1)
    logistic = forecast_baselines.fit(forecast_baselines.features(day.seen, at), was)
    by_book = logistic.probabilities(forecast_baselines.features(day.seen, day.times_ns))
    count = len(forecasts)
    flat = forecast_baselines.no_change(count, trajectories)
    return {
        MODEL: Method(forecast_scores.smoothed(np.array([each.counts for each in forecasts])),
                      np.array([each.mean for each in forecasts])),
        "no change": Method(forecast_scores.smoothed(flat), np.zeros(count)),
        "class frequencies": Method(np.tile(forecast_scores.smoothed(counts), (count, 1)),
                                    np.full(count, past.mean())),
        "logistic regression": Method(by_book, by_book @ mean_of)}
