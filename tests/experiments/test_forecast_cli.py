"""The forecast experiment as its user meets it: files that agree, starts that do not depend on the clock, bad input.

All runs share one market and one tiny model of random weights, and start at 9:34 or 9:36, so that they compile twice.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import pandas as pd
import pytest

from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.core.specs import ModelSpec
from marsjax.experiments import forecast as experiment
from marsjax.experiments import launcher
from marsjax.model import llama
from marsjax.studies import futures, order_model, rollout_summary
from tests.experiments.conftest import Launch
from tests.experiments.synthetic_day import write_day

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]
SMALL = ("--config.capacity=128", "--config.rollout_capacity=128", "--config.trade_width=16", "--config.chunk_steps=32",
         "--config.session=continuous", "--config.end_time=09:38:00", "--config.noise_minutes=4",
         "--config.fit_every_s=2")
EVALUATE = ("--config.first_minute=2", "--config.every_minutes=2", "--config.fit_fraction=0.34")


class Ran(NamedTuple):
    """What a run said, and what it simulated."""

    code: int
    out: str
    err: str
    starts: list[Any]
    runs: list[Any]


Run = Callable[..., Ran]


@pytest.fixture
def checkpoint(tiny_checkpoint: Callable[[dict[str, Any]], Path]) -> Path:
    return tiny_checkpoint({"source": "random weights", "held_out": {"loss": 10.5}})


@pytest.fixture
def run(launch: Launch, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the experiment; the first argument is the config's."""
    simulate = futures.simulate
    seen: dict[str, list[Any]] = {"starts": [], "runs": []}

    def spy(*given: Any, **named: Any) -> list[Any]:
        done = simulate(*given, **named)
        seen["starts"], seen["runs"] = list(given[3]), done
        return done

    monkeypatch.setattr(futures, "simulate", spy)

    def call(argument: str, *overrides: str, model: str = str(checkpoint)) -> Ran:
        config = f"{ROOT / 'configs' / 'forecast.py'}:{argument},trajectories=4,minutes=1,output=out,model={model}"
        ran = launch("forecast", experiment.main, f"--config={config}", *SMALL, *overrides)
        return Ran(*ran, **seen)

    return call


def metrics() -> dict[str, Any]:
    return json.loads(Path("out/metrics.json").read_text())


@pytest.mark.slow
def test_without_a_word_a_forecast_starts_from_the_day_that_comes_with_the_default_model(
        launch: Launch, checkpoint: Path) -> None:
    """Also under another model, which has no days of its own."""
    config = f"--config=forecast:trajectories=3,minutes=1,output=out,model={checkpoint}"
    ran = launch("forecast", experiment.main, config, "--config.chunk_steps=32")
    assert ran.code == 0, ran.err
    assert "default at 09:54:00: mid 50.66, 258 bids and 587 asks rest, the model sees 32 orders" in ran.out
    found = metrics()
    assert (found["start"]["market"], found["realized"]) == ("default", None)
    assert found["forecast"]["count"] == 3 and (Path("out") / "fan.png").stat().st_size > 10_000


def test_a_day_that_nobody_has_made_is_told(launch: Launch, checkpoint: Path) -> None:
    ran = launch("forecast", experiment.main, f"--config=forecast:quiet,output=out,model={checkpoint}",
                 "--config.source=loud")
    assert ran.code == 1
    assert "config.source: expected noise, default, quiet, busy, " in ran.err and "got 'loud'" in ran.err


@pytest.mark.slow
def test_a_noise_market_is_forecast_and_the_files_agree(run: Run, checkpoint: Path) -> None:
    ran = run("noise", "--config.trade_width=64", "--config.trace=true", "--config.save_folder=state",
              "--config.save_every_s=0")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in Path("out").iterdir()) == [
        ".marsjax-run", "fan.png", "labels.csv", "metrics.json", "minutes.csv.gz", "trace_orders.csv.gz",
        "trace_trades.csv.gz"]
    facts = metrics()
    sent, trades = (pd.read_csv(f"out/trace_{name}.csv.gz") for name in ("orders", "trades"))
    assert (sent["status"] == "ACCEPTED").sum() == facts["rollouts"]["orders"]
    assert trades["volume"].sum() == sent["traded"].sum() == facts["rollouts"]["shares_traded"]
    assert sorted(set(sent["trajectory"])) == [0, 1, 2, 3] and list(Path("state").glob("[0-9]*"))
    labels, minutes = pd.read_csv("out/labels.csv"), pd.read_csv("out/minutes.csv.gz")
    assert facts["realized"] is None and facts["start"]["time"] == "09:34:00"
    assert len(labels) == len(minutes) == 4 and labels["end"].tolist() == ["TIME"] * 4
    mid0 = facts["start"]["mid"]
    np.testing.assert_allclose(labels["label"], minutes["mid_mean"] / mid0 - 1, atol=1e-12)
    assert facts["forecast"]["mean"] == pytest.approx(labels["label"].mean())
    np.testing.assert_array_equal(labels["orders"], minutes["orders"])
    assert facts["rollouts"]["orders"] >= minutes["orders"].sum() > 4
    assert facts["forecast"]["count"] == sum(facts["forecast"]["counts"].values()) == 4
    # A third of the past labels lie within the threshold.
    assert 0 < facts["threshold"] < 0.05
    assert facts["rollouts"]["conserved"] and facts["rollouts"]["lost"] == 0
    assert facts["model"]["sha256"] == order_model.parameters_hash(checkpoint_folder.restore(checkpoint).model)
    assert facts["config"]["trajectories"] == 4 and facts["versions"]["jax"] == jax.__version__
    assert "held-out loss 10.50" in ran.out and f"{facts['rollouts']['orders_per_s']} orders/s" in ran.out


