"""The cached decode step equals the full model on the contexts that a plain-Python twin keeps, and its laws."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import decode, model
from marsjax.specs import CacheSpec, ComputeSpec, ModelSpec, TokenSpec
from marsjax.types import Token
from tests.test_model import random_params, random_tokens

BINS = TokenSpec(8, 8, 4)
WINDOW = 64
TOLERANCE = 2e-4
ROLLING = CacheSpec("rolling", append=4, rows=2)
HOP = CacheSpec("hop", hop=24, margin=8, append=4, block=4, rows=2)
RECOMPUTE = CacheSpec("recompute", append=4, block=4, rows=2)
BATCH, CHUNK = 3, 30
"""Trajectories, and steps a call, of most tests: with a spec in common they have a compilation in common."""


def spec_of(layers: int) -> ModelSpec:
    return ModelSpec(16, layers, 2, WINDOW, BINS)


class Flow(NamedTuple):
    """S steps of B trajectories: up to N tokens each, [S, B, N] and [S, B]."""

    tokens: Token
    count: np.ndarray
    replaces_last: np.ndarray


def random_flow(steps: int, batch: int, most: int, burst: int = 0, seed: int = 0) -> Flow:
    """Up to `most` (at most 4) tokens a step, now and then `burst`; one step in five rewrites the newest token."""
    rng = np.random.default_rng(seed)
    shape = (steps, batch)
    count = rng.integers(0, most + 1, shape)
    if burst:
        count = np.where(rng.random(shape) < 0.02, burst, count)
    count[0] = np.maximum(count[0], 1)
    count[24:25], count[48:49] = max(most, burst), 0  # steps that cut: with the most tokens there are, and with none
    replaces_last = rng.random(shape) < np.where(count > most, 0.5, 0.2)
    tokens = random_tokens(rng, (*shape, max(4, burst)), BINS)
    return Flow(tokens, count.astype(np.int32), replaces_last)


@functools.partial(jax.jit, static_argnums=(1, 2))
def decoded_at_once(params: model.Params, spec: ModelSpec, cache: CacheSpec, state: decode.State, flow: Flow,
                    first: Any = 0) -> tuple[decode.State, jax.Array]:
    """The state after all steps, and the hidden states [S, B, d] at each."""
    def step(carry: Any, new: Flow) -> tuple[Any, jax.Array]:
        state, index = carry
        state = decode.append_all(params, spec, cache, state, *new, index)
        return (state, index + 1), decode.predict(params, spec, cache, state)

    (state, _), hidden = jax.lax.scan(step, (state, jnp.int32(first)), flow)
    return state, hidden


def decoded(params: model.Params, spec: ModelSpec, cache: CacheSpec, state: decode.State, flow: Flow, first: int = 0
            ) -> tuple[decode.State, np.ndarray]:
    """The same, CHUNK steps a call."""
    parts = []
    for at in range(0, len(flow.count), CHUNK):
        part = jax.tree.map(lambda x, at=at: x[at : at + CHUNK], flow)
        state, hidden = decoded_at_once(params, spec, cache, state, part, first + at)
        parts.append(np.asarray(hidden))
    return state, np.concatenate(parts)


@functools.partial(jax.jit, static_argnums=1)
def hidden_at(params: model.Params, spec: ModelSpec, contexts: Token, last: jax.Array) -> jax.Array:
    """The full model's hidden states [B, d] at the last tokens of contexts [B, WINDOW]; what comes later is unseen."""
    return model.hidden(params, spec, contexts)[jnp.arange(len(last)), last]


class Twin:
    """The context of one trajectory, as a list of tokens, and how often it was cut by itself."""

    def __init__(self, spec: ModelSpec, cache: CacheSpec) -> None:
        self.spec, self.cache, self.all, self.length, self.cuts = spec, cache, [], 0, 0

    def step(self, index: int, new: list[Any], replaces_last: bool) -> list[Any]:
        kept = self.cache.kept(self.spec)
        if self.cache.mode == "hop" and index % self.cache.hop == 0:
            self.length = min(self.length, kept)
        for i in range(0, len(new), self.cache.append):
            part = new[i : i + self.cache.append]
            again = replaces_last and i == 0 and bool(self.all)
            if self.cache.mode == "hop" and self.length + len(part) - again > self.spec.max_orders:
                self.length, self.cuts = kept, self.cuts + 1
            self.all = self.all[: len(self.all) - again] + part
            self.length = min(self.length - again + len(part), self.spec.max_orders)
        return self.all[len(self.all) - self.length :]


