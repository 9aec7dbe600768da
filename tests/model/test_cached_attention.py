"""Attention to contexts: the kernel, as Pallas interprets it, and the compiler's ways against plain numpy; 8 bits."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core import kernels
from marsjax.core.specs import CacheSpec, ComputeSpec
from marsjax.model import attention_kernel, cached_attention, kv_cache
from marsjax.model.attention_kernel import Cut
from marsjax.model.cached_attention import Slots
from tests.model.test_kv_cache import (
    BATCH,
    CHUNK,
    REFRESH,
    ROLLING,
    TOLERANCE,
    decoded,
    expected,
    gap,
    random_flow,
    random_params,
    random_tokens,
    spec_of,
    step_of,
)

BY_KERNEL = dataclasses.replace(kernels.ACCELERATOR, attention="interpreted")
KERNEL = dataclasses.replace(REFRESH, kernels=BY_KERNEL)
IN_8_BITS = [dataclasses.replace(cache, cache_dtype="int8") for cache in (ROLLING, REFRESH, KERNEL)]


def inputs_of(slots: int, size: int, dtype: str, queries: int = 1, seed: int = 0) -> tuple[jax.Array, Slots]:
    """A query [4, T, 2, k] and slots of four trajectories, as they are kept in `dtype`."""
    rng = np.random.default_rng(seed)
    of = "float32" if dtype == "int8" else dtype
    query, key, value = (jnp.asarray(rng.normal(size=shape), of) for shape in (
        (4, queries, 2, size), (4, 2, slots, size), (4, 2, slots, size)))
    if dtype != "int8":
        return query, Slots(key, value, None)
    *both, scale = cached_attention.kept(CacheSpec(cache_dtype="int8"), key, value)
    return query, Slots(*both, jnp.moveaxis(scale, 0, 1))


def plain(query: Any, slots: Slots, length: np.ndarray) -> np.ndarray:
    """Attention in float64, by loops."""
    query, keys, values = (np.asarray(x.astype(jnp.float32), np.float64) for x in (query, slots.keys, slots.values))
    if slots.scales is not None:
        keys, values = (x * np.asarray(slots.scales, np.float64)[:, i, ..., None] for i, x in enumerate((keys, values)))
    found = np.zeros(query.shape)
    for b, t in np.argwhere(length > 0):
        n = length[b, t]
        score = np.einsum("hk,hwk->hw", query[b, t], keys[b, :, :n]) / math.sqrt(query.shape[-1])
        weight = np.exp(score - score.max(axis=-1, keepdims=True))
        found[b, t] = np.einsum("hw,hwk->hk", weight / weight.sum(axis=-1, keepdims=True), values[b, :, :n])
    return found


@pytest.mark.parametrize(("slots", "size", "dtype"), [(100, 64, "bfloat16"), (48, 12, "float32"), (24, 12, "int8")])
def test_the_kernel_is_attention_to_the_filled_slots(slots: int, size: int, dtype: str) -> None:
    """Lengths at the edges of blocks of 16 slots; windows and heads that are no power of two among them."""
    query, kept = inputs_of(slots, size, dtype)
    exact = 1e-2 if dtype == "bfloat16" else 2e-6
    for length in ([[1], [15], [16], [slots]], [[17], [slots - 1], [0], [3]]):
        got = attention_kernel.attend(query, *kept, jnp.asarray(length), cut=Cut(16, 4), interpret=True)
        assert got.dtype == query.dtype
        np.testing.assert_allclose(got.astype(jnp.float32), plain(query, kept, np.asarray(length)), atol=exact)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_every_way_gives_what_the_kernel_gives(dtype: str) -> None:
    """With several queries a trajectory, each of a length of its own, and with one."""
    query, kept = inputs_of(32, 8, dtype, queries=3)
    length = np.array([[1, 2, 3], [30, 31, 32], [9, 0, 0], [16, 17, 18]])
    wanted = plain(query, kept, length)
    seen = jnp.arange(32) < length[:, :1, None]

    @functools.partial(jax.jit, static_argnums=0)
    def found(ways: kernels.Kernels, query: jax.Array, kept: Slots) -> tuple[jax.Array, ...]:
        ring = kept._replace(keys=jnp.swapaxes(kept.keys, -1, -2)) if ways.attention == "columns" else kept
        return (cached_attention.attend(ways, query, kept, jnp.asarray(length), ComputeSpec()),
                *(cached_attention.attend_one(CacheSpec(mode=mode, kernels=ways), query[:, :1], slots, seen, seen)
                  for mode, slots in (("rolling", ring), ("refresh", kept))))

    for ways in (BY_KERNEL, kernels.CPU):  # in rings the first takes sums, the second columns
        got, *of_one = found(ways, query, kept)
        np.testing.assert_allclose(got[length > 0], wanted[length > 0], atol=5e-6)
        for one in of_one:
            np.testing.assert_allclose(one, wanted[:, 0], atol=5e-6)


def test_slots_beyond_the_length_are_not_read() -> None:
    query, kept = inputs_of(64, 16, "float32")
    length = jnp.asarray([[1], [15], [33], [64]])
    beyond = (np.arange(64) >= np.asarray(length))[:, None, :, None]
    damaged = Slots(jnp.where(beyond, jnp.nan, kept.keys), jnp.where(beyond, jnp.nan, kept.values), None)
    attend = functools.partial(attention_kernel.attend, cut=Cut(16, 4), interpret=True)
    np.testing.assert_array_equal(attend(query, *damaged, length), attend(query, *kept, length))


def test_a_trajectory_alone_has_the_bits_that_it_has_in_a_batch() -> None:
    query, kept = inputs_of(64, 16, "int8")
    length = jnp.asarray([[5], [64], [16], [40]])
    batch = attention_kernel.attend(query, *kept, length, cut=Cut(16, 4), interpret=True)
    for row in (0, 3):
        alone = attention_kernel.attend(*jax.tree.map(lambda x, at=row: x[at : at + 1], (query, *kept, length)),
                                        cut=Cut(16, 4), interpret=True)
        np.testing.assert_array_equal(alone[0], batch[row])


@pytest.mark.parametrize(("layers", "append", "burst"),
                         [(2, 4, 30), pytest.param(1, 1, 0, marks=pytest.mark.slow)])
def test_decoding_by_the_kernel_equals_the_full_model(layers: int, append: int, burst: int) -> None:
    """Over refreshes, bursts and rewritten tokens."""
    cache = dataclasses.replace(KERNEL, append=append)
    model, flow = random_params(spec_of(layers)), random_flow(60, BATCH, 2, burst)
    state, got = decoded(model, cache, kv_cache.empty(model, cache, BATCH), flow)
    wanted, twins = expected(model, cache, flow)
    assert gap(got, wanted) < TOLERANCE
    np.testing.assert_array_equal(state.length, [twin.length for twin in twins])


@pytest.mark.parametrize("cache", [IN_8_BITS[0], pytest.param(IN_8_BITS[1], marks=pytest.mark.slow), IN_8_BITS[2]],
                         ids=["rolling", "refresh", "refresh by the kernel"])
def test_8_bits_decode_near_the_full_model(cache: CacheSpec) -> None:
    """A number of 8 bits is within half of 1/127 of its vector's largest: predictions come within a few hundredths."""
    model, flow = random_params(spec_of(1 if cache.mode == "rolling" else 2)), random_flow(60, BATCH, 2)
    state, got = decoded(model, cache, kv_cache.empty(model, cache, BATCH), flow)
    wanted, _ = expected(model, cache, flow)
    assert 1e-5 < gap(got, wanted) < 0.05
    assert all(x.dtype == jnp.int8 for x in (*state.keys, *state.values))
    assert all(x.dtype == jnp.float32 and x.shape == (BATCH, 2, *state.values[0].shape[1:3]) for x in state.scales)


