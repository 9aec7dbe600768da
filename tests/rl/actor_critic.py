"""A learner as people write them in JAX: one file, gymnax's `make` and `LogWrapper`, all of a training in one `jit`.

It knows nothing of marsjax; tests run it by the name of an environment alone.
"""

from typing import NamedTuple

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState
from gymnax.wrappers import FlattenObservationWrapper, LogWrapper

GAMMA, LAMBDA, CLIP = 0.99, 0.95, 0.2


class ActorCritic(nn.Module):
    actions: int

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(64)(x))
        return nn.Dense(self.actions, kernel_init=nn.initializers.orthogonal(0.01))(x), nn.Dense(1)(x)[..., 0]


class Sample(NamedTuple):
    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array
    info: dict


def log_prob_of(logits, action):
    return jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], axis=-1)[:, 0]


def advantages_of(samples, last_value):
    def one(carry, sample):
        advantage, value_next = carry
        goes_on = 1.0 - sample.done
        delta = sample.reward + GAMMA * value_next * goes_on - sample.value
        advantage = delta + GAMMA * LAMBDA * goes_on * advantage
        return (advantage, sample.value), advantage

    return jax.lax.scan(one, (jnp.zeros_like(last_value), last_value), samples, reverse=True)[1]


def loss_of(params, network, samples, advantages):
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (samples, advantages))
    samples, advantages = flat
    logits, value = network.apply(params, samples.observation)
    ratio = jnp.exp(log_prob_of(logits, samples.action) - samples.log_prob)
    normal = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    actor = -jnp.minimum(ratio * normal, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * normal).mean()
    entropy = -(jax.nn.softmax(logits) * jax.nn.log_softmax(logits)).sum(axis=-1).mean()
    return actor + 0.5 * jnp.square(value - advantages - samples.value).mean() - 0.01 * entropy


def make_train(name, envs=4, steps=16, updates=2, rate=3e-4):
    env, params = gymnax.make(name)
    env = LogWrapper(FlattenObservationWrapper(env))
    network = ActorCritic(env.action_space(params).n)

    def train(key):
        key, key_net, key_reset = jax.random.split(key, 3)
        first = jnp.zeros(env.observation_space(params).shape)
        tx = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(rate))
        learner = TrainState.create(apply_fn=network.apply, params=network.init(key_net, first), tx=tx)
        observation, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(key_reset, envs), params)

        def one_step(carry, _):
            learner, state, observation, key = carry
            key, key_act, key_step = jax.random.split(key, 3)
            logits, value = network.apply(learner.params, observation)
            action = jax.random.categorical(key_act, logits)
            after, state, reward, terminated, truncated, info = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
                jax.random.split(key_step, envs), state, action, params)
            sample = Sample(observation, action, log_prob_of(logits, action), value, reward,
                            jnp.logical_or(terminated, truncated), info)
            return (learner, state, after, key), sample

        def one_update(carry, _):
            carry, samples = jax.lax.scan(one_step, carry, None, steps)
            learner, state, observation, key = carry
            advantages = advantages_of(samples, network.apply(learner.params, observation)[1])
            loss, gradient = jax.value_and_grad(loss_of)(learner.params, network, samples, advantages)
            return (learner.apply_gradients(grads=gradient), state, observation, key), (loss, samples.info)

        carry, (loss, info) = jax.lax.scan(one_update, (learner, state, observation, key), None, updates)
        return carry[0], loss, info

    return train
