"""A policy as an agent in a rollout does what it does in the environment of its training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import testing
from marsjax.agents.base import Latency
from marsjax.core import int64
from marsjax.core.errors import InputError
from marsjax.core.times import SECOND_NS
from marsjax.rl.as_agent import DepthObserver, PolicyAgent
from marsjax.rl.base import key_of as key_of_words
from marsjax.rl.execution import Execution
from marsjax.rl.policy import NetworkSpec, Policy, PolicySpec
from marsjax.sim.rollout import rollout
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import RolloutSpec
from marsjax.sim.step import key_of
from tests.rl import markets

pytestmark = pytest.mark.quick

STEPS = 4
TASK = dataclasses.replace(markets.TASK, side="buy")


def policy(seed=2, task=TASK):
    """One with a memory, which tells whatever it has seen; its logits are far apart, so that it acts in many ways."""
    fresh = Policy.fresh(PolicySpec(task.features, (task.actions,), NetworkSpec(width=8, memory=6)),
                         jax.random.key(seed))
    weights = jax.tree.map(lambda x: x, fresh.weights)
    weights["actor_out"] = {"kernel": weights["actor_out"]["kernel"] * 300, "bias": weights["actor_out"]["bias"]}
    return dataclasses.replace(fresh, weights=weights, is_greedy=True)


@pytest.mark.slow
def test_in_a_rollout_it_does_what_it_did_in_the_environment() -> None:
    env, learnt = markets.model_env(), policy()
    params = dataclasses.replace(env.default_params, tasks=(TASK.default_params(),))
    data, background = params.background, env.core.background
    key = key_of(0, 0)
    words = jax.random.key_data(key)
    assert jax.random.key_data(key_of_words(words)).tolist() == words.tolist()
    seen, simulation = jax.tree.map(lambda x: x[0], data.environment.first(key[None], jax.tree.map(
        lambda x: x[:1], data.begun)))
    state = env.core._at_start(jax.random.key(0), params, background._begun(seen, simulation, words))
    features, memory, begins, filled = env.core._observe(params, state)[0], learnt.begin(1), True, []
    for _ in range(STEPS):
        memory, action = learnt.act(memory, features[None], jnp.array([begins]), jax.random.key(0))
        features, state, _, terminated, _, info = env.step(jax.random.key(0), state, action[0], params)
        features, begins = info["final_observation"], False
        filled.append(int(info["filled"]))
        if terminated:
            break
    memory, _ = learnt.act(memory, features[None], jnp.array([False]), jax.random.key(0))
    assert filled[-1] > 0

    model, market = testing.tiny_model(), testing.tiny_market(accounts=3)
    agent = PolicyAgent(learnt, TASK, TASK.default_params(), markets.BEGIN_NS, STEPS, SECOND_NS, depth_at=0)
    simulator = Simulator.of(model, market, agents=[agent], observers=[DepthObserver()])
    run = rollout(simulator, testing.random_start(market, model, markets.BEGIN_NS, 0), RolloutSpec(1, minutes=1))
    ended = run.so_far().agent_states[0]
    assert int(ended.task.filled[0]) == filled[-1] and int(ended.step[0]) == len(filled) + 1
    np.testing.assert_allclose(ended.memory[0], memory[0], atol=1e-5)
    # The observer's depth is that of the book at the end.
    depth = int64.to_numpy(run.observed[0])[0]
    np.testing.assert_array_equal(depth, np.asarray(run.state.market.book.volume, np.int64)[0].sum(-1))


def test_one_that_does_not_fit_is_refused() -> None:
    learnt = policy()
    given = TASK.default_params()
    for changes, said in (({"latency": Latency(5)}, "latency"), ({"steps": 0}, "steps"), ({"step_ns": 0}, "step_ns"),
                          ({"start_ns": -1}, "start_ns")):
        with pytest.raises(InputError, match=said):
            PolicyAgent(learnt, TASK, given, **{"start_ns": 0, **changes})
    other = Policy.fresh(PolicySpec(TASK.features, (5,)), jax.random.key(0))
    with pytest.raises(InputError, match="13 actions of the task execution, got one for 12 and"):
        PolicyAgent(other, TASK, given, 0)


def test_its_functions_are_those_of_an_agent() -> None:
    task = Execution(target=500, lot=100)
    agent = PolicyAgent(policy(task=task), task, task.default_params(), markets.BEGIN_NS)
    testing.check_functions(agent)