@pytest.mark.slow
def test_the_kernel_and_the_compiler_agree_on_8_bits() -> None:
    """A number on the edge of two of the 256 may fall on either side of it."""
    model, flow = random_params(spec_of(2)), random_flow(CHUNK, BATCH, 2)
    found = [decoded(model, cache, kv_cache.empty(model, cache, BATCH), flow)[1] for cache in IN_8_BITS[1:]]
    assert gap(*found) < 5e-3


def test_what_is_kept_in_8_bits_is_within_half_a_step() -> None:
    drawn = np.random.default_rng(0).normal(size=(50, 2, 16)) * 10.0 ** np.arange(-3, 2)[:, None, None, None]
    x = jnp.asarray(drawn, jnp.float32).at[0, 0, 0].set(0)
    keys, values, scales = cached_attention.kept(CacheSpec(cache_dtype="int8"), x, -x)
    np.testing.assert_array_equal(keys, -values)
    np.testing.assert_array_equal(scales[0], scales[1])
    assert np.all(np.abs(keys * scales[0][..., None] - x) <= scales[0][..., None] * 0.5001)
    assert np.all(np.max(np.abs(np.asarray(keys, int)), axis=-1)[np.asarray(scales[0]) > 0] == 127)
    assert not np.any(keys[0, 0, 0]) and scales[0][0, 0, 0] == 0


