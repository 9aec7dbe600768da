"""The fleet as its user meets it: one process or several, any batches, the same states as the programs of one state.

All runs share one market and one tiny model of random weights.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marsjax.data import sources
from marsjax.experiments import fleet as experiment
from marsjax.experiments import fleet_summary, forecast, launcher, market_impact, realism
from marsjax.studies.fleet import actors, alone, ledger, results
from tests.experiments.conftest import Launch, Ran
from tests.experiments.synthetic_day import write_day, write_traded_day

pytest.importorskip("pyarrow")

pytestmark = pytest.mark.quick

MARKET = ("--config.capacity=128", "--config.rollout_capacity=128", "--config.trade_width=16",
          "--config.chunk_steps=32", "--config.session=continuous", "--config.end_time=09:38:00", "--config.seed=1")
TIMES = ("--config.times=09:34:00,09:36:00",)
Run = Callable[..., Ran]


@pytest.fixture
def model(tiny_checkpoint: Callable[[dict[str, Any]], Path]) -> Path:
    return tiny_checkpoint({"source": "random weights"})


@pytest.fixture
def run(launch: Launch, model: Path, tmp_path: Path) -> Run:
    """Runs the experiment in this process."""
    for symbol in ("600000", "600001"):
        write_day(tmp_path, symbol)

    def call(argument: str, *overrides: str, output: str = "out") -> Ran:
        config = f"fleet:{argument},folder=.,trajectories=4,minutes=1,model={model},output={output}"
        return launch("fleet", experiment.main, f"--config={config}", *MARKET, "--config.resamples=20", *TIMES,
                      "--config.part=1/1", *overrides)

    return call


def files(folder: str) -> dict[int, bytes]:
    book = ledger.known_ledger(folder)
    return {number: book.path(number).read_bytes() for number in book.numbers()}


@pytest.mark.slow
def test_forecasts_do_not_depend_on_parts_and_batches_and_are_those_of_the_program(run: Run, launch: Launch, model: Path
                                                                                   ) -> None:
    whole = run("forecast", "--config.threshold=0.0001")
    assert whole.code == 0 and "4 states made in" in whole.out, whole.err
    table = results.read("out").to_table().to_pandas()
    assert table["state"].tolist() == np.repeat(range(4), 4).tolist() and table["label"].nunique() > 8
    assert (table["realized"] == 0).all() and set(table["end"]) == {"TIME"}
    for part, batch in ((2, 1), (1, 64)):
        assert not Path("parts/metrics.json").exists()
        ran = run("forecast", "--config.threshold=0.0001", f"--config.part={part}/2", f"--config.batch={batch}",
                  output="parts")
        assert ran.code == 0 and "2 states made" in ran.out, ran.err
    run("forecast", "--config.threshold=0.0001", "--config.batch=1", "--config.most_at_once=4", output="single")
    assert files("parts") == files("out") and Path("parts/forecasts.csv").read_bytes() == Path(
        "out/forecasts.csv").read_bytes()
    single = results.read("single").to_table().to_pandas()
    pd.testing.assert_frame_equal(single, table)
    # The first state is the forecast of the program; the others have draws of their own.
    launch("forecast", forecast.main, f"--config=forecast:sse,folder=.,symbol=600000,time=09:34:00,trajectories=4,"
           f"minutes=1,model={model},output=alone", *MARKET, "--config.threshold=0.0001")
    labels = pd.read_csv("alone/labels.csv")
    np.testing.assert_allclose(table["label"][:4], labels["label"], rtol=1e-12)
    assert table["orders"][:4].tolist() == labels["orders"].tolist()
    before = files("out")
    again = run("forecast", "--config.threshold=0.0001")
    assert again.code == 0 and "0 states made" in again.out and files("out") == before
    other = run("forecast", "--config.threshold=0.0002")
    assert other.code == 1 and "config.threshold was 0.0001, is 0.0002" in other.err and other.err.count("\n") == 1


@pytest.mark.slow
def test_a_day_that_is_broken_fails_its_own_states(run: Run) -> None:
    path = Path("600000_20230711_orders.csv")
    rows = path.read_text().splitlines()
    at = next(place for place, row in enumerate(rows) if row.startswith("09:35"))
    broken = rows[at].replace(",2,", ",x,", 1).replace(",10,", ",x,", 1)
    path.write_text("\n".join([*rows[:at], broken, *rows[at + 1:]]))
    ran = run("forecast", "--config.threshold=0.0001")
    assert ran.code == launcher.INCOMPLETE and "2 states made" in ran.out and "2 of 4 left" in ran.out
    assert f"state 1: 600000_20230711_orders.csv: line {at + 1}, " in ran.err and "2 states failed" in ran.err
    assert sorted(files("out")) == [2, 3] and json.loads(Path("out/metrics.json").read_text())["left"] == 2


@pytest.mark.slow
def test_executions_are_those_of_the_program(launch: Launch, model: Path, tmp_path: Path) -> None:
    write_traded_day(tmp_path)
    words = (*MARKET, "--config.ratios=0.5,0.9", "--config.passive_seconds=10", "--config.idle_seconds=5")
    rest = f"trajectories=4,minutes=1,model={model}"
    ran = launch("fleet", experiment.main, f"--config=fleet:market_impact,source=csv,file=orders.csv,output=out,{rest}",
                 *words, "--config.times=09:34:00,09:35:00", "--config.part=1/1", "--config.resamples=20")
    assert ran.code == 0, ran.err
    launch("market_impact", market_impact.main, f"--config=market_impact:twap,source=csv,file=orders.csv,time=09:34:00,"
           f"output=one,{rest}", *words, "--config.picture=false")
    table = results.read("out").to_table().to_pandas()
    one, ours = pd.read_csv("one/baselines.csv"), table[(table["state"] == 0) & (table["kind"] != "with")]
    assert [mids[-1] for mids in ours["mids"]] == one["mid_end"].tolist()
    assert [sum(volume) for volume in ours["volume"]] == one["volume"].tolist()
    one, ours = pd.read_csv("one/executions.csv"), table[(table["state"] == 0) & (table["kind"] == "with")]
    assert ours["target"].tolist() == one["target"].tolist()
    assert [sum(shares) for shares in ours["shares"]] == one["completed"].tolist() and one["completed"].sum() > 0
    # Together: every state in every group, each beside its own baseline.
    every = pd.read_csv("out/executions.csv")
    assert sorted(every["seed"].unique()) == [0, 1] and every.groupby("ratio")["number"].apply(list).tolist() == [
        list(range(8))] * 2
    assert every["arrival"].tolist() == [row.mids[0] for row in table[table["kind"] == "with"].sort_values(
        "ratio", kind="stable").itertuples()]


@pytest.mark.slow
def test_realism_is_that_of_the_program(run: Run, launch: Launch, model: Path) -> None:
    ran = run("realism", "--config.minutes=2", "--config.batch=1")
    assert ran.code == 0, ran.err
    launch("realism", realism.main, f"--config=realism:sse,folder=.,symbol=all,trajectories=4,minutes=2,model={model},"
           "output=one", *MARKET, "--config.resamples=20", "--config.first_time=09:34:00", "--config.every_minutes=2",
           "--config.noise_minutes=1", "--config.lob_bench=false")
    ours, one = pd.read_csv("out/realism.csv"), pd.read_csv("one/realism.csv")
    same = ["market", "of", "quantity", "minute", "similarity", "similarity_low", "similarity_high", "wasserstein",
            "accuracy", "accuracy_floor", "history_values", "simulated_values", "note"]
    pd.testing.assert_frame_equal(ours[same], one[same])
    assert ours["similarity"].notna().any() and ours[["ceiling", "floor", "earlier"]].isna().all(axis=None)


@pytest.fixture
def opened(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The program without the states."""
    for who in (alone, actors):
        monkeypatch.setattr(who, "run", lambda *given: None)
    return run


