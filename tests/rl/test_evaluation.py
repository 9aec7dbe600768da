"""Episodes against a loop of single steps; executions by rule; what is told of them against the market's own books."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.agents import vwap
from marsjax.agents.vwap import Vwap
from marsjax.core import int64
from marsjax.core.errors import InputError
from marsjax.rl import evaluation
from marsjax.rl.baselines import MOST_WEIGHT, Immediately, Measured, Participating, Progress, Scheduled
from marsjax.rl.env import Core, MarketEnv
from marsjax.rl.evaluation import Constant
from marsjax.rl.policy import NetworkSpec, Policy, PolicySpec
from tests.rl import markets

pytestmark = pytest.mark.quick

KEYS = jax.random.split(jax.random.key(5), 3)
ACCOUNT = 1
"""Of the trader in the markets of the tests."""


def measured(*rules):
    env = markets.replay_env()
    return MarketEnv(Core(env.core.background, (Measured(env.task, markets.STEPS, rules),)), env.default_params)


def alone(env, actor, key, steps):
    """An episode by single steps: rewards, infos, the last state that was in it."""
    seen, state = env.reset(jax.random.fold_in(key, 0), env.default_params)
    memory, begins, found, states = actor.begin(1), True, [], [state]
    for step in range(steps):
        return_keys = jax.random.split(jax.random.fold_in(key, step + 1))
        memory, action = actor.act(memory, seen[None], jnp.array([begins]), jax.random.fold_in(return_keys[0], 2))
        seen, state, reward, terminated, truncated, info = env.step(return_keys[1], state, action[0],
                                                                    env.default_params)
        begins = False
        found.append((float(reward), {k: np.asarray(v) for k, v in info.items()}))
        states.append(state)
        if terminated | truncated:
            break
    return found, states


@pytest.mark.slow
@pytest.mark.parametrize("memory", [0, 3])
def test_an_episode_is_that_of_single_steps(memory) -> None:
    env = measured()
    policy = Policy.fresh(PolicySpec(env.task.features, (env.task.actions,), NetworkSpec(width=8, memory=memory)),
                          jax.random.key(1))
    found = evaluation.episodes(env, env.default_params, policy, KEYS, markets.STEPS, draw=2)
    for number, key in enumerate(KEYS):  # whatever the other episodes of the batch are
        steps, states = alone(env, policy, key, markets.STEPS)
        assert int(found.steps[number]) == len(steps) and bool(found.is_whole[number])
        assert float(found.reward[number]) == pytest.approx(sum(reward for reward, _ in steps), rel=1e-5)
        for name in ("traded", "excess", "others_traded", "left"):
            told = sum(info[name] for _, info in steps)
            assert float(found.sums[name][number]) == pytest.approx(told, rel=1e-6), name
            assert float(found.last[name][number]) == steps[-1][1][name]
        start = int(evaluation.start_numbers(env, env.default_params, KEYS)[number])
        assert int(states[0].market.state.next) == int(env.default_params.background.first[start])
    assert float(jnp.abs(found.sums["traded"]).sum()) > 0
    other = evaluation.episodes(env, env.default_params, policy, KEYS, markets.STEPS, draw=3)
    assert (np.asarray(other.reward) != np.asarray(found.reward)).any()


@pytest.mark.slow
def test_what_is_told_of_executions_is_what_the_exchange_has_booked() -> None:
    env = measured(Scheduled())
    given = env.default_params
    found = evaluation.episodes(env, given, Constant(), KEYS, markets.STEPS)
    by_step = evaluation.by_step(env, given, Constant(), KEYS, markets.STEPS)
    for number, key in enumerate(KEYS):
        # One step less than would end the episode, by the task's own params, so that the last market is there to see.
        longer = dataclasses.replace(given, max_steps_in_episode=jnp.int32(markets.STEPS + 1))
        state = MarketEnv(env.core, longer).reset(jax.random.fold_in(key, 0), longer)[1]
        start, first = state.market.state.market, state
        assert int(found.steps[number]) == markets.STEPS  # also where all is traded before
        for _ in range(markets.STEPS):
            _, state, _, terminated, _, _ = env.step(key, state, 0, longer)
            assert not terminated
        traded, excess, others = (float(found.sums[name][number]) for name in ("traded", "excess", "others_traded"))
        assert others == by_step["others_traded"][:, number].sum()
        market, sign = state.market.state.market, 1 if bool(first.tasks[0].task.is_buy) else -1

        def change(name, market=market, start=start):
            new, old = (int64.to_numpy(getattr(x.ledgers, name))[ACCOUNT] for x in (market, start))
            return int(new - old)

        view = first.market.seen.view
        price = (int(view.ask_price[0]) + int(view.bid_price[0])) / 2
        assert traded == sign * change("holdings") > 0
        assert excess == -sign * change("cash") - price * traded
        volume = int(int64.to_numpy(market.counters.traded) - int64.to_numpy(start.counters.traded))
        assert others == volume - traded


@pytest.mark.slow
@pytest.mark.parametrize("rule", [Immediately(), Participating(0.3)])
def test_a_rule_never_trades_more_than_its_target_and_leaves_what_it_says(rule) -> None:
    env = measured(rule)
    found = evaluation.episodes(env, env.default_params, Constant(), KEYS, markets.STEPS)
    traded, left = np.asarray(found.sums["traded"]), np.asarray(found.sums["left"])
    np.testing.assert_array_equal(traded + left, markets.TASK.target)
    assert (traded > 0).all() and np.asarray(found.is_whole).all()
    assert (np.asarray(found.steps) == markets.STEPS).all()


def test_an_action_chooses_among_several_rules() -> None:
    rules = (Immediately(), Participating(0.3), Scheduled(patience=2))
    env = measured(*rules)
    assert env.num_actions == 3
    found = [evaluation.episodes(env, env.default_params, Constant(number), KEYS, markets.STEPS) for number in range(3)]
    alone = measured(rules[1])
    chex.assert_trees_all_equal(found[1], evaluation.episodes(alone, env.default_params, Constant(), KEYS,
                                                              markets.STEPS))
    assert len({np.asarray(each.sums["excess"]).tobytes() for each in found}) == 3


@pytest.mark.parametrize("profile", [(), (3, 1, 4, 1, 5, 9, 2, 6), (0, 0, 7, 0, 0, 0, 0, 2**15 - 7)])
def test_a_schedule_is_that_of_the_vwap_agent(profile) -> None:
    rule, weights = Scheduled(profile=profile), profile or (1,) * 8
    for target in (100, 1_700, 123_400, 2**30 // 100 * 100):
        found = [int(rule.due(Progress(jnp.int32(step), jnp.int32(target), jnp.int32(100), jnp.int32(0), 0.0), 8))
                 for step in range(8)]
        lots, so_far = target // 100, np.cumsum(np.array(weights, np.int64))
        assert found == (lots * so_far // so_far[-1] * 100).tolist()
        if all(weights):
            agent = Vwap(target, 0, weights, bucket_seconds=10, interval_seconds=10)
            assert found == vwap.schedule(agent, np.array(target)).tolist()


def test_a_patient_schedule_waits_before_it_trades() -> None:
    rule = Scheduled(patience=2)

    def wanted(step, filled):
        got = rule.wanted(Progress(jnp.int32(step), jnp.int32(800), jnp.int32(100), jnp.int32(filled), 0.0), 8)
        return int(got.volume), int(got.reach)

    assert [wanted(0, 0), wanted(1, 0)] == [(100, -1), (200, -1)]  # waits at first
    assert wanted(2, 0) == (300, 0)  # the first part has waited for two steps: all that is due trades
    assert wanted(3, 300) == (100, -1) and wanted(3, 200) == (200, -1)  # what is due waits again
    assert wanted(7, 600) == (200, 0)  # the last step


def test_a_patient_schedule_pays_less_where_others_come_to_it() -> None:
    found = {}
    for patience in (0, 2):
        env = measured(Scheduled(patience=patience))
        sums = evaluation.episodes(env, env.default_params, Constant(), KEYS, markets.STEPS).sums
        found[patience] = np.asarray(sums["excess"]) * (1 - 2 * np.asarray(sums["buys"]) / markets.STEPS)
    assert found[2].mean() > found[0].mean()


def test_participation_follows_what_others_trade_and_finishes() -> None:
    rule = Participating(0.25)

    def wanted(step, filled, others):
        return int(rule.wanted(Progress(jnp.int32(step), jnp.int32(1_050), jnp.int32(100), jnp.int32(filled),
                                        jnp.float32(others)), 8).volume)

    assert [wanted(0, 0, 0), wanted(1, 0, 399), wanted(1, 0, 400), wanted(2, 100, 1e9)] == [0, 0, 100, 900]
    assert wanted(7, 100, 0) == 950


@pytest.mark.parametrize(("make", "said"), [
    (lambda: Scheduled(profile=(0, 0)), "a weight above 0"), (lambda: Scheduled(profile=(-1,)), "profile"),
    (lambda: Scheduled(profile=(MOST_WEIGHT, 1)), "take a larger unit"), (lambda: Scheduled(patience=-1), "patience"),
    (lambda: Participating(0.0), "ratio"), (lambda: Participating(1.5), "ratio"),
    (lambda: Measured(markets.TASK, 0), "steps")])
def test_a_rule_that_makes_no_sense_is_refused(make, said) -> None:
    with pytest.raises(InputError, match=said):
        make()