@pytest.mark.parametrize("cache", [IN_8_BITS[0], pytest.param(IN_8_BITS[2], marks=pytest.mark.slow)])
def test_a_start_in_8_bits_is_what_appending_gives(cache: CacheSpec) -> None:
    """Where all tokens fit into what a start keeps."""
    model = random_params(spec_of(1 if cache.mode == "rolling" else 2))
    tokens = random_tokens(np.random.default_rng(0), (BATCH, 20), model.spec.tokens)
    count = np.array([20, 1, 7], np.int32)
    empty, again = kv_cache.empty(model, cache, BATCH), np.zeros(BATCH, bool)
    calls = [lambda: kv_cache.start(model, cache, tokens, count),
             lambda: kv_cache.append_all(model, cache, empty, tokens, count, again, 1)]
    assert gap(*(np.asarray(jax.jit(lambda of=of: kv_cache.predict(model, cache, of()))()) for of in calls)) < 5e-3


def test_one_trace_of_the_kernel_serves_all_steps() -> None:
    model, traces = random_params(spec_of(2)), []
    cache = dataclasses.replace(KERNEL, cache_dtype="int8")
    step = step_of(cache, lambda: traces.append(1))
    flow, state = random_flow(20, 2, 4, burst=6), kv_cache.empty(model, cache, 2)
    for index in range(20):
        after, _ = step.eval_shape(model, state, *jax.tree.map(lambda x, i=index: x[i], flow), np.int32(index))
        assert jax.tree.structure(after) == jax.tree.structure(state)
        assert all((x.shape, x.dtype) == (y.shape, y.dtype)
                   for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True))
    assert len(traces) == 1


def test_the_kernel_is_compiled_for_a_gpu_in_contexts_alone() -> None:
    model = random_params(spec_of(1))
    for cache, is_there in ((REFRESH, True), (ROLLING, False)):
        cache = dataclasses.replace(cache, kernels=kernels.GPU, append=1)
        state = kv_cache.empty(model, cache, 2)
        jaxpr = str(jax.make_jaxpr(lambda state, cache=cache: kv_cache.predict(model, cache, state))(state))
        assert ("pallas_call" in jaxpr) == is_there


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
def test_the_kernel_is_lowered_to_triton(dtype: str) -> None:
    query, kept = inputs_of(1024, 64, dtype)
    query = query if dtype == "float32" else query.astype(jnp.bfloat16)
    traced = attention_kernel.attend.trace(query, *kept, jnp.ones((4, 1), jnp.int32))
    try:
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    except NotImplementedError:  # a RuntimeError too: something in them cannot be lowered
        raise
    except RuntimeError as error:
        pytest.skip(f"this JAX lowers it where a GPU is: {error}")
    assert "xla.gpu.triton" in text


def test_a_context_beyond_the_kernels_offsets_is_read_another_way() -> None:
    """They are 32 bits wide for arrays of up to 2^32 bytes, though they count elements."""
    fits = attention_kernel.fits
    assert fits((2048, 16, 1024, 64), "int8") and not fits((2049, 16, 1024, 64), "int8")
    assert fits((2049, 16, 1024, 64), "bfloat16") and fits((8192, 16, 1024, 64), "int8")
