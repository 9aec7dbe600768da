"""Stylized facts of real days beside futures from the states of these days."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marsjax import testing
from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.experiments import config, stylized_facts
from tests.experiments.synthetic_day import write_day

pytestmark = pytest.mark.quick

CONFIG = Path(__file__).parents[2] / "configs" / "stylized_facts.py"


@pytest.mark.slow
def test_futures_begin_where_stretches_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = testing.tiny_model()
    checkpoint_folder.save(tmp_path / "tiny", tiny.model, tiny.converters, {"source": "random weights"})
    monkeypatch.chdir(tmp_path)
    write_day(tmp_path, "600000")
    chosen = config.load(CONFIG, "sse,folder=.,trajectories=1,model=tiny")
    config.override(chosen, ["--config.capacity=128", "--config.trade_width=8", "--config.minutes=3"])
    got = stylized_facts.gather(chosen)
    frame = got.bars.frame()
    assert set(frame["symbol"]) == {"600000"} and not got.problems
    real, made = (frame[frame["source"] == name] for name in sorted(set(frame["source"])))
    begins = [pd.to_datetime(part.groupby("rollout")["time"].min().unique()) for part in (real, made)]
    # One from every stretch but the first, when no order came yet, up to the call auction at 14:57.
    assert begins[0].min() == pd.Timestamp("2023-07-11 09:30") and begins[1].min() == pd.Timestamp("2023-07-11 09:32")
    assert made["rollout"].nunique() == len(begins[1]) == got.about["rollouts"]["trajectories"] == 60 + 58 - 1
    assert set(made.groupby("rollout").size()) == {3}
    mids = made.sort_values("time").groupby("rollout")["price_mid"].first()
    assert np.ptp(mids) > 0


def test_stretches_of_two_days_of_one_symbol_are_different_rollouts(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both days numbered theirs from 0, so that each stretch was a rollout with a night inside, and was left out."""
    monkeypatch.chdir(tmp_path)
    write_day(tmp_path, "600000")
    for path in list(tmp_path.glob("*.csv")):
        path.with_name(path.name.replace("20230711", "20230712")).write_bytes(path.read_bytes())
    chosen = config.load(CONFIG, "sse,folder=.")
    config.override(chosen, ["--config.capacity=128", "--config.trade_width=8", "--config.minutes=3"])
    frame = stylized_facts.gather(chosen).bars.frame()
    of_day = frame.groupby(frame["time"].dt.date)["rollout"].agg(set)
    assert len(of_day) == 2 and not of_day.iloc[0] & of_day.iloc[1] and len(of_day.iloc[0]) == len(of_day.iloc[1]) > 2
    assert frame.groupby("rollout").size().max() == 3
