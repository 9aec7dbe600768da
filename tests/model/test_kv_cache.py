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

from marsjax.core import kernels
from marsjax.core.records import Token
from marsjax.core.specs import CacheSpec, ComputeSpec, ModelSpec, TokenSpec
from marsjax.model import kv_cache, llama, sampling
from marsjax.model.layers import attend_to_earlier
from marsjax.model.llama import OrderModel
from marsjax.model.prefix import Prefix
from tests.model.test_llama import random_params, random_tokens

BINS = TokenSpec(8, 8, 4)
WINDOW = 64
TOLERANCE = 2e-4
IN_PAIRS = dataclasses.replace(kernels.CPU, rows=2)
ROLLING = CacheSpec("rolling", append=4, kernels=IN_PAIRS)
REFRESH = CacheSpec("refresh", refresh_every=24, margin=8, append=4, block=4, kernels=IN_PAIRS)
RECOMPUTE = CacheSpec("recompute", append=4, block=4, kernels=IN_PAIRS)
WHOLE_ROLLING = dataclasses.replace(ROLLING, kernels=kernels.ACCELERATOR)
WHOLE_REFRESH = dataclasses.replace(REFRESH, kernels=kernels.ACCELERATOR, append=1)
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


@functools.partial(jax.jit, static_argnums=1)
def decoded_at_once(model: OrderModel, cache: CacheSpec, state: kv_cache.State, flow: Flow,
                    first: Any = 0) -> tuple[kv_cache.State, jax.Array]:
    """The state after all steps, and the hidden states [S, B, d] at each."""
    def step(carry: Any, new: Flow) -> tuple[Any, jax.Array]:
        state, index = carry
        state = kv_cache.append_all(model, cache, state, *new, index)
        return (state, index + 1), kv_cache.predict(model, cache, state)

    (state, _), hidden = jax.lax.scan(step, (state, jnp.int32(first)), flow)
    return state, hidden


def decoded(model: OrderModel, cache: CacheSpec, state: kv_cache.State, flow: Flow, first: int = 0
            ) -> tuple[kv_cache.State, np.ndarray]:
    """The same, CHUNK steps a call."""
    parts = []
    for at in range(0, len(flow.count), CHUNK):
        part = jax.tree.map(lambda x, at=at: x[at : at + CHUNK], flow)
        state, hidden = decoded_at_once(model, cache, state, part, first + at)
        parts.append(np.asarray(hidden))
    return state, np.concatenate(parts)


@jax.jit
def hidden_at(model: OrderModel, contexts: Token, last: jax.Array) -> jax.Array:
    """The full model's hidden states [B, d] at the last tokens of contexts [B, WINDOW]; what comes later is unseen."""
    return model.hidden(contexts)[jnp.arange(len(last)), last]


class Twin:
    """The context of one trajectory, as a list of tokens, and how often it was refreshed by itself."""

    def __init__(self, spec: ModelSpec, cache: CacheSpec) -> None:
        self.spec, self.cache, self.all, self.length, self.refreshes = spec, cache, [], 0, 0

    def step(self, index: int, new: list[Any], replaces_last: bool) -> list[Any]:
        kept = self.cache.kept(self.spec)
        if self.cache.mode == "refresh" and index % self.cache.refresh_every == 0:
            self.length = min(self.length, kept)
        for i in range(0, len(new), self.cache.append):
            part = new[i : i + self.cache.append]
            again = replaces_last and i == 0 and bool(self.all)
            if self.cache.mode == "refresh" and self.length + len(part) - again > self.spec.context_length:
                self.length, self.refreshes = kept, self.refreshes + 1
            self.all = self.all[: len(self.all) - again] + part
            self.length = min(self.length - again + len(part), self.spec.context_length)
        return self.all[len(self.all) - self.length :]


def expected(model: OrderModel, cache: CacheSpec, flow: Flow) -> tuple[np.ndarray, list[Twin]]:
    """Hidden states [S, B, d] of the full model on the contexts of twins."""
    spec = model.spec
    steps, batch, most = flow.tokens.kind.shape
    twins = [Twin(spec, cache) for _ in range(batch)]
    numbers = np.arange(steps * batch * most).reshape(steps, batch, most)
    index, last = np.zeros((steps, batch, spec.context_length), int), np.zeros((steps, batch), int)
    for s in range(steps):
        for b, twin in enumerate(twins):
            context = twin.step(s, list(numbers[s, b, : flow.count[s, b]]), bool(flow.replaces_last[s, b]))
            index[s, b, : len(context)], last[s, b] = context, len(context) - 1
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), flow.tokens)
    return np.stack([hidden_at(model, jax.tree.map(lambda x, s=s: x[index[s]], flat), last[s])
                     for s in range(steps)]), twins


