"""The environments are what their learners expect: gymnax, Gymnasium, JaxMARL, and scripts that know only gymnax."""

import dataclasses
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.agents.noise import NoiseSpec
from marsjax.core.errors import InputError
from marsjax.rl import env as environments
from marsjax.rl import gymnasium_envs, named, ppo
from marsjax.rl.env import Core, MarketEnv
from marsjax.rl.marl import MarlEnv
from marsjax.rl.noise import Noise
from marsjax.rl.passing import Stride
from tests.rl.markets import ENVS, SPEC, STEPS, TASK, WARMUP, replay_env
from tests.rl.test_laws import BATCH, driven, keys, stepped

gymnax = pytest.importorskip("gymnax", reason="extra rl")
gymnasium = pytest.importorskip("gymnasium", reason="extra rl")
pytestmark = pytest.mark.quick


@pytest.fixture
def named_env(monkeypatch: pytest.MonkeyPatch) -> str:
    """The replayed market under a name of gymnax's `make`, for one test."""
    registration = gymnax.registration
    monkeypatch.setattr(registration, "_registry", dict(registration._registry))
    monkeypatch.setattr(registration, "registered_envs", list(registration.registered_envs))
    gymnax.register("Execution-replay", replay_env)
    return "Execution-replay"


def test_it_is_made_and_its_spaces_hold_what_it_gives(named_env: str) -> None:
    env, params = gymnax.make(named_env)
    run = driven("replay")
    action_space, observation_space = env.action_space(params), env.observation_space(params)
    assert action_space.n == env.num_actions == 13 and observation_space.shape == (12,)
    assert all(bool(action_space.contains(action_space.sample(jax.random.key(i)))) for i in range(5))
    assert bool(observation_space.contains(run.observations)) and run.observations.dtype == np.float32
    last = jax.tree.map(lambda x: x[-1, 0], run.states)
    assert bool(env.state_space(params).contains(last))
    assert run.rewards.dtype == np.float32
    assert {"terminated", "truncated", "final_observation", "discount"} <= set(run.infos)
    np.testing.assert_array_equal(run.infos["discount"], 1.0 - run.infos["terminated"])


@pytest.mark.slow
def test_gymnax_s_wrapper_logs_whole_episodes() -> None:
    from gymnax.wrappers import LogWrapper
    env = LogWrapper(replay_env())
    params, run = env.default_params, driven("replay")
    _, state = jax.vmap(env.reset, (0, None))(keys(0, 2**31 - 1), params)
    step = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))
    returned, lengths, total = [], [], np.zeros(BATCH)
    for number in range(STEPS + 1):
        _, state, reward, _, _, info = step(keys(0, number), state, jnp.asarray(run.actions[number]), params)
        np.testing.assert_array_equal(reward, run.rewards[number])
        total += np.asarray(reward, np.float64)
        over = np.asarray(info["returned_episode"])
        np.testing.assert_allclose(np.asarray(info["returned_episode_returns"])[over], total[over], rtol=1e-5)
        lengths += np.asarray(info["returned_episode_lengths"])[over].tolist()
        returned += over.tolist()
        total[over] = 0
    assert sum(returned) >= BATCH and max(lengths) == STEPS


def test_params_are_arguments_not_constants_of_a_program() -> None:
    """One compiled program serves another target, another length and other books."""
    env = replay_env()
    step, run = stepped(env), driven("replay")
    _, state = jax.vmap(env.reset, (0, None))(keys(0, 1), env.default_params)
    before = step._cache_size()
    more = env.default_params.replace(
        max_steps_in_episode=jnp.int32(2),
        tasks=(dataclasses.replace(env.default_params.tasks[0], target=jnp.int32(300)),))
    for number in range(2):
        _, state, _, terminated, _, info = step(keys(0, number), state, jnp.full(BATCH, 3, jnp.int32), more)
    assert np.asarray(terminated).all() and step._cache_size() == before == 1 and run.over.any()
    np.testing.assert_array_equal(info["filled"] + info["unfilled"], 300)
    leaves = jax.tree.leaves(env)
    assert len(leaves) == len(jax.tree.leaves(env.default_params)) > 0
    assert isinstance(jax.tree.map(lambda x: x, env), MarketEnv) and hash(env) == hash(env)


@pytest.mark.slow
def test_gymnasium_s_checker_has_nothing_to_say() -> None:
    env = gymnasium_envs.GymnasiumMarket(replay_env())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*render.*")
        warnings.filterwarnings("ignore", message=".*env.spec.*")
        from gymnasium.utils.env_checker import check_env
        check_env(env, skip_render_check=True)


