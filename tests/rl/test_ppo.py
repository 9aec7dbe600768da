"""The learner: its advantages, loss and memory against slow copies in NumPy, and that it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

gymnax = pytest.importorskip("gymnax")

from marsjax.core.errors import InputError  # noqa: E402
from marsjax.rl import policy as policies  # noqa: E402
from marsjax.rl import ppo  # noqa: E402
from marsjax.rl.policy import NetworkSpec, Policy, PolicySpec  # noqa: E402
from marsjax.rl.ppo import PPOSpec  # noqa: E402

SMALL = PPOSpec(steps=64, envs=4, length=8, epochs=2, minibatches=2, network=NetworkSpec(width=8, layers=1))
SPACE = gymnax.environments.spaces


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Clock:
    """Counts steps; an episode terminates at `end`, is truncated at `limit`; every step has a reward of `pay`."""

    end: jax.Array
    limit: jax.Array
    pay: jax.Array

    def reset(self, key, params=None):
        return jnp.zeros(2), jnp.int32(0)

    def step(self, key, state, action, params=None):
        TRACES.append(1)
        state = state + 1
        terminated, truncated = state >= self.end, state >= self.limit
        done = terminated | truncated
        seen = jnp.stack([state.astype(jnp.float32), jnp.float32(action)])
        info = {"final_observation": seen, "discount": jnp.float32(0)}
        return jnp.where(done, 0.0, seen), jnp.where(done, 0, state), self.pay, terminated, truncated, info

    def action_space(self, params=None):
        return SPACE.Discrete(3)

    def observation_space(self, params=None):
        return SPACE.Box(0.0, 100.0, (2,))


TRACES: list[int] = []


def clock(end=5, limit=100, pay=1.0):
    return Clock(jnp.int32(end), jnp.int32(limit), jnp.float32(pay))


def random_steps(rng, length=40, envs=3):
    terminated = rng.random((length, envs)) < 0.1
    done = terminated | (rng.random((length, envs)) < 0.1)
    nothing = jnp.zeros((length, envs))
    numbers = [jnp.asarray(rng.normal(size=(length, envs)), jnp.float32) for _ in range(3)]
    return ppo.Steps(nothing, nothing, nothing, nothing, numbers[0], numbers[1], jnp.asarray(terminated),
                     jnp.asarray(done), numbers[2])


def test_advantages_are_those_of_a_slow_sum() -> None:
    rng = np.random.default_rng(0)
    steps, last = random_steps(rng), rng.normal(size=3).astype(np.float32)
    following = jnp.where(steps.done, steps.final_value, jnp.concatenate([steps.value[1:], last[None]]))
    found = ppo.advantages(dataclasses.replace(SMALL, discount=0.9, trace=0.8), steps, following)
    value, reward, final = (np.asarray(x, np.float64) for x in (steps.value, steps.reward, steps.final_value))
    terminated, done = np.asarray(steps.terminated), np.asarray(steps.done)
    assert (done & ~terminated).sum() > 3 and terminated.sum() > 3
    # An advantage is a sum of errors, discounted, up to the end of the episode or of the rollout.
    for env in range(3):
        for first in range(40):
            total, weight = 0.0, 1.0
            for at in range(first, 40):
                later = final[at, env] if done[at, env] else value[at + 1, env] if at < 39 else float(last[env])
                total += weight * (reward[at, env] + 0.9 * later * (not terminated[at, env]) - value[at, env])
                weight *= 0.9 * 0.8
                if done[at, env]:
                    break
            assert total == pytest.approx(float(found[first, env]), abs=1e-4)


def a_batch(rng, of, length, count):
    draws = [jnp.asarray(rng.normal(size=(length, count)), jnp.float32) for _ in range(4)]
    action = jnp.asarray(np.stack([rng.integers(0, n, (length, count)) for n in of.choices], -1), jnp.int32)
    return ppo.RolloutBatch(jnp.asarray(rng.normal(size=(count, of.network.memory)), jnp.float32),
                     jnp.asarray(rng.normal(size=(length, count, of.observations)), jnp.float32),
                     jnp.asarray(rng.random((length, count)) < 0.2), action if len(of.choices) > 1 else action[..., 0],
                     -1.5 + draws[0] / 3, draws[1], draws[2], draws[3])


def slow_loss(spec, of, weights, batch):
    """The loss of a feed-forward policy with one hidden layer, float64 NumPy."""
    layers = {name: (np.asarray(x["kernel"], np.float64), np.asarray(x["bias"], np.float64))
              for name, x in weights.items()}
    seen = np.asarray(batch.seen, np.float64).reshape(-1, of.observations)

    def tower(name):
        hidden = np.tanh(seen @ layers[f"{name}_0"][0] + layers[f"{name}_0"][1])
        return hidden @ layers[f"{name}_out"][0] + layers[f"{name}_out"][1]

    logits, value = tower("actor"), tower("critic")[:, 0]
    action = np.asarray(batch.action).reshape(len(seen), -1)
    log_probability, entropy, start = 0.0, 0.0, 0
    for i, count in enumerate(of.choices):
        part = logits[:, start: start + count]
        part = part - np.log(np.exp(part).sum(1, keepdims=True))
        log_probability = log_probability + part[np.arange(len(seen)), action[:, i]]
        entropy = entropy - (np.exp(part) * part).sum(1)
        start += count
    old, before, advantage, target = (np.asarray(x, np.float64).ravel() for x in (
        batch.log_probability, batch.value, batch.advantage, batch.target))
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    ratio = np.exp(log_probability - old)
    policy_loss = -np.minimum(ratio * advantage, np.clip(ratio, 1 - spec.clip, 1 + spec.clip) * advantage).mean()
    near = before + np.clip(value - before, -spec.clip, spec.clip)
    value_loss = np.maximum((value - target) ** 2, (near - target) ** 2).mean() / 2
    return policy_loss + spec.value * value_loss - spec.entropy * entropy.mean(), ratio


@pytest.mark.parametrize("choices", [(4,), (3, 2)])
def test_the_loss_and_its_gradient_are_those_of_numpy(choices) -> None:
    of = PolicySpec(3, choices, NetworkSpec(width=5, layers=1))
    weights = jax.tree.map(lambda x: x + 0.1, policies.fresh(of, jax.random.key(1)))
    batch = a_batch(np.random.default_rng(2), of, 4, 16)
    (value, _), gradient = jax.value_and_grad(lambda w: ppo.loss(SMALL, of, w, batch), has_aux=True)(weights)
    expected, ratio = slow_loss(SMALL, of, weights, batch)
    assert float(value) == pytest.approx(expected, abs=1e-5)
    assert (np.abs(ratio - 1) > SMALL.clip).sum() > 5 and (np.abs(ratio - 1) < SMALL.clip).sum() > 5
    paths, tree = jax.tree.flatten_with_path(weights)
    for place, (path, leaf) in enumerate(paths):
        for at in list(np.ndindex(leaf.shape))[:4]:
            moved = []
            for move in (1e-6, -1e-6):
                leaves = [np.array(x, np.float64) for _, x in paths]
                leaves[place][at] += move
                moved.append(slow_loss(SMALL, of, jax.tree.unflatten(tree, leaves), batch)[0])
            found = jax.tree.leaves(gradient)[place][at]
            assert float(found) == pytest.approx((moved[0] - moved[1]) / 2e-6, abs=2e-4), (path, at)


def test_a_memory_forgets_where_an_episode_begins_and_nowhere_else() -> None:
    of = PolicySpec(2, (3,), NetworkSpec(width=6, layers=1, memory=5))
    weights, rng = policies.fresh(of, jax.random.key(1)), np.random.default_rng(0)
    seen = jnp.asarray(rng.normal(size=(6, 2, 2)), jnp.float32)
    begins = jnp.zeros((6, 2), bool).at[3, 0].set(True)
    memory = jnp.asarray(rng.normal(size=(2, 5)), jnp.float32)
    whole = policies.decide(of, weights, memory, seen, begins)
    alone = policies.decide(of, weights, jnp.zeros((2, 5)), seen[3:], begins[3:])
    np.testing.assert_allclose(whole.logits[3:, 0], alone.logits[:, 0], atol=1e-6)
    assert np.abs(whole.logits[3:, 1] - alone.logits[:, 1]).max() > 1e-4
    # Step by step it is the same as in one sequence.
    for at in range(6):
        found = policies.decide(of, weights, memory, seen[at: at + 1], begins[at: at + 1])
        memory = found.memory
        np.testing.assert_allclose(found.logits[0], whole.logits[at], atol=1e-6)


def test_a_rollout_hands_the_memory_on_and_the_loss_sees_the_same_probabilities() -> None:
    of = PolicySpec(2, (3,), NetworkSpec(width=6, layers=1, memory=5))
    env, spec = clock(end=5), dataclasses.replace(SMALL, network=of.network)
    learner = ppo.begin(spec, env, None, jax.random.key(0))
    for _ in range(2):  # the second rollout begins within episodes
        carry = learner.environments, learner.moments, learner.returns
        memory = learner.environments.memory
        keys = jax.random.split(jax.random.key(3), spec.length)
        (at, _, _), (steps, _) = jax.lax.scan(
            lambda now, key, weights=learner.weights: ppo._step(spec, of, (env, None, weights), now, key), carry, keys)
        again = policies.decide(of, learner.weights, memory, steps.seen, steps.begins)
        np.testing.assert_allclose(policies.log_probability(of, again.logits, steps.action), steps.log_probability,
                                   atol=1e-6)
        assert bool(jnp.any(steps.done)) and bool(jnp.any(at.memory != 0))
        np.testing.assert_array_equal(jnp.concatenate([steps.begins, at.begins[None]])[1:], steps.done)
        learner = learner._replace(environments=at)


@pytest.mark.parametrize(("end", "limit", "expected"), [(5, 100, 0.0), (100, 5, None)])
def test_a_truncated_episode_is_worth_what_would_have_come(end, limit, expected) -> None:
    env, of = clock(end, limit), PolicySpec(2, (3,), SMALL.network)
    learner = ppo.begin(SMALL, env, None, jax.random.key(0))
    carry = learner.environments, learner.moments, learner.returns
    _, (steps, _) = jax.lax.scan(lambda now, key: ppo._step(SMALL, of, (env, None, learner.weights), now, key), carry,
                                 jax.random.split(jax.random.key(3), SMALL.length))
    assert np.asarray(steps.done)[:, 0].tolist() == [False] * 4 + [True] + [False] * 3
    assert float(jnp.abs(steps.final_value[4]).min()) > 0
    found = ppo.advantages(SMALL, steps, jnp.where(steps.done, steps.final_value, 1e6))[4]
    later = steps.final_value[4] if expected is None else expected
    np.testing.assert_allclose(found, steps.reward[4] + SMALL.discount * later - steps.value[4], rtol=1e-5)


def test_moments_are_those_of_all_that_was_seen() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(3, 2, (count, 4)).astype(np.float32) for count in (5, 1, 30)]
    moments = policies.no_moments((4,))
    for part in parts:
        moments = policies.with_more(moments, jnp.asarray(part))
    np.testing.assert_allclose(moments.mean, np.concatenate(parts).mean(0), rtol=1e-4)
    np.testing.assert_allclose(moments.variance, np.concatenate(parts).var(0), rtol=1e-3)
    far = policies.normalised(moments, jnp.full((1, 4), 1e6))
    np.testing.assert_array_equal(far, policies.MOST_SEEN)


def test_the_same_key_gives_the_same_weights_alone_or_among_seeds_in_one_trace() -> None:
    spec, env = dataclasses.replace(SMALL, steps=SMALL.steps + 32), clock()  # a spec that no other test compiles
    learner, curves = ppo.train(spec, env, None, jax.random.key(7))
    traces = len(TRACES)
    again, _ = ppo.train(spec, clock(end=5, pay=1.0), None, jax.random.key(7))
    other, _ = ppo.train(spec, clock(end=4, pay=2.0), None, jax.random.key(8))
    assert len(TRACES) == traces, "the environment is an argument: other numbers in it are no other program"
    jax.tree.map(np.testing.assert_array_equal, learner.weights, again.weights)
    assert not np.allclose(learner.weights["actor_out"]["kernel"], other.weights["actor_out"]["kernel"])
    many, of_many = ppo.train(spec, env, None, jnp.stack([jax.random.key(7), jax.random.key(8)]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), learner.weights,
                 ppo.of_seed(many, 0).weights)
    assert of_many["reward"].shape == (2, spec.updates)
    np.testing.assert_array_equal(curves["reward"][~np.isnan(curves["reward"])], 5.0)
    np.testing.assert_array_equal(curves["steps"][~np.isnan(curves["steps"])], 5.0)
    assert float(jnp.sum(curves["episodes"])) == 4 * (spec.updates * spec.length // 5)


def test_parts_of_a_training_are_the_whole() -> None:
    env = clock()
    whole, curves = ppo.train(SMALL, env, None, jax.random.key(1))
    part = ppo.begin(SMALL, env, None, jax.random.key(1))
    for _ in range(SMALL.updates):
        part, _ = ppo.learn(SMALL, env, None, part, 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole.weights, part.weights)
    assert int(part.update) == len(curves["reward"]) == SMALL.updates


@pytest.mark.parametrize(("changes", "said"), [
    ({"steps": 31}, "at least a rollout, envs x length = 32, got 31"), ({"minibatches": 5}, "divisor of envs x length"),
    ({"network": NetworkSpec(memory=4), "minibatches": 8}, "as the policy is recurrent"), ({"rate": 0.0}, "rate"),
    ({"discount": 1.5}, "discount: expected 0 to 1"), ({"entropy": -1.0}, "entropy"), ({"epochs": 0}, "epochs"),
    ({"clip": float("nan")}, "clip")])
def test_a_spec_that_makes_no_sense_is_refused(changes, said) -> None:
    with pytest.raises(InputError, match=said):
        dataclasses.replace(SMALL, **changes)


def test_an_environment_that_a_policy_cannot_read_is_refused() -> None:
    class Pictures(Clock):
        def observation_space(self, params=None):
            return SPACE.Box(0.0, 1.0, (4, 4))

    class Continuous(Clock):
        def action_space(self, params=None):
            return SPACE.Box(0.0, 1.0, (2,))

    for kind, said in ((Pictures, r"expected observations \[D\], got \[4, 4\]"), (Continuous, "Discrete")):
        with pytest.raises(InputError, match=said):
            ppo.begin(SMALL, kind(jnp.int32(1), jnp.int32(1), jnp.float32(1)), None, jax.random.key(0))


def test_a_policy_of_several_choices_acts_within_their_ranges() -> None:
    policy = Policy.fresh(PolicySpec(3, (5, 2), NetworkSpec(width=4, memory=3)), jax.random.key(0))
    memory, action = policy.act(policy.begin(200), jnp.ones((200, 3)), jnp.ones(200, bool), jax.random.key(1))
    assert action.shape == (200, 2) and memory.shape == (200, 3)
    assert set(np.asarray(action[:, 0]).tolist()) == set(range(5)) and set(np.asarray(action[:, 1]).tolist()) == {0, 1}
    greedy = dataclasses.replace(policy, is_greedy=True)
    _, action = greedy.act(policy.begin(200), jnp.ones((200, 3)), jnp.ones(200, bool), jax.random.key(1))
    assert len(np.unique(action, axis=0)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "steps"), [(0, 100_000), (32, 120_000)])
def test_it_learns_to_balance_a_pole(memory, steps) -> None:
    env, params = gymnax.make("CartPole-v1")
    spec = PPOSpec(steps=steps, envs=16, rate=1e-3, network=NetworkSpec(memory=memory))
    _, curves = ppo.train(spec, env, params, jax.random.split(jax.random.key(0), 2))
    reward = np.asarray(curves["reward"])
    assert np.nanmean(reward[:, :2]) < 60
    assert np.nanmean(reward[:, -8:], axis=1).min() > 400