def gap(got: Any, wanted: np.ndarray) -> float:
    """Largest distance of two hidden states, relative to their length."""
    return float(np.max(np.linalg.norm(got - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)))


@pytest.mark.parametrize(("layers", "cache", "steps", "most", "burst"), [
    (1, ROLLING, 1500, 4, 0), (1, WHOLE_ROLLING, 1500, 4, 30), (2, REFRESH, 150, 2, 0),
    (2, WHOLE_REFRESH, 150, 2, 30), (1, REFRESH, 90, 2, 30), (2, RECOMPUTE, 60, 4, 30)],
    ids=["rolling in blocks", "rolling", "refresh in blocks", "refresh", "refresh of one layer", "recompute"])
def test_decoding_equals_the_full_model_at_every_step(layers: int, cache: CacheSpec, steps: int, most: int,
                                                      burst: int) -> None:
    """With thirty tokens between two predictions, too, which take several passes."""
    spec = spec_of(layers)
    model, flow = random_params(spec), random_flow(steps, BATCH, most, burst)
    state, got = decoded(model, cache, kv_cache.empty(model, cache, BATCH), flow)
    wanted, twins = expected(model, cache, flow)
    assert not burst or np.any((flow.count == burst) & flow.replaces_last)
    assert gap(got, wanted) < TOLERANCE
    if cache.mode == "rolling":
        assert min(len(twin.all) for twin in twins) > 2500
    np.testing.assert_array_equal(state.length, [twin.length for twin in twins])
    np.testing.assert_array_equal(state.total, [len(twin.all) for twin in twins])
    np.testing.assert_array_equal(state.refreshes, [twin.refreshes for twin in twins])
    assert cache.mode != "refresh" or not burst or max(twin.refreshes for twin in twins) > 0


@pytest.mark.parametrize(("layers", "cache"), [(1, ROLLING), (2, REFRESH), (1, RECOMPUTE)],
                         ids=["rolling", "refresh", "recompute"])
def test_a_start_is_the_end_of_a_window(layers: int, cache: CacheSpec) -> None:
    spec, rng = spec_of(layers), np.random.default_rng(0)
    model, count = random_params(spec), np.array([0, 1, 20, 64], np.int32)
    tokens = random_tokens(rng, (4, WINDOW), BINS)
    state = jax.jit(kv_cache.start, static_argnums=1)(model, cache, tokens, count)
    got = jax.jit(kv_cache.predict, static_argnums=1)(model, cache, state)
    kept = np.minimum(count, cache.kept(spec))
    index = np.clip(np.arange(WINDOW) + (count - kept)[:, None], 0, WINDOW - 1)
    contexts = jax.tree.map(lambda x: x[np.arange(4)[:, None], index], tokens)
    wanted = np.asarray(hidden_at(model, contexts, np.maximum(kept - 1, 0)))
    assert gap(got[1:], wanted[1:]) < TOLERANCE
    np.testing.assert_array_equal(state.length, kept)
    np.testing.assert_array_equal(state.total, count)
    with pytest.raises(ValueError, match="at most context_length=64 tokens, got 65"):
        kv_cache.start(model, cache, random_tokens(rng, (4, WINDOW + 1), BINS), count)


