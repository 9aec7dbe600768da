"""A policy: a small network from what a trader sees to what it does, with the scale of its observations.

Feed-forward, or with a memory (a gated recurrent unit) that is emptied where an episode begins. An action is one choice
or several at once, each of a whole number of its own range.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from marsjax.core import limits
from marsjax.core.errors import InputError

MOST_SEEN = 10.0
"""Standard deviations beyond which an observation is cut."""
_MOST = 2**14
"""Of each size."""
_LEAST_VARIANCE = 1e-8
_FIRST_WEIGHT = 1e-4


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """Sizes of a policy's network.

    Examples:
      >>> NetworkSpec(memory=64).is_recurrent
      True
    """

    width: int = 64
    """Of each layer."""
    layers: int = 2
    """Of the actor, and of the critic, which share none."""
    memory: int = 0
    """Numbers that a recurrent policy remembers; 0: feed-forward."""

    def __post_init__(self) -> None:
        for name, low in (("width", 1), ("layers", 0), ("memory", 0)):
            limits.check_whole(f"NetworkSpec.{name}", getattr(self, name), low, _MOST)

    @property
    def is_recurrent(self) -> bool:
        """Whether it has a memory."""
        return self.memory > 0


@dataclasses.dataclass(frozen=True)
class PolicySpec:
    """What a policy reads and chooses."""

    observations: int
    """Numbers that it sees, D."""
    choices: tuple[int, ...]
    """How many values each of its choices has. An action is int32 [], or [C] where there are C > 1 choices."""
    network: NetworkSpec = dataclasses.field(default_factory=NetworkSpec)

    def __post_init__(self) -> None:
        limits.check_whole("PolicySpec.observations", self.observations, 1, _MOST)
        if not isinstance(self.choices, tuple) or not self.choices:
            raise InputError(f"PolicySpec.choices: expected how many values each choice has, got {self.choices!r}")
        for count in self.choices:
            limits.check_whole("PolicySpec.choices", count, 1, _MOST)


class Moments(NamedTuple):
    """Mean and variance of what was seen so far, by the numbers of an observation."""

    mean: jax.Array
    """float32 [...]."""
    variance: jax.Array
    """float32 [...]."""
    weight: jax.Array
    """float32, how many were seen."""


def no_moments(shape: tuple[int, ...]) -> Moments:
    """Of nothing: mean 0, variance 1."""
    return Moments(jnp.zeros(shape), jnp.ones(shape), jnp.float32(_FIRST_WEIGHT))


def with_more(moments: Moments, batch: jax.Array) -> Moments:
    """The moments once [N, ...] more were seen."""
    mean, variance, more = jnp.mean(batch, axis=0), jnp.var(batch, axis=0), batch.shape[0]
    total = moments.weight + more
    change = mean - moments.mean
    square = moments.variance * moments.weight + variance * more + change**2 * (moments.weight * more / total)
    return Moments(moments.mean + change * (more / total), square / total, total)


class PolicyOutput(NamedTuple):
    """What a network says of L steps of B trajectories."""

    memory: jax.Array
    """float32 [B, M], after the last of them."""
    logits: jax.Array
    """float32 [L, B, A], those of all choices one after the other."""
    value: jax.Array
    """float32 [L, B]."""


class _Remembering(nn.Module):
    """One step of a memory that is emptied first where an episode begins."""

    width: int

    @nn.compact
    def __call__(self, memory: jax.Array, given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        seen, begins = given
        return nn.GRUCell(self.width, name="cell")(  # type: ignore[no-any-return]
            jnp.where(begins[:, None], 0.0, memory), seen)


class Network(nn.Module):
    """Actor and critic, behind one memory if there is one."""

    spec: PolicySpec

    @nn.compact
    def __call__(self, memory: jax.Array, seen: jax.Array, begins: jax.Array) -> PolicyOutput:
        """Decides.

        Args:
          memory: float32 [B, M], before the first step.
          seen: float32 [L, B, D], normalised.
          begins: bool [L, B], whether an episode begins at a step: what came before is forgotten.
        """
        network = self.spec.network
        if network.is_recurrent:
            seen = nn.relu(_dense(network.width, math.sqrt(2), "entry")(seen))
            scan = nn.scan(_Remembering, variable_broadcast="params", split_rngs={"params": False})
            memory, seen = scan(network.memory, name="memory")(memory, (seen, begins))
        logits = self._tower(seen, "actor", sum(self.spec.choices), 0.01)
        return PolicyOutput(memory, logits, self._tower(seen, "critic", 1, 1.0)[..., 0])

    def _tower(self, x: jax.Array, name: str, width: int, scale: float) -> jax.Array:
        for layer in range(self.spec.network.layers):
            x = nn.tanh(_dense(self.spec.network.width, math.sqrt(2), f"{name}_{layer}")(x))
        return _dense(width, scale, f"{name}_out")(x)  # type: ignore[no-any-return]


def _dense(width: int, scale: float, name: str) -> nn.Dense:
    return nn.Dense(width, kernel_init=nn.initializers.orthogonal(scale), name=name)


@functools.partial(jax.jit, static_argnums=0)
def fresh(spec: PolicySpec, key: jax.Array) -> Any:
    """Weights to start from, a pytree."""
    return Network(spec).init(key, jnp.zeros((1, spec.network.memory)), jnp.zeros((1, 1, spec.observations)),
                              jnp.zeros((1, 1), bool))["params"]


@functools.partial(jax.jit, static_argnums=0)
def decide(spec: PolicySpec, weights: Any, memory: jax.Array, seen: jax.Array, begins: jax.Array) -> PolicyOutput:
    """What a network with these weights says; see `Network`."""
    return Network(spec).apply({"params": weights}, memory, seen, begins)  # type: ignore[return-value]


def normalised(moments: Moments, seen: jax.Array) -> jax.Array:
    """Observations [..., D] in standard deviations from their mean, cut at MOST_SEEN."""
    return jnp.clip((seen - moments.mean) * jax.lax.rsqrt(moments.variance + _LEAST_VARIANCE), -MOST_SEEN, MOST_SEEN)


def _parts(spec: PolicySpec, logits: jax.Array) -> list[jax.Array]:
    """Log-probabilities of each choice, [..., n]."""
    ends = [sum(spec.choices[: i + 1]) for i in range(len(spec.choices))]
    return [jax.nn.log_softmax(logits[..., end - count: end]) for count, end in zip(spec.choices, ends, strict=True)]


def draw(spec: PolicySpec, logits: jax.Array, key: jax.Array | None) -> jax.Array:
    """Actions int32 [...] (or [..., C]) of logits [..., A], drawn by the key, or the likeliest without one."""
    parts = _parts(spec, logits)
    if key is None:
        found = [jnp.argmax(part, axis=-1) for part in parts]
    else:
        found = [jax.random.categorical(each, part)
                 for each, part in zip(jax.random.split(key, len(parts)), parts, strict=True)]
    action = jnp.stack(found, axis=-1).astype(jnp.int32)
    return action[..., 0] if len(parts) == 1 else action


def log_probability(spec: PolicySpec, logits: jax.Array, action: jax.Array) -> jax.Array:
    """Of actions, float32 [...]."""
    parts = _parts(spec, logits)
    action = action[..., None] if len(parts) == 1 else action
    each = [jnp.take_along_axis(part, action[..., i, None], axis=-1)[..., 0] for i, part in enumerate(parts)]
    return sum(each[1:], each[0])


def entropy(spec: PolicySpec, logits: jax.Array) -> jax.Array:
    """Of the draw of an action, float32 [...] nats."""
    each = [-jnp.sum(jnp.exp(part) * part, axis=-1) for part in _parts(spec, logits)]
    return sum(each[1:], each[0])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Policy:
    """A policy as it is used and kept: a pytree, so that compiled calls take its weights as an argument.

    Examples:
      >>> spec = PolicySpec(observations=3, choices=(5,))
      >>> policy = Policy.fresh(spec, jax.random.key(0))
      >>> memory, action = policy.act(policy.begin(2), jnp.zeros((2, 3)), jnp.ones(2, bool), jax.random.key(1))
      >>> action.shape, memory.shape
      ((2,), (2, 0))
    """

    weights: Any
    """Of the network."""
    moments: Moments
    """Of observations, by which they are normalised."""
    spec: PolicySpec = dataclasses.field(metadata={"static": True})
    is_greedy: bool = dataclasses.field(default=False, metadata={"static": True})
    """Whether it takes the likeliest action rather than draws one."""

    @classmethod
    def fresh(cls, spec: PolicySpec, key: jax.Array) -> "Policy":
        """One that has learnt nothing."""
        return cls(fresh(spec, key), no_moments((spec.observations,)), spec)

    def begin(self, count: int) -> jax.Array:
        """The memory of B trajectories that begin, float32 [B, M]."""
        return jnp.zeros((count, self.spec.network.memory))

    def act(self, memory: jax.Array, seen: jax.Array, begins: jax.Array, key: jax.Array
            ) -> tuple[jax.Array, jax.Array]:
        """Memory and actions of B trajectories.

        Args:
          memory: float32 [B, M].
          seen: float32 [B, D], as the environment gives it.
          begins: bool [B], whether it is the first of an episode.
          key: of the draws.
        """
        found = decide(self.spec, self.weights, memory, normalised(self.moments, seen)[None], begins[None])
        return found.memory, draw(self.spec, found.logits[0], None if self.is_greedy else key)
