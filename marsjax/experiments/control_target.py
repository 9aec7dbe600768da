"""A config -> what controlled futures are to do: a scenario, words, a curve from a file, or what really came."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from marsjax.analysis import forecast
from marsjax.core.errors import InputError
from marsjax.core.times import SECOND_NS
from marsjax.experiments import control_curve, setup
from marsjax.observers.features import Features
from marsjax.sim.control import ControlSpec, CurveGuide, Guide, TargetGuide, scenarios
from marsjax.studies import scenario_text
from marsjax.studies.forecasts import ForecastStart
from marsjax.studies.session_times import MINUTE_NS

_USUAL = {"calm": 0.5, "burst": 1.2, "illiquid": 0.9}
"""Strengths of scenarios whose strength is a multiple of what is usual; of the others it is in basis points."""
_USUAL_BP = 30.0
_BP = 1e4
_SOURCES = ("scenario", "text", "curve", "replay")


class ControlTarget(NamedTuple):
    """What the futures are to do."""

    words: str
    """For titles and text."""
    guide: Callable[[Features], Guide]
    """Of what is usual: the features of uncontrolled futures."""


def check(config: ConfigDict, how: ControlSpec) -> None:
    """Before anything takes time: InputError, or OSError for a file, where no target can be made of a config."""
    named = [key for key in _SOURCES if config[key]]
    if len(named) > 1:
        raise InputError(f"config.{named[0]}: expected one target, got {' and '.join(named)}: leave out all but one")
    if not 0 < config.scale_bp < math.inf:
        raise InputError(f"config.scale_bp: expected a finite number above 0, got {config.scale_bp}")
    if config.text:
        with setup.named("config.text"):
            of_text(config.text, config.minutes, how, config.scale_bp)
    elif config.curve:
        control_curve.read(config.curve, config.minutes)
    elif not config.replay:
        with setup.named("config.scenario, config.strength"):
            of_scenario(config.scenario or "drop", config.strength, config.minutes, how, config.scale_bp)


def wanted(config: ConfigDict, how: ControlSpec, at: ForecastStart) -> ControlTarget:
    """The target that a config names, of futures of a start; errors as of `check`, and InputError without a mid."""
    if config.text:
        return of_text(config.text, config.minutes, how, config.scale_bp)
    if config.curve:
        curve = control_curve.read(config.curve, config.minutes).at(_end_minutes(config, how))
        return ControlTarget(f"as {config.curve}", lambda normal: CurveGuide(curve, config.scale_bp))
    if config.replay:
        curve = _what_came(at, _end_minutes(config, how))
        words = f"as it came, {curve[-1]:+.1f} bp at the end"
        return ControlTarget(words, lambda normal: CurveGuide(curve, config.scale_bp))
    return of_scenario(config.scenario or "drop", config.strength, config.minutes, how, config.scale_bp)


def of_scenario(name: str, strength: float, minutes: int, how: ControlSpec, scale_bp: float) -> ControlTarget:
    """A scenario by name (`sim.control.scenarios`), of a strength; 0: the usual one. InputError where it is none."""
    strength, intervals = strength or _USUAL.get(name, _USUAL_BP), how.intervals(minutes)
    ends_s = _ends_s(minutes, how)
    scenarios.of(name, strength, intervals, _anything(intervals), ends_s)
    words = f"{name}, {strength:g} times the usual" if name in _USUAL else f"{name} of {strength:g} bp"
    return ControlTarget(words, lambda normal: _scaled(scenarios.of(name, strength, intervals, normal, ends_s),
                                                       scale_bp))


def of_text(text: str, minutes: int, how: ControlSpec, scale_bp: float) -> ControlTarget:
    """A scenario in words (`studies.scenario_text`); InputError names the word that does not fit."""
    scenario_text.guide(text, minutes, how, _anything(how.intervals(minutes)))
    return ControlTarget(text, lambda normal: _scaled(scenario_text.guide(text, minutes, how, normal), scale_bp))


def _anything(intervals: int) -> Features:
    """Something usual, to see that a target can be made at all."""
    return Features(*(np.ones(intervals) for _ in Features._fields))


def _end_minutes(config: ConfigDict, how: ControlSpec) -> np.ndarray:
    """When the intervals end, minutes after the start."""
    return _ends_s(config.minutes, how) / 60


def _ends_s(minutes: int, how: ControlSpec) -> np.ndarray:
    """When the intervals end, seconds after the start; the last one may be shorter than the others."""
    return np.minimum((np.arange(how.intervals(minutes)) + 1.0) * how.every_s, minutes * 60.0)


def _scaled(guide: Guide, scale_bp: float) -> Guide:
    """A guide with another scale of its curve of prices."""
    if isinstance(guide, CurveGuide):
        return dataclasses.replace(guide, scale_bp=scale_bp)
    if isinstance(guide, TargetGuide):
        return TargetGuide(tuple(dataclasses.replace(each, scale=scale_bp) if each.name == "return_bp" else each
                                 for each in guide.targets))
    return guide


def _what_came(at: ForecastStart, minutes: np.ndarray) -> tuple[float, ...]:
    """Returns against the start at minutes after it, basis points, of the real day."""
    if at.seen is None:
        raise InputError(f"config.replay: {at.name}: expected a day of which it is known what came after the start")
    times_ns = at.time_ns + np.concatenate([[0], np.rint(minutes * MINUTE_NS)]).astype(np.int64)
    mids = forecast.mid_twice_at(at.seen, times_ns)
    if (mids <= 0).any():
        missing = int(np.argmax(mids <= 0))
        after_s = (times_ns[missing] - at.time_ns) // SECOND_NS
        raise InputError(f"config.replay: {at.name}: no mid {after_s} s after the start, when a side of its book was "
                         "empty: choose another time")
    return tuple((_BP * (mids[1:] / mids[0] - 1)).tolist())