def test_a_rewritten_token_leaves_no_trace() -> None:
    for layers, cache in ((1, ROLLING), (2, REFRESH)):
        spec, rng = spec_of(layers), np.random.default_rng(0)
        model = random_params(spec)
        tokens = random_tokens(rng, (BATCH, 4), BINS)

        def step(state: kv_cache.State, new: Token, count: list[int], replaces_last: list[bool],
                 cache: CacheSpec = cache, model: OrderModel = model) -> kv_cache.State:
            """One step, and others without a token."""
            flow = Flow(new, np.array(count, np.int32), np.array(replaces_last))
            empty = jax.tree.map(lambda x: np.concatenate([x[None], np.zeros((CHUNK - 1, *x.shape), x.dtype)]), flow)
            return decoded(model, cache, state, empty, first=1)[0]

        no, yes = [False] * 3, [True, False, False]
        before = step(kv_cache.empty(model, cache, BATCH), tokens, [3, 3, 3], no)
        wrong = step(before, random_tokens(rng, (BATCH, 4), BINS), [1, 0, 0], no)
        last = jax.tree.map(lambda x: np.roll(x, -3, axis=1), tokens)
        right, plain = step(wrong, last, [1, 0, 0], yes), step(before, last, [1, 0, 0], no)
        assert not np.array_equal(wrong.keys, plain.keys)
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, right, plain)))


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "cache"), [(1, ROLLING), (2, REFRESH)], ids=["rolling", "refresh"])
def test_a_trajectory_is_bitwise_the_same_in_any_batch(layers: int, cache: CacheSpec) -> None:
    spec, cache = spec_of(layers), dataclasses.replace(cache, kernels=kernels.CPU, block=16)
    model, flow = random_params(spec), random_flow(60, 64, 3, burst=20)
    states = {}
    for batch in (64, 1):
        part = jax.tree.map(lambda x, n=batch: x[:, -n:], flow)
        _, hidden = decoded(model, cache, kv_cache.empty(model, cache, batch), part)
        logits = jax.jit(kv_cache.logits, static_argnums=1)(model, cache, hidden[-1])
        states[batch] = np.asarray(hidden), np.asarray(logits)
        np.testing.assert_array_equal(states[batch][0], states[64][0][:, -batch:])
        np.testing.assert_array_equal(states[batch][1], states[64][1][-batch:])


def test_a_head_in_parts_draws_what_its_logits_draw() -> None:
    spec = spec_of(1)
    model, hidden = random_params(spec), jax.random.normal(jax.random.key(0), (500, spec.embed_dim))
    words = jax.random.bits(jax.random.key(1), (500, 2), jnp.uint32)
    draw = jax.jit(kv_cache.sample, static_argnums=(1, 4))
    (plain, law), (parts, same) = (draw(model, dataclasses.replace(ROLLING, kernels=ways), hidden, words, 1.0)
                                   for ways in (dataclasses.replace(kernels.CPU, rows=4), kernels.ACCELERATOR))
    assert law.all() and same.all()
    assert (plain == parts).mean() > 0.99


@pytest.mark.parametrize("ways", [IN_PAIRS, kernels.ACCELERATOR], ids=["blocks", "whole batch"])
def test_a_draw_has_the_law_of_the_logits_at_its_temperature(ways: kernels.Kernels) -> None:
    cache = dataclasses.replace(ROLLING, kernels=ways)
    model, hidden = random_params(spec_of(1)), np.random.default_rng(0).normal(size=(301, 16)).astype(np.float32)
    hidden[7] = np.nan
    words = np.random.default_rng(1).integers(0, 2**32, (301, 2), dtype=np.uint32)
    logits = np.asarray(kv_cache.logits(model, cache, jnp.asarray(hidden)))
    np.testing.assert_allclose(logits, hidden @ model.head.weight[...], rtol=1e-4, atol=1e-4)
    for temperature in (0.4, 2.0):
        drawn, law = kv_cache.sample(model, cache, jnp.asarray(hidden), words, temperature)
        np.testing.assert_array_equal(law, np.arange(301) != 7)
        same = np.asarray(drawn == sampling.sample(logits, words, temperature))
        assert same[law].mean() > 0.99


def test_a_count_beyond_the_tokens_given_is_all_of_them() -> None:
    for layers, cache in ((1, ROLLING), (2, REFRESH)):
        model = random_params(spec_of(layers))
        tokens = random_tokens(np.random.default_rng(0), (2, 4), BINS)
        start = jax.jit(kv_cache.start, static_argnums=1)
        states = [start(model, cache, tokens, np.array(count, np.int32)) for count in ([4, 0], [9, -3])]
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, *states)))
        np.testing.assert_array_equal(states[1].total, [4, 0])


