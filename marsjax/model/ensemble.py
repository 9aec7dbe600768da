"""The order model told what the orders of an interval are to be: its hidden states, changed by the codes of a batch.

An order batch is the orders of one interval, written as C codes. `Ensemble.prepared` reads them once an interval;
`change` then changes the hidden state of each prediction: by a shift, the same for all orders of the interval, and by
attention to what was read. The shift is a linear map of what the image says that the codes stand for (`inputs`): how
many orders, and which share of them, lie in each row and column. A strength above 1 adds no more of it, but of a
second, smoother map (`further`): what the first says of fine detail drives markets wild where it is multiplied
(experiments/ensemble). The order model's head is linear without a bias, so that the logits move by what the head makes
of the change: logits(h + c) = logits(h) + logits(c). The last weights start at 0, and with them the change: an ensemble
that has learnt nothing leaves every draw as it is, to the bit.

The layers are the order model's own (`layers.DecoderLayer`): one in which the codes see each other, then some in which
a hidden state asks and the codes answer.
"""

import dataclasses
import math
import operator
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from marsjax.core import kernels, limits
from marsjax.core.errors import InputError
from marsjax.core.order_images import REFERENCES, OrderBatchSpec
from marsjax.core.records import Array
from marsjax.core.specs import CacheSpec, ComputeSpec
from marsjax.model.blocks import Part, in_blocks
from marsjax.model.layers import FLOAT32, DecoderLayer, RmsNorm, Weight, attend, dense, layer_of
from marsjax.model.order_batch import fresh
from marsjax.model.order_batch.fresh import FreshWeight
from marsjax.model.order_batch.specs import TokenizerSpec
from marsjax.model.order_batch.tokenizer import Tokenizer

_MOST = 2**16
"""Of each size."""
_FEW = 5.0
"""Orders that are added to those of an image where shares of them are made: few orders make no large shares."""


@dataclasses.dataclass(frozen=True)
class EnsembleSpec:
    """Sizes of an ensemble.

    Examples:
      >>> EnsembleSpec.of(32, TokenizerSpec())
      EnsembleSpec(hidden=32, places=16, codes=256, inputs=288, width=32, heads=4, layers=2)
    """

    hidden: int
    """Width of the order model's hidden states, d."""
    places: int
    """Codes of a batch, C."""
    codes: int
    """Values that a code may have, N."""
    inputs: int
    """Numbers that the shift is a linear map of, F (`input_count`)."""
    width: int = 32
    """Of the ensemble's own states, w."""
    heads: int = 4
    layers: int = 2
    """In which a hidden state asks the codes, L."""

    def __post_init__(self) -> None:
        for name in ("hidden", "places", "codes", "inputs", "width", "heads", "layers"):
            limits.check_whole(f"EnsembleSpec.{name}", getattr(self, name), 1, _MOST)
        if self.width % self.heads:
            raise InputError(f"EnsembleSpec.width: expected a multiple of heads={self.heads}, got {self.width}")

    @classmethod
    def of(cls, hidden: int, tokenizer: TokenizerSpec, width: int = 32, heads: int = 4, layers: int = 2
           ) -> "EnsembleSpec":
        """Of an ensemble that is told the codes of a tokenizer."""
        return cls(hidden, tokenizer.places, tokenizer.codes, input_count(tokenizer.images), width, heads, layers)


def inputs(images: Array) -> jax.Array:
    """What the shift is a linear map of, float32 [..., F], of images of counts [..., 3, 2 V, P].

    Orders by channel and row, by channel and column in the lower half, and in the upper half: logarithms of 1 + their
    numbers, then their shares of all orders.
    """
    counts = jnp.asarray(images, jnp.float32)
    lead, middle = counts.shape[:-3], counts.shape[-2] // REFERENCES
    sums = [counts.sum(axis=-1), counts[..., :middle, :].sum(axis=-2), counts[..., middle:, :].sum(axis=-2)]
    found = jnp.concatenate([x.reshape(*lead, -1) for x in sums], axis=-1)
    total = counts.sum(axis=(-3, -2, -1))[..., None] / REFERENCES
    return jnp.concatenate([jnp.log1p(found), found / (total + _FEW)], axis=-1)


def input_count(images: OrderBatchSpec) -> int:
    """F."""
    channels, rows, columns = images.shape
    return 2 * channels * (rows + REFERENCES * columns)


