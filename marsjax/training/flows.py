"""Shares that orders bring to each price and kind: what a model expects of them against what came.

Cross-entropy hardly sees the rare large orders, of which most shares of a book are. So a step of training may also make
small how far the shares that a model expects over a window, by kind and price bin, are from those that came, in units
of their spread. Under a right model each such distance squared is 1 in the mean, whatever its law. So it is where every
order is weighed by what was known before it: with the shares at the best prices as weights (`weights`), large orders
have to come where there is much to meet.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.tokens import encoding, signals
from marsjax.tokens.bins import Converter


@dataclasses.dataclass(frozen=True)
class Flows:
    """How much the distances count, and the shares of a bin. Hashable: part of a static objective."""

    weight: float
    """Of half the sum of squared distances of a window, in nats; 1 is as a normal law of each would have it."""
    mean: tuple[float, ...]
    """Shares of an order by volume bin."""
    mean_square: tuple[float, ...]
    """Of its square."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1000:
            raise InputError(f"Flows.weight: expected 0 to 1000, got {self.weight}")


def of_bins(weight: float, converter: Converter) -> Flows:
    """Flows of the volumes that bins draw; the upper edge stands for a bin that has none."""
    def moment(power: int) -> tuple[float, ...]:
        filled = [(values, chances) if len(values) else (converter.edges[i + 1:i + 2], np.ones(1))
                  for i, (values, chances) in enumerate(zip(converter.values, converter.probabilities, strict=True))]
        return tuple(float((values**power * chances).sum()) for values, chances in filled)

    return Flows(weight, moment(1), moment(2))


def weights(features: Array) -> jax.Array:
    """What orders are weighed by, [B, T, W], given the tokens before them, int32 [B, T, C].

    1; and, of tokens with signals, the columns of the shares at the best ask and bid, less their mean over the window
    and over their standard deviation.
    """
    features = jnp.asarray(features)
    one = jnp.ones((*features.shape[:-1], 1))
    if features.shape[-1] == encoding.COLUMNS:
        return one
    first = encoding.COLUMNS
    shown = features[..., [first + signals.ASK, first + signals.BID]].astype(jnp.float32)
    shown -= jnp.mean(shown, axis=-2, keepdims=True)
    return jnp.concatenate([one, shown / (1e-3 + jnp.std(shown, axis=-2, keepdims=True))], axis=-1)


def expected(flows: Flows, law: Array) -> tuple[jax.Array, jax.Array]:
    """Mean shares and mean square by kind and price bin, [..., 3, P] each, of laws [..., 3, P, V]."""
    return tuple(jnp.asarray(law) @ jnp.asarray(x, jnp.float32) for x in (flows.mean, flows.mean_square))  # type: ignore[return-value]


def came(flows: Flows, fields: Sequence[Array], prices: int) -> jax.Array:
    """Shares by kind and price bin, [..., 3, P], of one order each, given by its kind, price bin and volume bin."""
    kind, price, volume = fields
    return jax.nn.one_hot(kind * prices + price, 3 * prices).reshape(*kind.shape, 3, prices) * jnp.asarray(
        flows.mean, jnp.float32)[volume][..., None, None]


def distance(flows: Flows, excess: Array, square: Array) -> jax.Array:
    """What is added to the nats of a window, [...], for the excess of expected shares over those that came.

    Args:
      flows: how much it counts.
      excess: [..., W, 3, P], weighed sums over a window.
      square: [..., W, 3, P], sums of expected squares times squared weights.

    Counts each kind and price, and each kind as a whole; the mean over weights. Where no share is expected, as under
    weights of 0, there is no distance.
    """
    excess, square = jnp.asarray(excess), jax.lax.stop_gradient(jnp.asarray(square))
    apart = jnp.sum(_in_spreads(excess, square), axis=(-2, -1))
    together = jnp.sum(_in_spreads(jnp.sum(excess, axis=-1), jnp.sum(square, axis=-1)), axis=-1)
    return flows.weight / 2 * jnp.mean(apart + together, axis=-1)


def _in_spreads(excess: jax.Array, square: jax.Array) -> jax.Array:
    return jnp.where(square > 0, excess**2 / jnp.where(square > 0, square, 1), 0)
