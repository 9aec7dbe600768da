"""Markets that agents are trained in, how they are trained and what rules know: what needs no rollout."""

import dataclasses

import jax
import numpy as np
import pytest

from marsjax.core.errors import InputError
from marsjax.core.sessions import continuous_session
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed, Venue
from marsjax.rl.baselines import MOST_WEIGHT, Participating, Scheduled
from marsjax.rl.env import Params
from marsjax.rl.execution import Execution
from marsjax.rl.ppo import PPOSpec
from marsjax.rl.sliced import SlicedExecution
from marsjax.studies import agent_comparison, agent_markets, agent_training
from marsjax.studies.agent_comparison import ComparisonSpec
from marsjax.studies.agent_markets import EpisodeSpec, Spans
from marsjax.studies.agent_training import AgentTraining

HOUR_NS = 3600 * SECOND_NS
KEYS = {"train_steps": 1000, "envs": 4, "length": 10, "epochs": 1, "minibatches": 2, "rate": 1e-3, "anneal": True,
        "discount": 1.0, "trace": 0.9, "clip": 0.2, "entropy": 0.0, "width": 8, "layers": 1, "memory": 0}


def test_spans_are_the_first_part_of_a_day_and_the_rest() -> None:
    feed = DayFeed("X", "", lambda: iter(()), Venue(session=continuous_session(10 * HOUR_NS, 12 * HOUR_NS)))
    assert agent_markets.spans_of(feed, 0.75) == Spans(10 * HOUR_NS, 41_400 * SECOND_NS, 12 * HOUR_NS)
    assert agent_markets.spans_of(feed, 0.5, (0, 100)) == Spans(0, 50, 100)
    for share in (0.0, 1.0):
        with pytest.raises(InputError, match="share"):
            agent_markets.spans_of(feed, share)


def test_episodes_of_the_training_are_over_where_those_held_out_begin() -> None:
    spec = EpisodeSpec(steps=10, step_s=2.0)
    found = agent_markets.start_times(spec, (100 * SECOND_NS, 150 * SECOND_NS), 4)
    assert found == [100 * SECOND_NS, 110 * SECOND_NS, 120 * SECOND_NS, 130 * SECOND_NS]
    assert agent_markets.start_times(spec, (0, 20 * SECOND_NS), 4) == [0]
    with pytest.raises(InputError, match="X: expected a span of 20 s at least, an episode, got 00:00:00 to 00:00:19"):
        agent_markets._check_room(spec, "X", (0, 19 * SECOND_NS))


@pytest.mark.parametrize(("changes", "said"), [
    ({"step_s": 0.0}, "EpisodeSpec.step_s"), ({"side": "both"}, "EpisodeSpec.side: expected one of"),
    ({"target": 0}, "EpisodeSpec.target"), ({"starts": 0}, "EpisodeSpec.starts"), ({"steps": 0}, "EpisodeSpec.steps"),
    ({"reward_unit": 0.0}, "EpisodeSpec.reward_unit")])
def test_an_episode_that_makes_no_sense_is_refused(changes, said) -> None:
    with pytest.raises(InputError, match=said):
        dataclasses.replace(EpisodeSpec(), **changes)


def test_a_training_has_all_its_updates_however_often_it_is_looked_at() -> None:
    training = AgentTraining(PPOSpec(steps=11 * 40 + 5, envs=4, length=10), looks=3)
    assert training.parts() == [4, 4, 3]
    for looks in (1, 2, 5, 7, 10, 11, 100):
        parts = dataclasses.replace(training, looks=looks).parts()
        assert sum(parts) == 11 and len(parts) <= looks and 0 < parts[-1] <= parts[0] and len(set(parts[:-1])) <= 1


