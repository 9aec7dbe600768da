"""The run behind the page of learning: agents trained, given away and read again, a stop, and bad input."""

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from marsjax.core.errors import InputError
from marsjax.experiments.pages import learning_run
from marsjax.experiments.pages.jobs import Job
from marsjax.experiments.pages.learning_run import MADE, NOISE, REAL, LearningAsk, LearningCurves, LearningResult
from marsjax.experiments.pages.settings import Settings
from marsjax.experiments.pages.workshop import Workshop
from marsjax.rl import agent_files
from marsjax.rl.policy import NetworkSpec, Policy, PolicySpec
from marsjax.rl.ppo import PPOSpec
from marsjax.studies.agent_comparison import ComparisonSpec
from marsjax.studies.agent_markets import EpisodeSpec, MarketMakingSpec
from marsjax.studies.agent_training import AgentTraining
from marsjax.studies.maker_comparison import MakerComparisonSpec
from marsjax.studies.progress import StoppedError

pytestmark = pytest.mark.quick
EPISODE = EpisodeSpec(steps=4, step_s=1.0, target=400, starts=6, held_starts=16)
MAKER = MarketMakingSpec(steps=4, step_s=1.0, starts=6, held_starts=16)
TRAINING = AgentTraining(PPOSpec(64, envs=4, length=4, minibatches=2, network=NetworkSpec(8, 1)), seeds=2, looks=2)


@pytest.fixture(scope="module")
def shop() -> Workshop:
    return Workshop(Settings())


def ask(shop: Workshop, **changes: object) -> LearningAsk:
    found = LearningAsk(next(iter(shop.devices)), NOISE, "", EPISODE, ComparisonSpec(24, rules=("twap",)), TRAINING)
    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]


class Stopped(Job[LearningResult]):
    """Stopped when there is something of the training."""

    def check(self) -> None:
        if self.latest is not None:
            self.stop()
        super().check()


@pytest.mark.slow
def test_agents_are_trained_given_away_and_read_again_with_the_same_scores(shop: Workshop, tmp_path: Path) -> None:
    job: Job[LearningResult] = Job()
    result = learning_run.run(shop, ask(shop), job)
    assert isinstance(job.latest, LearningCurves) and job.latest.figure().axes and job.share == 1
    assert set(result.files) == {"agents.zip", "curves.csv", "curves.png", "comparison.csv", "comparison.png",
                                 "results.json"}
    curves = pd.read_csv(io.BytesIO(result.files["curves.csv"]))
    assert len(curves) == 2 * 4 and curves["steps"].max() == 64
    assert np.array_equal(job.latest.curves["entropy"].ravel(), curves["entropy"].to_numpy(np.float32))
    assert result.table["Who"].tolist() == ["agent", "twap", "agent less twap"]

    with zipfile.ZipFile(io.BytesIO(result.files["agents.zip"])) as given:
        assert {name.split("/")[0] for name in given.namelist()} == {"agent", "agent_2"}
        given.extractall(tmp_path)
    (tmp_path / "curves.csv").write_bytes(result.files["curves.csv"])
    again = learning_run.run(shop, ask(shop, training=None, folder=str(tmp_path / "agent")), Job())
    assert again.table.iloc[1].tolist() == result.table.iloc[1].tolist() and "curves" in again.pictures
    assert "agents.zip" not in again.files and not again.notes
    other = dataclasses.replace(EPISODE, target=800)
    noted = learning_run.run(shop, ask(shop, training=None, folder=str(tmp_path / "agent"), episode=other), Job())
    assert noted.notes == ["The agent was trained in other episodes: target 400 (here 800)"]


@pytest.mark.slow
def test_a_training_that_is_stopped_has_no_agent_and_a_replay_is_of_its_day(shop: Workshop) -> None:
    replay = ask(shop, background=MADE, day="quiet", episode=MAKER, comparison=MakerComparisonSpec(6))
    job = Stopped()
    with pytest.raises(StoppedError, match="there is no agent yet"):
        learning_run.run(shop, replay, job)
    assert job.latest.title == "market_making, replay of a day of the model: quiet"
    assert job.latest.curves["reward"].shape == (2, 2)