def expected(params: model.Params, spec: ModelSpec, cache: CacheSpec, flow: Flow) -> tuple[np.ndarray, list[Twin]]:
    """Hidden states [S, B, d] of the full model on the contexts of twins."""
    steps, batch, most = flow.tokens.kind.shape
    twins = [Twin(spec, cache) for _ in range(batch)]
    numbers = np.arange(steps * batch * most).reshape(steps, batch, most)
    index, last = np.zeros((steps, batch, spec.max_orders), int), np.zeros((steps, batch), int)
    for s in range(steps):
        for b, twin in enumerate(twins):
            context = twin.step(s, list(numbers[s, b, : flow.count[s, b]]), bool(flow.replaces_last[s, b]))
            index[s, b, : len(context)], last[s, b] = context, len(context) - 1
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), flow.tokens)
    return np.stack([hidden_at(params, spec, jax.tree.map(lambda x, s=s: x[index[s]], flat), last[s])
                     for s in range(steps)]), twins


def gap(got: Any, wanted: np.ndarray) -> float:
    """Largest distance of two hidden states, relative to their length."""
    return float(np.max(np.linalg.norm(got - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)))


@pytest.mark.parametrize(("layers", "cache", "steps", "most", "burst"), [
    (1, ROLLING, 1500, 4, 0), (1, dataclasses.replace(ROLLING, rows=None), 1500, 4, 30), (2, HOP, 150, 2, 0),
    (2, dataclasses.replace(HOP, rows=None, append=1), 150, 2, 30), (1, HOP, 90, 2, 30), (2, RECOMPUTE, 60, 4, 30)],
    ids=["rolling in blocks", "rolling", "hop in blocks", "hop", "hop of one layer", "recompute"])
def test_decoding_equals_the_full_model_at_every_step(layers: int, cache: CacheSpec, steps: int, most: int,
                                                      burst: int) -> None:
    """With thirty tokens between two predictions, too, which take several passes."""
    spec = spec_of(layers)
    params, flow = random_params(spec), random_flow(steps, BATCH, most, burst)
    state, got = decoded(params, spec, cache, decode.empty(spec, cache, BATCH), flow)
    wanted, twins = expected(params, spec, cache, flow)
    assert not burst or np.any((flow.count == burst) & flow.replaces_last)
    assert gap(got, wanted) < TOLERANCE
    if cache.mode == "rolling":
        assert min(len(twin.all) for twin in twins) > 2500
    np.testing.assert_array_equal(state.length, [twin.length for twin in twins])
    np.testing.assert_array_equal(state.total, [len(twin.all) for twin in twins])
    np.testing.assert_array_equal(state.cuts, [twin.cuts for twin in twins])
    assert cache.mode != "hop" or not burst or max(twin.cuts for twin in twins) > 0


@pytest.mark.parametrize(("layers", "cache"), [(1, ROLLING), (2, HOP), (1, RECOMPUTE)],
                         ids=["rolling", "hop", "recompute"])
def test_a_start_is_the_end_of_a_window(layers: int, cache: CacheSpec) -> None:
    spec, rng = spec_of(layers), np.random.default_rng(0)
    params, count = random_params(spec), np.array([0, 1, 20, 64], np.int32)
    tokens = random_tokens(rng, (4, WINDOW), BINS)
    state = jax.jit(decode.start, static_argnums=(1, 2))(params, spec, cache, tokens, count)
    got = jax.jit(decode.predict, static_argnums=(1, 2))(params, spec, cache, state)
    kept = np.minimum(count, cache.kept(spec))
    index = np.clip(np.arange(WINDOW) + (count - kept)[:, None], 0, WINDOW - 1)
    contexts = jax.tree.map(lambda x: x[np.arange(4)[:, None], index], tokens)
    wanted = np.asarray(hidden_at(params, spec, contexts, np.maximum(kept - 1, 0)))
    assert gap(got[1:], wanted[1:]) < TOLERANCE
    np.testing.assert_array_equal(state.length, kept)
    np.testing.assert_array_equal(state.total, count)
    with pytest.raises(ValueError, match="at most max_orders=64 tokens, got 65"):
        decode.start(params, spec, cache, random_tokens(rng, (4, WINDOW + 1), BINS), count)


