"""Proximal policy optimisation, compiled end to end: rollouts in many environments and the steps that learn from them.

    learner, curves = ppo.train(spec, env, env.default_params, jax.random.split(jax.random.key(0), seeds))
    policy = ppo.policy_of(spec, env, env.default_params, ppo.of_seed(learner, 0))

An environment has gymnax's interface (1.0): `reset(key, params)` gives an observation float32 [D] and a state,
`step(key, state, action, params)` gives the next ones, the reward, whether the episode terminated, whether it was
truncated, and `info`, and begins a new episode by itself; `info["final_observation"]` is the last of the old one. One
that is a pytree (as those of `marsjax.rl` are) is an argument of the compiled call, any other a constant of it.

What an episode cut by its time limit would still have brought is estimated (its last value is that of
`final_observation`), what a terminated one would have brought is 0. The method is that of Schulman et al. 2017, with
generalised advantages (2016); one update is a rollout of `length` steps in all environments, then `epochs` passes over
it. Recurrent policies learn from whole sequences of an environment, which begin with the memory that they began with.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.rl import policy as policies
from marsjax.rl.env import MarketEnv
from marsjax.rl.policy import Moments, NetworkSpec, Policy, PolicySpec

MOST_STEPS = 2**31 - 1
_LEAST = 1e-8


class GymnaxEnvironment(Protocol):
    """What a learner needs of an environment: gymnax's interface."""

    def reset(self, key: jax.Array, params: Any = None) -> tuple[Any, Any]:
        """The first observation and the state of an episode."""

    def step(self, key: jax.Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Observation, state, reward, terminated, truncated, info."""

    def action_space(self, params: Any) -> Any:
        """What may be done."""

    def observation_space(self, params: Any) -> Any:
        """What is seen."""


@dataclasses.dataclass(frozen=True)
class PPOSpec:
    """How a policy is trained.

    Examples:
      >>> PPOSpec(steps=10_000, envs=4, length=128).updates
      19
    """

    steps: int
    """Of all environments together; rounded down to whole updates."""
    envs: int = 64
    length: int = 128
    """Steps of a rollout."""
    epochs: int = 4
    """Passes over a rollout."""
    minibatches: int = 4
    """Parts of a pass; of a recurrent policy it divides `envs`."""
    rate: float = 2.5e-4
    """Of Adam, at first."""
    anneal: bool = True
    """Whether the rate falls to 0, in a line."""
    discount: float = 0.99
    trace: float = 0.95
    """Of generalised advantages, lambda."""
    clip: float = 0.2
    """Of the ratio of probabilities, and of the change of values."""
    entropy: float = 0.01
    """Weight of the entropy in the loss."""
    value: float = 0.5
    """Weight of the values' error."""
    norm: float = 0.5
    """Largest norm of a gradient."""
    normalise_observations: bool = True
    normalise_rewards: bool = True
    """By the standard deviation of the discounted sums of rewards."""
    network: NetworkSpec = dataclasses.field(default_factory=NetworkSpec)

    def __post_init__(self) -> None:
        for name, high in (("steps", MOST_STEPS), ("envs", limits.TRAJECTORIES), ("length", limits.STEPS_OF_A_CALL),
                           ("epochs", 1000), ("minibatches", 2**16)):
            limits.check_whole(f"PPOSpec.{name}", getattr(self, name), 1, high)
        for name in ("rate", "clip", "norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"PPOSpec.{name}: expected a positive number, got {getattr(self, name)}")
        for name in ("entropy", "value"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"PPOSpec.{name}: expected at least 0, got {getattr(self, name)}")
        for name in ("discount", "trace"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"PPOSpec.{name}: expected 0 to 1, got {getattr(self, name)}")
        if self.updates < 1:
            raise InputError(f"PPOSpec.steps: expected at least a rollout, envs x length = {self.envs * self.length}, "
                             f"got {self.steps}")
        cut = self.envs if self.network.is_recurrent else self.envs * self.length
        if cut % self.minibatches:
            what = "envs, as the policy is recurrent" if self.network.is_recurrent else "envs x length"
            raise InputError(f"PPOSpec.minibatches: expected a divisor of {what} = {cut}, got {self.minibatches}")

    @property
    def updates(self) -> int:
        """Rollouts that are learnt from."""
        return self.steps // (self.envs * self.length)


class Environments(NamedTuple):
    """Where the N environments of a learner stand."""

    state: Any
    seen: jax.Array
    """float32 [N, D]."""
    begins: jax.Array
    """bool [N], whether an episode begins with what is seen."""
    memory: jax.Array
    """float32 [N, M], of the policy, before it."""
    discounted: jax.Array
    """float32 [N], sum of the rewards so far, each discounted by its age."""
    reward: jax.Array
    """float32 [N], of the episode so far."""
    steps: jax.Array
    """int32 [N], of the episode so far."""


class Learner(NamedTuple):
    """The state of a training."""

    weights: Any
    optimizer: Any
    moments: Moments
    """Of observations [D]."""
    returns: Moments
    """Of discounted sums of rewards []."""
    environments: Environments
    update: jax.Array
    """int32, rollouts learnt from."""
    key: jax.Array


class Steps(NamedTuple):
    """Steps [L, N] of a rollout."""

    seen: jax.Array
    """float32 [L, N, D], normalised."""
    begins: jax.Array
    action: jax.Array
    log_probability: jax.Array
    value: jax.Array
    reward: jax.Array
    """Normalised."""
    terminated: jax.Array
    done: jax.Array
    """Terminated or truncated."""
    final_value: jax.Array
    """Of the last observation of an episode that ended here."""


class RolloutBatch(NamedTuple):
    """What a gradient is made of: L steps one after the other of B sequences."""

    memory: jax.Array
    """float32 [B, M], before the first step."""
    seen: jax.Array
    begins: jax.Array
    action: jax.Array
    log_probability: jax.Array
    value: jax.Array
    advantage: jax.Array
    target: jax.Array
    """Of the value."""


def policy_spec(spec: PPOSpec, env: GymnaxEnvironment, params: Any) -> PolicySpec:
    """Of a policy for an environment; InputError unless observations are vectors and actions whole numbers."""
    if isinstance(env, MarketEnv):  # whose spaces are gymnax's, which need not be installed
        return PolicySpec(env.task.features, (env.task.actions,), spec.network)
    shape = tuple(env.observation_space(params).shape)
    if len(shape) != 1:
        raise InputError(f"{type(env).__name__}: expected observations [D], got {list(shape)}; flatten them")
    space = env.action_space(params)
    counts = getattr(space, "nvec", None) if hasattr(space, "nvec") else getattr(space, "n", None)
    if counts is None:
        raise InputError(f"{type(env).__name__}: expected actions of a Discrete or MultiDiscrete space, got "
                         f"{type(space).__name__}")
    choices = tuple(int(n) for n in counts) if hasattr(counts, "__iter__") else (int(counts),)
    return PolicySpec(int(shape[0]), choices, spec.network)


def begin(spec: PPOSpec, env: GymnaxEnvironment, params: Any, key: jax.Array) -> Learner:
    """A learner that has learnt nothing; keys [S] make S of them, one after the other in the leading axis."""
    if key.ndim:
        # In turn: batched decompositions of matrices, by which weights are drawn, can block one another for ever in a
        # CPU's pool of two threads (seen with jaxlib 0.10.2).
        every = [begin(spec, env, params, one) for one in key]
        return jax.tree.map(lambda *x: jnp.stack(x), *every)
    of = policy_spec(spec, env, params)
    of_weights, of_reset, of_rest = jax.random.split(key, 3)
    seen, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(of_reset, spec.envs), params)
    weights, nothing = policies.fresh(of, of_weights), jnp.zeros(spec.envs)
    environments = Environments(state, seen, jnp.ones(spec.envs, bool), jnp.zeros((spec.envs, spec.network.memory)),
                                nothing, nothing, jnp.zeros(spec.envs, jnp.int32))
    return Learner(weights, _optimizer(spec).init(weights), policies.no_moments((of.observations,)),
                   policies.no_moments(()), environments, jnp.int32(0), of_rest)


def learn(spec: PPOSpec, env: GymnaxEnvironment, params: Any, learner: Learner, count: int
          ) -> tuple[Learner, dict[str, jax.Array]]:
    """`count` updates in one compiled call.

    Args:
      spec: how.
      env: the environment.
      params: its parameters.
      learner: of one seed, or of S with a leading axis, which is then that of the curves too.
      count: of updates.

    Returns the learner and the curves, float32 [count] each: reward, steps and, of tasks that tell it, fulfilment are
    means over the episodes that ended in an update's rollout (NaN if none did), episodes is how many did; policy_loss,
    value_loss, entropy, divergence (of the new policy from the old, nats), clipped (share of ratios) are means over its
    gradients; explained is the part of the variance of returns that the values had foretold.
    """
    if jax.tree_util.all_leaves([env]):
        return _learn_constant(spec, env, count, params, learner)
    return _learn_pytree(spec, count, env, params, learner)


def train(spec: PPOSpec, env: GymnaxEnvironment, params: Any, key: jax.Array) -> tuple[Learner, dict[str, jax.Array]]:
    """A whole training from one key, or from keys [S] at once; see `learn`."""
    return learn(spec, env, params, begin(spec, env, params, key), spec.updates)


def of_seed(learner: Learner, seed: int) -> Learner:
    """One of the learners of many seeds."""
    return jax.tree.map(lambda x: x[seed], learner)  # type: ignore[no-any-return]


def policy_of(spec: PPOSpec, env: GymnaxEnvironment, params: Any, learner: Learner) -> Policy:
    """What a learner (of one seed) has learnt."""
    return Policy(learner.weights, learner.moments, policy_spec(spec, env, params))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _learn_constant(spec: PPOSpec, env: GymnaxEnvironment, count: int, params: Any, learner: Learner
                    ) -> tuple[Learner, dict[str, jax.Array]]:
    return _learn(spec, env, params, count, learner)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _learn_pytree(spec: PPOSpec, count: int, env: GymnaxEnvironment, params: Any, learner: Learner
                  ) -> tuple[Learner, dict[str, jax.Array]]:
    return _learn(spec, env, params, count, learner)


def _learn(spec: PPOSpec, env: GymnaxEnvironment, params: Any, count: int, learner: Learner
           ) -> tuple[Learner, dict[str, jax.Array]]:
    def one(now: Learner, _: None) -> tuple[Learner, dict[str, jax.Array]]:
        return _update(spec, env, params, now)

    def all_of(now: Learner) -> tuple[Learner, dict[str, jax.Array]]:
        return jax.lax.scan(one, now, None, length=count)

    return jax.vmap(all_of)(learner) if jnp.ndim(learner.update) else all_of(learner)


def _optimizer(spec: PPOSpec) -> optax.GradientTransformation:
    gradients = spec.updates * spec.epochs * spec.minibatches
    rate = optax.linear_schedule(spec.rate, 0.0, gradients) if spec.anneal else spec.rate
    return optax.chain(optax.clip_by_global_norm(spec.norm), optax.adam(rate, eps=1e-5))


def _update(spec: PPOSpec, env: GymnaxEnvironment, params: Any, learner: Learner
            ) -> tuple[Learner, dict[str, jax.Array]]:
    """A rollout, and what is learnt from it."""
    of = policy_spec(spec, env, params)
    of_rollout, of_order = jax.random.split(jax.random.fold_in(learner.key, learner.update))
    memory = learner.environments.memory

    def step(now: tuple[Environments, Moments, Moments], key: jax.Array) -> Any:
        return _step(spec, of, (env, params, learner.weights), now, key)

    carry = learner.environments, learner.moments, learner.returns
    (environments, moments, returns), (steps, ended) = jax.lax.scan(step, carry,
                                                                    jax.random.split(of_rollout, spec.length))
    last = policies.decide(of, learner.weights, environments.memory,
                           _seen(spec, moments, environments.seen)[None], environments.begins[None]).value
    following = jnp.where(steps.done, steps.final_value, jnp.concatenate([steps.value[1:], last]))
    advantage = advantages(spec, steps, following)
    batch = RolloutBatch(memory, steps.seen, steps.begins, steps.action, steps.log_probability, steps.value, advantage,
                  advantage + steps.value)
    weights, optimizer, losses = _descended(spec, of, batch, (learner.weights, learner.optimizer), of_order)
    curves = {**_of_episodes(steps.done, ended), **losses,
              "explained": 1 - jnp.var(advantage) / (jnp.var(batch.target) + _LEAST)}
    return Learner(weights, optimizer, moments, returns, environments, learner.update + 1, learner.key), curves


def _seen(spec: PPOSpec, moments: Moments, seen: jax.Array) -> jax.Array:
    return policies.normalised(moments, seen) if spec.normalise_observations else seen


def _step(spec: PPOSpec, of: PolicySpec, fixed: tuple[GymnaxEnvironment, Any, Any],
          now: tuple[Environments, Moments, Moments], key: jax.Array) -> Any:
    """One step of all environments; the carry, and (steps, what ended episodes tell)."""
    (env, params, weights), (at, moments, returns) = fixed, now
    of_action, of_env = jax.random.split(key)
    if spec.normalise_observations:
        moments = policies.with_more(moments, at.seen)
    seen = _seen(spec, moments, at.seen)
    found = policies.decide(of, weights, at.memory, seen[None], at.begins[None])
    action = policies.draw(of, found.logits[0], of_action)
    next_seen, state, reward, terminated, truncated, info = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
        jax.random.split(of_env, spec.envs), at.state, action, params)
    reward, done = reward.astype(jnp.float32), terminated | truncated
    final = policies.decide(of, weights, found.memory, _seen(spec, moments, info["final_observation"])[None],
                            jnp.zeros((1, spec.envs), bool)).value[0]
    discounted = at.discounted * spec.discount + reward
    returns = policies.with_more(returns, discounted)
    whole = {"reward": at.reward + reward, "steps": (at.steps + 1).astype(jnp.float32),
             **{name: x for name, x in info.items() if name == "fulfilment"}}
    scaled = reward * jax.lax.rsqrt(returns.variance + _LEAST) if spec.normalise_rewards else reward
    steps = Steps(seen, at.begins, action, policies.log_probability(of, found.logits[0], action), found.value[0],
                  scaled, terminated, done, final)
    after = Environments(state, next_seen, done, found.memory, jnp.where(done, 0.0, discounted),
                         jnp.where(done, 0.0, whole["reward"]), jnp.where(done, 0, at.steps + 1))
    return (after, moments, returns), (steps, whole)


