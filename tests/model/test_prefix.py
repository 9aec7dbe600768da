"""Slots that contexts have in common, read once for all of them: the same attention and decoding as from own copies."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core import kernels
from marsjax.core.errors import InputError
from marsjax.core.records import Token
from marsjax.core.specs import CacheSpec, ComputeSpec
from marsjax.model import cached_attention, kv_cache, prefix, prefix_kernel
from marsjax.model.attention_kernel import LOG2_E, Earlier
from marsjax.model.cached_attention import Slots
from marsjax.model.layers import FLOAT32, MASKED
from marsjax.model.llama import OrderModel
from marsjax.model.prefix import Prefix
from marsjax.model.prefix_kernel import PrefixCut
from tests.model.test_cached_attention import KERNEL, inputs_of, plain
from tests.model.test_kv_cache import (
    BINS,
    REFRESH,
    TOLERANCE,
    WHOLE_REFRESH,
    Flow,
    gap,
    hidden_at,
    random_flow,
    random_params,
    random_tokens,
    spec_of,
)

pytestmark = pytest.mark.quick

WAYS = {"blocks": kernels.CPU, "whole batch": kernels.ACCELERATOR,
        "kernel": dataclasses.replace(kernels.ACCELERATOR, attention="interpreted")}
BATCH, STEPS, HISTORY = 5, 40, 50
"""Trajectories, steps of which the 25th refreshes, and tokens before the start, of which 32 are kept."""


def in_common(count: int, slots: Slots, dtype: str) -> tuple[Prefix, Slots]:
    """The first slots of the first context as a prefix, and all contexts with a copy of them."""
    first = [None if x is None else x[:1] for x in slots]
    keys, values = (x.at[:, :, :count].set(one[:, :, :count]) for x, one in zip(slots[:2], first[:2], strict=True))
    scales = None if slots.scales is None else slots.scales.at[..., :count].set(first[2][..., :count])
    return prefix.of_slots([Slots(*first)], count, ComputeSpec(dtype=dtype)), Slots(keys, values, scales)


@pytest.mark.parametrize(("way", "size", "dtype", "exact"), [
    ("blocks", 16, "float32", 5e-6), ("whole batch", 16, "float32", 5e-6), ("kernel", 16, "float32", 5e-6),
    ("kernel", 16, "bfloat16", 2e-2), ("kernel", 12, "int8", 5e-6),
    pytest.param("blocks", 12, "int8", 5e-6, marks=pytest.mark.slow),
    pytest.param("whole batch", 16, "bfloat16", 2e-2, marks=pytest.mark.slow)])
def test_both_parts_together_are_attention_to_all_slots(way: str, size: int, dtype: str, exact: float) -> None:
    """Contexts all of whose slots are common, all but one, none, and others behind them; three queries, and one."""
    compute, ways = ComputeSpec(dtype="bfloat16" if dtype == "bfloat16" else "float32"), WAYS[way]
    query, slots = inputs_of(100, size, dtype, 3)
    common, slots = in_common(70, slots, compute.dtype)
    length = np.add([[70], [71], [90], [100]], [0, -2, -1])
    count = np.minimum([[70], [69], [0], [70]], length)

    @jax.jit
    def attended(query: jax.Array, slots: Slots) -> tuple[jax.Array, jax.Array]:
        earlier = prefix.attend(common, 0, query, jnp.asarray(count), slots, ways, compute)
        every = cached_attention.attend(ways, query, slots, jnp.asarray(length), compute, earlier)
        if cached_attention.by_kernel(ways, slots):
            return every, every[:, :1]
        seen = jnp.arange(100) < length[:, :1, None]
        return every, cached_attention.attend_one(CacheSpec(kernels=ways), query[:, :1], slots, seen, seen,
                                                  Earlier(*(x[:, :1] for x in earlier)))[:, None]

    for got in attended(query, slots):
        assert got.dtype == query.dtype
        wanted = plain(query, slots, length)[:, :got.shape[1]]
        np.testing.assert_allclose(got.astype(jnp.float32), wanted, atol=exact)


def test_slots_in_common_are_not_read_from_a_contexts_own_copy() -> None:
    query, slots = inputs_of(48, 16, "float32")
    common, slots = in_common(20, slots, "float32")
    count = jnp.asarray([[20], [19], [20], [0]])
    unread = (np.arange(48) < np.asarray(count))[:, None, :, None]
    damaged = Slots(jnp.where(unread, 1e9, slots.keys), jnp.where(unread, 1e9, slots.values), None)
    for ways in (WAYS["whole batch"], WAYS["kernel"]):
        found = []
        for kept in (slots, damaged):
            earlier = prefix.attend(common, 0, query, count, kept, ways, ComputeSpec())
            found.append(cached_attention.attend(ways, query, kept, jnp.asarray([[20], [33], [48], [1]]), ComputeSpec(),
                                                 earlier))
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(("dtype", "exact"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_the_kernel_of_common_slots_is_the_softmax_of_each_query(dtype: str, exact: float) -> None:
    """Of five queries in programs of two; of two of them no slot is common, and one has one slot."""
    rng = np.random.default_rng(0)
    query, keys, values = (jnp.asarray(rng.normal(size=shape), dtype) for shape in (
        (5, 2, 16), (2, 16, 64), (2, 64, 16)))
    count = np.array([64, 33, 0, 0, 1])
    most, total, mixed = prefix_kernel.attend(query, keys, values, count, cut=PrefixCut(2, 16), interpret=True)
    score = np.einsum("nhk,hkp->nhp", *(np.asarray(x, np.float64) for x in (query, keys))) * LOG2_E / 4
    seen = (np.arange(64) < count[:, None])[:, None]
    wanted = np.max(np.where(seen, score, MASKED), axis=-1)
    weight = np.where(seen, 2 ** np.minimum(score - wanted[..., None], 0), 0)
    np.testing.assert_allclose(most, wanted, rtol=exact)
    np.testing.assert_allclose(total, weight.sum(axis=-1), rtol=exact)
    np.testing.assert_allclose(mixed, np.einsum("nhp,hpk->nhk", weight, np.asarray(values, np.float64)), atol=4 * exact)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_the_kernels_are_lowered_to_triton(dtype: str) -> None:
    query, slots = inputs_of(1024, 64, dtype)
    query, (common, slots) = query.astype(jnp.bfloat16), in_common(512, slots, "bfloat16")
    count = jnp.full((4, 1), 512, jnp.int32)

    @jax.jit
    def attend(query: jax.Array, slots: Slots) -> jax.Array:
        compute = ComputeSpec(dtype="bfloat16")
        earlier = prefix.attend(common, 0, query, count, slots, kernels.GPU, compute)
        return cached_attention.attend(kernels.GPU, query, slots, count + 1, compute, earlier)

    assert str(jax.make_jaxpr(attend)(query, slots)).count("pallas_call") == 2
    try:
        text = attend.trace(query, slots).lower(lowering_platforms=("cuda",)).as_text()
    except NotImplementedError:  # a RuntimeError too: something in them cannot be lowered
        raise
    except RuntimeError as error:
        pytest.skip(f"this JAX lowers it where a GPU is: {error}")
    assert text.count("xla.gpu.triton") == 2


def test_which_keys_the_kernel_takes() -> None:
    fits = prefix_kernel.fits
    assert fits((16, 64, 512), "bfloat16") and not fits((16, 64, 512), "float32")
    assert not fits((2, 8, 64), "bfloat16") and not fits((2, 48, 64), "bfloat16")


@pytest.mark.parametrize(("changes", "says"), [
    ({"prefix": "both"}, "CacheSpec.prefix: expected own or shared, got 'both'"),
    ({"prefix": "shared", "mode": "rolling"}, "CacheSpec.prefix: expected own where mode is rolling"),
    ({"prefix": "shared", "mode": "recompute"}, "CacheSpec.prefix: expected own where mode is recompute")])
def test_only_contexts_that_keep_their_start_share_it(changes: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        CacheSpec(**changes)


@functools.partial(jax.jit, static_argnums=(1, 5))
def rolled(model: OrderModel, cache: CacheSpec, history: Token, count: Any, flow: Flow, shares: bool
           ) -> tuple[kv_cache.State, jax.Array, jax.Array]:
    """From one history [1, N]: the state after all steps, hidden states [1 + S, B, d], common slots [S, B]."""
    one = kv_cache.start(model, cache, history, count)
    common = kv_cache.prefix_of(model, cache, one) if shares else None
    batch = flow.count.shape[1]
    state = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape[1:])), one)
    if shares:
        state = dataclasses.replace(state, of_prefix=state.length)

    def step(carry: Any, new: Flow) -> tuple[Any, Any]:
        state, index = carry
        state = kv_cache.append_all(model, cache, state, *new, index, common)
        left = state.of_prefix if shares else state.length
        return (state, index + 1), (kv_cache.predict(model, cache, state, common), left)

    (after, _), (hidden, left) = jax.lax.scan(step, (state, jnp.int32(1)), flow)
    return after, jnp.concatenate([kv_cache.predict(model, cache, state, common)[None], hidden]), left


@functools.cache
def decoded(cache: CacheSpec, way: str, count: int = HISTORY, batch: int = BATCH, burst: int = 0,
            compute: ComputeSpec = FLOAT32, heads: int = 2) -> tuple[Any, ...]:
    """What `rolled` gives, the same tokens always; the prefix is own or shared."""
    model = random_params(dataclasses.replace(spec_of(2), heads=heads)).replace(compute=compute)
    history = random_tokens(np.random.default_rng(5), (1, HISTORY), BINS)
    flow = jax.tree.map(lambda x: x[:, :batch], random_flow(STEPS, BATCH, 2, burst))
    flow.replaces_last[:3] = [[True, False, False, False, False][:batch], [False, True, True, False, False][:batch],
                              [True, True, False, False, False][:batch]]
    flow.count[:3] = np.array([[1, 1, 0, 2, 1], [0, 0, 1, 2, 1], [1, 2, 1, 1, 1]])[:, :batch]
    found = rolled(model, dataclasses.replace(cache, prefix=way), history, np.array([count]), flow, way == "shared")
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize(("cache", "count"), [
    (KERNEL, HISTORY), pytest.param(REFRESH, HISTORY, marks=pytest.mark.slow),
    pytest.param(WHOLE_REFRESH, HISTORY, marks=pytest.mark.slow), pytest.param(KERNEL, 9, marks=pytest.mark.slow)],
    ids=["kernel", "blocks", "whole batch", "short start by the kernel"])
def test_decoding_with_a_shared_prefix_is_decoding(cache: CacheSpec, count: int) -> None:
    """Over rewritten tokens and a refresh; by the kernel no bit differs where nothing is in common."""
    (own, wanted, _), (state, got, left) = decoded(cache, "own", count), decoded(cache, "shared", count)
    assert gap(got, wanted) < 1e-5 and not np.array_equal(got[:25], wanted[:25])
    kept = min(count, cache.kept(spec_of(2)))
    # Trajectories 0 and 2 rewrote the last common token as the first they did; 1 wrote one before it rewrote.
    rewritten = np.broadcast_to([1, 0, 1, 0, 0], (23, BATCH)).copy()
    rewritten[0, 2] = 0
    np.testing.assert_array_equal(left[:23], kept - rewritten)
    # A context that is no longer than what a refresh keeps is not refreshed.
    assert np.any(left[23:] == 0) and (count < HISTORY or np.all(left[23:] == 0))
    if cache == KERNEL:
        np.testing.assert_array_equal(got[1:][left == 0], wanted[1:][left == 0])
    for name in ("total", "length", "refreshes"):
        np.testing.assert_array_equal(getattr(state, name), getattr(own, name))


@pytest.mark.slow
def test_a_start_with_a_shared_prefix_is_the_models() -> None:
    _, got, _ = decoded(REFRESH, "shared")
    history = random_tokens(np.random.default_rng(5), (1, HISTORY), BINS)
    last = jax.tree.map(lambda x: np.pad(x[:, -32:], [(0, 0), (0, 32)] + [(0, 0)] * (x.ndim - 2)), history)
    wanted = np.asarray(hidden_at(random_params(spec_of(2)), last, np.array([31])))
    assert gap(got[0], np.repeat(wanted, BATCH, axis=0)) < TOLERANCE


@pytest.mark.slow
def test_a_burst_refreshes_one_context_and_leaves_the_others_theirs() -> None:
    """Thirty tokens in a step, several passes: a context that is full is refreshed by itself."""
    (own, wanted, _), (state, got, left) = (decoded(KERNEL, way, burst=30) for way in ("own", "shared"))
    assert gap(got, wanted) < 1e-5
    np.testing.assert_array_equal(state.refreshes, own.refreshes)
    assert state.refreshes.max() > 0 and np.any((left == 0) != (left == 0).all(axis=1, keepdims=True))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "exact"), [("int8", 5e-3), ("bfloat16", 0.1)])
def test_other_numbers_decode_as_near_with_a_shared_prefix(kind: str, exact: float) -> None:
    """By both kernels in bfloat16."""
    cache = dataclasses.replace(KERNEL, cache_dtype="int8") if kind == "int8" else KERNEL
    compute = ComputeSpec(dtype="bfloat16") if kind == "bfloat16" else FLOAT32
    (_, wanted, _), (_, got, _) = (decoded(cache, way, compute=compute, heads=1) for way in ("own", "shared"))
    assert gap(got.astype(np.float32), wanted.astype(np.float32)) < exact


@pytest.mark.slow
@pytest.mark.parametrize("cache", [REFRESH, KERNEL], ids=["blocks", "kernel"])
def test_a_trajectory_depends_on_no_other(cache: CacheSpec) -> None:
    """To the bit: the first three of five, which are in other blocks of rows then."""
    (_, whole, _), (_, some, _) = decoded(cache, "shared"), decoded(cache, "shared", batch=3)
    np.testing.assert_array_equal(some, whole[:, :3])
