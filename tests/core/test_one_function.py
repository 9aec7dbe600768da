"""A loop compiled as one function gives what it gives as calls of its operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.kernels import ACCELERATOR, CPU, Kernels
from marsjax.core.one_function import as_one_function


@pytest.mark.parametrize(("kernels", "expected"), [(CPU, True), (ACCELERATOR, False)])
def test_a_loop_is_compiled_as_one_function_where_asked_and_gives_the_same(kernels: Kernels, expected: bool) -> None:
    def loop(x: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.lax.fori_loop(0, count, lambda i, carry: (jnp.cumsum(carry[0][::-1]) + i, carry[1] ^ carry[0][i]),
                                 (x, jnp.zeros((), jnp.int32)))

    given = jnp.arange(3000, dtype=jnp.int32), jnp.asarray(40)
    lowered = jax.jit(lambda *x: as_one_function(kernels, loop, *x)).lower(*given)
    assert ("xla_cpu_small_call" in lowered.as_text()) == expected
    for got, plain in zip(lowered.compile()(*given), jax.jit(loop)(*given), strict=True):
        np.testing.assert_array_equal(got, plain)
