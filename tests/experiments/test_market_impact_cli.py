"""The market impact experiment as its user meets it: tables that agree, draws in common, and bad input.

All runs share one market, one strategy and one tiny model of random weights, so that they compile once.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import pytest

from marsjax import testing
from marsjax.agents import check
from marsjax.agents.base import AgentEvent
from marsjax.agents.metered import Metered
from marsjax.agents.twap import Twap
from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.core import int64, times
from marsjax.core.records import Status
from marsjax.core.times import SECOND_NS
from marsjax.experiments import market_impact as experiment
from marsjax.sim import rollout
from marsjax.sim.result import Rollout
from marsjax.sim.step import End
from marsjax.studies import futures
from tests.experiments.conftest import Launch

pytestmark = pytest.mark.quick

CONFIG = Path(__file__).parents[2] / "configs" / "market_impact.py"
ARGUMENT = "twap,source=noise,trajectories=4,seeds=2,minutes=1,after=1"
SMALL = ("--config.noise_minutes=2", "--config.capacity=128", "--config.rollout_capacity=128",
         "--config.ratios=0.1,0.4", "--config.bootstrap=50", "--config.chunk_steps=32")
FILES = {"metrics.json", "minutes.csv", "executions.csv", "impact.csv", "decay.csv", "baselines.csv",
         "volume.png", "price.png", "impact.png", ".marsjax-run"}


class Ran(NamedTuple):
    """What a run said and the rollouts that it made."""

    code: int
    out: str
    err: str
    runs: list[Rollout]
    given: list[dict[str, Any]]


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, tiny = tmp_path_factory.mktemp("model") / "tiny", testing.tiny_model()
    checkpoint_folder.save(folder, tiny.model, tiny.converters, {"source": "random weights"})
    return folder


@pytest.fixture
def run(launch: Launch, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the experiment."""
    real, runs, given = rollout.rollout, [], []

    def spy(*args: Any, **named: Any) -> Rollout:
        runs.append(real(*args, **named))
        given.append(named | {"spec": args[2]})
        return runs[-1]

    monkeypatch.setattr(rollout, "rollout", spy)

    def call(*overrides: str, argument: str = ARGUMENT) -> Ran:
        config = f"{CONFIG}:{argument},output=out,model={checkpoint}"
        return Ran(*launch("market_impact", experiment.main, f"--config={config}", *SMALL, *overrides), runs, given)

    return call


@pytest.mark.slow
def test_a_run_writes_tables_that_agree(run: Run, tmp_path: Path) -> None:
    ran = run()
    out = tmp_path / "out"
    assert ran.code == 0, ran.err
    assert {path.name for path in out.iterdir()} == FILES
    # Baselines and executions of two sizes: numbers in common with the first half of the baselines.
    without, executed = (np.reshape(named["spec"].numbers, (2, 8)) for named in ran.given)
    np.testing.assert_array_equal(executed, without[[0, 0]])
    assert len(set(without.flat)) == 16
    rows, base = (pd.read_csv(out / name) for name in ("executions.csv", "baselines.csv"))
    report = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert abs(report["mean_volume_without"] - base["volume"].mean()) < 1e-9
    for ratio, part in rows.groupby("ratio"):
        assert set(part["target"]) == {int(base["volume"].mean() * ratio) // 100 * 100}
    states = [made.state.agent_states[0].state for made in ran.runs]
    done = np.concatenate([np.asarray(state.agent.completed) for state in states])
    np.testing.assert_array_equal(rows["completed"], done[16:])
    assert (done[:16] == 0).all() and (done[16:] > 0).all()
    holdings = np.concatenate([int64.to_numpy(jax.tree.map(lambda x: x[:, 2], made.state.market.ledgers.cash))
                               for made in ran.runs])
    np.testing.assert_allclose(rows["completed"] * rows["average_price"], -holdings[16:])
    group = report["groups"][1]
    mine = rows[rows["ratio"] == 0.4]
    assert abs(group["impact_bp"]["value"] - mine["impact_bp"].mean()) < 1e-9
    assert (rows["status"] == np.where(rows["lost"], "LOST", "WHOLE")).all()
    assert (base["status"] == np.where(base["lost"], "LOST", "WHOLE")).all()
    minutes = pd.read_csv(out / "minutes.csv")
    assert set(minutes["status"]) == {"MEAN"}
    last = minutes[(minutes["ratio"] == 0.4) & (minutes["minute"] == 2)]
    assert abs(last["completed"].item() - mine["completed"].mean()) < 1e-9
    assert len(pd.read_csv(out / "decay.csv")) == 2 * 2
    assert report["rollouts"]["conserved"] and report["rollouts"]["trajectories"] == 32
    assert "mean volume without the twap" in ran.out


@pytest.mark.slow
def test_in_few_slots_and_again_where_a_side_was_full_comes_the_same(run: Run, tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    before = pd.read_csv(tmp_path / "out" / "executions.csv")
    real, calls = rollout.rollout, []

    def full(*args: Any, **named: Any) -> Rollout:
        """Six executions found a side full; when they are made again none does."""
        calls.append(args[2].numbers)
        made = real(*args, **named)
        if len(calls) == 2:
            made.status[2:8, Status.SIDE_FULL] += 1
        return made

    monkeypatch.setattr(rollout, "rollout", full)
    monkeypatch.setattr(futures, "next_capacity", lambda spec, capacity, made: (
        capacity if made.status[:, Status.SIDE_FULL].any() else None))
    ran = run("--config.slots=6", "--config.overwrite=true", "--config.picture=false")
    assert ran.code == 0 and [len(numbers) for numbers in calls] == [16, 16, 6]
    assert calls[2] == calls[1][2:8]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "executions.csv"), before)
    report = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert report["rollouts"]["trajectories"] == 32 and report["rollouts"]["rejected"] == {}