def test_gymnasium_s_vector_environment_is_the_same_in_numpy() -> None:
    env = gymnasium_envs.GymnasiumMarkets(replay_env(), BATCH)
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert env.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.SAME_STEP
    first, _ = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    assert env.observation_space.contains(first)
    env.action_space.seed(0)
    ends = 0
    for _ in range(STEPS + 1):
        seen, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(seen) and reward.shape == (BATCH,) and not truncated.any()
        np.testing.assert_array_equal(info["_final_obs"], terminated)
        np.testing.assert_array_equal((info["final_obs"] != seen).any(axis=1), terminated)
        ends += int(terminated.sum())
    assert ends >= BATCH
    with pytest.raises(InputError, match="one seed"):
        env.reset(seed=[1] * BATCH)
    with pytest.raises(InputError, match="num_envs"):
        gymnasium_envs.GymnasiumMarkets(replay_env(), 0)


@pytest.mark.slow
def test_one_learner_by_name_is_the_same_learner() -> None:
    env, run = replay_env(), driven("replay")
    many = MarlEnv(env.core, env.default_params)
    assert many.agents == ["execution"] and many.num_agents == 1
    assert many.action_space("execution").n == 13 and many.observation_space("execution").shape == (12,)
    step = jax.jit(jax.vmap(many.step, (0, 0, 0, None)))
    _, state = jax.vmap(many.reset, (0, None))(keys(0, 2**31 - 1), env.default_params)
    for number in range(STEPS):
        seen, state, reward, done, info = step(
            keys(0, number), state, {"execution": jnp.asarray(run.actions[number])}, env.default_params)
        np.testing.assert_array_equal(seen["execution"], run.observations[number])
        np.testing.assert_array_equal(reward["execution"], run.rewards[number])
        np.testing.assert_array_equal(done["__all__"], run.over[number])
        np.testing.assert_array_equal(info["execution"]["filled"], run.infos["filled"][number])


@pytest.mark.slow
def test_two_learners_trade_in_one_market() -> None:
    spec = dataclasses.replace(SPEC, accounts=3)
    background = Noise(spec, (1, 2), NoiseSpec(), Stride(3))
    core = Core(background, (TASK, TASK))
    many = MarlEnv(core, core.default_params(background.starts(2, warmup=WARMUP), STEPS))
    assert many.agents == ["execution_0", "execution_1"]
    _, state = many.reset(jax.random.key(0))
    for number in range(STEPS):
        actions = {name: jnp.int32((5, 9)[i]) for i, name in enumerate(many.agents)}
        before = state
        _, state, _, done, info = many.step(jax.random.key(number), state, actions)
        if bool(done["__all__"]):
            break
        ledgers = state.market.state.market.ledgers
        for i, name in enumerate(many.agents):
            task = state.tasks[i]
            assert int(task.filled) == int(info[name]["filled"])
            assert int(np.int32(ledgers.holdings.lo[1 + i])) == (1 if task.is_buy else -1) * int(task.filled)
    assert int(before.tasks[0].filled) > 0 and int(before.tasks[1].filled) > 0
    with pytest.raises(InputError, match=r"see rl\.marl"):
        MarketEnv(core, many.default_params)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CartPole-v1", "Execution-replay"])
def test_a_script_that_knows_only_gymnax_learns_by_the_name_alone(named_env: str, name: str) -> None:
    from tests.rl import actor_critic
    learner, loss, info = jax.jit(actor_critic.make_train(name))(jax.random.key(0))
    assert np.isfinite(np.asarray(loss)).all() and int(learner.step) == 2
    assert np.asarray(info["returned_episode"]).any()


@pytest.mark.parametrize(("given", "message"), [
    (("chess", {"background": "noise"}), "task: expected one of execution, sliced"),
    (("execution", {"background": "real"}), "background: expected one of replay, noise, model"),
    (("execution", {"background": "noise", "steps": 0}), "max_steps_in_episode|continuous"),
    (("execution", {"background": "noise", "steps": 10**6}), "continuous trading for"),
])
def test_names_that_are_none_are_refused(given: tuple, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noise, "starts", lambda *_, **__: None)
    with pytest.raises(InputError, match=message):
        named.make(given[0], **given[1])


def test_without_the_extra_the_spaces_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnax.environments", None)
    with pytest.raises(InputError, match=r"marsjax\[rl\]"):
        replay_env().action_space()
    with pytest.raises(InputError, match=r"marsjax\[rl\]"):
        environments.box(TASK)
    # A learner here asks for none.
    of = ppo.policy_spec(ppo.PPOSpec(steps=64, envs=4, length=8), replay_env(), replay_env().default_params)
    assert (of.observations, of.choices) == (TASK.features, (TASK.actions,))
    monkeypatch.setattr(gymnasium_envs, "gymnasium", None)
    with pytest.raises(InputError, match=r"marsjax\[rl\]"):
        gymnasium_envs.GymnasiumMarkets(replay_env(), 2)


def test_there_is_an_environment_of_each_background() -> None:
    assert set(ENVS) == set(named.BACKGROUNDS)