class ReadBatch(NamedTuple):
    """The batches of B trajectories as an ensemble has read them."""

    keys: Array
    """[B, L, h, C, k], k = w / h."""
    values: Array
    """[B, L, h, C, k]."""
    shift: Array
    """[B, d], the part of the change that is the same for all hidden states: the trained shift times the strength, at
    most 1, and what a strength has above 1 times a second, smoother map (`Ensemble.further`)."""
    strength: Array
    """float32 [B], at most 1, what the other part is multiplied by; 0: nothing is told, and nothing changes."""


class Ensemble(nnx.Module):
    """The ensemble of given sizes and weights."""

    code: Weight
    """[N, w]."""
    place: Weight
    """[C, w]."""
    reader: DecoderLayer
    """One layer, in which the codes of a batch see each other."""
    shift: Weight
    """[F, d], from `inputs` to the shift; 0 at first."""
    shift_bias: Weight
    """[d]; 0 at first."""
    further: Weight
    """[F, d], likewise, of what is added for each 1 of strength above 1; 0 at first."""
    further_bias: Weight
    """[d]; 0 at first."""
    entry: Weight
    """[d, w]."""
    layers: DecoderLayer
    """L layers, stacked: queries are of hidden states, keys and values of codes."""
    norm: RmsNorm
    """[w]."""
    exit: Weight
    """[w, d]; 0 at first."""

    def __init__(self, spec: EnsembleSpec, weights: Mapping[str, Array], tokenizer: Tokenizer,
                 compute: ComputeSpec = FLOAT32) -> None:
        """Takes every array of `weights`, by the names and in the shapes of `shapes(spec)`.

        `tokenizer` is that of the codes, and is not trained; InputError where its sizes are others than the spec's.
        """
        expected = EnsembleSpec.of(spec.hidden, tokenizer.spec, spec.width, spec.heads, spec.layers)
        if spec != expected:
            raise InputError(f"ensemble: expected the sizes of its tokenizer, {expected}, got {spec}")
        self.spec, self.compute, self.tokenizer = spec, compute, tokenizer
        self.code, self.place = nnx.Param(weights["code"]), nnx.Param(weights["place"])
        self.shift, self.entry = nnx.Param(weights["shift"]), nnx.Param(weights["entry"])
        self.shift_bias, self.further = nnx.Param(weights["shift_bias"]), nnx.Param(weights["further"])
        self.further_bias = nnx.Param(weights["further_bias"])
        self.exit = nnx.Param(weights["exit"])
        self.reader, self.layers = (DecoderLayer({
            name.removeprefix(f"{part}."): x for name, x in weights.items() if name.startswith(f"{part}.")}, compute)
            for part in ("reader", "layers"))
        self.norm = RmsNorm(weights["norm"])

    def weights(self) -> dict[str, Array]:
        """Every weight by its name, such as `layers.qkv`: the names and the order of `shapes`."""
        parts = {name: operator.attrgetter(name)(self) for name in shapes(self.spec)}
        return {name: (part if isinstance(part, nnx.Param) else part.weight)[...] for name, part in parts.items()}

    def prepared(self, codes: Array, strength: Array | float = 1.0) -> ReadBatch:
        """What hidden states are changed by until the next batch.

        Args:
          codes: int32 [B, C], in [0, N).
          strength: [B], or one for all: 1 as the ensemble was trained, 0 nothing; above 1 the trained change stays as
            it is at 1, and (strength - 1) times the map of `further` is added.
        """
        x = self._read(codes)
        found = [layer_of(self.layers, number).project(x, slice(1, 3)) for number in range(self.spec.layers)]
        keys, values = (jnp.stack([jnp.swapaxes(each, -3, -2) for each in part], axis=-4)
                        for part in zip(*found, strict=True))
        strength = jnp.broadcast_to(jnp.float32(strength), x.shape[:-2])
        whole, more = jnp.minimum(strength, 1), jnp.maximum(strength - 1, 0)
        told = self._told(codes)
        further = dense(told, self.further[...], self.compute) + self.further_bias[...]
        shift = dense(told, self.shift[...], self.compute) + self.shift_bias[...]
        return ReadBatch(keys, values, whole[..., None] * shift + more[..., None] * further, whole)

    def _told(self, codes: Array) -> jax.Array:
        return inputs(jax.lax.stop_gradient(self.tokenizer.decode(codes)))

    def _read(self, codes: Array) -> jax.Array:
        """What is read of codes [..., C], [..., C, w]."""
        codes = jnp.asarray(codes)
        x, reader = jnp.asarray(self.code[...])[codes] + self.place[...], layer_of(self.reader, 0)
        query, key, value = reader.project(x)
        every = np.ones((codes.shape[-1],) * 2, bool)
        mixed = attend(query, jnp.swapaxes(key, -3, -2), jnp.swapaxes(value, -3, -2), every, self.compute)
        return reader.after_attention(x, mixed)

    def nothing(self, batch: int) -> ReadBatch:
        """What tells `batch` trajectories nothing; zeros."""
        of = self.spec
        slots = jnp.zeros((batch, of.layers, of.heads, of.places, of.width // of.heads), self.compute.dtype)
        return ReadBatch(slots, slots, jnp.zeros((batch, of.hidden), self.compute.dtype), jnp.zeros(batch, jnp.float32))

    def __call__(self, hidden: jax.Array, read: ReadBatch) -> jax.Array:
        """Hidden states [..., d], changed, with a read batch [..., L, h, C, k] for each of them."""
        x = dense(hidden, self.entry[...], self.compute)[..., None, :]
        every = np.ones((1, self.spec.places), bool)
        for number in range(self.spec.layers):
            layer = layer_of(self.layers, number)
            (query,) = layer.project(x, slice(0, 1))
            keys, values = (jnp.asarray(part)[..., number, :, :, :] for part in (read.keys, read.values))
            x = layer.after_attention(x, attend(query, keys, values, every, self.compute))
        asked = dense(self.norm(x[..., 0, :]), self.exit[...], self.compute)
        return hidden + (read.shift + jnp.asarray(read.strength)[..., None] * asked).astype(hidden.dtype)


def change(ensemble: Ensemble, cache: CacheSpec, hidden: jax.Array, read: ReadBatch) -> jax.Array:
    """Hidden states [B, d] as their read batches change them; bitwise the same for a row in any batch on a CPU."""
    def block(part: Part) -> jax.Array:
        return ensemble(part(hidden), jax.tree.map(part, read))

    changed: jax.Array = in_blocks(block, kernels.chosen(cache.kernels).rows, hidden.shape[0])
    return changed


def _plan(spec: EnsembleSpec) -> dict[str, FreshWeight]:
    """How every weight starts, by its name."""
    d, w, h, k = spec.hidden, spec.width, spec.heads, spec.width // spec.heads

    def layer(part: str, n: int) -> dict[str, FreshWeight]:
        into = 1 / math.sqrt(2 * n)
        return {f"{part}.attention_norm": FreshWeight((n, w), fill=1),
                f"{part}.qkv": FreshWeight((n, w, 3, h, k), 1 / math.sqrt(w)),
                f"{part}.out": FreshWeight((n, h, k, w), into / math.sqrt(w)),
                f"{part}.mlp_norm": FreshWeight((n, w), fill=1),
                f"{part}.gate_up": FreshWeight((n, w, 2, 4 * w), 1 / math.sqrt(w)),
                f"{part}.down": FreshWeight((n, 4 * w, w), into / math.sqrt(4 * w))}

    return {"code": FreshWeight((spec.codes, w), 1), "place": FreshWeight((spec.places, w), 1), **layer("reader", 1),
            "shift": FreshWeight((spec.inputs, d)), "shift_bias": FreshWeight((d,)),
            "further": FreshWeight((spec.inputs, d)), "further_bias": FreshWeight((d,)),
            "entry": FreshWeight((d, w), 1 / math.sqrt(d)), **layer("layers", spec.layers),
            "norm": FreshWeight((w,), fill=1), "exit": FreshWeight((w, d))}


def shapes(spec: EnsembleSpec) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of an ensemble, by its name."""
    return {name: one.shape for name, one in _plan(spec).items()}


def init(spec: EnsembleSpec, key: jax.Array, tokenizer: Tokenizer) -> Ensemble:
    """An ensemble with fresh weights, which changes nothing; codes that are alike start alike."""
    weights = dict(fresh.drawn(_plan(spec), key))
    codebook = jnp.asarray(tokenizer.codebook[...], jnp.float32)
    size = jnp.sqrt(jnp.mean(jnp.square(codebook - codebook.mean(axis=0)))) + 1e-6
    even = (codebook - codebook.mean(axis=0)) / size
    numbers = codebook.shape[1]
    wide = jax.random.normal(jax.random.fold_in(key, 0), (numbers, spec.width))
    weights["code"] = even @ wide / math.sqrt(numbers)
    return Ensemble(spec, weights, tokenizer)