@pytest.mark.parametrize(("layers", "cache"), [(1, ROLLING), (2, REFRESH)], ids=["rolling", "refresh"])
def test_the_ways_of_a_cpu_and_of_an_accelerator_agree(layers: int, cache: CacheSpec) -> None:
    """Attention by columns and by sums, in blocks and in whole batches: each beside the other way of the rest."""
    model, flow = random_params(spec_of(layers)), random_flow(CHUNK, BATCH, 3)
    found = []
    for attention, rows in (("columns", 2), ("sums", 2), ("columns", None)):
        ways = dataclasses.replace(cache, kernels=dataclasses.replace(kernels.CPU, attention=attention, rows=rows))
        state, hidden = decoded(model, ways, kv_cache.empty(model, ways, BATCH), flow)
        in_columns = layers == 1 and attention == "columns"
        found.append((hidden, *(np.swapaxes(x, -1, -2) if in_columns else x for x in state.keys), *state.values))
    for other in found[1:]:
        assert gap(other[0], found[0][0]) < 1e-5
        for x, y in zip(other[1:], found[0][1:], strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    assert not np.array_equal(found[0][0], found[1][0])  # two ways they are


def test_kernels_are_those_of_the_device_unless_given() -> None:
    assert CacheSpec().kernels is None
    model = jax.eval_shape(lambda: llama.init(spec_of(1), jax.random.key(0)))
    lowered = [jax.jit(kv_cache.predict, static_argnums=1).lower(
        model, cache, jax.eval_shape(lambda cache=cache: kv_cache.empty(model, cache, 32))).as_text() for cache in (
        dataclasses.replace(ROLLING, kernels=None), dataclasses.replace(
            ROLLING, kernels=kernels.for_platform(jax.default_backend())), WHOLE_ROLLING)]
    assert lowered[0] == lowered[1]
    assert (lowered[0] == lowered[2]) == (jax.default_backend() != "cpu")


def test_positions_may_grow_without_bound() -> None:
    spec = spec_of(1)
    model, flow = random_params(spec), random_flow(150, BATCH, 3)
    first, rest = (jax.tree.map(lambda x, part=part: x[part], flow) for part in (slice(0, 90), slice(90, None)))
    state, _ = decoded(model, ROLLING, kv_cache.empty(model, ROLLING, BATCH), first)
    later = dataclasses.replace(state, total=state.total + 1_000_000 * WINDOW)
    np.testing.assert_array_equal(decoded(model, ROLLING, later, rest)[1],
                                  decoded(model, ROLLING, state, rest)[1])


def test_bfloat16_decodes_near_float32() -> None:
    for layers, cache in ((1, ROLLING), (2, REFRESH)):
        model, flow = random_params(spec_of(layers)), random_flow(60, BATCH, 2)
        half = model.replace(compute=ComputeSpec(dtype="bfloat16"))
        state, got = decoded(half, cache, kv_cache.empty(half, cache, BATCH), flow)
        _, exact = decoded(model, cache, kv_cache.empty(model, cache, BATCH), flow)
        assert state.keys[0].dtype == got.dtype == jnp.bfloat16
        assert 1e-4 < gap(got.astype(jnp.float32), np.asarray(exact)) < 0.1


def test_a_refresh_by_the_call_of_the_kernel_is_near_that_by_all_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16; in float32 the kernel is not asked."""
    found, asked, real = {}, [], jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention",
                        lambda *given, **named: (asked.append(named["implementation"]), real(*given, **named))[1])
    model, flow = random_params(spec_of(3)), random_flow(60, BATCH, 2)
    for dtype, way in (("bfloat16", "xla"), ("float32", "stand_in"), ("bfloat16", "stand_in")):
        assert not asked
        one = model.replace(compute=ComputeSpec(dtype=dtype))
        cache = dataclasses.replace(REFRESH, kernels=dataclasses.replace(IN_PAIRS, encode=way))
        found[dtype, way] = decoded(one, cache, kv_cache.empty(one, cache, BATCH), flow)[1].astype(np.float32)
    assert set(asked) == {"xla"}
    assert gap(found["bfloat16", "stand_in"], found["bfloat16", "xla"]) < 0.03  # none on a CPU
    assert gap(found["bfloat16", "stand_in"], found["float32", "stand_in"]) < 0.1


@pytest.mark.parametrize(("dtype", "most"), [("float32", 0), ("bfloat16", 0.02)])
def test_attention_to_earlier_tokens_is_the_same_by_both_ways(dtype: str, most: float) -> None:
    given = [jax.random.normal(key, (2, 3, 33, 2, 16), dtype) for key in jax.random.split(jax.random.key(0), 3)]
    found = [attend_to_earlier(*given, ComputeSpec(dtype=dtype), way).astype(jnp.float32)
             for way in ("xla", "stand_in")]
    assert float(jnp.max(jnp.abs(found[0] - found[1]))) <= most
    np.testing.assert_allclose(found[1][..., 0, :, :], given[2][..., 0, :, :].astype(jnp.float32), rtol=1e-6)


def step_of(cache: CacheSpec, traced: Callable[[], None] = lambda: None) -> Any:
    def step(model: OrderModel, state: kv_cache.State, tokens: Token, count: Any, replaces_last: Any, index: Any,
             common: Prefix | None = None) -> tuple[kv_cache.State, jax.Array]:
        traced()
        state = kv_cache.append_all(model, cache, state, tokens, count, replaces_last, index, common)
        return state, kv_cache.predict(model, cache, state, common)

    return jax.jit(step, donate_argnums=1)


@pytest.mark.parametrize(("layers", "cache"), [(1, ROLLING), (2, REFRESH)], ids=["rolling", "refresh"])
def test_one_trace_serves_all_steps(layers: int, cache: CacheSpec) -> None:
    model, traces = random_params(spec_of(layers)), []
    step = step_of(cache, lambda: traces.append(1))
    flow, state = random_flow(50, 2, 4, burst=6), kv_cache.empty(model, cache, 2)
    for index in range(50):
        # Traced alone: nothing need be compiled.
        state, _ = step.eval_shape(model, state, *jax.tree.map(lambda x, i=index: x[i], flow), np.int32(index))
    assert len(traces) == 1


def test_64_bit_mode_changes_nothing() -> None:
    for layers, cache in ((1, ROLLING), (2, REFRESH)):
        spec = spec_of(layers)
        model, flow = random_params(spec), random_flow(60, BATCH, 2)
        _, plain = decoded(model, cache, kv_cache.empty(model, cache, BATCH), flow)
        with jax.enable_x64(True):
            state, wide = decoded(model, cache, kv_cache.empty(model, cache, BATCH), flow)
        assert {x.dtype.name for x in jax.tree.leaves(state)} <= {"int32", "float32"}
        np.testing.assert_allclose(wide, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["rolling", "refresh"])
def test_a_step_of_one_layer_works_where_jit_is_disabled(mode: str) -> None:
    """No layer stands before the last: nothing may loop over none."""
    model = random_params(ModelSpec(8, 1, 2, 8, BINS))
    cache = CacheSpec(mode, refresh_every=3, margin=2, append=1, block=2, kernels=IN_PAIRS)
    tokens = random_tokens(np.random.default_rng(0), (2, 2), BINS)

    def run(tokens: Token) -> jax.Array:
        first, rest = (jax.tree.map(lambda x, part=part: jnp.asarray(x)[:, part], tokens)
                       for part in (slice(0, 1), slice(1, None)))
        state = kv_cache.start(model, cache, first, jnp.ones(2, jnp.int32))
        state = kv_cache.append_all(model, cache, state, rest, jnp.ones(2, jnp.int32), jnp.zeros(2, bool), 3)
        return kv_cache.predict(model, cache, state)

    with jax.disable_jit():
        plain = run(tokens)
    np.testing.assert_allclose(plain, jax.jit(run)(tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("layers", "cache", "says"), [
    (2, CacheSpec("rolling"), "rolling is exact for models of one layer only, and this one has 2"),
    (1, CacheSpec("refresh", refresh_every=448, margin=576), "context_length=1024, refresh_every=448, margin=576"),
    (1, CacheSpec("refresh", refresh_every=4, margin=3, append=8), "append=8"),
    (1, CacheSpec("rolling", append=1024), "")])
def test_what_cannot_be_decoded_is_refused(layers: int, cache: CacheSpec, says: str) -> None:
    model = jax.eval_shape(lambda: llama.init(ModelSpec(layers=layers), jax.random.key(0)))
    if says:
        with pytest.raises(ValueError, match=re.escape(says)):
            kv_cache.empty(model, cache, 1)
    else:
        state = jax.eval_shape(lambda: kv_cache.empty(model, cache, 1))
        assert [x.shape for x in state.values] == layers * [(1, 2, 1024, 8)]


@pytest.mark.parametrize(("field", "value"), [
    ("mode", "roll"), ("refresh_every", 0), ("margin", -1), ("append", 1.0), ("append", 0), ("block", True),
    ("kernels", "cpu"), ("cache_dtype", "int4")])
def test_bad_cache_specs_name_the_field_and_the_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"CacheSpec\.{field}: expected .* got {value!r}"):
        CacheSpec(**{field: value})
