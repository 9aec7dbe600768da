"""Linear attention: chunks, single steps and the definition are one; decoding is the full model, beyond its window."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.checkpoint import folder, safetensors
from marsjax.core import kernels
from marsjax.core.specs import CacheSpec, ModelSpec
from marsjax.model import kv_cache, linear_attention, llama, memory
from marsjax.model.llama import OrderModel
from tests.model.test_kv_cache import BATCH, BINS, CHUNK, IN_PAIRS, WINDOW, Flow, decoded, expected, gap, random_flow
from tests.model.test_llama import random_params, random_tokens

RECURRENT = CacheSpec("recurrent", append=4, block=2, kernels=IN_PAIRS)
WHOLE = CacheSpec("recurrent", append=1, kernels=kernels.ACCELERATOR)
TOLERANCE = 2e-4


def spec_of(layers: int, window: int = WINDOW) -> ModelSpec:
    return ModelSpec(16, layers, 2, window, BINS, mixer="linear")


def with_window(model: OrderModel, window: int) -> OrderModel:
    """The same weights, for sequences of another length: none of them has to do with it."""
    return OrderModel(dataclasses.replace(model.spec, context_length=window), model.weights(), model.compute)


def by_definition(query: np.ndarray, key: np.ndarray, value: np.ndarray, fading: np.ndarray) -> np.ndarray:
    """S <- a S + k v^T, then q S / sqrt(n), token by token, in float64; [T, h, k]."""
    sums, found = np.zeros((query.shape[1], query.shape[2], query.shape[2])), []
    for q, k, v, fade in zip(*(x.astype(np.float64) for x in (query, key, value, fading)), strict=True):
        sums = np.exp(fade)[:, None, None] * sums + k[:, :, None] * v[:, None, :]
        found.append(np.einsum("hk,hkm->hm", q, sums) / np.sqrt(query.shape[2]))
    return np.array(found)


@pytest.mark.parametrize("strength", [0.01, 40.0], ids=["long memory", "forgets at once"])
def test_chunks_of_any_size_are_the_definition(strength: float) -> None:
    rng = np.random.default_rng(0)
    query, key, value = rng.normal(size=(3, 45, 2, 4)).astype(np.float32)
    fading = -strength * rng.random((45, 2)).astype(np.float32)
    wanted = by_definition(query, key, value, fading)
    for chunk in (1, 7, 16, 45, 64):
        got = linear_attention.read_all(query, key, value, fading, chunk=chunk)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    half = linear_attention.write_all(np.zeros((2, 4, 4)), *(jnp.asarray(x[:20]) for x in (key, value, fading)))
    rest = linear_attention.read_all(*(x[20:] for x in (query, key, value, fading)), sums=half, chunk=8)
    np.testing.assert_allclose(rest, wanted[20:], rtol=1e-4, atol=1e-4)


def test_no_tokens_read_nothing() -> None:
    assert linear_attention.read_all(*(jnp.zeros((3, 0, 2, 4)),) * 3, jnp.zeros((3, 0, 2))).shape == (3, 0, 2, 4)


def test_gradients_of_chunks_are_those_of_one_and_are_numbers_where_all_is_forgotten() -> None:
    rng = np.random.default_rng(0)
    given = *rng.normal(size=(3, 33, 2, 4)).astype(np.float32), -300 * rng.random((33, 2)).astype(np.float32)**4

    def slopes(chunk: int) -> tuple[jax.Array, ...]:
        def total(*x: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(linear_attention.read_all(*x, chunk=chunk)))

        return jax.grad(total, argnums=(0, 1, 2, 3))(*given)

    one, several = slopes(33), slopes(8)
    for a, b in zip(one, several, strict=True):
        assert np.isfinite(a).all() and float(jnp.max(jnp.abs(a))) > 0
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("layers", "cache", "burst"), [(1, RECURRENT, 0), (2, RECURRENT, 30), (2, WHOLE, 30)],
                         ids=["one layer", "in blocks", "whole batch"])
def test_the_recurrent_step_is_the_full_model_far_beyond_a_window(layers: int, cache: CacheSpec, burst: int) -> None:
    """With bursts and rewritten tokens; the window bounds what is trained on and what a start is given."""
    steps, wide = 120, 1024
    model, flow = random_params(spec_of(layers)), random_flow(steps, BATCH, 2, burst)
    state, got = decoded(model, cache, kv_cache.empty(model, cache, BATCH), flow)
    wanted, twins = expected(with_window(model, wide), cache, flow)
    assert min(len(twin.all) for twin in twins) > WINDOW and max(len(twin.all) for twin in twins) < wide
    assert gap(got, wanted) < TOLERANCE
    np.testing.assert_array_equal(state.total, [len(twin.all) for twin in twins])
    np.testing.assert_array_equal(state.refreshes, 0)


def test_the_memory_has_one_size_and_a_far_smaller_one_than_a_window() -> None:
    model = random_params(spec_of(2, 1024))
    attention = random_params(dataclasses.replace(model.spec, mixer="attention"))
    sizes = [sum(x.nbytes for x in jax.tree.leaves(kv_cache.empty(of, cache, 1)))
             for of, cache in ((model, RECURRENT), (with_window(model, 64), RECURRENT), (attention, CacheSpec()))]
    assert sizes[0] == sizes[1] < sizes[2] / 100


@pytest.mark.parametrize("layers", [1, 2])
def test_a_start_is_the_end_of_a_window(layers: int) -> None:
    rng, count = np.random.default_rng(0), np.array([0, 1, 20, 64], np.int32)
    model, tokens = random_params(spec_of(layers)), random_tokens(rng, (4, WINDOW), BINS)
    state = jax.jit(kv_cache.start, static_argnums=1)(model, RECURRENT, tokens, count)
    got = jax.jit(kv_cache.predict, static_argnums=1)(model, RECURRENT, state)
    wanted = np.asarray(model.hidden(tokens))[np.arange(4), np.maximum(count - 1, 0)]
    assert gap(got[1:], wanted[1:]) < TOLERANCE
    np.testing.assert_array_equal(state.total, count)
    assert not any(np.asarray(x)[0].any() for x in jax.tree.leaves(state.memories)), "without tokens nothing is kept"


def test_a_rewritten_token_leaves_no_trace() -> None:
    model, tokens = random_params(spec_of(2)), random_tokens(np.random.default_rng(0), (BATCH, 4), BINS)

    def step(state: kv_cache.State, at: int, count: list[int], replaces_last: bool) -> kv_cache.State:
        new = jax.tree.map(lambda x: np.roll(x, -at, axis=1), tokens)
        flow = Flow(new, np.array(count, np.int32), np.array([replaces_last] * BATCH))
        empty = jax.tree.map(lambda x: np.concatenate([x[None], np.zeros((CHUNK - 1, *x.shape), x.dtype)]), flow)
        return decoded(model, RECURRENT, state, empty, first=1)[0]

    before = step(kv_cache.empty(model, RECURRENT, BATCH), 0, [2, 2, 2], False)
    wrong = step(before, 2, [1, 1, 0], False)
    right, plain = step(wrong, 3, [1, 1, 0], True), step(before, 3, [1, 1, 0], False)
    assert not np.array_equal(wrong.memories[0].key, plain.memories[0].key)
    jax.tree.map(np.testing.assert_array_equal, right.memories, plain.memories)


def test_a_trajectory_is_bitwise_the_same_in_any_batch() -> None:
    cache = dataclasses.replace(RECURRENT, kernels=kernels.CPU)
    model, flow = random_params(spec_of(2)), random_flow(CHUNK, 17, 3)
    found = {}
    for batch in (17, 1):
        part = jax.tree.map(lambda x, n=batch: x[:, -n:], flow)
        found[batch] = decoded(model, cache, kv_cache.empty(model, cache, batch), part)[1]
    np.testing.assert_array_equal(found[1], found[17][:, -1:])


def test_fresh_heads_forget_by_half_after_as_many_tokens_as_they_are_given() -> None:
    lives = linear_attention.half_lives(4)
    np.testing.assert_allclose(lives[1:] / lives[:-1], 4, rtol=1e-5)
    model = llama.init(spec_of(1), jax.random.key(0))
    fading = model.layer(0).fading(jnp.zeros((1, 16)))[0]
    np.testing.assert_allclose(np.exp(np.asarray(fading) * linear_attention.half_lives(2)), 0.5, rtol=1e-5)


def test_checkpoints_keep_how_tokens_are_read(tmp_path) -> None:
    model = random_params(spec_of(2))
    folder.save(tmp_path / "linear", model, {}, {})
    again = folder.restore(tmp_path / "linear").model
    assert again.spec == model.spec
    jax.tree.map(np.testing.assert_array_equal, again.weights(), model.weights())
    attention = random_params(dataclasses.replace(model.spec, mixer="attention"))
    folder.save(tmp_path / "attention", attention, {}, {})
    assert "mixer" not in (tmp_path / "attention" / "spec.json").read_text()
    with pytest.raises(ValueError, match="no model with mixer=linear"):
        safetensors.write(tmp_path, model)


@pytest.mark.parametrize(("mode", "mixer", "expected"), [
    ("rolling", "linear", "expected recurrent or recompute of a model with mixer=linear, got 'rolling'"),
    ("refresh", "linear", "expected recurrent or recompute of a model with mixer=linear, got 'refresh'"),
    ("recurrent", "attention", "expected rolling or refresh or recompute of a model with mixer=attention, got 'recur")])
def test_what_does_not_apply_is_refused(mode: str, mixer: str, expected: str) -> None:
    model = random_params(dataclasses.replace(spec_of(1), mixer=mixer))
    with pytest.raises(ValueError, match=re.escape(expected)):
        kv_cache.empty(model, CacheSpec(mode), 1)
    with pytest.raises(ValueError, match="expected attention or linear, got 'mamba'"):
        ModelSpec(mixer="mamba")
    with pytest.raises(ValueError, match="expected model where mode is recurrent"):
        CacheSpec("recurrent", cache_dtype="int8")
    assert memory.empty(spec_of(1), 1)[0].sums.shape == (1, 2, 8, 8)
