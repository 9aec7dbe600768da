"""Controlled futures as their user meets them: files that agree, targets of every kind, bad input in one line.

All runs share one market and one tiny model of random weights.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict

from marsjax.checkpoint import converter_files, folder, load, order_batch
from marsjax.checkpoint import ensemble as ensemble_files
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.order_images import OrderBatchSpec
from marsjax.core.sessions import continuous_session
from marsjax.core.specs import ModelSpec
from marsjax.data import sources
from marsjax.experiments import control as experiment
from marsjax.model import ensemble, llama
from marsjax.model.ensemble import EnsembleSpec
from marsjax.model.order_batch import batch_model, readout, tokenizer
from marsjax.model.order_batch.proposals import OrderBatches
from marsjax.model.order_batch.specs import BatchModelSpec, TokenizerSpec
from marsjax.sim import replay_day
from marsjax.sim.control import ControlSpec
from marsjax.studies.futures import FuturesSpec
from tests.experiments.conftest import Launch, Ran
from tests.experiments.synthetic_day import write_traded_day
from tests.helpers import fixture_folder

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]
SMALL = ("--config.capacity=128", "--config.rollout_capacity=256", "--config.trade_width=16", "--config.chunk_steps=32",
         "--config.noise_minutes=2", "--config.every_s=20", "--config.scale_bp=20")
FILES = {".marsjax-run", "control.png", "features.csv", "intervals.csv", "minutes.csv.gz", "realism.csv",
         "results.json"}
Run = Callable[..., Ran]


@pytest.fixture
def run(launch: Launch, tiny_checkpoint: Callable[[dict[str, Any]], Path]) -> Run:
    """Runs the experiment; the first argument is the config's."""
    checkpoint = tiny_checkpoint({"source": "random weights", "held_out": {"loss": 10.5}})

    def call(argument: str, *overrides: str) -> Ran:
        config = f"{ROOT / 'configs' / 'control.py'}:{argument},trajectories=32,minutes=1,output=out,model={checkpoint}"
        return launch("control", experiment.main, f"--config={config}", *SMALL, *overrides)

    return call


