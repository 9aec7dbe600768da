"""An order model with few parameters, for few data, in the form that it is trained in: `expand` gives the order model.

A head of one row a class has 49,152 rows, most of which no training day ever sees. Here the row of the class
(kind, price bin, volume bin, interval bin) is the sum of smaller ones (`model.row_head`); in training of more, which
are added up then: for each bin alone, for each bin under its kind, for each pair of bins, and for price with volume
and price with interval under each kind. Rows of pairs are the many, and over-fit first: they see only the first few
coordinates of the hidden state. The first of all, the anchor, is nearly constant and carries the frequencies, which no
model has a bias for: the order that never came stays as good as impossible. The two long tables of the embedding
(change since the open, time of day) have one row for all: few days teach which day it is and no more.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.core.specs import ComputeSpec, ModelSpec, TokenSpec
from marsjax.model import layers, llama, row_head
from marsjax.model.layers import CHANGE_ROWS, TIME_ROWS
from marsjax.model.llama import OrderModel
from marsjax.model.row_head import KINDS, RowHead, Summands
from marsjax.tokens import encoding
from marsjax.training import flows as flow
from marsjax.training.flows import Flows

ANCHOR = 0
"""Coordinate of the hidden state that is nearly constant: the embedding puts a large number there."""
UNDECAYED = ("norm", "bias", "scale", "shift")
"""Parts of names of weights that are not to be pulled to 0: the anchor's size, and frequencies on it."""
_UNSEEN = 1e-5
"""Probability of all classes together that no order to train on had, when training starts."""
_ANCHOR_SIZE = 6.0
"""Of the anchor in the embedding, against about 1 of the other coordinates."""
_TABLE_SCALE = 0.3
"""Of fresh embedding tables; smaller than an ordinary model's, since with few data rare rows stay as they start."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HeadRows:
    """Rows whose sums are the classes' rows; d is the width, P, V, I numbers of bins.

    Rows of pairs have the first r coordinates alone, biases the anchor alone; the others are 0.
    """

    bias_price: Array
    """[3, P, 1], by kind."""
    bias_volume: Array
    """[3, V, 1]."""
    bias_interval: Array
    """[3, I, 1]."""
    price: Array
    """[P, d]."""
    volume: Array
    """[V, d]."""
    interval: Array
    """[I, d]."""
    kind_price: Array
    """[3, P, d]."""
    kind_volume: Array
    """[3, V, d]."""
    kind_interval: Array
    """[3, I, d]."""
    price_volume: Array
    """[P, V, r]."""
    price_interval: Array
    """[P, I, r]."""
    volume_interval: Array
    """[V, I, r]."""
    kind_price_volume: Array
    """[3, P, V, r]: a sell through the bid and a buy that joins it have the same price, and not the same volumes."""
    kind_price_interval: Array
    """[3, P, I, r]."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Structured:
    """What is learnt; `expand` makes an order model of it."""

    body: OrderModel
    """An order model without a head, [d, 0]; its `change` and `time` are [1, d]: all changes alike, and all times."""
    head: HeadRows


def init(spec: ModelSpec, key: jax.Array, frequencies: np.ndarray | None = None, pair_width: int = 1,
         compute: ComputeSpec = layers.FLOAT32) -> Structured:
    """Fresh weights.

    Args:
      spec: sizes.
      key: of the draws.
      frequencies: float [classes], of the tokens to train on: the head starts near them. Uniform if None.
      pair_width: coordinates of the hidden state that pairs of bins see, r; with 1 that is the anchor alone.
      compute: how the model computes.
    """
    if not 1 <= pair_width <= spec.embed_dim:
        raise InputError(f"structured: expected pair_width of 1 to {spec.embed_dim} (embed_dim), got {pair_width}")
    spec = dataclasses.replace(spec, pair_width=0)  # the body has no head
    small = dataclasses.replace(spec, tokens=TokenSpec(1, 1, 1, spec.tokens.signals))
    fresh = llama.init(small, key).weights()
    d, bins = spec.embed_dim, spec.tokens

    def table(number: int, rows: int) -> jax.Array:
        return _TABLE_SCALE * jax.random.normal(jax.random.fold_in(key, number), (rows, d))

    tables = {"kind": table(1, KINDS), "price": table(2, bins.price_levels), "volume": table(3, bins.volumes),
              "interval": table(4, bins.intervals), "change": jnp.zeros((1, d)), "time": jnp.zeros((1, d)),
              "levels_scale": jnp.full((d,), _TABLE_SCALE).at[ANCHOR].set(0.0),
              "levels_shift": jnp.zeros((d,)).at[ANCHOR].set(_ANCHOR_SIZE)}
    if spec.tokens.signals:
        tables["signals"] = table(7, layers.SIGNALS)
    if spec.ratio_embeddings:
        tables |= {"volume_ratio": table(5, layers.RATIO_ROWS), "trade_ratio": table(6, layers.RATIO_ROWS)}
    weights = {**fresh, **{f"embedding.{name}": x for name, x in tables.items()}, "head": jnp.zeros((d, 0))}
    return Structured(OrderModel(spec, weights, compute), _fresh_head(spec, frequencies, pair_width))


