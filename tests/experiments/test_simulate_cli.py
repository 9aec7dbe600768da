"""Noise markets by the command line: the bars of thousands of books are those that their orders make one by one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marsjax.agents.noise import NoiseSpec
from marsjax.analysis import bars, market_summary
from marsjax.core.sessions import continuous_session
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import FeedChunk
from marsjax.experiments import launcher
from marsjax.experiments import simulate as experiment
from marsjax.sim import initial, replay
from tests.experiments.conftest import Launch, Ran

CONFIG = Path(__file__).parents[2] / "configs" / "simulate.py"
MARKET = MarketSpec(capacity=64, trade_width=8, accounts=1, session=continuous_session())
SMALL = ("--config.capacity=64", "--config.trade_width=8", "--config.start_time=09:30:00", "--config.chunk_steps=128")

Run = Callable[..., Ran]


@pytest.fixture
def run(launch: Launch) -> Run:
    def call(argument: str, *overrides: str) -> Ran:
        return launch("simulate", experiment.main, f"--config={CONFIG}:{argument},output=out", *SMALL, *overrides)

    return call


def replayed(count: int, warmup: initial.Warmup) -> tuple[bars.MinuteBars, dict[str, Any]]:
    """The bars and totals of the orders that the same noise markets send, replayed through an exchange each."""
    _, sent = initial.noise(MARKET, NoiseSpec(), warmup, seed=5, trajectories=count)
    parts: list[list[bars.OrderTrace]] = [[] for _ in sent]
    trades = 0
    for event in replay.replay(MARKET, [iter([FeedChunk.of(orders)]) for orders in sent], chunk_orders=512):
        if isinstance(event, replay.Stretch) and event.views is not None:
            parts[event.market].append(bars.trace(event.orders, event.reports, event.views))
        elif isinstance(event, replay.Closing):
            trades = int(np.asarray(event.markets.counters.fills).sum())
    tables = [bars.of_traces(part, "2024-01-02", "noise", "Simulation", number) for number, part in enumerate(parts)]
    return bars.join(tables), {"trades": trades, "orders": sum(len(orders.kind) for orders in sent)}


@pytest.mark.slow
def test_bars_and_totals_are_those_of_the_orders(run: Run) -> None:
    code, said, err = run("books=2,minutes=3,seed=5")
    assert code == 0, err
    assert sorted(path.name for path in Path("out").iterdir()) == [
        ".marsjax-run", "bars.csv.gz", "mids.png", "summary.json"]
    expected, total = replayed(2, initial.Warmup(duration_ns=180 * SECOND_NS, steps_per_call=128))
    mine = bars.read("out/bars.csv.gz")
    pd.testing.assert_frame_equal(mine.frame(), expected.frame(), check_dtype=False, rtol=1e-13)
    assert len(mine) == 8 and mine.time[0] == np.datetime64("2024-01-02T09:30:00")
    facts = json.loads(Path("out/summary.json").read_text())["total"]
    assert {name: facts[name] for name in total} == total and facts["volume"] == mine.volume.sum()
    assert facts["conserved"] and facts["rejected"] == 0 and facts["books"] == 2
    assert f"2 books: {facts['orders']} orders, {facts['trades']} trades" in said


def test_a_full_side_is_exit_3_and_names_the_capacity(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    summary = {"rejected_by_status": {"SIDE_FULL": 2, "BAD_ACCOUNT": 1}, "capacity": 64, "conserved": True}
    assert market_summary.problems(summary) == [
        "2 orders refused, a side was full: set config.capacity above 64",
        "1 orders refused, their agent has no account: raise config.accounts"]
    assert market_summary.problems(summary | {"rejected_by_status": {}, "conserved": False}) == [
        "shares or cash were not conserved"]
    monkeypatch.setattr(market_summary, "problems", lambda summary: ["2 orders refused"])
    code, _, err = run("books=2,minutes=3,seed=5", "--config.picture=false")
    assert (code, err) == (launcher.INCOMPLETE, "2 orders refused\n") and Path("out/summary.json").is_file()


@pytest.mark.parametrize(("override", "part"), [
    ("--config.minutes=0", "config.minutes: expected at least 1, got 0"),
    ("--config.books=-1", "config.books: expected at least 0, got -1"),
    ("--config.minutes=400", "noise start: expected continuous trading from"),
    ("--config.seed=-1", "expected seed of 0 to"),
    ("--config.date=today+1", "config.date: expected a date like 2024-03-06, got 'today+1'"),
    ("--config.interval_s=0", "NoiseSpec.interval_ns"),
    ("--config.capacity=0", "config.capacity: expected 1 to 131072, got 0"),
    ("--config.session=lunar", "config.session: expected feed, chinese or continuous, got 'lunar'"),
])
def test_bad_values_are_one_line_and_leave_no_output(run: Run, override: str, part: str) -> None:
    code, _, err = run("books=2,minutes=3,seed=5", override)
    assert code == launcher.FAILED and part in err and err.count("\n") == 1
    assert not list(Path().iterdir())
