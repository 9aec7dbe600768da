"""The next order's token after given windows of tokens, drawn from the order model's law.

Batches are padded to few sizes, each compiled once before the first request, so that no request waits for a compiler.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.checkpoint import validation
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.core.specs import CacheSpec
from marsjax.model import kv_cache
from marsjax.model.llama import OrderModel
from marsjax.sim import checks
from marsjax.sim.step import key_of
from marsjax.studies.order_model import PreparedModel
from marsjax.tokens import encoding

_ROWS_ON_A_CPU = 4
"""Windows decoded together there, which fixes the bits of each."""


@dataclasses.dataclass(frozen=True)
class NextOrdersSpec:
    """How next orders are drawn."""

    batch_sizes: tuple[int, ...] = (1, 8, 64)
    """Windows of a compiled call, rising: a batch is padded to the next of them."""
    temperature: float = 1.0
    """Of the draws."""

    def __post_init__(self) -> None:
        for size in self.batch_sizes:
            limits.check_whole("NextOrdersSpec.batch_sizes", size, 1, limits.STEPS_OF_A_CALL)
        if not self.batch_sizes or sorted(set(self.batch_sizes)) != list(self.batch_sizes):
            raise InputError(f"NextOrdersSpec.batch_sizes: expected sizes that rise, got {self.batch_sizes}")
        limits.check_temperature("NextOrdersSpec.temperature", self.temperature)


class Draw(NamedTuple):
    """One window and what keys its draw."""

    window: np.ndarray
    """int32 [T, C], `NextOrders.checked`, the oldest token first."""
    seed: int
    number: int
    """A draw is keyed by (seed, number): the same two and the same window draw the same token."""


class NextOrders:
    """Next orders of one model, compiled for all its batch sizes when it is made.

    Examples:
      >>> from marsjax import testing
      >>> from marsjax.studies.order_model import prepare
      >>> service = NextOrders(prepare(testing.tiny_model()), NextOrdersSpec(batch_sizes=(4,)))
      >>> windows = service.checked(np.zeros((2, 32, 15), np.int64))
      >>> tokens = service.tokens([Draw(window, seed=1, number=i) for i, window in enumerate(windows)])
      >>> tokens.shape, bool((tokens >= 0).all() and (tokens < 384).all())
      ((2,), True)
    """

    def __init__(self, prepared: PreparedModel, spec: NextOrdersSpec = NextOrdersSpec()) -> None:
        """InputError for a model with a weight that is not finite; MemoryError where the largest batch does not fit."""
        model = prepared.model
        checks.check_weights(model.model)
        self.spec, self.model_spec = spec, model.spec
        self.columns = encoding.columns(model.spec.tokens)
        """C, of a token as an array."""
        self.traces = 0
        """How often the call was traced; it never is after this constructor."""
        self._most_level = validation.level_bins(model.converters)
        self._cache = _cache_of(prepared)
        self._arrays, self._structure = jax.tree.flatten(model.model)
        self._calls = {size: self._compiled(size) for size in spec.batch_sizes}

    def checked(self, windows: np.ndarray) -> np.ndarray:
        """Windows from outside, integers [n, T, C] or [n, T * C], as int32 [n, T, C]; T is 1 to `context_length`.

        Changes since the open are clipped as the reference clips them. InputError with the place and the value where a
        shape, a type or a number does not fit.
        """
        windows = np.asarray(windows)
        if windows.ndim == 2 and windows.shape[1] and windows.shape[1] % self.columns == 0:
            windows = windows.reshape(len(windows), -1, self.columns)
        return validation.check_features(self.model_spec, windows, self._most_level)

    def tokens(self, draws: Sequence[Draw]) -> np.ndarray:
        """A token for each window, int32 [n]; of more than the largest batch one batch after the other.

        ValueError where the model has no law, which finite weights exclude.
        """
        most = self.spec.batch_sizes[-1]
        parts = [self._batch(draws[begin : begin + most]) for begin in range(0, len(draws), most)]
        return np.concatenate([np.zeros(0, np.int32), *parts])

    def _batch(self, draws: Sequence[Draw]) -> np.ndarray:
        count = len(draws)
        size = next(size for size in self.spec.batch_sizes if size >= count)
        windows = np.zeros((size, self.model_spec.context_length, self.columns), np.int32)
        lengths = np.ones(size, np.int32)
        keyed = np.zeros((2, size), np.uint32)
        for row, draw in enumerate(draws):
            windows[row, : len(draw.window)], lengths[row] = draw.window, len(draw.window)
            keyed[:, row] = draw.seed, draw.number
        tokens, has_law = jax.device_get(self._calls[size](self._arrays, windows, lengths, keyed))
        if not has_law[:count].all():
            raise ValueError(f"next orders: expected a law to draw from, got none for window "
                             f"{int(np.argmin(has_law[:count]))}")
        return np.asarray(tokens[:count])

    def _compiled(self, size: int) -> jax.stages.Compiled:
        shape = (size, self.model_spec.context_length, self.columns)
        given = (jax.ShapeDtypeStruct(shape, jnp.int32), jax.ShapeDtypeStruct((size,), jnp.int32),
                 jax.ShapeDtypeStruct((2, size), jnp.uint32))
        return jax.jit(self._drawn).lower(self._arrays, *given).compile()

    def _drawn(self, arrays: list[Array], windows: Array, lengths: Array, keyed: Array
               ) -> tuple[jax.Array, jax.Array]:
        """Tokens int32 [n], and whether there was a law, bool [n]; `keyed` is seeds and numbers, uint32 [2, n]."""
        self.traces += 1
        model: OrderModel = jax.tree.unflatten(self._structure, arrays)
        state = kv_cache.start(model, self._cache, encoding.from_array(self.model_spec.tokens, windows), lengths)
        hidden = kv_cache.predict(model, self._cache, state)
        return kv_cache.sample(model, self._cache, hidden, words_of(*keyed), self.spec.temperature)


def words_of(seeds: Array, numbers: Array) -> jax.Array:
    """The random words of draws, uint32 [n, 2], keyed by seeds and numbers, uint32 [n]."""
    return jax.vmap(lambda seed, number: jax.random.bits(key_of(seed, number), (2,), jnp.uint32))(
        jnp.asarray(seeds), jnp.asarray(numbers))


def _cache_of(prepared: PreparedModel) -> CacheSpec:
    """Whole windows, exactly: those of a rollout may be shorter between two refreshes."""
    usual = CacheSpec.usual_mode(prepared.model.spec)
    mode = "recompute" if usual == "refresh" else usual
    ways = prepared.cache.kernels
    if ways is not None and ways.rows is not None:
        ways = dataclasses.replace(ways, rows=_ROWS_ON_A_CPU)
    return CacheSpec(mode=mode, append=1, kernels=ways)