@pytest.mark.slow
def test_a_real_day_is_evaluated_and_its_starts_are_those_of_single_forecasts(run: Run, tmp_path: Path) -> None:
    """The starts of an evaluation are one batch; alone, each is the same."""
    write_day(tmp_path, moves=True)
    ran = run("sse,folder=.,evaluate", *EVALUATE, "--config.threshold=0.0001")
    assert ran.code == 0, ran.err
    table, facts = pd.read_csv("out/evaluation.csv", keep_default_na=False), metrics()
    assert table["time"].tolist() == ["09:34:00", "09:36:00"] and Path("out/evaluation.png").stat().st_size > 10_000
    assert (facts["scores"]["starts"], facts["scores"]["without_realized_label"]) == (2, 0)
    names = ["order model", "no change", "class frequencies", "logistic regression"]
    assert list(facts["scores"]["methods"]) == names and list(facts["scores"]["order_model_less"]) == names[1:]
    for name in names:
        np.testing.assert_allclose(table[[f"{name}: {move}" for move in ("down", "flat", "up")]].sum(axis=1), 1)
        assert name in ran.out
    less = facts["scores"]["order_model_less"]["no change"]["log_score"]["value"]
    ours, theirs = (facts["scores"]["methods"][name]["log_score"]["value"] for name in names[:2])
    assert less == pytest.approx(ours - theirs)
    # No two trajectories of the day share their draws.
    assert [np.asarray(one.state.trajectory).tolist() for one in ran.runs] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    # The historic orders are of an account whose orders the model may cancel.
    before, first = ran.starts[0].market, ran.runs[0].state.market
    assert set(np.asarray(before.book.account)[np.asarray(before.book.volume) > 0].tolist()) == {0}
    assert facts["rollouts"]["600000_20230711"]["shares_cancelled"] > 0

    alone = run("sse,folder=.,time=09:34:00", "--config.threshold=0.0001", "--config.overwrite=true")
    assert alone.code == 0, alone.err
    facts = metrics()
    assert facts["forecast"]["mean"] == pytest.approx(table["order model: label"][0], rel=1e-12)
    assert facts["forecast"]["quantiles"]["0.5"] == pytest.approx(table["quantile_0.5"][0], rel=1e-12)
    assert facts["realized"]["label"] == pytest.approx(table["realized"][0], rel=1e-12)
    assert facts["realized"]["class"].lower() == table["class"][0]
    assert "what came: " in alone.out and facts["realized"]["mids"][0] == facts["start"]["mid"]
    chex.assert_trees_all_equal(alone.runs[0].state.market.book, first.book)

    # A day on which nothing moved is written, and scores nobody.
    write_day(tmp_path)
    flat = run("sse,folder=.,evaluate", *EVALUATE, "--config.threshold=0.0001", "--config.overwrite=true")
    assert flat.code == 3 and "no scores: too few: 0 starts to score, expected 2 at least" in flat.err
    assert "600000_20230711 is in no score: constant: all of its 2 realized labels are 0" in flat.out
    assert Path("out/evaluation.csv").is_file() and not Path("out/evaluation.png").exists()
    assert metrics()["scores"]["methods"] == {}


@pytest.mark.slow
def test_a_run_that_lost_orders_is_exit_3_and_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_summary, "problems", lambda summary: ["3 orders refused"])
    ran = run("noise", "--config.picture=false")
    assert (ran.code, ran.err) == (3, "3 orders refused\n") and Path("out/metrics.json").is_file()