def _fresh_head(spec: ModelSpec, frequencies: np.ndarray | None, pair_width: int) -> HeadRows:
    """Zeros, but for the biases: kind with price, volume given kind, interval given kind."""
    d, bins = spec.embed_dim, spec.tokens
    shape = (KINDS, bins.price_levels, bins.volumes, bins.intervals)
    law = np.ones(shape) if frequencies is None else np.asarray(frequencies, np.float64).reshape(shape)
    law = law / law.sum() + _UNSEEN / bins.classes
    # The norm divides by the root mean square: of the anchor, and of five fresh tables in the other coordinates.
    rest = (d - 1) * _TABLE_SCALE**2 * 5
    anchor = _ANCHOR_SIZE / math.sqrt((_ANCHOR_SIZE**2 + rest) / d)

    def bias(chances: np.ndarray) -> jax.Array:
        return jnp.asarray(np.log(chances) / anchor, jnp.float32)[..., None]

    def given_kind(of_both: np.ndarray) -> np.ndarray:
        return of_both / of_both.sum(axis=1, keepdims=True)

    given = {"bias_price": bias(law.sum(axis=(2, 3))), "bias_volume": bias(given_kind(law.sum(axis=(1, 3)))),
             "bias_interval": bias(given_kind(law.sum(axis=(1, 2))))}
    none = {name: jnp.zeros(sizes) for name, sizes in _head_shapes(spec, pair_width).items()}
    return HeadRows(**{**none, **given})


def _head_shapes(spec: ModelSpec, pair_width: int) -> dict[str, tuple[int, ...]]:
    """The shapes of `HeadRows` by name."""
    d, r, p, v, i = spec.embed_dim, pair_width, spec.tokens.price_levels, spec.tokens.volumes, spec.tokens.intervals
    return {"bias_price": (KINDS, p, 1), "bias_volume": (KINDS, v, 1), "bias_interval": (KINDS, i, 1),
            "price": (p, d), "volume": (v, d), "interval": (i, d),
            "kind_price": (KINDS, p, d), "kind_volume": (KINDS, v, d), "kind_interval": (KINDS, i, d),
            "price_volume": (p, v, r), "price_interval": (p, i, r), "volume_interval": (v, i, r),
            "kind_price_volume": (KINDS, p, v, r), "kind_price_interval": (KINDS, p, i, r)}


def of_model(model: OrderModel) -> Structured:
    """The structured model that expands to a model of `ModelSpec.pair_width`; the other way round of `expand`.

    InputError where the model has another head, or tells changes or times apart.
    """
    spec = model.spec
    if not isinstance(model.head, RowHead):
        raise InputError("structured: expected a head whose rows are summed (ModelSpec.pair_width above 0), got one "
                         "with a row for each class: the model was trained with another head, or written as if it were")
    tables: dict[str, Array] = {}
    for name in ("change", "time"):
        table = np.asarray(getattr(model.embedding, name)[...])
        if (table != table[:1]).any():
            raise InputError(f"structured: expected one row for all in embedding.{name}, got several")
        tables[f"embedding.{name}"] = jnp.asarray(table[:1])
    rows = Summands(*(jnp.asarray(x, jnp.float32) for x in model.head.tables()))
    named = {"kind_price": rows.price, "kind_volume": rows.volume, "kind_interval": rows.interval,
             "kind_price_volume": rows.price_volume, "kind_price_interval": rows.price_interval,
             "volume_interval": rows.volume_interval}
    none = {name: jnp.zeros(shape) for name, shape in _head_shapes(spec, spec.pair_width).items()}
    bare = {**tables, "head": jnp.zeros((spec.embed_dim, 0))}
    return Structured(_with_head(model, bare, pair_width=0), HeadRows(**{**none, **named}))


def expand(model: Structured) -> OrderModel:
    """The order model that gives the same logits: rows that name the same fields are added up."""
    rows = _rows(model.head)
    tables = {f"head.{name}": table for name, table in rows._asdict().items()}
    return _with_head(_body(model), tables, pair_width=rows.price_volume.shape[-1])


def _with_head(model: OrderModel, weights: Mapping[str, Array], pair_width: int) -> OrderModel:
    """The model with another head, and with other weights that are given."""
    kept = {name: x for name, x in model.weights().items() if name.partition(".")[0] != "head"}
    return OrderModel(dataclasses.replace(model.spec, pair_width=pair_width), {**kept, **weights}, model.compute)