@pytest.mark.slow
def test_a_lost_rollout_is_counted_and_part_of_no_mean(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                       ) -> None:
    real = rollout.rollout

    def lose(*args: Any, **named: Any) -> Rollout:
        made = real(*args, **named)
        state = dataclasses.replace(made.state, end=made.state.end.at[3].set(int(End.NO_MID)))
        return dataclasses.replace(made, state=state)

    monkeypatch.setattr(rollout, "rollout", lose)
    ran = run("--config.sides=sell", "--config.picture=false", "--config.targets=500")
    assert ran.code == 3 and "2 of 24 trajectories lost, not part of any number: {'NO_MID': 2}" in ran.err
    rows = pd.read_csv(tmp_path / "out" / "executions.csv")
    assert rows["lost"].tolist() == [False] * 3 + [True] + [False] * 4 and set(rows["target"]) == {500}
    assert rows["impact_bp"].isna().tolist() == rows["lost"].tolist()
    report = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    known = rows["slippage_bp"][~rows["lost"]].mean()
    assert abs(report["groups"][0]["slippage_bp"]["value"] - known) < 1e-9 and report["groups"][0]["side"] == "sell"


@pytest.mark.parametrize(("override", "message"), [
    ("--config.targets=150", "config.targets: expected a multiple of 100 shares"),
    ("--config.targets=0,100", "config.targets: expected shares above 0"),
    ("--config.passive_seconds=8", "config, keys of twap and config.minutes = 1: Twap.total_seconds: expected a "
                                   "multiple of passive_seconds + idle_seconds = 13"),
    ("--config.ratios=0.1,0", "config.ratios: expected numbers above 0"),
    ("--config.ratios=0.1,0.1", "config.ratios: expected different numbers"),
    ("--config.sides=buy,long", "config.sides: expected buy, sell or both"),
    ("--config.strategy=pov", "config.strategy: expected one of twap, vwap, participation, immediate, got 'pov'"),
    ("--config.max_passive_volume_ratio=1.5", "Twap.max_passive_volume_ratio: expected 0 to 1, got 1.5"),
    ("--config.seeds=0", "config.seeds: expected at least 1, got 0"),
    ("--config.minutes=400", "past the end of continuous trading"),
    ("--config.after_minutes=-1", "config.after_minutes: expected at least 0"),
    ("--config.session=chinese", "noise start: expected a session without a call auction before"),
])
def test_bad_input_is_one_line_that_names_the_key(run: Run, tmp_path: Path, override: str, message: str) -> None:
    ran = run(override)
    assert ran.code == 1 and ran.err.startswith("error: ") and ran.err.count("\n") == 1
    assert message in ran.err and not (tmp_path / "out").exists() and not ran.runs


@pytest.mark.parametrize(("strategy", "override", "message"), [
    ("vwap", "--config.interval_seconds=7", "Vwap.bucket_seconds: expected seconds in all to be a multiple of"),
    ("participation", "--config.participation_ratio=2.0", "Participation.ratio: expected 0.0001 to 1"),
    ("immediate", "--config.sweep=-5", "Immediate.price_change: expected 0 to"),
])
def test_bad_keys_of_the_other_strategies_are_named(run: Run, strategy: str, override: str, message: str) -> None:
    ran = run(override, argument=f"{strategy},source=noise,minutes=1")
    assert ran.code == 1 and f"config, keys of {strategy}" in ran.err and message in ran.err


def test_a_meter_counts_by_the_minute_to_the_nanosecond() -> None:
    metered = Metered(Twap(100, 5, 30), 36_000 * SECOND_NS + 5, 3)
    state, _ = metered.init()
    times = [0, 6, 6 + 60 * SECOND_NS - 1, 6 + 60 * SECOND_NS, 6 + 120 * SECOND_NS, 6 + 500 * SECOND_NS]
    minutes = [0, 0, 0, 1, 2, 2]
    facts = jax.jit(metered.on_event)
    for k, after in enumerate(times):
        state = facts(state, _bought(10**k, 36_000 * SECOND_NS + after - (after == 0)))
    expected = [sum(10**k for k in range(6) if minutes[k] == minute) for minute in range(3)]
    assert np.asarray(state.shares).tolist() == expected
    assert int64.to_numpy(state.cash).tolist() == [-3 * shares for shares in expected]


def _bought(shares: int, time_ns: int) -> AgentEvent:
    _, shapes = check.shapes(testing.tiny_market())
    news = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    return news._replace(time=times.from_ns(time_ns), shares=int64.from_numpy(shares),
                         cash=int64.from_numpy(-3 * shares))
