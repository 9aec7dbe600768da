"""The program that trains agents: its files, and its errors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict

from marsjax.core.errors import InputError
from marsjax.experiments import config as configs
from marsjax.experiments import train_agent
from marsjax.rl import agent_files
from marsjax.studies import agent_comparison, agent_training

ROOT = Path(__file__).parents[2]
SIZES = {"steps": 4, "step_s": 5.0, "target": 400, "starts": 3, "held_starts": 2, "train_steps": 96, "envs": 4,
         "length": 8, "minibatches": 2, "width": 8, "layers": 1, "looks": 3, "episodes": 6, "capacity": 64,
         "rules": ("twap",), "bootstrap": 20, "noise_minutes": 3}

FILES = {"agent", "agent_2", "curves.csv", "curves.png", "comparison.csv", "comparison.png", "results.json"}


def config(arg: str, **values: Any) -> ConfigDict:
    found = configs.load(ROOT / "configs" / "train_agent.py", arg)
    with found.unlocked():
        found.update(values)
    return found


@pytest.mark.slow
@pytest.mark.quick
def test_a_training_writes_agents_curves_and_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = config(f"execution,source=noise,seeds=2,output={tmp_path / 'out'}", **SIZES)
    assert train_agent.main(given) == 0
    said = capsys.readouterr().out
    assert "steps 96: reward" in said and "agent less twap" in said and "look at comparison.png first" in said
    found = {path.name for path in (tmp_path / "out").iterdir()} - {".marsjax-run"}
    assert found == FILES
    agent, about = agent_files.load(tmp_path / "out" / "agent_2")
    assert agent.spec.choices == (13,) and about["seed"] == 1 and about["config"]["target"] == 400
    curves = pd.read_csv(tmp_path / "out" / "curves.csv")
    assert curves["steps"].tolist() == [32, 64, 96] * 2 and curves["seed"].tolist() == [0] * 3 + [1] * 3
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["comparison"]
    table = pd.read_csv(tmp_path / "out" / "comparison.csv", keep_default_na=False)
    assert len(rows) == len(table) == 3 * 4 and {row["market"] for row in rows} == {"noise"}
    assert [row["contender"] for row in rows[::4]] == ["agent", "twap", "agent"]
    assert np.isclose(rows[8]["arrival_bp"], rows[0]["arrival_bp"] - rows[4]["arrival_bp"])


@pytest.mark.slow
@pytest.mark.quick
def test_an_execution_in_slices_is_trained_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = config(f"sliced,source=noise,seeds=2,output={tmp_path / 'out'}", **SIZES)
    assert train_agent.main(given) == 0
    assert "agent less twap" in capsys.readouterr().out
    agent, about = agent_files.load(tmp_path / "out" / "agent")
    assert agent.spec.choices == (66,) and about["task"] == "sliced" and about["config"]["alpha_factor"] == 0.9
    curves = pd.read_csv(tmp_path / "out" / "curves.csv")
    assert curves["fulfilment"].between(0, 1).all()


@pytest.mark.slow
@pytest.mark.quick
def test_market_makers_are_trained_and_compared_with_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {name: value for name, value in SIZES.items() if name not in ("target", "rules")}
    given = config(f"market_making,source=noise,seeds=2,output={tmp_path / 'out'}", fee_bp=0.1, **sizes)
    assert train_agent.main(given) == 0
    said = capsys.readouterr().out
    assert "steps 96: reward" in said and "agent less avellaneda_stoikov" in said and "agent less fixed" in said
    found = {path.name for path in (tmp_path / "out").iterdir()} - {".marsjax-run"}
    assert found == FILES
    agent, about = agent_files.load(tmp_path / "out" / "agent")
    assert agent.spec.choices == (13,) and agent.spec.observations == 11 and about["task"] == "market_making"
    table = pd.read_csv(tmp_path / "out" / "comparison.csv", keep_default_na=False)
    assert table["contender"].tolist() == ["agent", "avellaneda_stoikov", "fixed", "agent", "agent"]
    assert table["against"].tolist() == ["", "", "", "avellaneda_stoikov", "fixed"]
    for name in ("reward", "profit", "traded", "held"):
        assert np.isclose(table[name][3], table[name][0] - table[name][1]) and np.isfinite(table[name]).all()
    assert (table["traded"][:3] > 0).any() and (table["held"][:3] <= 1000).all()


@pytest.mark.slow
def test_what_fails_in_the_comparison_leaves_the_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: Any) -> None:
        raise InputError("no comparison")

    given = config(f"execution,source=noise,seeds=1,output={tmp_path / 'out'}", **SIZES)
    monkeypatch.setattr(agent_comparison, "compared", failing)
    with pytest.raises(InputError, match="no comparison"):
        train_agent.main(given)
    assert agent_files.load(tmp_path / "out" / "agent").policy.spec.choices == (13,)
    assert len(pd.read_csv(tmp_path / "out" / "curves.csv")) == 3


@pytest.mark.slow
def test_rules_that_cannot_be_made_are_told_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                ) -> None:
    given = config(f"execution,source=noise,seeds=1,output={tmp_path / 'out'}", **{**SIZES, "rules": ("vwap",)})
    monkeypatch.setattr(agent_comparison, "_volumes", lambda *given: np.zeros(4))
    monkeypatch.setattr(agent_training, "train", None)
    with pytest.raises(InputError, match="vwap: expected trades of others"):
        train_agent.main(given)


@pytest.mark.parametrize(("arg", "values", "said"), [
    ("market_making", {"most_lots": 0}, "config.most_lots"), ("market_making", {"fee_bp": 1e6}, "config.fee_bp"),
    ("market_making", {"rules": ("twap",)}, "config.rules: expected some of avellaneda_stoikov, fixed"),
    ("market_making", {"fill_decay": 0.0}, "config.fill_decay"),
    ("execution", {"background": "noise"}, "config.background: expected replay or model with source=default"),
    ("execution", {"compare": ("replay", "real")}, "config.compare: expected replay or model"),
    ("execution", {"compare": ()}, "config.compare: expected a background at least"),
    ("execution,source=noise,background=model", {}, "config.background: expected noise with source=noise, got 'model'"),
    ("execution,source=noise", {"compare": ("model",)}, "config.compare: expected noise with source=noise"),
    ("execution", {"target": 0}, "config.target"), ("execution", {"side": "long"}, "config.side: expected one of"),
    ("execution", {"minibatches": 7}, "config.minibatches"), ("execution", {"memory": -1}, "config.memory"),
    ("execution", {"train_steps": 10}, "config.train_steps: expected at least a rollout"),
    ("execution", {"seeds": 0}, "config.seeds"), ("execution", {"rules": ("hold",)}, "config.rules: expected some of"),
    ("execution", {"episodes": 0}, "config.episodes")])
def test_a_wrong_key_is_named(arg: str, values: dict[str, Any], said: str) -> None:
    given = config(arg, **values)
    with pytest.raises(InputError, match=said):
        train_agent.checked(given)


def test_the_source_noise_has_its_own_background_and_days_are_replayed() -> None:
    assert train_agent.backgrounds(config("execution,source=noise")) == ["noise"]
    assert train_agent.backgrounds(config("execution")) == ["replay"]
    assert train_agent.backgrounds(config("execution,background=model", compare=("model", "replay"))) == [
        "model", "replay"]
    with pytest.raises(configs.UsageError, match="hedging"):
        config("hedging")