def _rows(head: HeadRows) -> Summands:
    """Rows that name the same fields, added up."""
    def of(bias: Array, alone: Array, by_kind: Array) -> jax.Array:
        return jnp.pad(bias, ((0, 0), (0, 0), (ANCHOR, alone.shape[-1] - ANCHOR - 1))) + alone + by_kind

    return Summands(
        of(head.bias_price, head.price, head.kind_price), of(head.bias_volume, head.volume, head.kind_volume),
        of(head.bias_interval, head.interval, head.kind_interval), head.price_volume + head.kind_price_volume,
        head.price_interval + head.kind_price_interval, head.volume_interval)


def _body(model: Structured) -> OrderModel:
    """The order model without a head, with tables of ordinary lengths."""
    table, width = model.body.embedding, model.body.spec.embed_dim
    return model.body.replace({"embedding.change": jnp.broadcast_to(table.change[...], (CHANGE_ROWS, width)),
                               "embedding.time": jnp.broadcast_to(table.time[...], (TIME_ROWS, width))})


class Dropout(NamedTuple):
    """Coordinates that a step of training leaves out, the anchor never; the others make up for them."""

    share: float
    key: jax.Array

    def __call__(self, x: jax.Array, place: int) -> jax.Array:
        """x [..., d] without some of its coordinates; `place` tells one use from another."""
        if not self.share:
            return x
        kept = jax.random.bernoulli(jax.random.fold_in(self.key, place), 1 - self.share, x.shape)
        is_anchor = jnp.arange(x.shape[-1]) == ANCHOR
        return jnp.where(is_anchor, x, jnp.where(kept, x / (1 - self.share), 0)).astype(x.dtype)


def next_token(model: Structured, features: Array, chunk: int = 128, dropout: Dropout | None = None,
               flows: Flows | None = None) -> jax.Array:
    """Negative log-probability of each next token, float32 [B, T], of windows int32 [B, T + 1, 15].

    What `loss.next_token` gives for the expanded model, without its logits; `chunk` positions at a time. With `flows`
    a T-th of a window's distance is added to each of its tokens.
    """
    tokens, compute = model.body.spec.tokens, model.body.compute
    states = _states(model, features[:, :-1], dropout)
    (batch, length, _), rows = states.shape, _rows(model.head)
    if length % chunk:
        raise InputError(f"loss: expected a window length that is a multiple of chunk={chunk}, got {length}")

    @jax.checkpoint
    def part(x: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        scores, fields = row_head.scores(rows, x[0], compute), encoding.unpack(tokens, x[1])
        nats = row_head.log_partition(scores) - row_head.of_class(scores, fields)
        if flows is None:
            return (nats,)
        mean, square = flow.expected(flows, row_head.law_of_volumes(scores))
        excess = mean - flow.came(flows, fields[:3], tokens.price_levels)
        return nats, *(jnp.einsum("btw,btkp->bwkp", weight, each)
                       for weight, each in ((x[2], excess), (x[2]**2, square)))

    pieces = tuple(jnp.moveaxis(each.reshape(batch, -1, chunk, *each.shape[2:]), 1, 0)
                   for each in (states, features[:, 1:, 0], *([flow.weights(features[:, :-1])] if flows else [])))
    nats, *moved = jax.lax.map(part, pieces)
    nats = jnp.moveaxis(nats, 0, 1).reshape(batch, length)
    if flows is None:
        return nats
    excess, square = (jnp.sum(x, axis=0) for x in moved)
    return nats + flow.distance(flows, excess, square)[:, None] / length


def last_tokens(model: Structured, features: Array, classes: Array, chunk: int = 64) -> jax.Array:
    """Negative log-probability of classes, int32 [B, N], each after one of the last N of tokens int32 [B, T, C].

    float32 [B, N]; the last class comes after all of the tokens. As `next_token`, but the classes need not be those of
    the tokens that follow.
    """
    classes = jnp.asarray(classes)
    batch, count = classes.shape
    chunk = math.gcd(chunk, count)
    states, rows = _states(model, features, None)[:, -count:], _rows(model.head)

    @jax.checkpoint
    def part(x: tuple[jax.Array, jax.Array]) -> jax.Array:
        scores, fields = row_head.scores(rows, x[0], model.body.compute), encoding.unpack(model.body.spec.tokens, x[1])
        return row_head.log_partition(scores) - row_head.of_class(scores, fields)

    pieces = tuple(jnp.moveaxis(each.reshape(batch, -1, chunk, *each.shape[2:]), 1, 0) for each in (states, classes))
    return jnp.moveaxis(jax.lax.map(part, pieces), 0, 1).reshape(batch, count)


def _states(model: Structured, features: Array, dropout: Dropout | None) -> jax.Array:
    """Hidden states [B, T, d] after tokens [B, T, C]."""
    body, drops = _body(model), dropout or (lambda x, place: x)
    embedded, _ = body.encode(encoding.from_array(model.body.spec.tokens, features), changed=lambda x: drops(x, 0))
    return jnp.asarray(body.norm(drops(embedded, 1)))