@pytest.mark.slow
def test_a_replay_is_compared_and_told_to_its_end(shop: Workshop, tmp_path: Path) -> None:
    replay = ask(shop, background=MADE, day="quiet", episode=MAKER, comparison=MakerComparisonSpec(6))
    result = learning_run.run(shop, replay, Job())
    assert set(result.files) == {"agents.zip", "curves.csv", "curves.png", "comparison.csv", "comparison.png",
                                 "results.json"}
    assert result.summary.startswith("2 agents, 64 steps each, in 6 episodes from ")
    said = json.loads(result.files["results.json"])
    assert (said["task"], said["background"], said["day"]) == ("market_making", MADE, "quiet")
    rows = {row["contender"]: row for row in said["comparison"] if not row["against"]}
    table = result.table.set_index("Who")
    for name in ("agent", "avellaneda_stoikov", "fixed"):
        assert float(table.loc[name, "Reward"].split()[0]) == pytest.approx(rows[name]["reward"], abs=6e-4)

    with zipfile.ZipFile(io.BytesIO(result.files["agents.zip"])) as given:
        given.extractall(tmp_path)
    other = dataclasses.replace(replay, training=None, folder=str(tmp_path / "agent"), day="busy")
    assert learning_run._loaded(dataclasses.replace(other, day="quiet")).notes == []
    assert learning_run._loaded(other).notes == [
        f"The agent was trained in another market: {MADE}: quiet (here {MADE}: busy)"]


def test_all_that_an_agent_says_of_its_episodes_and_market_is_compared(shop: Workshop) -> None:
    def noted(config: dict[str, object], of: str, **changes: object) -> list[str]:
        return learning_run._differences(ask(shop, **changes), {"background": of, "config": config})

    same = dataclasses.asdict(EPISODE)
    for name, value in same.items():
        other = value + 1 if not isinstance(value, str) else "buy"
        expected = [] if name in ("starts", "held_starts") else [
            f"The agent was trained in other episodes: {name} {other} (here {value})"]
        assert noted({**same, name: other, "source": "noise"}, "noise") == expected
    market = "The agent was trained in another market: {} (here {})"
    assert noted({"source": "quiet"}, "replay") == [market.format(f"{MADE}: quiet", NOISE)]
    assert noted({"source": "quiet"}, "replay", background=MADE, day="quiet") == []
    assert noted({"source": "quiet"}, "model", background=MADE, day="quiet") == [
        market.format("the order model", f"{MADE}: quiet")]
    assert noted({"source": "sse"}, "replay") == [market.format(REAL, NOISE)]
    assert noted({"source": "sse"}, "replay", background=REAL, day="600761") == []
    assert learning_run._differences(ask(shop), {}) == []
    assert learning_run._differences(ask(shop), {"background": NOISE, "day": ""}) == []


def agent(folder: Path, spec: PolicySpec, about: dict[str, object]) -> str:
    agent_files.save(folder, Policy.fresh(spec, jax.random.key(0)), about)
    return str(folder)


def test_a_folder_that_is_none_of_such_an_agent_is_named(shop: Workshop, tmp_path: Path) -> None:
    def said(folder: str) -> str:
        with pytest.raises((InputError, OSError)) as raised:
            learning_run.run(shop, ask(shop, training=None, folder=folder), Job())
        return str(raised.value)

    assert "train one with" in said(str(tmp_path / "none"))
    task, network = EPISODE.task(), NetworkSpec(8, 1)
    other = agent(tmp_path / "other", PolicySpec(3, (2,), network), {})
    assert f"{other}: expected an agent for execution, which sees 12 numbers and has 13 actions" in said(other)
    maker = agent(tmp_path / "maker", PolicySpec(task.features, (task.actions,), network), {"task": "market_making"})
    assert "got one for market_making" in said(maker)
    own = agent(tmp_path / "own", PolicySpec(task.features, (task.actions,), network), {"task": "execution"})
    (tmp_path / "curves.csv").write_text("a,b\n1,2\n")
    assert f"{tmp_path / 'curves.csv'}: expected the curves of a training" in said(own)
    with pytest.raises(InputError, match=r"LearningAsk\.folder"):
        ask(shop, training=None)


def test_a_day_that_is_not_there_and_one_too_short_are_named(shop: Workshop) -> None:
    with pytest.raises(InputError, match="day: expected one of none, got 'x'"):
        learning_run.run(shop, ask(shop, background=REAL, day="x"), Job())
    long = dataclasses.replace(EPISODE, steps=64, step_s=60.0)
    with pytest.raises(InputError, match="default: expected a span of 3840 s at least"):
        learning_run.run(shop, ask(shop, background=MADE, day="default", episode=long), Job())