def test_a_rewritten_token_leaves_no_trace() -> None:
    for layers, cache in ((1, ROLLING), (2, HOP)):
        spec, rng = spec_of(layers), np.random.default_rng(0)
        params = random_params(spec)
        tokens = random_tokens(rng, (BATCH, 4), BINS)

        def step(state: decode.State, new: Token, count: list[int], replaces_last: list[bool], spec: ModelSpec = spec,
                 cache: CacheSpec = cache, params: model.Params = params) -> decode.State:
            """One step, and others without a token."""
            flow = Flow(new, np.array(count, np.int32), np.array(replaces_last))
            empty = jax.tree.map(lambda x: np.concatenate([x[None], np.zeros((CHUNK - 1, *x.shape), x.dtype)]), flow)
            return decoded(params, spec, cache, state, empty, first=1)[0]

        no, yes = [False] * 3, [True, False, False]
        before = step(decode.empty(spec, cache, BATCH), tokens, [3, 3, 3], no)
        wrong = step(before, random_tokens(rng, (BATCH, 4), BINS), [1, 0, 0], no)
        last = jax.tree.map(lambda x: np.roll(x, -3, axis=1), tokens)
        right, plain = step(wrong, last, [1, 0, 0], yes), step(before, last, [1, 0, 0], no)
        assert not np.array_equal(wrong.keys, plain.keys)
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, right, plain)))


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "cache"), [(1, ROLLING), (2, HOP)], ids=["rolling", "hop"])
def test_a_trajectory_is_bitwise_the_same_in_any_batch(layers: int, cache: CacheSpec) -> None:
    spec, cache = spec_of(layers), dataclasses.replace(cache, rows=16, block=16)
    params, flow = random_params(spec), random_flow(60, 64, 3, burst=20)
    states = {}
    for batch in (64, 1):
        part = jax.tree.map(lambda x, n=batch: x[:, -n:], flow)
        _, hidden = decoded(params, spec, cache, decode.empty(spec, cache, batch), part)
        logits = jax.jit(decode.logits, static_argnums=1)(params, cache, hidden[-1])
        states[batch] = np.asarray(hidden), np.asarray(logits)
        np.testing.assert_array_equal(states[batch][0], states[64][0][:, -batch:])
        np.testing.assert_array_equal(states[batch][1], states[64][1][-batch:])


def test_a_head_in_parts_draws_what_its_logits_draw() -> None:
    spec = spec_of(1)
    params, hidden = random_params(spec), jax.random.normal(jax.random.key(0), (500, spec.width))
    words = jax.random.bits(jax.random.key(1), (500, 2), jnp.uint32)
    draw = jax.jit(decode.sample, static_argnums=(1, 4))
    (plain, law), (parts, same) = (draw(params, dataclasses.replace(ROLLING, rows=rows), hidden, words, 1.0)
                                   for rows in (4, None))
    assert law.all() and same.all()
    assert (plain == parts).mean() > 0.99


def test_steps_in_chunks_are_bitwise_the_steps_at_once() -> None:
    spec = spec_of(2)
    params, flow = random_params(spec), random_flow(60, BATCH, 2)
    _, at_once = decoded_at_once(params, spec, HOP, decode.empty(spec, HOP, BATCH), flow)
    _, in_chunks = decoded(params, spec, HOP, decode.empty(spec, HOP, BATCH), flow)
    np.testing.assert_array_equal(in_chunks, at_once)


def test_positions_may_grow_without_bound() -> None:
    spec = spec_of(1)
    params, flow = random_params(spec), random_flow(150, BATCH, 3)
    first, rest = (jax.tree.map(lambda x, part=part: x[part], flow) for part in (slice(0, 90), slice(90, None)))
    state, _ = decoded(params, spec, ROLLING, decode.empty(spec, ROLLING, BATCH), first)
    later = dataclasses.replace(state, total=state.total + 1_000_000 * WINDOW)
    np.testing.assert_array_equal(decoded(params, spec, ROLLING, later, rest)[1],
                                  decoded(params, spec, ROLLING, state, rest)[1])


def test_bfloat16_decodes_near_float32() -> None:
    for layers, cache in ((1, ROLLING), (2, HOP)):
        spec, half = spec_of(layers), dataclasses.replace(cache, compute=ComputeSpec(dtype="bfloat16"))
        params, flow = random_params(spec), random_flow(60, BATCH, 2)
        state, got = decoded(params, spec, half, decode.empty(spec, half, BATCH), flow)
        _, exact = decoded(params, spec, cache, decode.empty(spec, cache, BATCH), flow)
        assert state.keys.dtype == got.dtype == jnp.bfloat16
        assert 1e-4 < gap(got.astype(jnp.float32), np.asarray(exact)) < 0.1