CHINESE = "--config.session=chinese"
SSE = "sse,folder=.,time="
BAD: list[tuple[str, tuple[str, ...], list[str]]] = [
    (f"{SSE}09:10:00", (CHINESE,), ["start at 09:10:00: expected a time of continuous trading, 09:30:00 to 11:30:00 "]),
    (f"{SSE}12:00:00", (CHINESE,), ["start at 12:00:00: expected a time of continuous trading"]),
    (f"{SSE}14:58:00", (CHINESE,), ["start at 14:58:00: expected a time of continuous trading"]),
    (f"{SSE}11:29:30", (CHINESE,), ["its 1 minutes end at 11:30:30, past the end of continuous trading at 11:30:00"]),
    (f"{SSE}10am", (), ["config.time: expected a time HH:MM:SS, got '10am'"]),
    (f"{SSE}09:34:00,symbol=600001", (), ["symbol=600001", "found: 600000_20230711, 600002_20230711"]),
    (f"{SSE}09:34:00", (), ["expected one day of one symbol, got 'all'", "600000_20230711, 600002_20230711"]),
    (f"{SSE}09:34:00,symbol=600002", (), ["make no token; a model needs at least one"]),
    ("sse,folder=nowhere,time=09:34:00", (), ["config.folder: no folder nowhere"]),
    ("noise", ("--config.noise_minutes=8",), ["its 1 minutes end at 09:39:00, past the end"]),
    ("noise", ("--config.trajectories=-1",), ["config.trajectories: expected at least 0, got -1"]),
    ("noise", ("--config.minutes=0",), ["config.minutes: expected at least 1, got 0"]),
    ("noise", ("--config.threshold=1.5",), ["threshold: expected a number of at least 0 and below 1, got 1.5"]),
    ("noise", ("--config.quantiles=0.5,1.5",), ["quantiles: expected levels of 0 to 1, got (0.5, 1.5)"]),
    ("noise", ("--config.temperature=0.0",), ["config.temperature: expected a number above 0, got 0.0"]),
    ("noise", ("--config.seed=-1",), ["config.seed: expected 0 to", "got -1"]),
    ("noise", ("--config.context=ring",), ["config.context: expected rolling, refresh, ", "got 'ring'"]),
    ("noise", ("--config.context=recurrent",), ["config.context: expected rolling or refresh or recompute of a"]),
    ("noise", ("--config.context=recurrent", "--config.cache_dtype=int8"), ["config.cache_dtype: expected model or"]),
    ("noise", ("--config.context=refresh",), ["its window of 32 orders does not fit context, refresh_every and"]),
    ("noise", ("--config.rows=-1",), ["config.rows: expected at least 0, got -1"]),
    ("noise", ("--config.dtype=int8",), ["dtype", "got 'int8'"]),
    ("noise", ("--config.source=moon", "--config.time=09:34:00"), ["config.source: expected noise, ", "got 'moon'"]),
    ("noise,evaluate", (), ["config.evaluate: expected real days"]),
    ("sse,folder=.,evaluate", ("--config.fit_fraction=1.0",), ["config.fit_fraction: expected a fraction", "got 1.0"]),
    ("sse,folder=.,evaluate", ("--config.probability_edges=0.0,0.5",), ["edges that rise from 0 to 1, got (0.0, 0.5)"]),
    ("sse,folder=.,evaluate", ("--config.every_minutes=30",), ["expected at least 2 starts in the session, got 1"]),
]


@pytest.mark.parametrize(("argument", "overrides", "parts"), BAD, ids=[f"{a} {' '.join(o)}" for a, o, _ in BAD])
def test_bad_input_is_one_line_and_leaves_no_output(run: Run, tmp_path: Path, argument: str,
                                                    overrides: tuple[str, ...], parts: list[str]) -> None:
    write_day(tmp_path)
    write_day(tmp_path, "600002", begin_s=34_200 + 300)
    before = sorted(tmp_path.rglob("*"))
    ran = run(argument, *overrides)
    assert ran.code == launcher.FAILED, ran.err
    assert ran.err.startswith("error: ") and ran.err.count("\n") == 1, ran.err
    for part in parts:
        assert part in ran.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_model_and_one_without_converters_are_named(run: Run, tmp_path: Path) -> None:
    ran = run("noise", model="./nowhere")
    assert ran.code == launcher.FAILED and "nowhere" in ran.err and ran.err.count("\n") == 1
    spec = ModelSpec(embed_dim=8, heads=2, context_length=32)
    checkpoint_folder.save(tmp_path / "bare", llama.init(spec, jax.random.key(0)), {}, {})
    ran = run("noise", model="bare")
    assert ran.code == launcher.FAILED and "config.model bare: converters: expected price-level, found none" in ran.err
