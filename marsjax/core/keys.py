"""Random keys as users give them."""

import jax
import jax.numpy as jnp

from marsjax.core.errors import InputError
from marsjax.core.records import Array

_OLD_STYLE = "threefry2x32"


def typed(key: Array, name: str = "key") -> jax.Array:
    """A typed key, or typed keys [...], of `jax.random.key` or of the older `jax.random.PRNGKey`, uint32 [..., 2].

    InputError for anything else; `name` is what it calls the argument.
    """
    found = jnp.asarray(key)
    if jnp.issubdtype(found.dtype, jax.dtypes.prng_key):
        return found
    if found.dtype != jnp.uint32 or found.shape[-1:] != (2,):
        raise InputError(f"{name}: expected a key of jax.random.key or jax.random.PRNGKey (uint32[2]), got "
                         f"{found.dtype}{list(found.shape)}")
    return jax.random.wrap_key_data(found, impl=_OLD_STYLE)
