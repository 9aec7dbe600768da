"""Every analysis takes every feed: the same made-up minutes as a plain CSV and as LOBSTER's files, refusals told.

The programs of one test share their sizes, and the hours of both feeds are set to be the same, so that each compiles
once.
"""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marsjax import testing
from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.core import times
from marsjax.core.sessions import chinese_session, continuous_session
from marsjax.data import sources
from marsjax.studies.session_times import hours
from tests.experiments.conftest import Launch, Ran
from tests.experiments.synthetic_day import write_day, write_traded_day

pytestmark = pytest.mark.quick

CONFIGS = Path(__file__).parents[2] / "configs"
FEEDS = {"csv": "csv,file=orders.csv", "lobster": "lobster,folder=."}
MARKET = ("--config.capacity=128", "--config.trade_width=16", "--config.start_time=09:30:00",
          "--config.end_time=09:38:00")
FUTURES = (*MARKET, "--config.rollout_capacity=128", "--config.chunk_steps=32")

Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, tiny = tmp_path_factory.mktemp("model") / "tiny", testing.tiny_model()
    checkpoint_folder.save(folder, tiny.model, tiny.converters, {"source": "random weights"})
    return folder


@pytest.fixture
def run(launch: Launch, tmp_path: Path) -> Run:
    """Runs a program; every output is a folder of its own."""
    write_traded_day(tmp_path)

    def call(program: str, argument: str, *overrides: str, output: str = "out") -> Ran:
        main = importlib.import_module(f"marsjax.experiments.{program}").main
        return launch(program, main, f"--config={CONFIGS / program}.py:{argument},output={output}", *overrides)

    return call


def facts(path: str) -> dict[str, Any]:
    return json.loads(Path(path).read_text())


def of_both(run: Run, program: str, argument: str, *overrides: str, code: int = 0) -> dict[str, Ran]:
    """A program on both feeds; `{}` in its argument is where the feed is named."""
    found = {}
    for name, feed in FEEDS.items():
        found[name] = run(program, argument.format(feed), *overrides, output=name)
        assert found[name].code == code, found[name].err
    return found


@pytest.mark.slow
def test_forecasts_and_their_evaluation(run: Run, checkpoint: Path) -> None:
    ran = of_both(run, "forecast", f"{{}},time=09:35:00,trajectories=2,minutes=1,model={checkpoint}", *FUTURES,
                  "--config.fit_every_s=2", "--config.trace=true", "--config.prices=currency")
    start = {name: facts(f"{name}/metrics.json")["start"] for name in ran}
    keys = ("mid", "spread", "bids", "asks", "orders_before")
    assert [start["csv"][key] for key in keys] == [start["lobster"][key] for key in keys] and start["csv"]["bids"] > 5
    assert start["csv"]["feed"]["refused"] == {}
    sent, trades = (pd.read_csv(f"csv/trace_{name}.csv.gz") for name in ("orders", "trades"))
    assert {"clock", "phase", "status", "price_unit"} <= set(sent) and sent["price_unit"].unique().tolist() == [1]
    joined = trades.merge(sent, on=["trajectory", "i"], suffixes=("", "_of"), validate="many_to_one")
    assert len(joined) == len(trades) and (joined["time_ns"] == joined["time_ns_of"]).all()
    minutes = pd.read_csv("csv/minutes.csv.gz")
    assert minutes["clock"].tolist() == ["09:36:00.000000000"] * 2 and (minutes["mid_last"] < 20).all()
    table = of_both(run, "forecast", f"{{}},evaluate,trajectories=2,minutes=1,model={checkpoint}", *FUTURES,
                    "--config.first_minute=2", "--config.every_minutes=2", "--config.fit_fraction=0.34",
                    "--config.threshold=0.0001", "--config.overwrite=true")
    assert len(table) == 2 and len(pd.read_csv("csv/evaluation.csv")) == len(pd.read_csv("lobster/evaluation.csv")) == 2


@pytest.mark.slow
def test_market_impact_starts_from_real_days(run: Run, checkpoint: Path) -> None:
    of_both(run, "market_impact", "twap,source={},time=09:34:00,trajectories=2,minutes=1,"
            f"model={checkpoint}", *FUTURES, "--config.ratios=0.4", "--config.bootstrap=20", "--config.picture=false")
    for name in FEEDS:
        report = facts(f"{name}/metrics.json")
        assert len(report["feeds"]) == 1 and report["rollouts"]["trajectories"] == 2 * 2 + 2
    rows = [pd.read_csv(f"{name}/executions.csv") for name in FEEDS]
    pd.testing.assert_frame_equal(*rows)


@pytest.mark.slow
def test_stylized_facts_of_stretches(run: Run) -> None:
    of_both(run, "stylized_facts", "{}", *MARKET, "--config.minutes=3", "--config.resamples=5",
            "--config.pictures=false")
    own = [pd.read_csv(f"{name}/bars.csv.gz").drop(columns=["symbol", "time"]) for name in FEEDS]
    assert len(own[0]) >= 9
    pd.testing.assert_frame_equal(*own)