def test_alpha_falls_where_slices_are_fulfilled_and_nowhere_else() -> None:
    params = Params(None, (SlicedExecution(alpha=1.0).default_params(),), 10)

    def after(told: dict[str, np.ndarray], factor: float = 0.5) -> float:
        return float(agent_training._with_alpha(params, told, factor).tasks[0].alpha)

    whole, short, none = ({"fulfilment": np.array(x)} for x in ([[1.0, np.nan], [0.92, 0.96]], [[0.94]], [[np.nan]]))
    assert [after(whole), after(short), after(none), after({})] == [0.5, 1.0, 1.0, 1.0]
    other = Params(None, (Execution().default_params(),), 10)
    assert agent_training._with_alpha(other, whole, 0.5) is other



def test_one_seed_gives_other_keys_for_other_purposes() -> None:
    training = AgentTraining(PPOSpec(steps=40, envs=4, length=10), seeds=4, seed=3)
    comparison = ComparisonSpec(episodes=16, seed=3)
    keys = [jax.random.split(jax.random.key(3), 16), training.keys(), comparison.keys(),
            comparison.keys(of_rules=True)]
    rows = np.concatenate([np.asarray(jax.random.key_data(each)) for each in keys])
    assert len(np.unique(rows, axis=0)) == len(rows) == 16 + 4 + 16 + 16


def test_blocks_are_of_two_episodes_at_least_and_of_one_day() -> None:
    spec = EpisodeSpec(steps=60, step_s=1.0)
    days = [np.arange(0, 601, 10) * SECOND_NS, np.array([5, 70]) * SECOND_NS]
    blocks = agent_markets.blocks_of(spec, days)
    assert len(blocks) == 63 and blocks[61:].tolist() == [5, 5]
    for block in range(5):
        starts = days[0][blocks[:61] == block]
        assert starts.max() - starts.min() >= 110 * SECOND_NS
    assert (np.diff(blocks) >= 0).all()


@pytest.mark.parametrize(("changes", "said"), [
    ({"train_steps": 39}, "config.train_steps: expected at least a rollout"),
    ({"minibatches": 3}, "config.minibatches"),
    ({"width": 0}, "config.width: expected at least 1"), ({"rate": -1.0}, "config.rate")])
def test_a_key_of_a_training_is_named(changes, said) -> None:
    assert agent_training.ppo_spec(KEYS).network.width == 8
    with pytest.raises(InputError, match=said):
        agent_training.ppo_spec({**KEYS, **changes})


def test_rules_know_what_others_traded_at_the_starts_of_the_training() -> None:
    volumes = np.array([1.0, 0.0, 3.0])
    rule = agent_comparison.rule_of("vwap", 2, volumes, 100)
    assert isinstance(rule, Scheduled) and rule.profile == (MOST_WEIGHT // 4, 0, MOST_WEIGHT // 4 * 3)
    assert agent_comparison.rule_of("participation", 2, volumes, 1) == Participating(0.25)
    assert agent_comparison.rule_of("participation", 2, volumes, 100) == Participating(1.0)
    assert agent_comparison.rule_of("patient_twap", 2, None, 100) == Scheduled(patience=2, name="patient_twap")
    with pytest.raises(InputError, match="vwap: expected trades of others"):
        agent_comparison.rule_of("vwap", 2, np.zeros(3), 100)
    for changes in ({"rules": ("twap", "twap")}, {"rules": ("hold",)}, {"episodes": 0}, {"patience": 0}):
        with pytest.raises(InputError, match=next(iter(changes))):
            ComparisonSpec(**changes)


def test_a_table_has_a_row_of_each_seed_and_update() -> None:
    curves = {name: np.arange(6.0).reshape(2, 3) for name in ("reward", "steps", "entropy")}
    table = agent_training.TrainedAgents((), curves, PPOSpec(steps=120, envs=4, length=10)).table()
    assert table["seed"].tolist() == [0, 0, 0, 1, 1, 1] and table["steps"].tolist() == [40, 80, 120] * 2
    assert table["reward"].tolist() == table["episode_steps"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert table["update"].tolist() == [1, 2, 3] * 2
