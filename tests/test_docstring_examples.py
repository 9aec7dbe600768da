"""The examples in docstrings run as they stand and give what they show; what users call has one."""

import doctest
import importlib
import pkgutil
import types

import pytest

import marsjax

pytestmark = pytest.mark.quick

SLOW = {"marsjax.agents.base", "marsjax.observers.base", "marsjax.observers.features", "marsjax.sim.control.run",
        "marsjax.sim.env", "marsjax.sim.initial.from_noise",
        "marsjax.sim.initial.from_orders", "marsjax.sim.initial.state", "marsjax.sim.replayed", "marsjax.sim.result",
        "marsjax.sim.rollout", "marsjax.studies.control", "marsjax.studies.futures",
        "marsjax.studies.rollout_summary", "marsjax.testing"}
"""Modules whose examples compile rollouts."""
CALLED = [
    "agents.avellaneda_stoikov.AvellanedaStoikov", "agents.base.Agent", "agents.base.Latency",
    "agents.immediate.Immediate", "agents.metered.Metered",
    "agents.noise.NoiseSpec", "agents.participation.Participation", "agents.twap.Twap", "agents.vwap.Vwap",
    "analysis.forecast.distribution", "analysis.stylized_facts.tables", "checkpoint.folder.save",
    "core.sessions.chinese_session", "core.sessions.continuous_session", "core.times.of_clock",
    "data.frames.from_frame", "data.frames.to_frame", "data.made_days.open_day", "data.sources.names",
    "data.sources.open_days", "market.book.submit", "market.book.view", "market.exchange.submit",
    "market.orders.cancel_order", "market.orders.from_columns", "market.orders.limit_order",
    "market.orders.market_order", "observers.bars.MinuteBarObserver", "observers.base.Observer",
    "observers.features.FeatureObserver", "observers.trace.TraceObserver", "sim.control.guides.CurveGuide",
    "sim.control.guides.TargetGuide", "sim.control.run.controlled", "sim.control.scenarios.of", "sim.frames.Fees",
    "sim.initial.from_noise.noise",
    "sim.initial.from_orders.after_orders", "sim.initial.from_orders.from_feed", "sim.initial.state.resize",
    "sim.replayed.replay_day", "sim.resume.Saving", "sim.rollout.RolloutProgress",
    "studies.control.study", "studies.executions.metered_strategy", "studies.futures.FuturesSpec",
    "studies.order_model.PreparedModel",
    "studies.rollout_summary.labels", "studies.scenario_text.guide",
    "testing.check_agent", "testing.random_orders", "testing.random_start",
    "testing.tiny_market", "testing.tiny_model", "tokens.bins.fit"]
"""Beside those of `marsjax.__all__`, what users of the library call themselves."""


def modules() -> list[str]:
    return sorted(module.name for module in pkgutil.walk_packages(marsjax.__path__, "marsjax.")
                  if "packaged" not in module.name)


def with_examples() -> list[str]:
    """Modules that hold examples, found by their sources: importing all of them takes seconds."""
    found = []
    for name in modules():
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        with open(spec.origin, encoding="utf-8") as file:
            if ">>> " in file.read():
                found.append(name)
    return found


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
                                  for name in with_examples()])
def test_examples_give_what_they_show(name: str) -> None:
    module = importlib.import_module(name)
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        if test.examples:
            runner.run(test, out=said.append)
    assert runner.tries and not runner.failures, "".join(said)


def test_what_users_call_has_an_example() -> None:
    called = [getattr(marsjax, name) for name in marsjax.__all__]
    for path in CALLED:
        module, _, name = f"marsjax.{path}".rpartition(".")
        called.append(getattr(importlib.import_module(module), name))
    missing = [f"{one.__module__}.{one.__name__}" for one in called
               if isinstance(one, type | types.FunctionType) and ">>> " not in (one.__doc__ or "")]
    assert not missing
