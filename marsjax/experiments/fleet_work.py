"""What a fleet's worker does, from a config: called by its import path in the worker's process."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.experiments import launcher, markets, setup
from marsjax.studies import executions, futures, order_model
from marsjax.studies.executions import ExecutionSpec, StrategySpec
from marsjax.studies.fleet import comparing, executing, forecasting
from marsjax.studies.fleet.states import Job
from marsjax.studies.fleet.work import MadeState, Worker
from marsjax.studies.forecast_evaluation import LabelSpec
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import hours

FORECAST, MARKET_IMPACT, REALISM = "forecast", "market_impact", "realism"
STUDIES = (FORECAST, MARKET_IMPACT, REALISM)
CALL = f"{__name__}:open_worker"


def days_of(config: ConfigDict) -> dict[str, tuple[MarketSpec, DayFeed]]:
    """The days that a config names, with their markets, by name in order of the feed."""
    accounts = (executions.EXECUTOR if config.study == MARKET_IMPACT else futures.ACCOUNT) + 1
    feeds = markets.open_feeds(config)
    market = {feed.name: group.market for group in markets.groups(config, feeds, accounts) for feed in group.feeds}
    return {feed.name: (market[feed.name], feed) for feed in feeds}


def execution_spec(config: ConfigDict) -> ExecutionSpec:
    """The executions of one state."""
    return setup.spec_of(ExecutionSpec, config, strategy=setup.spec_of(StrategySpec, config),
                         futures=setup.spec_of(FuturesSpec, config), seeds=1, first=0)


def check(config: ConfigDict, states: int) -> None:
    """InputError where a key of the study is wrong, before anything takes time."""
    if config.study not in STUDIES:
        raise InputError(f"config.study: expected {', '.join(STUDIES)}, got {config.study!r}")
    setup.at_least(config, "resamples", 2, limits.RESAMPLES)
    setup.at_least(config, "adapt_steps", 0)
    setup.at_least(config, "most_at_once", 1)  # what fits a machine would be another size on another
    spec = setup.spec_of(FuturesSpec, config)
    setup.spec_of(LabelSpec, config)
    execution_spec(config)
    numbers = states * spec.trajectories * 2
    if numbers > limits.SEED:
        raise InputError(f"config.trajectories: expected at most {limits.SEED // 2 // states} for {states} states, got "
                         f"{spec.trajectories}: name fewer days, by config.symbol and config.date")


def open_worker(config: Mapping[str, Any], first_times_ns: Mapping[str, int], model_sha256: str) -> Worker:
    """A worker of the study that a config (as plain values) describes.

    Args:
      config: of configs/fleet.py.
      first_times_ns: a day's first state, by its name.
      model_sha256: of the parameters; InputError where a worker's machine finds others under the model's name.
    """
    launcher.set_up_compilation_cache()
    known = ConfigDict(dict(config)).lock()
    prepared = setup.load_order_model(known)
    found = order_model.parameters_hash(prepared.model.model)
    if found != model_sha256:
        raise InputError(f"config.model {known.model}: a worker finds another model under this name (sha256 "
                         f"{found[:12]}, expected {model_sha256[:12]}): give a folder that all machines see")
    return _Studies(known, prepared, days_of(known), first_times_ns)


class _Studies:
    """Makes states of any of the days."""

    def __init__(self, config: ConfigDict, prepared: PreparedModel, days: Mapping[str, tuple[MarketSpec, DayFeed]],
                 first_times_ns: Mapping[str, int]) -> None:
        self._config, self._prepared, self._days, self._first = config, prepared, days, first_times_ns
        # Jobs of one day mostly follow one another; an adapted model is as large as the model.
        self._own = functools.lru_cache(maxsize=2)(self._adapted)

    def __call__(self, job: Job) -> Iterator[MadeState]:
        config, name = self._config, job[0].day
        if name not in self._days:
            raise InputError(f"config.folder {config.folder}: no day {name}, which was there when the fleet began")
        market, feed = self._days[name]
        own = self._own(name)
        if config.study == MARKET_IMPACT:
            return executing.impacts(own, market, feed, job, execution_spec(config))
        spec = setup.spec_of(FuturesSpec, config)
        if config.study == REALISM:
            return comparing.comparisons(own, market, feed, job, spec, hours(market.session, feed), self._first[name])
        return forecasting.forecasts(own, market, feed, job, spec, setup.spec_of(LabelSpec, config))

    def _adapted(self, name: str) -> PreparedModel:
        """The model, taught by the day before its first state: the same one for all its states."""
        market, feed = self._days[name]
        return setup.adapted(self._config, self._prepared, market, feed, self._first[name])
