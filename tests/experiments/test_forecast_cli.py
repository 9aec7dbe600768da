"""The forecast experiment as its user meets it: files that agree, starts that do not depend on the clock, bad input.

All runs share one market and one tiny model of random weights, and start at 9:34 or 9:36, so that they compile twice.
"""

import dataclasses
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest

from marsjax import bins, checkpoints, clock, exchange, model, start, tokens
from marsjax.analysis import forecast as analysis
from marsjax.experiments import forecast as experiment
from marsjax.experiments import forecast_evaluation, futures, launcher, markets
from marsjax.simulate import End
from marsjax.specs import CacheSpec, MarketSpec, ModelSpec, chinese_session
from marsjax.types import Status
from tests.helpers import fixture_folder

ROOT = Path(__file__).parents[2]
SMALL = ("--config.capacity=128", "--config.rollout_capacity=128", "--config.trade_width=16", "--config.chunk_steps=32",
         "--config.session=continuous", "--config.end_time=09:38:00", "--config.noise_minutes=4",
         "--config.fit_every_s=2")
EVALUATE = ("--config.first_minute=2", "--config.every_minutes=2", "--config.fit_fraction=0.34")
ORDERS = "MDTime,OrderType,OrderPrice,OrderQty,OrderBSFlag,ApplSeqNum,OrderNO"
TRADES = "MDTime,TradeBuyNo,TradeSellNo,TradeBSFlag,TradePrice,TradeQty,ApplSeqNum"


@dataclasses.dataclass
class Ran:
    """What a run said, and what it simulated."""

    code: int
    out: str
    err: str
    starts: list[Any]
    runs: list[Any]


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    spec = ModelSpec(width=8, heads=2, max_orders=32)
    converters = bins.read_folder(fixture_folder() / "converters")
    checkpoints.save(folder, spec, model.init(spec, jax.random.key(0)), converters,
                     {"source": "random weights", "held_out": {"loss": 10.5}})
    return folder