def test_a_day_is_taught_by_one_number_of_threads(opened: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPROC", "3")
    assert opened("forecast").code == 0
    for more in ("--config.part=1/2", "--config.cores=5"):  # with a part, Ray's cores are nobody's
        assert opened("forecast", more).code == 0
    assert opened("forecast", "--config.part=", "--config.cores=3").code == 0
    other = opened("forecast", "--config.part=", "--config.cores=1")
    assert other.code == 1 and "threads was 3, is 1: name another folder" in other.err
    monkeypatch.delenv("NPROC")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(7)))
    assert "threads was 3, is 7" in opened("forecast").err
    # A model that is not taught by the day does not depend on them.
    for more in ("--config.part=1/2", "--config.part="):
        assert opened("forecast", "--config.adapt_steps=0", more, output="untaught").code == 0


def test_what_is_left_or_lacks_something_is_of_all_processes(opened: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened("forecast", "--config.part=1/2")
    book = ledger.known_ledger("out")
    columns = {"state": np.zeros(1, np.int64)}
    book.write(0, columns)
    whole = book.path(0).read_bytes()

    def others(*given: object) -> None:
        book.write(1, columns, ["a side was full"])
        book.write(2, columns)
        book.path(2).write_bytes(whole[:-1])

    monkeypatch.setattr(alone, "run", others)
    monkeypatch.setattr(fleet_summary, "write", lambda config, book, about: [str(dict(about, seconds=0))])
    ran = opened("forecast")
    assert ran.code == launcher.INCOMPLETE and "2 of 4 left" in ran.out
    assert "{'states': 4, 'left': 2, 'incomplete': 1, 'seconds': 0}" in ran.out
    assert ran.err == "state 1: a side was full\n1 states are not complete, which their files say\n"


@pytest.mark.parametrize(("override", "expected"), [
    ("--config.part=0/2", "config: part: expected K/N with K of 1 to N"),
    ("--config.times=09:34:00,9", "config.times: expected times HH:MM:SS, got '9'"),
    ("--config.times=09:38:00", "600000_20230711: start at 09:38:00: its 1 minutes end at 09:39:00"),
    ("--config.study=facts", "config.study: expected forecast, market_impact, realism, got 'facts'"),
    ("--config.batch=0", "config.batch: expected at least 1"),
    ("--config.cores=0", "config.cores: expected at least 1"),
    ("--config.address=here", "config.address: expected auto or HOST:PORT"),
    ("--config.ratios=0.0", "config.ratios: expected numbers above 0"),
    ("--config.trajectories=500000000", "config.trajectories: expected at most"),
    ("--config.source=noise", f"config.source: expected {', '.join(sources.names())}, got 'noise'"),
])
def test_bad_input_is_one_line_and_leaves_nothing(run: Run, override: str, expected: str) -> None:
    ran = run("forecast", override)
    assert ran.code == 1 and expected in ran.err and ran.err.count("\n") == 1, ran.err
    assert not Path("out").exists()
