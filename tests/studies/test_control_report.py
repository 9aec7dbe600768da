"""What is said of controlled futures: the fit by what was wanted, how rare it is, and islands without any weight."""

import dataclasses
import functools
import itertools

import numpy as np
import pandas as pd
import pytest

from marsjax import testing
from marsjax.core.times import SECOND_NS
from marsjax.sim.control import ControlSpec, CurveGuide, Guide, Target, TargetGuide
from marsjax.studies import control, control_comparison, control_report, futures
from marsjax.studies.control import ControlledMarket, ControlStudy
from marsjax.studies.control_comparison import Comparison, FuturesKind
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import prepare

pytestmark = pytest.mark.quick

HOW = ControlSpec(every_s=25, island=8)
NO_REALISM = pd.DataFrame({"kind": [], "similarity": [], "less": []})


@functools.cache
def study() -> ControlStudy:
    model, market = testing.tiny_model(), testing.tiny_market()
    at = ControlledMarket(prepare(model), market, testing.random_start(market, model))
    return control.study(at, FuturesSpec(16, minutes=1, seed=1, devices=1), HOW,
                         CurveGuide((-5.0, -10.0, -20.0)))


def comparison(guide: Guide, log_evidence: tuple[float, float] = (-3.0, -3.0)) -> Comparison:
    """The study's futures, as if they had been made for a guide, and had fitted it so often."""
    held = dataclasses.replace(study().controlled, log_evidence=np.array(log_evidence, np.float32))
    return Comparison(guide, FuturesKind("uncontrolled", study().free, []), FuturesKind("controlled", held, []), None,
                      0, np.zeros(0, np.int64))


@pytest.mark.parametrize(("log_evidence", "expected"), [
    (0.0, "one future in 1 fits"), (-np.log(2273), "one future in 2,273 fits"),
    (-800 * np.log(10), "one future in 10^800 fits"), (-np.inf, "no future fits")])
def test_how_rare_a_future_is_can_be_said_of_any_share(log_evidence: float, expected: str) -> None:
    found = comparison(CurveGuide((-5.0, -10.0, -20.0)), (log_evidence, log_evidence))
    assert control_report.lines(found, NO_REALISM)[3].endswith(expected)


def test_an_island_without_any_weight_is_a_problem() -> None:
    guide = CurveGuide((-5.0, -10.0, -20.0))
    assert control_report.problems(comparison(guide)) == []
    (line,) = control_report.problems(comparison(guide, (-np.inf, -3.0)))
    assert line.startswith("controlled: in 1 of 2 islands no future has any weight")


def test_where_no_price_is_wanted_the_fit_is_that_of_the_features() -> None:
    guide = TargetGuide((Target("volume", (900.0, 900.0, 800.0), 9.0), Target("orders", (9.0, 9.0, 9.0), 1.0)))
    found = comparison(guide)
    table = control_report.fit_table(found)
    assert table.columns.tolist() == ["futures", "RMSE, volume", "RMSE, orders", "ancestors", "orders/s"]
    for kind, told in zip(found.kinds, table["RMSE, volume"], strict=True):
        assert told == f"{control.fit(kind.run, guide).rmse['volume']:.3g}"
    text = control_report.lines(found, NO_REALISM)
    assert "nan" not in "".join(text) and text[2].startswith("controlled ")
    both = TargetGuide((Target("return_bp", (0.0,) * 3, 2.5), *guide.targets))
    shown = control_report.fit_table(comparison(both))
    assert shown["RMSE, bp"].tolist() == [f"{control.fit(kind.run, both).rmse_bp:.1f}" for kind in found.kinds]
    assert shown["correlation"].tolist() == ["-", "-"]  # with a level there is none
    assert {"RMSE, volume", "RMSE, orders"} < set(shown)


@pytest.mark.slow
def test_orders_are_those_of_the_last_run_where_books_were_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind is run twice, as if a side of a book had been full, in one chunk each time."""
    again = itertools.cycle([True, False])
    monkeypatch.setattr(futures, "next_capacity", lambda spec, capacity, run: capacity if next(again) else None)
    model, market = testing.tiny_model(), testing.tiny_market()
    at = ControlledMarket(prepare(model), market, testing.random_start(market, model))
    spec = FuturesSpec(16, minutes=1, seed=1, chunk_steps=4096, devices=1)
    found = control_comparison.compare(at, spec, ControlSpec(every_s=60), CurveGuide((-20.0,)), 36_000 * SECOND_NS)
    for kind in found.kinds:
        counts = [len(events.spread) for events in kind.events if events is not None]
        assert counts == kind.run.features.orders.sum(axis=0).astype(int).tolist()
