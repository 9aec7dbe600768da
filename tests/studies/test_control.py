"""Studies of controlled futures: the fit is what a plain loop says, and tables hold every interval."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marsjax import testing
from marsjax.core.errors import InputError
from marsjax.sim.control import ControlledRollout, ControlSpec, CurveGuide, Led, Target, TargetGuide, scenarios
from marsjax.sim.state import End
from marsjax.studies import control, control_report, scenario_text
from marsjax.studies.control import ControlledMarket, ControlStudy
from marsjax.studies.control_comparison import Comparison, FuturesKind
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import prepare

pytestmark = pytest.mark.quick

CONTROL = ControlSpec(every_s=25, island=8, resample_below=1.0)
START_NS = 36_000 * 10**9
NO_REALISM = pd.DataFrame({"kind": [], "similarity": [], "less": []})


@functools.cache
def found() -> ControlStudy:
    model, market = testing.tiny_model(), testing.tiny_market()
    at = ControlledMarket(prepare(model), market, testing.random_start(market, model))
    return control.study(at, FuturesSpec(16, minutes=1, seed=1, devices=1), CONTROL,
                         lambda normal: scenario_text.guide("drop 20bp, volume twice", 1, CONTROL, normal))


def test_a_study_has_both_runs_of_the_same_numbers_and_a_guide_of_what_is_usual() -> None:
    assert isinstance(found().guide, TargetGuide) and not found().free.resampled.any()
    assert found().guide.targets[1].values == pytest.approx(2 * found().free.features.volume.mean(axis=1))
    assert found().guide.targets[0].values == pytest.approx([-20 * 25 / 60, -20 * 50 / 60, -20])
    assert found().controlled.rollout.mid_twice_start.tolist() == found().free.rollout.mid_twice_start.tolist()
    assert np.array_equal(found().controlled.rollout.state.trajectory, found().free.rollout.state.trajectory)


def with_ends(run: ControlledRollout, ends: list[End]) -> ControlledRollout:
    state = dataclasses.replace(run.rollout.state, end=np.array(ends, np.int32))
    return dataclasses.replace(run, rollout=dataclasses.replace(run.rollout, state=state))


def test_what_is_usual_is_of_futures_that_are_not_lost() -> None:
    free = with_ends(found().free, [End.TIME, End.NO_MID, End.NOT_FINITE, End.TIME] * 4)
    kept = np.arange(16)[np.arange(16) % 4 % 3 == 0]
    made = control.guide_of(lambda normal: scenarios.of("burst", 2, 3, normal), free)
    assert made.targets[0].values == pytest.approx(2 * free.features.volume[:, kept].mean(axis=1))
    with pytest.raises(InputError, match="all of them are lost"):
        control.guide_of(lambda normal: scenarios.of("burst", 2, 3, normal), with_ends(free, [End.NO_MID] * 16))
    with pytest.raises(InputError, match="expected a guide, or what makes one of features, got None"):
        control.guide_of(None, free)  # type: ignore[arg-type]


def test_all_futures_run_again_in_larger_books_where_one_that_is_gone_was_full(monkeypatch: pytest.MonkeyPatch) -> None:
    model, market = testing.tiny_model(), testing.tiny_market()
    at = ControlledMarket(prepare(model), market, testing.random_start(market, model))
    tried = []

    def controlled(simulator: Any, *given: Any, **others: Any) -> ControlledRollout:
        tried.append(simulator.spec.market.capacity)
        return dataclasses.replace(found().controlled, full_books=int(len(tried) == 1))

    monkeypatch.setattr(control, "controlled", controlled)
    assert not found().controlled.rollout.rejected
    control.simulate(at, FuturesSpec(16, minutes=1), CONTROL, found().guide)
    assert len(tried) == 2 and tried[1] == 2 * tried[0]
    control.simulate(at, FuturesSpec(16, minutes=1, rollout_capacity=128), CONTROL, found().guide)
    assert tried[2:] == [128]


def test_how_much_is_done_is_the_line_through_what_was_told_and_what_came() -> None:
    run, rng = found().controlled, np.random.default_rng(0)
    told = rng.normal(size=run.features.move_bp.shape)
    told[2, :3] = np.nan  # they had ended
    came = 0.25 * np.nan_to_num(told) - 1 + 0.5 * rng.normal(size=told.shape)
    predicted = run.features._replace(move_bp=told)
    led = dataclasses.replace(run, led=Led(np.zeros((*told.shape, 4), np.int32), predicted),
                              features=run.features._replace(move_bp=came))
    done, is_there = control.followed(led), np.isfinite(told)
    assert done is not None and control.followed(run) is None
    line = np.polyfit(told[is_there], came[is_there], 1)
    assert done.slope == pytest.approx(line[0]) and done.told_bp == pytest.approx(told[is_there].mean())
    assert done.correlation == pytest.approx(np.corrcoef(told[is_there], came[is_there])[0, 1])
    assert done.came_bp == pytest.approx(came[is_there].mean())
    table = control.feature_table(ControlStudy(found().guide, led, found().free), START_NS)
    moves = table[table["feature"] == "move_bp"]
    assert moves["told"].tolist() == pytest.approx(np.nanmean(told, axis=1).tolist())
    assert control.feature_table(found(), START_NS)["told"].isna().all()
    lines = control_report.lines(as_comparison(dataclasses.replace(led, log_evidence=np.full(2, np.nan))), NO_REALISM)
    assert "no future was chosen or dropped: all are independent of one another" in lines
    assert lines[-1].endswith(f"{done.slope:.2f} comes (correlation {done.correlation:.2f})")


def as_comparison(held: ControlledRollout) -> Comparison:
    return Comparison(found().guide, FuturesKind("uncontrolled", found().free, []),
                      FuturesKind("controlled", held, []), None, 0, np.zeros(0, np.int64))


def test_the_evidence_of_islands_is_the_mean_of_weights_not_of_logs() -> None:
    run = dataclasses.replace(found().controlled, log_evidence=np.log(np.array([0.5, 0.1, 1e-9], np.float32)))
    assert math.exp(control_report.evidence(run)) == pytest.approx(0.6 / 3)
    none = dataclasses.replace(run, log_evidence=np.array([-np.inf, 0.0], np.float32))
    assert math.exp(control_report.evidence(none)) == pytest.approx(0.5)


def test_the_fit_is_that_of_a_plain_loop() -> None:
    curve = np.array([-5.0, math.nan, -15.0])
    volume = Target("volume", (math.nan, 900.0, 800.0), 9.0)
    guide = TargetGuide((Target("return_bp", tuple(curve.tolist()), 1.0), volume))
    run = found().controlled
    fit = control.fit(run, guide)
    correlations, squares, ends, volumes = [], [], [], []
    for b in range(16):
        own = [0.0, float(run.features.return_bp[0, b]), float(run.features.return_bp[2, b])]
        if np.std(own):
            correlations.append(np.corrcoef(own, [0.0, -5.0, -15.0])[0, 1])
        squares += [(own[1] + 5) ** 2, (own[2] + 15) ** 2]
        ends.append(abs(own[2] + 15))
        volumes += [(float(run.features.volume[1, b]) - 900) ** 2, (float(run.features.volume[2, b]) - 800) ** 2]
    assert fit.correlation == pytest.approx(np.mean(correlations), abs=1e-5)
    assert fit.rmse_bp == fit.rmse["return_bp"] == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-5)
    assert fit.terminal_error_bp == pytest.approx(np.mean(ends), rel=1e-5)
    assert fit.share_near == np.mean(np.array(ends) <= 5)
    assert fit.rmse["volume"] == pytest.approx(math.sqrt(np.mean(volumes)), rel=1e-5)
    only_volume = control.fit(run, TargetGuide(guide.targets[1:]))
    assert math.isnan(only_volume.rmse_bp) and only_volume.rmse == {"volume": fit.rmse["volume"]}
    assert math.isnan(control.fit(run, CurveGuide((math.nan,) * 3)).share_near)


def test_tables_have_a_row_for_each_interval_and_end_with_the_futures() -> None:
    table = control.feature_table(found(), START_NS)
    assert len(table) == 3 * 8 and table["time_ns"].unique().tolist() == [START_NS + s * 10**9 for s in (25, 50, 60)]
    row = table[(table["feature"] == "volume") & (table["interval"] == 1)].iloc[0]
    values = found().controlled.features.volume[1]
    assert row["mean"] == pytest.approx(values.mean()) and row["low"] == pytest.approx(np.percentile(values, 5))
    assert row["free_high"] == pytest.approx(np.percentile(found().free.features.volume[1], 95))
    assert row["wanted"] == pytest.approx(found().guide.targets[1].values[1])
    islands = control.island_table(found().controlled, START_NS)
    assert islands[["interval", "island"]].to_numpy().tolist() == [[k, i] for k in range(3) for i in range(2)]
    assert islands["distinct"].tolist() == found().controlled.distinct.ravel().tolist()
    assert islands["clock"].iloc[-1] == "10:01:00.000000000"