@pytest.fixture
def run(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the experiment in this process, in a folder of its own; the first argument is the config's."""
    monkeypatch.chdir(tmp_path)
    # What the launcher sets up belongs to a process of its own.
    monkeypatch.setattr(launcher, "set_up_compilation_cache", lambda: None)
    monkeypatch.setattr(launcher, "_set_up_logging", lambda verbose: None)
    simulate = futures.simulate
    seen: dict[str, list[Any]] = {"starts": [], "runs": []}

    def spy(*given: Any, **named: Any) -> list[Any]:
        done = simulate(*given, **named)
        seen["starts"], seen["runs"] = list(given[3]), done
        return done

    monkeypatch.setattr(futures, "simulate", spy)

    def call(argument: str, *overrides: str, model: str = str(checkpoint)) -> Ran:
        whole = f"{ROOT / 'configs' / 'forecast.py'}:{argument},trajectories=4,minutes=1,output=out,model={model}"
        with pytest.raises(SystemExit) as left:
            launcher.run("forecast", experiment.main, [f"--config={whole}", *SMALL, *overrides])
        said = capsys.readouterr()
        return Ran(int(left.value.code or 0), said.out, said.err, **seen)

    return call


def write_day(folder: Path, symbol: str = "600000", begin_s: int = 34_200) -> None:
    """Eight minutes of orders and deletes around 10.00 that never cross; the day has no trades."""
    rng, rows, resting, now = np.random.default_rng(1), [], [], begin_s * 1000
    for number in range(600):
        now += int(rng.integers(1, 1600))
        at = f"{now // 3_600_000:02d}:{now // 60_000 % 60:02d}:{now // 1000 % 60:02d}.{now % 1000:03d}"
        if len(resting) > 20 and rng.random() < 0.48:
            price, side, order = resting.pop(int(rng.integers(len(resting))))
            kind = 10
        else:
            side, order, kind = int(rng.integers(1, 3)), number, 2
            price = 1000 + (1 if side == 2 else -1) * int(rng.integers(1, 6))
            resting.append((price, side, order))
        rows.append(f"{at},{kind},{price / 100:.2f},100,{side},{number},{order}")
    (folder / f"{symbol}_20230711_orders.csv").write_text("\n".join([ORDERS, *rows]) + "\n")
    (folder / f"{symbol}_20230711_trades.csv").write_text(TRADES + "\n")


def metrics() -> dict[str, Any]:
    return json.loads(Path("out/metrics.json").read_text())


@pytest.mark.slow
def test_a_noise_market_is_forecast_and_the_files_agree(run: Run, checkpoint: Path) -> None:
    ran = run("noise", "--config.trade_width=64", "--config.trace=true", "--config.save_folder=state",
              "--config.save_every_s=0")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "fan.png", "labels.csv", "metrics.json", "minutes.csv.gz", "trace_orders.csv.gz", "trace_trades.csv.gz"]
    told = metrics()
    sent, trades = (pd.read_csv(f"out/trace_{name}.csv.gz") for name in ("orders", "trades"))
    assert (sent["status"] == "ACCEPTED").sum() == told["rollouts"]["orders"]
    assert trades["volume"].sum() == sent["traded"].sum() == told["rollouts"]["shares_traded"]
    assert sorted(set(sent["trajectory"])) == [0, 1, 2, 3] and Path("state/last").is_dir()
    labels, minutes = pd.read_csv("out/labels.csv"), pd.read_csv("out/minutes.csv.gz")
    assert told["realized"] is None and told["start"]["time"] == "09:34:00"
    assert len(labels) == len(minutes) == 4 and labels["end"].tolist() == ["TIME"] * 4
    mid0 = told["start"]["mid"]
    np.testing.assert_allclose(labels["label"], minutes["mid_mean"] / mid0 - 1, atol=1e-12)
    assert told["forecast"]["mean"] == pytest.approx(labels["label"].mean())
    np.testing.assert_array_equal(labels["orders"], minutes["orders"])
    assert told["rollouts"]["orders"] >= minutes["orders"].sum() > 4
    assert told["forecast"]["count"] == sum(told["forecast"]["counts"].values()) == 4
    # A third of the past labels lie within the threshold.
    assert 0 < told["threshold"] < 0.05
    assert told["rollouts"]["conserved"] and told["rollouts"]["lost"] == 0
    assert told["model"]["sha256"] == markets.parameters_hash(checkpoints.restore(checkpoint).params)
    assert told["config"]["trajectories"] == 4 and told["versions"]["jax"] == jax.__version__
    assert "held_out.loss 10.5" in ran.out and f"{told['rollouts']['orders_per_s']} orders/s" in ran.out


@pytest.mark.slow
def test_a_real_day_is_evaluated_and_its_starts_are_those_of_single_forecasts(run: Run, tmp_path: Path) -> None:
    """The starts of an evaluation are one batch; alone, each is the same."""
    write_day(tmp_path)
    ran = run("sse,folder=.,evaluate", *EVALUATE, "--config.threshold=0.0001")
    assert ran.code == 0, ran.err
    table, told = pd.read_csv("out/evaluation.csv", keep_default_na=False), metrics()
    assert table["time"].tolist() == ["09:34:00", "09:36:00"] and Path("out/evaluation.png").stat().st_size > 10_000
    assert (told["scores"]["starts"], told["scores"]["without_realized_label"]) == (2, 0)
    names = ["order model", "no change", "class frequencies", "logistic regression"]
    assert list(told["scores"]["methods"]) == names and list(told["scores"]["order_model_less"]) == names[1:]
    for name in names:
        np.testing.assert_allclose(table[[f"{name}: {move}" for move in ("down", "flat", "up")]].sum(axis=1), 1)
        assert name in ran.out
    less = told["scores"]["order_model_less"]["no change"]["log_score"]["value"]
    ours, theirs = (told["scores"]["methods"][name]["log_score"]["value"] for name in names[:2])
    assert less == pytest.approx(ours - theirs)
    # No two trajectories of the day share their draws.
    assert [np.asarray(one.simulation.trajectory).tolist() for one in ran.runs] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    # The historic orders are of an account whose orders the model may cancel.
    begun, first = ran.starts[0].market, ran.runs[0].simulation.market
    assert set(np.asarray(begun.book.owner)[np.asarray(begun.book.volume) > 0].tolist()) == {0}
    assert told["rollouts"]["600000_20230711"]["shares_cancelled"] > 0

    alone = run("sse,folder=.,time=09:34:00", "--config.threshold=0.0001", "--config.overwrite=true")
    assert alone.code == 0, alone.err
    told = metrics()
    assert told["forecast"]["mean"] == table["order model: label"][0]
    assert told["forecast"]["quantiles"]["0.5"] == table["quantile_0.5"][0]
    assert told["realized"]["label"] == table["realized"][0] and told["realized"]["class"].lower() == table["class"][0]
    assert "what came: " in alone.out and told["realized"]["mids"][0] == told["start"]["mid"]
    jax.tree.map(np.testing.assert_array_equal, alone.runs[0].simulation.market.book, first.book)


