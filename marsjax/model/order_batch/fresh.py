"""Weights before training, by their names: all from one long draw, which compiles faster than one for each."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class FreshWeight(NamedTuple):
    """How one weight starts: normal(scale), or, without a scale, filled with one number."""

    shape: tuple[int, ...]
    scale: float = 0.0
    fill: float = 0.0


def drawn(plan: Mapping[str, FreshWeight], key: jax.Array) -> dict[str, jax.Array]:
    """Float32 weights of a plan."""
    sizes = [math.prod(one.shape) if one.scale else 0 for one in plan.values()]
    ends = np.cumsum(sizes).tolist()
    numbers = jax.random.normal(key, (ends[-1],), jnp.float32)
    found = {}
    for (name, one), size, end in zip(plan.items(), sizes, ends, strict=True):
        found[name] = ((one.scale * numbers[end - size : end]).reshape(one.shape) if one.scale else
                       jnp.full(one.shape, one.fill, jnp.float32))
    return found
