"""What training makes small: next-order cross-entropy, in nats an order, and what a step of training adds to it."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.model.llama import OrderModel
from marsjax.tokens import encoding
from marsjax.training import structured
from marsjax.training.flows import Flows
from marsjax.training.structured import Structured


@dataclasses.dataclass(frozen=True)
class Joint:
    """Objective of an ordinary order model: (model, windows int32 [B, T + 1, 15], key or None) -> nats [B, T]."""

    chunk: int = 128
    """Positions whose logits are made at a time."""

    def __call__(self, model: OrderModel, features: Array, key: jax.Array | None = None) -> jax.Array:
        """Nats of each next token; nothing is drawn."""
        return next_token(model, features, self.chunk)


@dataclasses.dataclass(frozen=True)
class Factored:
    """Objective of a structured model, likewise; with a key it is what a step of training makes small."""

    chunk: int = 128
    dropout: float = 0.0
    """Share of the coordinates of embeddings and of final hidden states that a step leaves out."""
    flows: Flows | None = None
    """Shares by kind and price, made right with the orders (`marsjax.training.flows`)."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise InputError(f"Factored.dropout: expected at least 0 and below 1, got {self.dropout}")

    def __call__(self, model: Structured, features: Array, key: jax.Array | None = None) -> jax.Array:
        """Nats of each next token; with a key under dropout, and with what flows add, spread over a window."""
        if key is None:
            return structured.next_token(model, features, self.chunk)
        return structured.next_token(model, features, self.chunk, structured.Dropout(self.dropout, key), self.flows)


def next_token(model: OrderModel, features: Array, chunk: int = 128) -> jax.Array:
    """Negative log-probability of each next token, float32 [B, T], of windows int32 [B, T + 1, 15].

    Logits are made for `chunk` positions at a time, forward and backward, so that [B, T, classes] never stands in
    memory; T must be a multiple of it.
    """
    given, following = encoding.from_array(model.spec.tokens, features[:, :-1]), features[:, 1:, 0]
    states = model.hidden(given)
    batch, length, width = states.shape
    if length % chunk:
        raise InputError(f"loss: expected a window length that is a multiple of chunk={chunk}, got {length}")

    @jax.checkpoint
    def part(x: tuple[jax.Array, jax.Array]) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model.head(x[0]), x[1])

    pieces = (jnp.moveaxis(states.reshape(batch, -1, chunk, width), 1, 0),
              jnp.moveaxis(following.reshape(batch, -1, chunk), 1, 0))
    return jnp.moveaxis(jax.lax.map(part, pieces), 0, 1).reshape(batch, length)