def test_lost_trajectories_have_no_label_and_overflow_is_named() -> None:
    orders, total = np.array([[1], [1], [0], [1]]), np.full((4, 1), 210)
    bars = types.SimpleNamespace(mid_twice_sum=clock.wide_from_numpy(total), orders=orders)
    ended = types.SimpleNamespace(end=np.array([End.TIME, End.NO_MID, End.TIME, End.NOT_FINITE]))
    run: Any = types.SimpleNamespace(bars=bars, mid_twice_start=np.full(4, 200), simulation=ended)
    np.testing.assert_array_equal(futures.labels(run), [0.05, np.nan, np.nan, np.nan])
    told = {"ended": {"TIME": 2, "NO_MID": 1, "NOT_FINITE": 1}, "lost": 2, "trajectories": 4, "capacity": 128,
            "rejected": {"SIDE_FULL": 3, "BAD_PRICE": 1}, "conserved": False, "exceeded": {"trace_dropped": 2}}
    first, second, dropped, third = futures.complaints(told)
    assert dropped == "2 events found no room in the trace"
    assert first == "2 of 4 trajectories lost, not part of any number: {'NO_MID': 1, 'NOT_FINITE': 1}"
    assert second == "3 orders refused, a side was full: set config.rollout_capacity above 128"
    assert third == "shares or cash were not conserved"
    assert not futures.complaints(told | {"ended": {"TIME": 4}, "rejected": {"BAD_PRICE": 1}, "conserved": True,
                                        "exceeded": {}})


def test_a_start_whose_book_gets_full_is_run_again_in_twice_the_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    market = MarketSpec(capacity=8, owners=2)
    opened = jax.tree.map(np.asarray, exchange.open_market(market))
    nothing = jax.tree.map(np.asarray, tokens.start())
    begun = start.Start(opened, nothing, None, None, clock.time_from_ns(34_200 * 10**9))  # type: ignore[arg-type]
    asked: list[int] = []

    def rollout_of(params: Any, spec: Any, *given: Any, **named: Any) -> Any:
        asked.append(spec.market.capacity)
        assert given[2].market.book.price.shape == (named["trajectories"], 2, spec.market.capacity)
        rejected = {"SIDE_FULL": 3} if spec.market.capacity < 600 else {}
        status = np.zeros((named["trajectories"], len(Status)), np.int32)
        result = types.SimpleNamespace(rejected=rejected, status=status, part=lambda which: result)
        return result

    monkeypatch.setattr(futures.rollout, "rollout", rollout_of)
    monkeypatch.setattr(futures, "_ROOM", 384)
    simulator: Any = types.SimpleNamespace(model=types.SimpleNamespace(params=None, spec=ModelSpec()), table=None,
                                           draws=None, cache=CacheSpec(mode="rolling", append=1), slots=None)
    config: Any = types.SimpleNamespace(rollout_capacity=0, minutes=1, trajectories=4, seed=0, temperature=1.0,
                                        chunk_steps=8, most_at_once=8, get=lambda key, other: other)
    runs = futures.simulate(simulator, market, config, [begun, begun, begun])
    assert asked == [384, 768, 768] and [run.rejected for run in runs] == [{}, {}, {}]
    config.rollout_capacity = 64
    assert [run.rejected for run in futures.simulate(simulator, market, config, [begun])] == [{"SIDE_FULL": 3}]


