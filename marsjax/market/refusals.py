"""Why an order is refused, where several reasons may hold at once."""

import jax
import jax.numpy as jnp

from marsjax.core.records import Array, Status


def first_reason(*reasons: tuple[Array, Status], otherwise: Array) -> jax.Array:
    """The status of the first of (bool [...], status) that holds, else `otherwise`; int32 [...]."""
    status = jnp.asarray(otherwise, jnp.int32)
    for holds, reason in reversed(reasons):
        status = jnp.where(holds, int(reason), status)
    return status
