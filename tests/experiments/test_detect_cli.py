"""The program that watches a day, as its user meets it: clean and with a manipulation, and bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict

from marsjax.experiments import detect
from marsjax.studies.session_times import spell
from tests.experiments.conftest import Launch
from tests.experiments.synthetic_day import write_day

SMALL = ("--config.capacity=128", "--config.rollout_capacity=256", "--config.trade_width=16", "--config.chunk_steps=32",
         "--config.session=continuous", "--config.end_time=09:38:00", "--config.adapt_steps=0")


def config(day: Path, model: Path, **more: str) -> list[str]:
    words = ",".join(["sse", f"folder={day}", f"model={model}", "trajectories=24", "minutes=1",
                      *(f"{key}={value}" for key, value in more.items())])
    return [f"--config=detect:{words}", *SMALL]


@pytest.mark.slow
def test_a_day_is_watched_and_a_manipulation_put_into_it_changes_its_interval(
        launch: Launch, tiny_checkpoint: Callable[[dict[str, Any]], Path], tmp_path: Path) -> None:
    write_day(tmp_path)
    model = tiny_checkpoint({})
    plain = launch("detect", detect.main, *config(tmp_path, model, output="plain"))
    assert plain.code == 0, plain.err
    rows = pd.read_csv("plain/intervals.csv")
    assert rows["clock"].tolist() == [f"09:{minute}:00" for minute in range(31, 38)]
    counts = np.round(rows["p_futures"] * 25)
    assert np.allclose(counts, rows["p_futures"] * 25) and counts.between(1, 25).all()
    assert not rows["is_clean"].any() and rows["p_clean"].isna().all()
    result = json.loads(Path("plain/results.json").read_text())
    assert result["detection"]["attained_rate"] == 1 / 25 and "manipulation" not in result["detection"]
    assert Path("plain/detection.png").stat().st_size > 10_000

    put = launch("detect", detect.main, *config(tmp_path, model, output="put", inject="layering"),
                 "--config.inject_seconds=40")
    assert put.code == 0, put.err
    changed = pd.read_csv("put/intervals.csv")
    before, during = changed.index < 3, changed.index == 3
    features = ["orders", "order_volume", "return_bp", "touch_imbalance", "p_futures"]
    assert changed.loc[before, features].equals(rows.loc[before, features])
    assert changed["orders"][3] == rows["orders"][3] + 6 + 6  # five false orders, a real one, and their cancels
    assert changed["largest_order"][3] == 2_000 > rows["largest_order"][3]
    case = json.loads(Path("put/results.json").read_text())["detection"]["manipulation"]
    assert (case["from"], case["until"], case["during"]["intervals"], case["orders"]) == (
        "09:34:01", "09:34:41", during.sum(), 12)
    assert (case["before"]["intervals"], case["after"]["intervals"]) == (3, 3)
    assert "layering from 09:34:01 to 09:34:41: 12 orders" in put.out


@pytest.mark.quick
@pytest.mark.parametrize(("words", "said"), [
    ({"inject": "rumour"}, "spoofing, layering, pump, wash"), ({"clean_until": "09:34:00"}, "clean_until: expected 8"),
    ({"minutes": "9"}, "at least 2 intervals"), ({"clean_until": "soon"}, "HH:MM:SS"),
    ({"clean_until": "09:31:00"}, "config.clean_until: expected a time after the first interval's begin, 09:31:00"),
    ({"clean_until": "09:31:30"}, "clean_until: expected 8")])
def test_what_does_not_fit_is_refused_before_anything_runs(launch: Launch, tmp_path: Path, words: dict[str, str],
                                                           said: str) -> None:
    write_day(tmp_path)
    ran = launch("detect", detect.main, *config(tmp_path, tmp_path / "none", **words))
    assert ran.code == 1 and said in ran.err
    assert not Path("runs").exists()


@pytest.mark.quick
def test_a_rate_that_cannot_be_is_named_by_its_key(launch: Launch, tmp_path: Path) -> None:
    write_day(tmp_path)
    ran = launch("detect", detect.main, *config(tmp_path, tmp_path / "none"), "--config.rate=2")
    assert ran.code == 1 and "config.rate: expected a number between 0 and 1, got 2.0" in ran.err


@pytest.mark.quick
@pytest.mark.parametrize(("key", "value", "said"), [
    ("time", "09:31:00", "expected times in intervals that are watched and not clean, after 09:31:00 and up to"),
    ("time", "09:37:30", "config.inject_seconds: spoofing at 09:37:30: ends at 09:38:30, after its period"),
    ("time", "09:40:00", "config.inject_seconds: start at 09:40:00: expected a time of continuous trading"),
    ("time", "09:30:30", "got 09:30:30 to 09:31:30"), ("size", "0", "config.inject_size: expected shares above 0"),
    ("seconds", "600", "ends at 09:44:01")])
def test_a_manipulation_lies_in_what_is_tested(launch: Launch, tmp_path: Path, key: str, value: str, said: str) -> None:
    write_day(tmp_path)
    ran = launch("detect", detect.main, *config(tmp_path, tmp_path / "none", inject="spoofing"),
                 f"--config.inject_{key}={value}")
    assert ran.code == 1 and said in ran.err, ran.err


@pytest.mark.quick
@pytest.mark.parametrize(("clean_until", "clock"), [("", "11:28:01"), ("14:00:00", "14:28:01")])
def test_by_default_a_manipulation_begins_in_an_interval_and_not_in_the_break(
        launch: Launch, tmp_path: Path, clean_until: str, clock: str) -> None:
    write_day(tmp_path)
    chosen = []

    def choose(config: ConfigDict) -> int:
        _, market, end_ns = detect._day(config)
        watch = detect._watch_spec(config, market, end_ns)
        chosen.append(detect._manipulation(config, market, watch, watch.intervals(market)))
        return 0

    words = f"--config=detect:sse,folder={tmp_path},inject=pump,minutes=2"
    ran = launch("detect", choose, words + (f",clean_until={clean_until}" if clean_until else ""))
    assert ran.code == 0, ran.err
    ((manipulation, at_ns),) = chosen
    assert manipulation is not None and manipulation.kind == "pump" and spell(at_ns) == clock