@pytest.mark.slow
def test_a_run_that_lost_orders_is_exit_3_and_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(futures, "complaints", lambda told: ["3 orders refused"])
    ran = run("noise", "--config.picture=false")
    assert (ran.code, ran.err) == (3, "3 orders refused\n") and Path("out/metrics.json").is_file()


def test_starts_leave_their_horizon_inside_their_period() -> None:
    config: Any = types.SimpleNamespace(first_minute=5, every_minutes=5, minutes=5)
    times = forecast_evaluation.start_times(config, chinese_session())
    spelled = [markets.spell(ns) for ns in times]
    assert (spelled[0], len(spelled)) == ("09:35:00", 23 + 22) and {"11:25:00", "13:05:00", "14:50:00"} <= set(spelled)
    assert not {"11:30:00", "13:00:00", "14:55:00"} & set(spelled)
    fit, judged = forecast_evaluation.split(times, 0.5)
    assert fit + judged == times and len(fit) == 22
    past = forecast_evaluation.past_times(chinese_session(), fit[0], judged[0], 10, 5)
    assert past[0] == fit[0] and past[-1] + 5 * analysis.MINUTE_NS <= judged[0]
    late = forecast_evaluation.past_times(chinese_session(), fit[0], times[-1], 10, 5)
    noon = 12 * 3600 * 10**9
    assert late[late < noon][-1] == 41_100 * 10**9 and late[late > noon][0] == 46_800 * 10**9


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
    ("noise", ("--config.trajectories=0",), ["config.trajectories: expected at least 1, got 0"]),
    ("noise", ("--config.minutes=0",), ["config.minutes: expected at least 1, got 0"]),
    ("noise", ("--config.threshold=1.5",), ["threshold: expected a number of at least 0 and below 1, got 1.5"]),
    ("noise", ("--config.quantiles=0.5,1.5",), ["quantiles: expected levels of 0 to 1, got (0.5, 1.5)"]),
    ("noise", ("--config.temperature=0.0",), ["config.temperature: expected a number above 0, got 0.0"]),
    ("noise", ("--config.seed=-1",), ["config.seed: expected 0 to", "got -1"]),
    ("noise", ("--config.context=ring",), ["CacheSpec.mode: expected rolling, hop or recompute, got 'ring'"]),
    ("noise", ("--config.context=hop",), ["its window of 32 orders does not fit config.context, hop and margin"]),
    ("noise", ("--config.rows=-1",), ["config.rows: expected at least 0, got -1"]),
    ("noise", ("--config.dtype=int8",), ["dtype", "got 'int8'"]),
    ("noise", ("--config.source=moon", "--config.time=09:34:00"), ["config.source: expected noise or sse, got 'moon'"]),
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
    spec = ModelSpec(width=8, heads=2, max_orders=32)
    checkpoints.save(tmp_path / "bare", spec, model.init(spec, jax.random.key(0)), {}, {})
    ran = run("noise", model="bare")
    assert ran.code == launcher.FAILED and "config.model bare: converters: expected price-level, found none" in ran.err


def test_only_numbers_of_held_out_data_are_quoted() -> None:
    about = {"source": "days", "steps": 9, "held_out": {"nats": 7.5, "days": ["a"], "ok": True},
             "x": {"held_out_loss": 1}}
    assert markets.held_out_losses(about) == {"held_out.nats": 7.5, "x.held_out_loss": 1.0}
