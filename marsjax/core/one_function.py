"""A loop of many small operations as one function of machine code: on a CPU each operation costs a call otherwise."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.experimental.xla_metadata import set_xla_metadata

from marsjax.core.kernels import Kernels

_Result = TypeVar("_Result")


def as_one_function(kernels: Kernels, function: Callable[..., _Result], *arguments: Any) -> _Result:
    """`function(*arguments)`, the same bits; where `kernels.one_function` is set, XLA compiles it as one function.

    Args:
      kernels: whether it is so compiled; without it, this is a plain call.
      function: of arrays to arrays, at least one; no sort, no scatter, no callback and no random bits in it: XLA knows
        no way to compile these inside a function. Its work is done on one core.
      arguments: trees of arrays.
    """
    if not kernels.one_function:
        return function(*arguments)
    leaves, tree = jax.tree.flatten(jax.jit(function)(*arguments))
    # These are what XLA's own pass for small loops sets (`SmallWhileLoopHoistingPass`), and that the call stays one. A
    # compiler that does not know them compiles the call as any other. Tagged is the value's operation: the call.
    leaves[0] = set_xla_metadata(leaves[0], xla_cpu_small_call="true", inlineable="false")
    return jax.tree.unflatten(tree, leaves)