def results() -> dict[str, Any]:
    return json.loads(Path("out/results.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_an_execution_in_controlled_futures_and_files_that_agree(run: Run) -> None:
    ran = run("noise,execute=twap,strength=200", "--config.island=16", "--config.ratio=0.3",
              "--config.strengths=1,0.1", "--config.counts=16")
    assert ran.code == 0, ran.err
    assert {path.name for path in Path("out").iterdir()} == FILES | {"sweep.csv"}
    facts, table = results(), pd.read_csv("out/intervals.csv")
    assert facts["wanted"] == "drop of 200 bp" and facts["rollouts"]["conserved"]
    free, held, executed = facts["kinds"].values()
    assert list(facts["kinds"]) == ["uncontrolled", "controlled", "controlled, with an execution"]
    # What is chosen lies nearer to the target, and comes from fewer futures, two at least of two islands.
    assert held["fit"]["rmse_bp"] < free["fit"]["rmse_bp"] and executed["fit"]["rmse_bp"] < free["fit"]["rmse_bp"]
    assert 2 <= held["left"]["ancestors"] < free["left"]["ancestors"] == 32
    assert held["left"]["log_evidence"] < 0 == free["left"]["log_evidence"]
    assert table.groupby("kind", sort=False)["rmse_bp"].last().tolist() == pytest.approx(
        [abs(table[table["kind"] == kind]["rmse_bp"].iloc[-1]) for kind in facts["kinds"]])
    assert table["wanted_bp"].tolist() == pytest.approx([-200 / 3, -400 / 3, -200] * 3)
    assert table["clock"].str[:8].tolist()[:3] == ["09:32:20", "09:32:40", "09:33:00"]
    last = table[table["interval"] == 3].set_index("kind")
    assert last["correlation"]["controlled"] == pytest.approx(held["fit"]["correlation"], abs=1e-5)
    assert last["error_bp"]["controlled"] == pytest.approx(held["fit"]["terminal_error_bp"], rel=1e-4)
    assert last["near"]["controlled"] == pytest.approx(held["fit"]["share_near"])
    # The execution buys what it was to buy, or less; its volume is a part of the uncontrolled ones'.
    minutes = pd.read_csv("out/minutes.csv.gz")
    mean = minutes[minutes["kind"] == "uncontrolled"].groupby("trajectory")["volume"].sum().mean()
    assert facts["execution"]["target"] == int(0.3 * mean) // 100 * 100
    assert 0 < facts["execution"]["done_mean"] <= facts["execution"]["target"]
    sweep = pd.read_csv("out/sweep.csv")
    assert sweep["strength"].tolist() == [1, 0.1, 1] and sweep["trajectories"].tolist() == [32, 32, 16]
    # The first point is the run that was shown; a weaker control is farther off.
    assert sweep["rmse_bp"][0] == pytest.approx(held["fit"]["rmse_bp"]) and sweep["rmse_bp"][0] < sweep["rmse_bp"][1]
    realism = pd.read_csv("out/realism.csv")
    assert set(realism["kind"]) == {"controlled", "controlled, with an execution"}
    known = realism.dropna(subset=["similarity"])
    assert len(known) > 15 and known["similarity"].between(0, 1).all()
    assert "ancestors" in ran.out and "look at control.png first" in ran.out


@pytest.mark.slow
def test_a_real_day_is_replayed_and_the_curve_is_what_came(run: Run, tmp_path: Path) -> None:
    write_traded_day(tmp_path, minutes=6)
    ran = run("csv,file=orders.csv,replay,time=09:33:00", "--config.adapt_steps=0", "--config.session=continuous",
              "--config.tables=parquet", "--config.realism=false")
    assert ran.code == 0, ran.err
    facts, table = results(), pd.read_parquet("out/intervals.parquet")
    held = table[table["kind"] == "controlled"]
    # The mids of a replay of the same file, after the last order up to each end.
    (feed,) = sources.open_days("csv", "orders.csv")
    seen = replay_day(feed, feed.venue.market(capacity=128, session=continuous_session())).orders(prices="integer")
    last = np.searchsorted(seen["time_ns"], [times.of_clock("09:33:00"), *held["time_ns"]], side="right") - 1
    mids = ((seen["ask"] + seen["bid"]) / 2).to_numpy(float)[last]
    np.testing.assert_allclose(held["wanted_bp"], 1e4 * (mids[1:] / mids[0] - 1))
    assert np.ptp(mids) > 0 and facts["wanted"] == f"as it came, {held['wanted_bp'].iloc[-1]:+.1f} bp at the end"
    assert facts["guide"]["return_bp"] == pytest.approx(held["wanted_bp"].tolist())
    assert set(pd.read_parquet("out/realism.parquet")["quantity"].str.split(":").str[0]) == {"interval"}
    again = run("csv,file=orders.csv,curve=curve.csv,time=09:33:00", "--config.overwrite=true",
                "--config.adapt_steps=0", "--config.session=continuous", "--config.realism=false",
                "--config.picture=false") if _curve(held) else None
    assert again is not None and again.code == 0, again
    same = pd.read_csv("out/intervals.csv")
    np.testing.assert_allclose(same["mean_bp"], table["mean_bp"], rtol=1e-6)  # of one target come the same futures


@pytest.mark.slow
def test_led_futures_are_told_of_in_every_file(launch: Launch, tmp_path: Path) -> None:
    spec, converters = ModelSpec(embed_dim=8, heads=2, context_length=32), converter_files.read_folder(
        fixture_folder() / "converters")
    folder.save(tmp_path / "led", llama.init(spec, jax.random.key(0)), converters, {"source": "random weights"})
    batches = _small_batches()
    order_batch.save(tmp_path / "led", batches, {})
    model = load.load_order_model(tmp_path / "led").model
    ensemble_files.save(tmp_path / "led", ensemble.init(EnsembleSpec.of(8, batches.tokenizer.spec, 4, 1, 1),
                                                        jax.random.key(1), batches.tokenizer),
                        ensemble_files.trained_with(model, batches.tokenizer), {})
    config = f"{ROOT / 'configs' / 'control.py'}:noise,strength=200,trajectories=16,minutes=1,output=out"
    ran = launch("control", experiment.main, f"--config={config},model={tmp_path / 'led'}", *SMALL,
                 "--config.way=both", "--config.candidates=3", "--config.told=0.5", "--config.strengths=1,0.5",
                 "--config.picture=false", "--config.realism=false")
    assert ran.code == 0, ran.err
    facts, table, sweep = results(), pd.read_csv("out/features.csv"), pd.read_csv("out/sweep.csv")
    free, held = facts["kinds"].values()
    assert free["told"] is None and set(held["told"]) == {"correlation", "slope", "told_bp", "came_bp"}
    told = table[table["feature"] == "move_bp"]["told"]
    assert held["told"]["told_bp"] == pytest.approx(told.mean(), rel=1e-3) and len(told) == 3
    assert sweep["told_slope"][0] == pytest.approx(held["told"]["slope"], rel=1e-3)
    assert "of what the model writes as it is led, weighted by the guide" in ran.out and "told moves of" in ran.out
    assert facts["config"]["told"] == 0.5 and set(facts["control_models"]) == {"tokenizer", "batch_model", "ensemble"}


def _small_batches() -> OrderBatches:
    """Of intervals of 20 s, with random weights."""
    images = OrderBatchSpec(price_slots=8, volume_edges=(100, 300, 500), every_s=20)
    book = TokenizerSpec(images, codes=16, code_dim=4, width=8, blocks=1)
    weight = 0.3 * jax.random.normal(jax.random.key(2), (readout.input_count(images), len(readout.READ)))
    return OrderBatches(
        tokenizer.init(book, jax.random.key(3)), batch_model.init(BatchModelSpec(
            batches=3, places=book.places, codes=book.codes, width=16, heads=2), jax.random.key(4)),
        readout.Readout(weight, np.zeros(len(readout.READ), np.float32)))


def _curve(held: pd.DataFrame) -> bool:
    """What was wanted, as a file of prices."""
    returns = [0.0, *held["wanted_bp"]]
    pd.DataFrame({"minute": np.arange(4) / 3, "price": 50 * (1 + np.array(returns) / 1e4)}).to_csv("curve.csv",
                                                                                                  index=False)
    return True


def test_a_sweep_that_is_given_up_keeps_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def simulate(at: Any, spec: FuturesSpec, how: ControlSpec, *_: Any, **__: Any) -> ControlSpec:
        if how.strength == 4:
            raise InputError("ControlSpec.most_decisions: a led future made more than 10 (ControlSpec.told, 2)")
        return how

    monkeypatch.setattr("marsjax.studies.control.simulate", simulate)
    found = SimpleNamespace(guide=None)
    made: Any = SimpleNamespace(place=None, spec=FuturesSpec(4, 1), how=ControlSpec(), found=found)
    config = ConfigDict({"strengths": (1.0, 2.0, 4.0), "counts": (8,)})
    points, given_up = experiment._swept(config, made)
    assert [point.run.strength for point in points] == [1, 2]
    assert given_up == ["sweep: given up after 2 of 4 runs: config.most_decisions: a led future made more than 10 "
                        "(config.told, 2)"]
    points, given_up = experiment._swept(ConfigDict({"strengths": (1.0,), "counts": (0, 8)}), made)
    assert [point.trajectories for point in points] == [4, 8] and not given_up


def test_led_futures_last_whole_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = SimpleNamespace(check=lambda *_: None)
    monkeypatch.setattr("marsjax.studies.control_models.load", lambda *_: (fits, {}))
    config, how = ConfigDict({"model": "m", "trajectories": 4, "minutes": 1}), ControlSpec(every_s=45, way="batch")
    with pytest.raises(InputError, match=r"^config\.minutes: expected whole intervals of config\.every_s, 45 s"):
        experiment._models(config, how, None)  # type: ignore[arg-type]
    assert experiment._models(config, ControlSpec(every_s=20, way="batch"), None) is fits  # type: ignore


@pytest.mark.parametrize(("argument", "overrides", "expected"), [
    ("noise,scenario=crash", (), "scenario: expected one of drop, rise, reversal, calm, burst, illiquid, got 'crash'"),
    ("noise,strength=-3", (), "strength: expected a finite number above 0, got -3.0"),
    ("noise,scenario=calm,strength=2", (), "scenario calm: strength: expected a number below 1"),
    ("noise,scenario=drop,text=rise 5 bp", (), "config.scenario: expected one target, got scenario and text"),
    ("noise,text=drop 30 dollars", (), "config.text: scenario: word 3, 'dollars': expected % or bp"),
    ("noise,text=drop 3bp in 9 s", (), "config.text: scenario: expected moves of prices of 20 s together, or more"),
    ("noise,curve=none.csv", (), "none.csv: no such file"),
    ("noise", ("--config.scale_bp=0",), "config.scale_bp: expected a finite number above 0, got 0.0"),
    ("noise", ("--config.every_s=0",), "config.every_s: expected at least 1, got 0"),
    ("noise", ("--config.island=5",), "config.island: expected a number that divides config.trajectories, 32, got 5"),
    ("noise", ("--config.strengths=",), "config.strengths: expected a number at least, got none"),
    ("noise", ("--config.strengths=0,1",), "config.strengths: expected the first one above 0"),
    ("noise", ("--config.strengths=1,-2",), "config.strength: expected 0, or 1e-06 to 1e+06, got -2.0"),
    ("noise", ("--config.counts=-1",), "config.counts: expected at least 0, got -1"),
    ("noise", ("--config.island=8", "--config.counts=12"), "config.counts: expected multiples of config.island, 8"),
    ("noise", ("--config.resample_below=2",), "config.resample_below: expected 0 to 1, got 2.0"),
    ("noise", ("--config.way=magic",), "config.way: expected resample, batch or both, got 'magic'"),
    ("noise", ("--config.way=batch",), "has no order-batch model; train one with `marsjax train_control`"),
    ("noise", ("--config.way=both", "--config.candidates=0"), "config.candidates: expected at least 1, got 0"),
    ("noise", ("--config.way=both", "--config.told=-1"), "config.told: expected 0 to 1000, got -1.0"),
    ("noise", ("--config.way=batch", "--config.model=default"), "config.every_s: expected 60, the interval that"),
    ("noise", ("--config.way=batch", "--config.island=5"), "has no order-batch model; train one with"),
    ("noise", ("--config.way=batch", "--config.strengths=1,2"), "config.strengths: expected one with way=batch, wh"),
    ("noise,execute=all", (), "config.execute: expected twap, vwap, participation, immediate or nothing, got 'all'"),
    ("noise,execute=twap", ("--config.side=both",), "config.side: expected buy or sell, got 'both'"),
    ("noise,execute=twap", ("--config.ratio=0",), "config.ratio: expected a number above 0 (and below 100), got 0.0"),
    ("noise,execute=twap", ("--config.passive_seconds=11",), "config, keys of twap and config.minutes = 1: "),
    ("noise", ("--config.replay=true",), "--config.replay=true has no effect with noise"),
    ("noise", ("--config.tables=xml",), "config.tables: expected csv or parquet, got 'xml'"),
    ("sse,folder=nowhere", (), "config.folder: no folder nowhere"),
    ("noise", ("--config.minutes=600",), "past the end of continuous trading"),
])
def test_what_cannot_be_is_one_line_before_anything_runs(run: Run, argument: str, overrides: tuple[str, ...],
                                                         expected: str) -> None:
    ran = run(argument, *overrides)
    assert ran.code in (1, 2) and expected in ran.err and ran.err.count("\n") == 1
    assert "orders rest" not in ran.out and not Path("out").exists()
