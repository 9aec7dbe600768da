"""What a minute did, read off its image by a linear map."""

import dataclasses

import jax
import jax.numpy as jnp

from marsjax.core.order_images import OrderBatchSpec
from marsjax.core.records import Array

READ = ("move_ticks", "volatility_ticks", "volume", "imbalance", "spread_ticks", "depth", "orders")
"""What is read: how far the mid went from the interval's beginning to its end; the root of the sum of squared moves
between orders; shares traded; bought less sold over traded, by the aggressor; the mean spread; the mean of the shares
at the levels of the view, both sides; accepted orders."""
LOGARITHMIC = ("volume", "depth")
"""Those whose log(1 + x) is linear, as they differ from stock to stock by factors."""
_ORDER_UNIT = 100


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Readout:
    """The map."""

    weight: Array
    """float32 [inputs, len(READ)]."""
    bias: Array
    """float32 [len(READ)]."""

    def __call__(self, images: Array) -> jax.Array:
        """What images [..., 3, 2 V, P] tell, float32 [..., len(READ)], in the order of `READ`."""
        found = jnp.matmul(inputs(images), jnp.asarray(self.weight), precision=jax.lax.Precision.HIGHEST)
        return from_linear(found + jnp.asarray(self.bias))


def inputs(images: Array) -> jax.Array:
    """What the map is of, float32 [..., inputs]: logarithms of all counts, and orders by channel and row."""
    counts = jnp.asarray(images, jnp.float32)
    rows = jnp.sum(counts, axis=-1) / _ORDER_UNIT
    lead = counts.shape[:-3]
    return jnp.concatenate([jnp.log1p(counts).reshape(*lead, -1), rows.reshape(*lead, -1)], axis=-1)


def input_count(spec: OrderBatchSpec) -> int:
    """Numbers that the map reads."""
    channels, rows, _ = spec.shape
    return spec.pixels + channels * rows


def to_linear(read: Array) -> jax.Array:
    """What the map gives for values [..., len(READ)]."""
    return jnp.stack([jnp.log1p(jnp.asarray(read)[..., i]) if name in LOGARITHMIC else jnp.asarray(read)[..., i]
                      for i, name in enumerate(READ)], axis=-1)


def from_linear(found: jax.Array) -> jax.Array:
    """Values of what the map gives; none but moves and imbalances is below 0."""
    columns = [found[..., i] for i in range(len(READ))]
    return jnp.stack([jnp.expm1(jnp.clip(x, 0, 60)) if name in LOGARITHMIC else
                      x if name in ("move_ticks", "imbalance") else jnp.maximum(x, 0)
                      for name, x in zip(READ, columns, strict=True)], axis=-1)
