"""Realism by numbers as its user meets it: tables that agree with the files read, events by hand, bad input.

All runs share one market and one tiny model of random weights.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from marsjax.analysis import order_events
from marsjax.analysis.lob_bench import messages
from marsjax.analysis.realism_table import Key
from marsjax.core.records import Kind
from marsjax.experiments import launcher
from marsjax.experiments import realism as experiment
from marsjax.sim.step import End
from marsjax.studies import futures
from marsjax.studies import realism as realism_study
from marsjax.studies.progress import Watching
from tests.analysis.test_realism_table import check_table
from tests.experiments.conftest import Launch
from tests.experiments.synthetic_day import write_day

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]
SMALL = ("--config.capacity=128", "--config.rollout_capacity=128", "--config.trade_width=16", "--config.chunk_steps=32",
         "--config.session=continuous", "--config.end_time=09:38:00", "--config.first_time=09:34:00",
         "--config.every_minutes=2", "--config.resamples=20", "--config.noise_minutes=1",
         "--config.seed=1")
DAYS = ("600000_20230711", "600001_20230711")
BEGIN = 9 * 3600 + 34 * 60


class Ran(NamedTuple):
    """What a run said, and what it compared."""

    code: int
    out: str
    err: str
    compared: list[Any]
    events: list[Any]


Run = Callable[..., Ran]


@pytest.fixture
def run(launch: Launch, tiny_checkpoint: Callable[[dict[str, Any]], Path], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the experiment."""
    seen: dict[str, list[Any]] = {"compared": [], "events": []}

    def spy(into: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def spied(*given: Any) -> Any:
            seen[into].append(call(*given))
            return seen[into][-1]
        return spied

    monkeypatch.setattr(realism_study, "compared", spy("compared", realism_study.compared))
    monkeypatch.setattr(order_events, "of_trace", spy("events", order_events.of_trace))

    def call(*overrides: str, argument: str = "", source: str = f"trained on {', '.join(DAYS)}") -> Ran:
        config = (f"{ROOT / 'configs' / 'realism.py'}:folder=.,trajectories=2,minutes=2,output=out,"
                  f"model={tiny_checkpoint({'source': source})}{argument}")
        return Ran(*launch("realism", experiment.main, f"--config={config}", *SMALL, *overrides), **seen)

    return call


def check_bench(table: pd.DataFrame, logs: list[Any], events: list[Any], facts: dict[str, Any]) -> None:
    """The messages are the orders of the other tables, and the statistics are of them."""
    sent = messages.by_trajectory([messages.of_log(log, numbers) for numbers, log in logs], len(events))
    for one, other in zip(sent, events, strict=True):
        assert one.time_ns.tolist() == other.time_ns.tolist() and one.traded.tolist() == other.traded.tolist()
        assert one.price.tolist() == other.price.tolist() and one.ask_volume.tolist() == other.ask_volume.tolist()
    rows = table[(table["market"] == "mean") & (table["minute"] == 0)].set_index(["statistic", "measure"])
    assert rows.loc[("ask_volume", "l1"), "generated_values"] == facts["rollouts"]["orders"]
    assert rows.loc[("ask_volume", "l1"), ["value", "ceiling", "earlier", "floor"]].notna().all()
    assert set(rows["section"]) == {"summary", "unconditional", "conditional", "response", "discriminator"}
    without = rows["value"].isna()
    assert rows["note"][without].str.contains("too few|constant|nothing in common").all() and not without.all()
    assert rows.loc[("MO_0", "deviation"), "note"].startswith("too few: real has 0 of MO_0") or (
        "in 0 stretches" in rows.loc[("MO_0", "deviation"), "note"])
    assert [row["statistic"] for row in facts["lob_bench"]][:1] == ["interquartile mean"]


@pytest.mark.slow
def test_the_days_of_the_checkpoint_are_compared_and_the_files_agree(
        run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate, logs, done = futures.simulate, [], []

    def recorded(*given: Any, first: int, on_trace: futures.OnTrace, watch: Watching) -> list[Any]:
        def record(*log: Any) -> None:
            logs.append(log)
            on_trace(*log)

        done.extend(simulate(*given, first=first, on_trace=record, watch=watch))
        return done

    monkeypatch.setattr(futures, "simulate", recorded)
    for name in (*DAYS, "600002_20230711"):
        write_day(tmp_path, name.split("_")[0])
    ran = run()
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in Path("out").iterdir()) == [
        ".marsjax-run", "lob_bench.csv", "metrics.json", "realism.csv", "realism.png"]
    table, facts = pd.read_csv("out/realism.csv"), json.loads(Path("out/metrics.json").read_text())
    assert facts["markets"] == list(DAYS) and facts["starts"] == 2 and facts["rollouts"]["trajectories"] == 8
    assert facts["rollouts"]["lost"] == 0 and facts["rollouts"]["cancels_not_listed"] == 0
    check_table(table)
    # The made-up days have no trades, and their best prices never move.
    whole = table[table["minute"] == 0]
    constant = whole[whole["note"].fillna("").str.contains("constant: history has the one value")]
    assert {"aggressive", "aggressive_ratio", "return_1"} <= set(constant["quantity"])
    assert whole.drop(constant.index)[["floor", "earlier"]].notna().all(axis=None)
    assert {"buy", "interval_s"} <= set(whole.drop(constant.index)["quantity"])
    check_bench(pd.read_csv("out/lob_bench.csv", keep_default_na=False, na_values=[""]), logs, ran.events, facts)

    # The history is that of the file: limit orders of 9:34 to 9:38, and cancels as old as the file has them.
    rows = pd.read_csv("600000_20230711_orders.csv")
    at = pd.to_timedelta(rows["MDTime"]).dt.total_seconds()
    compared = (at > BEGIN) & (at <= BEGIN + 240)
    first = table[(table["market"] == DAYS[0]) & (table["of"] == "order") & (table["minute"] == 0)]
    first = first.set_index("quantity")
    assert first.loc["order_volume", "history_values"] == (compared & (rows["OrderType"] == 2)).sum()
    assert first.loc["cancel_lifetime_s", "history_values"] == (compared & (rows["OrderType"] == 10)).sum()
    came = at[rows["OrderType"] == 2].groupby(rows["OrderNO"]).first()
    cancels = rows[compared & (rows["OrderType"] == 10)]
    aged = np.concatenate([one[Key("order", "cancel_lifetime_s", 0)] for one in ran.compared[0].history])
    np.testing.assert_allclose(aged, at[cancels.index] - cancels["OrderNO"].map(came), atol=1e-6)

    # What was simulated is what the rollouts counted, and the lifetime of every cancelled order is known.
    assert sum(len(one.time_ns) for one in ran.events) == facts["rollouts"]["orders"]
    assert sum(int(one.traded.sum()) for one in ran.events) == facts["rollouts"]["shares_traded"]
    taken = [one.volume[one.kind == Kind.CANCEL].sum() for one in ran.events]
    assert sum(taken) == facts["rollouts"]["shares_cancelled"] > 0
    for one in ran.events:
        is_cancel = one.kind == Kind.CANCEL
        assert (one.lifetime_ns[is_cancel] >= 0).all() and (one.lifetime_ns[~is_cancel] == -1).all()
        fresh = np.flatnonzero(np.diff(one.time_ns) > 0)
        np.testing.assert_array_equal(one.mid_before[fresh + 1], one.mid_after[fresh])

    # The same rollouts again, but for one trajectory of the second start, which is lost.
    def again(*given: Any, first: int, on_trace: futures.OnTrace, watch: Watching) -> list[Any]:
        del given, first, watch
        for log in logs:
            on_trace(*log)
        ends = dataclasses.replace(done[1].state, end=np.array([End.TIME, End.NO_MID], np.int32))
        return [done[0], dataclasses.replace(done[1], state=ends), *done[2:]]

    monkeypatch.setattr(futures, "simulate", again)
    lost = run("--config.overwrite=true", "--config.lob_bench=false")
    assert not Path("out/lob_bench.csv").exists()
    assert lost.code == launcher.INCOMPLETE and "1 of 8 trajectories lost, not part of any number" in lost.err
    less = pd.read_csv("out/realism.csv")
    sizes = [frame.set_index(["market", "of", "quantity", "minute"])["simulated_values"] for frame in (table, less)]
    gone = ran.compared[0].simulated[1][1][Key("order", "spread", 0)]
    assert (sizes[0] - sizes[1])[DAYS[0], "order", "spread", 0] == len(gone) > 0
    assert (sizes[0] == sizes[1])[DAYS[1]].all()


@pytest.mark.parametrize(("argument", "override", "expected"), [
    ("", "--config.first_time=09:31:00", "expected 2 minutes of trading before it"),
    ("", "--config.first_time=08:00:00", "expected a time of continuous trading"),
    ("", "--config.every_minutes=3", "expected at least 2 starts whose minutes end by 09:38:00, got 1"),
    ("", "--config.last_time=09:34:59", "expected at least 2 starts whose minutes end by 09:38:00, got 1"),
    ("", "--config.every_minutes=0", "config.every_minutes: expected at least 1, got 0"),
    ("", "--config.noise_minutes=7", "noise_minutes: expected 2 minutes of trading after them, got 7"),
    ("", "--config.source=noise", "config.source: expected "),
    ("", "--config.folder=none", "config.folder: no folder none"),
    ("", "--config.card=none.md", "config.card: no file none.md"),
    ("", "--config.card=card.bin", "config.card: card.bin: expected text in UTF-8"),
    ("", "--config.overwrite=false", "600001_20230711, which the checkpoint"),
    (",symbol=600009", "--config.overwrite=false", "symbol=600009"),
])
def test_bad_input_is_one_line_and_leaves_nothing(run: Run, tmp_path: Path, argument: str, override: str, expected: str
                                                  ) -> None:
    write_day(tmp_path)
    Path("card.bin").write_bytes(b"\xff")
    ran = run(override, argument=argument)
    assert ran.code == 1 and expected in ran.err and ran.err.count("\n") == 1, ran.err
    assert not Path("out").exists()


def test_a_checkpoint_that_names_no_days_needs_a_symbol(run: Run, tmp_path: Path) -> None:
    write_day(tmp_path)
    ran = run(source="random weights")
    assert ran.code == 1 and "names no days that it is trained on" in ran.err
