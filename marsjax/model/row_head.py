"""A head of few rows, whose sums are the rows of the classes: no class is looked at alone, in training or in a draw.

The row of the class (kind, price bin, volume bin, interval bin) is the sum of rows for price, volume and interval under
the kind, which see all d coordinates of the hidden state, and of rows for pairs of them, which see the first r alone
(`ModelSpec.pair_width`). So the weight of a class is a product,

    exp(logit) = A[kind, price, volume] B[kind, price, interval] C[volume, interval],

and the sum over intervals a product of matrices: of 49,152 classes some 5,000 numbers are made. `Summands` are the
tables, and what they add to the logits at a hidden state: these are called scores, and have no last axis.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from marsjax.core.records import Array
from marsjax.core.specs import ComputeSpec, ModelSpec
from marsjax.model import sampling
from marsjax.model.layers import FLOAT32, Weight, dense

KINDS = 3
_LEAST_TEMPERATURE = 0.25
"""Below it logits are made: the largest factors need not meet in one class, and their product may be far above all.
At 1 a trained model has a law, as its loss is made of the same sums."""


class Summands(NamedTuple):
    """The tables of a head; or scores, [..., 3, P] and so on. P, V, I are numbers of bins."""

    price: Array
    """[3, P, d], by kind, like the next two."""
    volume: Array
    """[3, V, d]."""
    interval: Array
    """[3, I, d]."""
    price_volume: Array
    """[3, P, V, r]."""
    price_interval: Array
    """[3, P, I, r]."""
    volume_interval: Array
    """[V, I, r]."""


class RowHead(nnx.Module):
    """Hidden states to the law of the next token's class. In place of `layers.Head`, with the same calls."""

    price: Weight
    volume: Weight
    interval: Weight
    price_volume: Weight
    price_interval: Weight
    volume_interval: Weight

    def __init__(self, tables: Mapping[str, Array], compute: ComputeSpec = FLOAT32) -> None:
        self.compute = compute
        for name in Summands._fields:
            setattr(self, name, nnx.Param(tables[name]))

    def tables(self) -> Summands:
        """Its tables."""
        return Summands(*(getattr(self, name)[...] for name in Summands._fields))

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Logits [..., classes], float32, of hidden states [..., d]; classes are numbered as those of `layers.Head`."""
        return logits(scores(self.tables(), hidden, self.compute))

    def draw(self, hidden: jax.Array, words: Array, temperature: float, most_logits: int = 0
             ) -> tuple[jax.Array, jax.Array]:
        """A class drawn at each of the hidden states [B, d], int32 [B], and whether there is a law, bool [B].

        By two random words, uint32 [B, 2]; where there is no law the class means nothing. There are no logits, so that
        `most_logits` has no effect.
        """
        found = scores(self.tables(), hidden, self.compute)
        if temperature < _LEAST_TEMPERATURE:
            of_all = logits(found)
            return sampling.sample(of_all, words, temperature), sampling.has_law(of_all)
        return draw(jax.tree.map(lambda x: x / temperature, found), words)


def shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The shapes of the tables by their names."""
    d, r, bins = spec.embed_dim, spec.pair_width, spec.tokens
    p, v, i = bins.price_levels, bins.volumes, bins.intervals
    found = (KINDS, p, d), (KINDS, v, d), (KINDS, i, d), (KINDS, p, v, r), (KINDS, p, i, r), (v, i, r)
    return dict(zip(Summands._fields, found, strict=True))


def joint(rows: Summands) -> jax.Array:
    """The weight of the `layers.Head` with the same logits, float32 [d, classes]."""
    d = rows.price.shape[-1]

    def wide(x: Array) -> jax.Array:
        more = [(0, 0)] * (x.ndim - 1) + [(0, d - x.shape[-1])]
        return jnp.moveaxis(jnp.pad(jnp.asarray(x, jnp.float32), more), -1, 0)

    return logits(Summands(*map(wide, rows)))


def scores(rows: Summands, states: jax.Array, compute: ComputeSpec) -> Summands:
    """What each row adds to the logits of its classes, float32, at hidden states [..., d]."""
    def of(table: Array) -> jax.Array:
        flat = table.reshape(-1, table.shape[-1]).T
        found = dense(states[..., : len(flat)], flat, compute, out=jnp.float32)
        return found.reshape(*states.shape[:-1], *table.shape[:-1])

    return Summands(*map(of, rows))


