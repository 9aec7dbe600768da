"""What training makes small: next-order cross-entropy, in nats an order."""

import dataclasses

import jax
import jax.numpy as jnp

from marsjax import model, tokens
from marsjax.model import Params
from marsjax.specs import ComputeSpec, ModelSpec
from marsjax.training import structured
from marsjax.training.structured import Structured
from marsjax.types import Array


@dataclasses.dataclass(frozen=True)
class Joint:
    """Objective of an ordinary order model: (params, windows int32 [B, T + 1, 15]) -> nats [B, T]."""

    spec: ModelSpec
    compute: ComputeSpec
    chunk: int = 128
    """Positions whose logits are made at a time."""

    def __call__(self, params: Params, features: Array) -> jax.Array:
        """Nats of each next token."""
        return next_token(params, self.spec, self.compute, features, self.chunk)


@dataclasses.dataclass(frozen=True)
class Factored:
    """Objective of a structured model, likewise."""

    spec: ModelSpec
    compute: ComputeSpec
    chunk: int = 128

    def __call__(self, params: Structured, features: Array) -> jax.Array:
        """Nats of each next token."""
        return structured.next_token(params, self.spec, self.compute, features, self.chunk)


def next_token(params: Params, spec: ModelSpec, compute: ComputeSpec, features: Array, chunk: int = 128) -> jax.Array:
    """Negative log-probability of each next token, float32 [B, T], of windows int32 [B, T + 1, 15].

    Logits are made for `chunk` positions at a time, forward and backward, so that [B, T, classes] never stands in
    memory; T must be a multiple of it.
    """
    given, following = tokens.from_array(spec.tokens, features[:, :-1]), features[:, 1:, 0]
    states = model.hidden(params, spec, given, compute)
    batch, length, width = states.shape
    if length % chunk:
        raise ValueError(f"loss: expected a window length that is a multiple of chunk={chunk}, got {length}")

    @jax.checkpoint
    def part(x: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits = model.head(params, x[0], compute)
        chosen = jnp.take_along_axis(logits, x[1][..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(logits, axis=-1) - chosen

    pieces = (jnp.moveaxis(states.reshape(batch, -1, chunk, width), 1, 0),
              jnp.moveaxis(following.reshape(batch, -1, chunk), 1, 0))
    return jnp.moveaxis(jax.lax.map(part, pieces), 0, 1).reshape(batch, length)
