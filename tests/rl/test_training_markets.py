"""Replayed days joined, whose episodes are those of each day; and a training that learns there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.errors import InputError
from marsjax.core.times import SECOND_NS
from marsjax.rl import evaluation, ppo
from marsjax.rl.env import MarketEnv
from marsjax.rl.evaluation import Constant
from marsjax.rl.policy import NetworkSpec
from marsjax.rl.ppo import PPOSpec
from marsjax.sim.env import no_orders
from marsjax.studies import agent_comparison, agent_markets, agent_training
from marsjax.studies.agent_comparison import ComparisonSpec
from marsjax.studies.agent_markets import EpisodeSpec, Spans
from marsjax.studies.agent_training import AgentTraining
from marsjax.studies.starts import NoiseMarket
from tests.rl import markets

pytestmark = [pytest.mark.slow, pytest.mark.quick]

SPEC = EpisodeSpec(steps=6, step_s=5.0, starts=4, held_starts=3, target=1_000, lot=100)
SPANS = Spans(markets.BEGIN_NS, markets.BEGIN_NS + 150 * SECOND_NS, markets.END_NS)


def one_day():
    return agent_markets.replayed(SPEC, markets.SPEC, [markets.feed()], [SPANS])


def test_an_episode_of_days_joined_is_that_of_its_day() -> None:
    alone = one_day()
    two = agent_markets.replayed(SPEC, markets.SPEC, [markets.feed(), markets.feed()], [SPANS, SPANS])
    recording, single = two.train.background, alone.train.background
    assert recording.end.tolist() == [single.message_count] * 4 + [2 * single.message_count] * 4
    assert recording.start_count == 2 * single.start_count == 8 and two.core == alone.core
    keys, some = jax.random.split(jax.random.key(0), 2), 0.0

    def episodes(data, start):
        params = two.train.replace(background=data.only(np.array([start])))
        return evaluation.episodes(MarketEnv(two.core, params), params, Constant(5), keys, SPEC.steps)

    for start in range(4):  # alone, in the first and in the second day; the last ends where its day does
        told = [episodes(single, start), episodes(recording, start), episodes(recording, start + 4)]
        for joined in told[1:]:
            jax.tree.map(np.testing.assert_array_equal, told[0], joined)
        assert bool(told[0].is_whole.all())
        some += float(jnp.abs(told[0].reward).sum())
    assert some > 0


def test_the_last_episode_of_a_day_reads_none_of_the_next_day_s_messages() -> None:
    """The next day's messages are earlier in time, so that all of them would be due."""
    first = one_day().train.background
    early = dataclasses.replace(first, messages=first.messages.at[:, 0].add(-3600))
    two, background = agent_markets.joined([first, early]), one_day().core.background
    step = jax.jit(background.step)
    for data, start in ((two, 3), (two, 7), (first, 3)):
        begun = background.begin(data.only(np.array([start])), jax.random.key(0))
        state, nothing = begun.state, jax.tree.map(lambda x: x[None], no_orders(4))
        for number in range(SPEC.steps):
            found = step(data, state, nothing)
            state = found.state
            assert bool(found.is_over) == (number == SPEC.steps - 1)
        assert int(state.next) == int(data.end[start])


def test_starts_without_a_price_are_left_out() -> None:
    recording = one_day().train.background
    book = recording.starts.book
    empty = jnp.asarray(book.volume).at[2, 0].set(0)
    broken = dataclasses.replace(recording, starts=dataclasses.replace(
        recording.starts, book=dataclasses.replace(book, volume=empty)))
    kept = agent_markets.two_sided("X", broken)
    assert kept.start_count == 3 and kept.first.tolist() == np.delete(np.asarray(recording.first), 2).tolist()
    with pytest.raises(InputError, match="X: expected starts with orders on both sides"):
        agent_markets.two_sided("X", dataclasses.replace(
            recording, starts=jax.tree.map(jnp.zeros_like, recording.starts)))


def test_books_of_noise_have_both_sides_and_a_seed() -> None:
    def made(seed):
        market = NoiseMarket(warmup=markets.WARMUP, seed=seed)
        return agent_markets.noisy(SPEC, markets.SPEC, market)

    zero, one = made(0), made(1)
    for data in (zero.train.background, zero.held.background, one.train.background, one.held.background):
        assert agent_markets._are_two_sided(data.starts.book).all()
    # One of the second seed's four books has one side alone.
    assert [each.train.background.start_count for each in (zero, one)] == [4, 3]
    first, other = (np.asarray(each.train.background.starts.book.price[0]) for each in (zero, one))
    assert (first != other).any() and zero.blocks.tolist() == list(range(zero.held.background.start_count))


def test_a_training_and_its_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    market = one_day()
    training = AgentTraining(PPOSpec(steps=8 * 6 * 6, envs=8, length=6, network=NetworkSpec(width=8)), seeds=2, looks=4)
    said: list[str] = []
    trained = agent_training.train(training, market.env, market.train, said.append)
    assert len(said) == 3 and said[-1].startswith("steps 288: reward") and len(trained.policies) == 2
    assert trained.curves["reward"].shape == (2, 6) and np.isfinite(trained.curves["value_loss"]).all()
    again, _ = ppo.train(training.ppo, market.env, market.train, training.keys())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), trained.policies[1].weights,
                 ppo.of_seed(again, 1).weights)
    spec = ComparisonSpec(episodes=24, rules=("vwap",))
    keys: list[np.ndarray] = []
    by_step = evaluation.by_step

    def spied(env, params, actor, given, steps):
        keys.append(np.asarray(jax.random.key_data(given)))
        return by_step(env, params, actor, given, steps)

    monkeypatch.setattr(evaluation, "by_step", spied)
    rules = agent_comparison.rules(spec, market)
    # What rules know of the market comes of other draws than those that they are tested on.
    assert not {tuple(x) for x in keys[0]} & {tuple(x) for x in np.asarray(jax.random.key_data(spec.keys()))}
    twin = (trained.policies[0], trained.policies[0])
    compared = agent_comparison.compared(spec, market, twin, rules)
    # One policy twice, in the same episodes: its actions are drawn anew.
    assert (compared.contenders[0].reward[0] != compared.contenders[0].reward[1]).any()
    compared = agent_comparison.compared(spec, market, trained.policies, rules)
    agent, vwap = compared.contenders
    assert [one.name for one in compared.contenders] == ["agent", "vwap"]
    assert agent.reward.shape == (2, 24) and vwap.reward.shape == (1, 24)
    # The same episodes: as many starts as there are, and the same spread of a start whoever trades.
    assert len(np.unique(agent.start)) == 3 and set(agent.block) == set(market.blocks)
    np.testing.assert_array_equal(agent.spread, vwap.spread)
    np.testing.assert_array_equal(agent.start, vwap.start)
    for start in range(3):
        assert len(np.unique(vwap.spread[vwap.start == start])) == 1
    assert (vwap.filled > 0.5).all()