def step_of(spec: ModelSpec, cache: CacheSpec, traced: Callable[[], None] = lambda: None) -> Any:
    def step(params: model.Params, state: decode.State, tokens: Token, count: Any, replaces_last: Any, index: Any
             ) -> tuple[decode.State, jax.Array]:
        traced()
        state = decode.append_all(params, spec, cache, state, tokens, count, replaces_last, index)
        return state, decode.predict(params, spec, cache, state)

    return jax.jit(step, donate_argnums=1)


@pytest.mark.parametrize(("layers", "cache"), [(1, ROLLING), (2, HOP)], ids=["rolling", "hop"])
@pytest.mark.parametrize("rows", [4, None], ids=["blocks", "whole batch"])
def test_the_cache_is_updated_in_place(layers: int, cache: CacheSpec, rows: int | None) -> None:
    spec, cache = dataclasses.replace(spec_of(layers), width=64), dataclasses.replace(cache, rows=rows)
    state = jax.eval_shape(lambda: decode.empty(spec, cache, 256))
    tokens = jax.tree.map(lambda x: x[0], random_flow(1, 256, 4))
    args = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (random_params(spec), state, *tokens))
    compiled = step_of(spec, cache).lower(*args, np.int32(0)).compile()
    used = compiled.memory_analysis()
    size = int(np.prod(state.keys.shape)) * 4
    assert used.alias_size_in_bytes >= 2 * size
    shape = re.escape(f"f32[{','.join(map(str, state.keys.shape))}]")
    assert not re.findall(rf"= {shape}\S* copy\(", compiled.as_text())
    assert used.temp_size_in_bytes < (1.0 if rows else 4.0 / layers + 1) * size


@pytest.mark.parametrize(("layers", "cache"), [(1, ROLLING), (2, HOP)], ids=["rolling", "hop"])
def test_one_trace_serves_all_steps(layers: int, cache: CacheSpec) -> None:
    spec, traces = spec_of(layers), []
    step = step_of(spec, cache, lambda: traces.append(1))
    params, flow, state = random_params(spec), random_flow(50, 2, 4, burst=6), decode.empty(spec, cache, 2)
    for index in range(50):
        # Traced alone: nothing need be compiled.
        state, _ = step.eval_shape(params, state, *jax.tree.map(lambda x, i=index: x[i], flow), np.int32(index))
    assert len(traces) == 1


def test_64_bit_mode_changes_nothing() -> None:
    for layers, cache in ((1, ROLLING), (2, HOP)):
        spec = spec_of(layers)
        params, flow = random_params(spec), random_flow(60, BATCH, 2)
        _, plain = decoded(params, spec, cache, decode.empty(spec, cache, BATCH), flow)
        with jax.enable_x64(True):
            state, wide = decoded(params, spec, cache, decode.empty(spec, cache, BATCH), flow)
        assert {x.dtype.name for x in jax.tree.leaves(state)} <= {"int32", "float32"}
        np.testing.assert_allclose(wide, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("layers", "cache", "says"), [
    (2, CacheSpec("rolling"), "rolling is exact for models of one layer only, and this one has 2"),
    (1, CacheSpec("hop", hop=448, margin=576), "max_orders=1024, hop=448, margin=576"),
    (1, CacheSpec("hop", hop=4, margin=3, append=8), "append=8"),
    (1, CacheSpec("rolling", append=1024), "")])
def test_what_cannot_be_decoded_is_refused(layers: int, cache: CacheSpec, says: str) -> None:
    spec = ModelSpec(layers=layers)
    if says:
        with pytest.raises(ValueError, match=re.escape(says)):
            decode.empty(spec, cache, 1)
    else:
        jax.eval_shape(lambda: decode.empty(spec, cache, 1))


@pytest.mark.parametrize(("field", "value"), [
    ("mode", "roll"), ("hop", 0), ("margin", -1), ("append", 1.0), ("append", 0), ("block", True), ("rows", 0),
    ("compute", "bfloat16")])
def test_bad_cache_specs_name_the_field_and_the_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"CacheSpec\.{field}: expected .* got {value!r}"):
        CacheSpec(**{field: value})