@pytest.mark.slow
def test_realism(run: Run, checkpoint: Path) -> None:
    of_both(run, "realism", f"{{}},symbol=all,trajectories=2,minutes=1,model={checkpoint}", *FUTURES,
            "--config.first_time=09:34:00", "--config.every_minutes=1", "--config.resamples=5",
            "--config.noise_minutes=1", "--config.picture=false")
    assert [facts(f"{name}/metrics.json")["starts"] for name in FEEDS] == [4, 4]


@pytest.mark.slow
def test_training(run: Run) -> None:
    small = ("--config.embed_dim=8", "--config.heads=2", "--config.context_length=32", "--config.steps=4",
             "--config.batch=2", "--config.warmup=2", "--config.every=4", "--config.futures_rounds=1",
             "--config.futures_every=1", "--config.futures_starts=2", "--config.futures_trajectories=2",
             "--config.futures_orders=64")
    of_both(run, "train", "default,source={}", *MARKET, *small, "--config.price_bins=8", "--config.volume_bins=6",
            "--config.interval_bins=4", "--config.level_bins=8", "--config.validation_from=09:34:00",
            "--config.held_from=09:35:30")
    losses = [json.dumps(facts(f"{name}/report.json")["losses"]["held_out"]["model"]["all"]) for name in FEEDS]
    assert losses[0] == losses[1] and '"price"' in losses[0]


@pytest.mark.slow
def test_the_length_of_contexts(run: Run) -> None:
    of_both(run, "context_length", "{}", *MARKET, "--config.embed_dim=8", "--config.heads=2", "--config.layers=1",
            "--config.context_length=128", "--config.steps=4", "--config.batch=2", "--config.lengths=8,128",
            "--config.windows=4", "--config.trajectories=2", "--config.decoded=16", "--config.refresh_every=64",
            "--config.margin=32", "--config.held_out=0.4", "--config.dtype=float32", "--config.overwrite=true")
    rows = [facts(f"{name}/metrics.json")["by_length"] for name in FEEDS]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_refused_orders_before_a_start_are_told_and_exit_code_3(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    """A Shanghai day under hours that do not hold its first four minutes: they were lost with exit code 0."""
    write_day(tmp_path)
    ran = run("forecast", f"sse,folder=.,time=09:36:00,trajectories=2,minutes=1,model={checkpoint}", *FUTURES,
              "--config.session=continuous", "--config.start_time=09:32:00", "--config.fit_every_s=1")
    assert ran.code == 3
    counts = facts("out/metrics.json")["start"]["feed"]["refused"]
    assert counts["CLOSED"] > 100 and counts["UNKNOWN_ID"] > 10
    lines = ran.err.splitlines()
    assert lines[0].startswith(f"600000_20230711: {counts['CLOSED']} orders refused as CLOSED, of 09:30:")
    assert "set config.session (or config.start_time, config.end_time)" in lines[0]
    assert lines[1].endswith("cancels refused as UNKNOWN_ID, of orders that were refused")
    assert f"refused: {counts['UNKNOWN_ID']} UNKNOWN_ID, {counts['CLOSED']} CLOSED" in ran.out


def test_days_of_several_markets_are_replayed_each_in_its_own_and_named_where_one_is_needed(
        run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [sources.open_days("csv", "orders.csv")[0], sources.open_days("lobster", ".")[0]]
    monkeypatch.setattr(sources, "open_days", lambda *_, **__: both)
    overrides = ("--config.capacity=128", "--config.trade_width=16", "--config.picture=false")
    ran = run("replay", FEEDS["csv"], *overrides)
    assert ran.code == 0, ran.err
    markets = facts("out/summary.json")["markets"]
    one, other = markets.values()
    assert list(markets) == [feed.name for feed in both]
    assert {key: one[key] for key in ("orders", "trades", "volume", "value")} == {
        key: other[key] for key in ("orders", "trades", "volume", "value")} and one["trades"] > 50
    ran = run("train", f"default,source={FEEDS['csv']}", *overrides[:2], output="model")
    assert ran.code == 1
    assert f"{both[0].name} and {both[1].name}: expected days of one market, got another session: run them apart, or " \
           "set config.session" in ran.err


def test_a_feed_of_a_whole_day_is_looked_at_in_its_own_hours(run: Run) -> None:
    (day,) = sources.open_days("csv", "orders.csv")
    (period,) = hours(day.venue.session, day).periods
    assert (str(times.clock(period.start_ns, 0)), str(times.clock(period.end_ns, 0))) == ("09:30:00", "09:38:00")
    assert hours(chinese_session(), day) == chinese_session()
    assert hours(continuous_session(), day) == continuous_session()
    assert np.all([period.start_ns % (60 * 10**9) == 0, period.end_ns % (60 * 10**9) == 0])