def _of_episodes(done: jax.Array, ended: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Means over the episodes that ended, by name, and how many did."""
    count = jnp.sum(done, dtype=jnp.float32)
    return {name: jnp.where(count > 0, jnp.sum(jnp.where(done, x, 0.0)) / jnp.maximum(count, 1), jnp.nan)
            for name, x in ended.items()} | {"episodes": count}


def advantages(spec: PPOSpec, steps: Steps, following: jax.Array) -> jax.Array:
    """Generalised advantages, float32 [L, N].

    Args:
      spec: discount and trace.
      steps: of which reward, value, terminated and done are read.
      following: float32 [L, N], the value of what came after each step; of a step that ended an episode that of its
        last observation, which counts where the episode was truncated and not where it terminated.
    """
    error = steps.reward + spec.discount * following * ~steps.terminated - steps.value
    kept = spec.discount * spec.trace * ~steps.done

    def back(later: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        later = now[0] + now[1] * later
        return later, later

    return jax.lax.scan(back, jnp.zeros_like(error[0]), (error, kept), reverse=True)[1]


def loss(spec: PPOSpec, of: PolicySpec, weights: Any, batch: RolloutBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The clipped loss of a batch, and its parts; advantages are normalised within it."""
    found = policies.decide(of, weights, batch.memory, batch.seen, batch.begins)
    log_ratio = policies.log_probability(of, found.logits, batch.action) - batch.log_probability
    ratio = jnp.exp(log_ratio)
    advantage = (batch.advantage - jnp.mean(batch.advantage)) / (jnp.std(batch.advantage) + _LEAST)
    cut = jnp.clip(ratio, 1 - spec.clip, 1 + spec.clip)
    policy_loss = -jnp.mean(jnp.minimum(ratio * advantage, cut * advantage))
    near = batch.value + jnp.clip(found.value - batch.value, -spec.clip, spec.clip)
    value_loss = jnp.mean(jnp.maximum((found.value - batch.target) ** 2, (near - batch.target) ** 2)) / 2
    spread = jnp.mean(policies.entropy(of, found.logits))
    total = policy_loss + spec.value * value_loss - spec.entropy * spread
    return total, {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": spread,
                   "divergence": jnp.mean(ratio - 1 - log_ratio),
                   "clipped": jnp.mean(jnp.abs(ratio - 1) > spec.clip)}


def _descended(spec: PPOSpec, of: PolicySpec, batch: RolloutBatch, start: tuple[Any, Any], key: jax.Array
               ) -> tuple[Any, Any, dict[str, jax.Array]]:
    """Weights, state of the optimizer and means of the parts of the loss after all passes over a rollout [L, N]."""
    if not of.network.is_recurrent:  # each step by itself
        batch = RolloutBatch(jnp.zeros((spec.length * spec.envs, 0)),
                      *(x.reshape(1, spec.length * spec.envs, *x.shape[2:]) for x in batch[1:]))
    count = batch.seen.shape[1]

    def one(now: tuple[Any, Any], chosen: jax.Array) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
        weights, optimizer = now
        part = RolloutBatch(batch.memory[chosen], *(x[:, chosen] for x in batch[1:]))
        gradient, parts = jax.grad(lambda w: loss(spec, of, w, part), has_aux=True)(weights)
        change, optimizer = _optimizer(spec).update(gradient, optimizer, weights)
        return (optax.apply_updates(weights, change), optimizer), parts

    def epoch(now: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
        order = jax.random.permutation(key, count).reshape(spec.minibatches, -1)
        return jax.lax.scan(one, now, order)

    (weights, optimizer), parts = jax.lax.scan(epoch, start, jax.random.split(key, spec.epochs))
    return weights, optimizer, {name: jnp.mean(x) for name, x in parts.items()}