def logits(scores: Summands) -> jax.Array:
    """Of every class, [..., classes]."""
    a, b, c = _factors(scores)
    whole = a[..., None] + b[..., None, :] + c[..., None, None, :, :]
    return whole.reshape(*whole.shape[:-4], -1)


def of_class(scores: Summands, fields: tuple[Array, Array, Array, Array]) -> jax.Array:
    """Logits [...] of one class each, given by kind, price bin, volume bin and interval bin [...]."""
    kind, price, volume, interval = fields

    def at(table: Array, first: Array, second: Array) -> jax.Array:
        flat = table.reshape(*first.shape, -1)
        return jnp.take_along_axis(flat, (first * table.shape[-1] + second)[..., None], axis=-1)[..., 0]

    row = kind * scores.price.shape[-1] + price
    return (at(scores.price, kind, price) + at(scores.volume, kind, volume) + at(scores.interval, kind, interval)
            + at(scores.price_volume, row, volume) + at(scores.price_interval, row, interval)
            + at(scores.volume_interval, volume, interval))


def log_partition(scores: Summands) -> jax.Array:
    """Log of the sum of exp(logit) over all classes, [...]."""
    weights = _weights(scores)
    return jnp.log(jnp.sum(weights.of_volumes, axis=(-3, -2, -1))) + weights.top


def law_of_volumes(scores: Summands) -> jax.Array:
    """Probabilities of kind, price and volume, [..., 3, P, V]: classes summed over the interval."""
    weights = _weights(scores).of_volumes
    return weights / jnp.sum(weights, axis=(-3, -2, -1), keepdims=True)


def draw(scores: Summands, words: Array) -> tuple[jax.Array, jax.Array]:
    """A class by scores [B, ...] and two random words, uint32 [B, 2], int32 [B]; and whether there is a law, bool [B].

    The first word finds kind and price, the second volume and interval. As in `sampling` probabilities become whole
    numbers, and the law differs from that of the float32 probabilities by less than 1e-5 in total variation.
    """
    weights = _weights(scores)
    mass = jnp.sum(weights.of_volumes, axis=-1).reshape(words.shape[0], -1)
    place, total = sampling.draw_of(mass, words[:, 0])

    def at_place(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x.reshape(*mass.shape, -1), place[:, None, None], axis=1)[:, 0]

    within = (at_place(weights.price_volume)[:, :, None] * at_place(weights.price_interval)[:, None]
              * weights.volume_interval).reshape(len(place), -1)
    inside, _ = sampling.draw_of(within, words[:, 1])
    return place * within.shape[-1] + inside, (total > 0) & (total < jnp.inf)


class _Weights(NamedTuple):
    """The factors of exp(logit - top), and their sums over intervals."""

    price_volume: jax.Array
    """[..., 3, P, V]."""
    price_interval: jax.Array
    """[..., 3, P, I]."""
    volume_interval: jax.Array
    """[..., V, I]."""
    of_volumes: jax.Array
    """[..., 3, P, V]."""
    top: jax.Array
    """[...]."""


def _factors(scores: Summands) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Their logs: of kind, price and volume; of kind, price and interval; of volume and interval. Sums are logits."""
    given = jax.tree.map(jnp.asarray, scores)
    return (given.price[..., :, :, None] + given.volume[..., :, None, :] + given.price_volume,
            given.interval[..., :, None, :] + given.price_interval, given.volume_interval)


def _weights(scores: Summands) -> _Weights:
    """Each factor is scaled by its largest value.

    A class loses its share only where it is below e^-87 of the product of the largest, and an order's law never is.
    """
    a, b, c = _factors(scores)
    # Within a kind and price: what is left over goes where it can be large without harm.
    of_price = jnp.max(b, axis=-1, keepdims=True)
    a, b = a + of_price, b - of_price
    top_a, top_c = jnp.max(a, axis=(-3, -2, -1), keepdims=True), jnp.max(c, axis=(-2, -1), keepdims=True)
    first, second, third = jnp.exp(a - top_a), jnp.exp(b), jnp.exp(c - top_c)
    inner = jnp.einsum("...kpi,...vi->...kpv", second, third, precision="highest")
    return _Weights(first, second, third, first * inner, top_a[..., 0, 0, 0] + top_c[..., 0, 0])
