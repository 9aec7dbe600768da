"""Trajectories computed a block at a time: with a fixed number of rows one has the same bits in any batch."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core.records import Array

Part: TypeAlias = Callable[[Array], jax.Array]
"""Takes a block's rows of an array with the batch in front."""


def in_blocks(compute: Callable[[Part], Any], rows: int | None, batch: int) -> Any:
    """`compute` of every trajectory, `rows` at a time; the batch is in front in the result.

    `compute` takes its inputs through `part(x)`, the block's rows of an array with the batch in front. A batch smaller
    than a block is padded; the last block overlaps the one before it.
    """
    if rows is None:
        return compute(jnp.asarray)
    blocks = -(-batch // rows)
    starts = np.minimum(np.arange(blocks) * rows, max(batch - rows, 0))

    def block(start: jax.Array) -> Any:
        def part(x: Array) -> jax.Array:
            x = jax.lax.dynamic_slice_in_dim(jnp.asarray(x), start, min(rows, batch))
            return jnp.pad(x, [(0, rows - x.shape[0])] + [(0, 0)] * (x.ndim - 1))

        return compute(part)

    result = jax.lax.map(block, jnp.asarray(starts))
    which = np.minimum(np.arange(batch) // rows, blocks - 1)
    row = which * rows + np.arange(batch) - starts[which]
    flat = jax.tree.map(lambda x: x.reshape(blocks * rows, *x.shape[2:]), result)
    return flat if batch == blocks * rows else jax.tree.map(lambda x: x[row], flat)
