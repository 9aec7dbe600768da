"""The cached decode step of the order model: append new tokens, predict from the newest.

Every prediction is the exact model on an exact context; `CacheSpec.mode` says on which. The contexts are batch-first
and a trajectory's depends on nothing but its own tokens and the step, whatever its batch mates do.

- `rolling` (one layer): keys and values lie in a ring of max_orders slots. A key is turned by its slot, not by its
  ever-growing position. A query in slot s meets a key in slot r <= s at distance s - r and one in a slot r > s, from
  the lap before, at distance s + max_orders - r: so the query is turned twice, by s and by s + max_orders, and each
  key takes its own of the two products. All angles are below 2 max_orders, so they are exact whatever the position.
- `hop`: a context grows by one slot a token. When the step is a multiple of `hop`, contexts are cut to their last
  max_orders - hop - margin tokens and encoded anew; one that is full before that is cut by itself (`State.cuts`).
- `recompute`: the last max_orders tokens are encoded for every prediction; the reference's behaviour, for parity.

Layers up to the last but one are run when tokens are appended, since later tokens need them; the last one only
stores keys and values then, and `predict` runs the rest of it for the newest token. Donate the state: it is updated
in place, by scatters whose masked rows are dropped.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from marsjax import model, sampling
from marsjax.model import LEVELS, Layers, Params
from marsjax.specs import CacheSpec, ModelSpec
from marsjax.types import Array, Token

Carry: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]
"""Residual stream [B, M, d], keys, values."""
Part: TypeAlias = Callable[..., jax.Array]
"""Takes a block's rows of a batch-first array."""


_MOST_LOGITS_IN_BLOCKS = 2**20
"""Logits made at a time where rows are decoded in blocks, on a CPU: 4 MiB. For 128 rows of the default model two cores
took 5.2 ms for a draw, 5.7 and 5.9 with half and twice as many, and 48 ms with all logits in memory."""
_CONTEXTS_IN_BLOCK = 8
"""Trajectories whose contexts are encoded together where rows are decoded in blocks: a block is computed whole, and few
begin at a time (8 contexts of 1,024 orders, default model, two cores: 60 ms as part of 64 rows, 5 ms alone)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What B trajectories remember; L layers, h heads of k, W = `ModelSpec.max_orders`."""

    keys: Array | None
    """[L, B, h, W, k] in the dtype of `ComputeSpec`, turned by slot; None in `recompute`."""
    values: Array | None
    """[L, B, h, W, k]."""
    newest: Array | None
    """[B, d], residual stream of the newest token on its way into the last layer; None in `recompute`."""
    window: Token | None
    """[B, W], a ring of the last W tokens, token i in slot i mod W; None in `rolling`."""
    total: Array
    """[B], tokens so far; a rewritten one counts once."""
    length: Array
    """[B], tokens in the context of the next prediction."""
    cuts: Array
    """[B], times that a context was full before its hop was over (agents, bursts): see `CacheSpec.margin`."""


def empty(spec: ModelSpec, cache: CacheSpec, batch: int) -> State:
    """The state of `batch` trajectories without tokens; ValueError if the model cannot be decoded so."""
    cache.kept(spec)
    shape = (spec.layers, batch, spec.heads, spec.max_orders, spec.width // spec.heads)
    cached = cache.mode != "recompute"

    def zeros(*shape: int, dtype: str = "int32") -> jax.Array:
        return jnp.zeros(shape, dtype)

    window = None
    if cache.mode != "rolling":
        columns = {field.name: zeros(batch, spec.max_orders) for field in dataclasses.fields(Token)}
        window = Token(**{**columns, "levels": zeros(batch, spec.max_orders, LEVELS)})
    dtype = cache.compute.dtype
    return State(
        keys=zeros(*shape, dtype=dtype) if cached else None, values=zeros(*shape, dtype=dtype) if cached else None,
        newest=zeros(batch, spec.width, dtype=dtype) if cached else None, window=window,
        total=zeros(batch), length=zeros(batch), cuts=zeros(batch))


def start(params: Params, spec: ModelSpec, cache: CacheSpec, tokens: Token, count: Array) -> State:
    """The state after the first `count` [B] of tokens [B, N]; contexts begin cut, as at a multiple of `hop`.

    ValueError if N is more than max_orders: give the last ones.
    """
    batch, given = tokens.kind.shape
    if given > spec.max_orders:
        raise ValueError(f"start of decoding: expected at most max_orders={spec.max_orders} tokens, got {given}")
    state = empty(spec, cache, batch)
    if cache.mode == "rolling":
        return append(params, spec, cache, state, tokens, count, jnp.zeros(batch, bool))
    count = jnp.clip(count, 0, given).astype(jnp.int32)
    state = dataclasses.replace(_remember(spec, state, tokens, count, jnp.zeros_like(count)), total=count,
                                length=count)
    return state if cache.mode == "recompute" else _encode_again(params, spec, cache, state, count > 0)


def append_all(params: Params, spec: ModelSpec, cache: CacheSpec, state: State, tokens: Token, count: Array,
               replaces_last: Array, step: Array | int) -> State:
    """Appends the first `count` [B] of tokens [B, N], `CacheSpec.append` a pass, until none is left.

    `replaces_last` [B] bool: the first of them rewrites the newest token so far (a merged cancel). `step` [], the
    number of this decision, is the same for all trajectories and decides when contexts are cut.
    """
    given = tokens.kind.shape[1]
    width = min(cache.append, given)
    passes = -(-given // width)
    tokens = jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, passes * width - given)] + [(0, 0)] * (x.ndim - 2)), tokens)
    count = jnp.clip(count, 0, given).astype(jnp.int32)
    due = (jnp.asarray(step) % cache.hop == 0) & (state.length > cache.kept(spec)) & (cache.mode == "hop")

    def one_pass(carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, done = carry
        part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, done, width, axis=1), tokens)
        left = jnp.clip(count - done, 0, width)
        first = done == 0
        return append(params, spec, cache, state, part, left, replaces_last & first, due & first), done + width

    if passes == 1:
        return one_pass((state, jnp.int32(0)))[0]

    def any_left(carry: tuple[State, jax.Array]) -> jax.Array:
        return jnp.any(count > carry[1]) | (jnp.any(due) & (carry[1] == 0))

    return jax.lax.while_loop(any_left, one_pass, (state, jnp.int32(0)))[0]


def append(params: Params, spec: ModelSpec, cache: CacheSpec, state: State, tokens: Token, count: Array,
           replaces_last: Array, due: Array | bool = False) -> State:
    """Appends the first `count` [B] of tokens [B, M] in one pass; the first may rewrite the newest, as above.

    In `hop`, contexts that are full, or `due` [B], are cut before.
    """
    # Made once: without the barrier XLA makes the tokens again in each kernel that reads them, from the state before
    # the step, which it then copies.
    tokens, count, replaces_last = jax.lax.optimization_barrier((tokens, count, replaces_last))
    count = jnp.clip(count, 0, tokens.kind.shape[1]).astype(jnp.int32)
    again = (replaces_last & (count > 0) & (state.total > 0)).astype(jnp.int32)
    if cache.mode == "hop":
        full = state.length + count - again > spec.max_orders
        state = _encode_again(params, spec, cache, state, full | due)
        state = dataclasses.replace(state, cuts=state.cuts + (full & ~jnp.asarray(due)))
    state = _remember(spec, state, tokens, count, state.total - again)
    if state.keys is not None:
        first = (state.total if cache.mode == "rolling" else state.length) - again
        state = _run_layers(params, spec, cache, state, tokens, count, first)
    return dataclasses.replace(state, total=state.total + count - again,
                               length=jnp.minimum(state.length + count - again, spec.max_orders))


def predict(params: Params, spec: ModelSpec, cache: CacheSpec, state: State) -> jax.Array:
    """Final hidden states [B, d] of the newest tokens; numbers without meaning for a trajectory without tokens."""
    if cache.mode == "recompute":
        return _recompute(params, spec, cache, state)
    compute, weights = cache.compute, jax.tree.map(lambda w: w[-1], params.layers)
    ring, last = cache.mode == "rolling", spec.layers - 1
    cos, sin = map(jnp.asarray, model.rotary_table(2 * spec.max_orders, spec.width // spec.heads))
    turns = jnp.arange(0, (1 + ring) * spec.max_orders, spec.max_orders)

    def block(part: Part) -> jax.Array:
        x, total, length = part(state.newest)[:, None], part(state.total), part(state.length)
        slot = jnp.maximum((total if ring else length) - 1, 0) % spec.max_orders
        (query,) = model.project(weights, x, compute, slice(0, 1))
        angle = slot[:, None] + turns
        query = model.rotate(query, cos[angle][:, :, None], sin[angle][:, :, None])
        # In a ring the slots beyond the query's hold the lap before; in a context, and in a first lap, they are empty.
        this_lap = jnp.arange(spec.max_orders) <= slot[:, None, None]
        seen = this_lap | (ring & (total > spec.max_orders)[:, None, None])
        attend = _attend_once if cache.rows is None else _attend_by_products
        mixed = attend(query, part(state.keys, last), part(state.values, last), this_lap, seen)
        return model.finish(params, model.after_attention(weights, x, mixed[:, None], compute))[:, 0]

    return _in_blocks(block, cache.rows, state.total.shape[0])


def _attend_once(query: jax.Array, keys: jax.Array, values: jax.Array, this_lap: jax.Array, seen: jax.Array
                 ) -> jax.Array:
    """Attention of a query to keys [B, h, W, k]: [B, h, k], in float32 but for what goes in and out.

    Of `query` [B, 1 or 2, h, k] keys of `this_lap` [B, 1, W] meet the first and others the last; `seen` as well.

    Sums of products read the cache as it lies; matrix products of so few rows took twice as long on an H100 (0.47
    against 0.21 ms a prediction for 4,096 trajectories of the 2M model).
    """
    query_BxHxWxK = jnp.where(this_lap[..., None], query[:, 0, :, None], query[:, -1, :, None])
    score = jnp.sum(query_BxHxWxK.astype(jnp.float32) * keys.astype(jnp.float32), axis=-1)
    weight = _weights(score, keys.shape[-1], seen)
    return jnp.sum(weight[..., None] * values.astype(jnp.float32), axis=-2).astype(values.dtype)


def _attend_by_products(query: jax.Array, keys: jax.Array, values: jax.Array, this_lap: jax.Array, seen: jax.Array
                        ) -> jax.Array:
    """The same by matrix products: on two cores of a CPU 5.8 against 12.8 ms for 128 trajectories of 1 x 32."""
    highest = jax.lax.Precision.HIGHEST
    score = jnp.einsum("bthk,bhwk->tbhw", query.astype(jnp.float32), keys.astype(jnp.float32), precision=highest)
    weight = _weights(jnp.where(this_lap, score[0], score[-1]), keys.shape[-1], seen)
    return jnp.einsum("bhw,bhwk->bhk", weight, values.astype(jnp.float32), precision=highest).astype(values.dtype)


def _weights(score: jax.Array, size: int, seen: jax.Array) -> jax.Array:
    return jax.nn.softmax(jnp.where(seen, score / math.sqrt(size), model.MASKED), axis=-1)


def logits(params: Params, cache: CacheSpec, hidden: jax.Array) -> jax.Array:
    """Logits [B, classes], float32, of hidden states [B, d], bitwise the same for a row in any batch on a CPU."""
    return _in_blocks(lambda part: model.head(params, part(hidden), cache.compute), cache.rows, hidden.shape[0])


def sample(params: Params, cache: CacheSpec, hidden: jax.Array, words: Array, temperature: float
           ) -> tuple[jax.Array, jax.Array]:
    """A class drawn from the law of each of the hidden states [B, d], int32 [B], and whether there is a law, bool [B].

    The logits are made a part at a time and never lie in memory together.
    """
    project = functools.partial(model.dense, compute=cache.compute, out=jnp.float32)
    most = sampling.MOST_LOGITS if cache.rows is None else _MOST_LOGITS_IN_BLOCKS

    def block(part: Part) -> tuple[jax.Array, jax.Array]:
        return sampling.sample_head(part(hidden), params.head, part(words), temperature, project, most)

    return _in_blocks(block, cache.rows, hidden.shape[0])


def _run_layers(params: Params, spec: ModelSpec, cache: CacheSpec, state: State, tokens: Token, count: Array,
                first: Array) -> State:
    """Writes the keys and values of new tokens [B, M] from slot `first` [B] on, layer by layer."""
    (batch, width), compute, last = tokens.kind.shape, cache.compute, spec.layers - 1
    place, trajectory = jnp.arange(width), jnp.arange(batch)
    rows = cache.rows if cache.rows is None or width == 1 else min(cache.rows, _CONTEXTS_IN_BLOCK)
    slot_BxM = (first[:, None] + place) % spec.max_orders
    # Masked rows get slots beyond the end, a different one each, so that the scatters may count on unique slots.
    target_BxM = jnp.where(place < count[:, None], slot_BxM, spec.max_orders + place)
    cos, sin = map(jnp.asarray, model.rotary_table(spec.max_orders, spec.width // spec.heads))

    def weights(layer: jax.Array | int) -> Layers:
        if isinstance(layer, int):
            return jax.tree.map(lambda w: jax.lax.index_in_dim(jnp.asarray(w), layer, keepdims=False), params.layers)
        return jax.tree.map(lambda w: jnp.asarray(w)[layer], params.layers)

    def turned(x: jax.Array, slot: jax.Array) -> jax.Array:
        return model.rotate(x, cos[slot][:, :, None], sin[slot][:, :, None])

    def projected(x: jax.Array, layer: jax.Array | int, first: int, part: Part) -> tuple[jax.Array, ...]:
        *query_key, value = model.project(weights(layer), part(x), compute, slice(first, 3))
        return *(turned(y, part(slot_BxM)) for y in query_key), value

    def rest(carry: Carry, query: jax.Array, layer: jax.Array | int, part: Part) -> jax.Array:
        seen_Bx1xMxW = (jnp.arange(spec.max_orders) <= part(slot_BxM)[..., None])[:, None]
        mixed = model.attend(part(query), part(carry[1], layer), part(carry[2], layer), seen_Bx1xMxW, compute)
        return model.after_attention(weights(layer), part(carry[0]), mixed, compute)

    def store(carry: Carry, layer: jax.Array | int, first: int) -> tuple[Carry, list[jax.Array]]:
        x, *cached = carry
        *query, key, value = _in_blocks(functools.partial(projected, x, layer, first), rows, batch)
        keys, values = (old.at[layer, trajectory[:, None], :, target_BxM].set(n, mode="drop", unique_indices=True)
                        for old, n in zip(cached, (key, value), strict=True))
        return (x, keys, values), query

    def one_layer(carry: Carry, layer: jax.Array | int) -> tuple[Carry, None]:
        carry, (query,) = store(carry, layer, 0)
        return (_in_blocks(functools.partial(rest, carry, query, layer), rows, batch), *carry[1:]), None

    x = _in_blocks(lambda part: model.embed(params, jax.tree.map(part, tokens), compute), rows, batch)
    carry = x, jnp.asarray(state.keys), jnp.asarray(state.values)
    if cache.rows is None:
        # A scan would copy each layer's weights out of the stack at every step, and read the keys by a traced offset,
        # which XLA does at two thirds of the speed (138 us a layer against 98 on an H100, 128 trajectories of 24x1024).
        for layer in range(last):
            carry, _ = one_layer(carry, layer)
    else:
        carry, _ = jax.lax.scan(one_layer, carry, jnp.arange(last))
    (x, keys, values), _ = store(carry, last, 1)
    newest = jnp.where(count[:, None] > 0, x[trajectory, jnp.maximum(count - 1, 0)], jnp.asarray(state.newest))
    return dataclasses.replace(state, keys=keys, values=values, newest=newest)


def _in_blocks(compute: Callable[[Part], Any], rows: int | None, batch: int) -> Any:
    """`compute` of every trajectory, `rows` at a time; the result is batch-first.

    `compute` takes its inputs through `part(x)`, the block's rows of a batch-first array, or `part(x, layer)` of an
    array [L, B, ...]. A batch smaller than a block is padded; the last block overlaps the one before it.
    """
    if rows is None:
        return compute(lambda x, layer=None: jnp.asarray(x) if layer is None else jnp.asarray(x)[layer])
    blocks = -(-batch // rows)
    starts = np.minimum(np.arange(blocks) * rows, max(batch - rows, 0))

    def block(start: jax.Array) -> Any:
        def part(x: Array, layer: jax.Array | int | None = None) -> jax.Array:
            x = jnp.asarray(x)
            index, size = ((), ()) if layer is None else ((layer,), (1,))
            inner = x.shape[len(index) + 1:]
            x = jax.lax.dynamic_slice(x, (*index, start, *[0] * len(inner)), (*size, min(rows, batch), *inner))
            x = x if layer is None else x[0]
            return jnp.pad(x, [(0, rows - x.shape[0])] + [(0, 0)] * len(inner))

        return compute(part)

    result = jax.lax.map(block, jnp.asarray(starts))
    which = np.minimum(np.arange(batch) // rows, blocks - 1)
    row = which * rows + np.arange(batch) - starts[which]
    flat = jax.tree.map(lambda x: x.reshape(blocks * rows, *x.shape[2:]), result)
    return flat if batch == blocks * rows else jax.tree.map(lambda x: x[row], flat)


def _remember(spec: ModelSpec, state: State, tokens: Token, count: Array, first: Array) -> State:
    """Writes the first `count` [B] of tokens [B, M] into the ring of tokens from number `first` [B] on."""
    if state.window is None:
        return state
    batch, width = tokens.kind.shape
    place = jnp.arange(width)
    target = jnp.where(place < count[:, None], (first[:, None] + place) % spec.max_orders, spec.max_orders + place)
    put = functools.partial(_put_rows, trajectory=jnp.arange(batch)[:, None], slot=target)
    return dataclasses.replace(state, window=jax.tree.map(put, state.window, tokens))


def _put_rows(ring: Array, new: Array, trajectory: Array, slot: Array) -> jax.Array:
    new = jnp.asarray(new).astype(ring.dtype)
    return jnp.asarray(ring).at[trajectory, slot].set(new, mode="drop", unique_indices=True)


def _last_tokens(spec: ModelSpec, state: State, trajectory: Array, most: int) -> tuple[Token, jax.Array]:
    """The last `most` tokens [R, most] of trajectories [R], the oldest in front, and how many they are [R]."""
    total = jnp.asarray(state.total)[trajectory]
    count = jnp.minimum(total, most)
    slot = ((total - count)[:, None] + jnp.arange(most)) % spec.max_orders
    return jax.tree.map(lambda ring: jnp.asarray(ring)[trajectory[:, None], slot], state.window), count


def _encode_again(params: Params, spec: ModelSpec, cache: CacheSpec, state: State, due: Array) -> State:
    """Cuts the contexts of the trajectories that are `due` [B] and encodes what is left, a block at a time."""
    kept, batch, size = cache.kept(spec), state.total.shape[0], spec.width // spec.heads
    compute, last_layer = cache.compute, jax.tree.map(lambda w: w[-1], params.layers)
    cos, sin = (x[:, None] for x in model.rotary_table(kept, size))

    def one_block(carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, due = carry
        # As many of those due as a block holds; rows past the batch are computed and dropped.
        chosen = jnp.nonzero(due, size=cache.block, fill_value=batch)[0].astype(jnp.int32)
        target = jnp.where(chosen < batch, chosen, batch + jnp.arange(cache.block))
        tokens, count = _last_tokens(spec, state, jnp.minimum(chosen, batch - 1), kept)
        x, cached = model.encode(params, spec, tokens, compute, upto=spec.layers - 1)
        key, value = model.project(last_layer, x, compute, slice(1, 3))
        last = jnp.stack([model.rotate(key, cos, sin), value])
        keys, values = jnp.swapaxes(jnp.concatenate([cached, last[None]]), -3, -2).swapaxes(0, 1)
        newest = x[jnp.arange(cache.block), jnp.maximum(count - 1, 0)]
        state = dataclasses.replace(
            state, keys=_put_contexts(state.keys, keys, target), values=_put_contexts(state.values, values, target),
            newest=jnp.asarray(state.newest).at[target].set(newest, mode="drop", unique_indices=True),
            length=jnp.asarray(state.length).at[target].set(count, mode="drop", unique_indices=True))
        return state, due.at[target].set(False, mode="drop")

    return jax.lax.while_loop(lambda carry: jnp.any(carry[1]), one_block, (state, jnp.asarray(due)))[0]


def _put_contexts(cached: Array | None, new: jax.Array, trajectory: jax.Array) -> jax.Array:
    """New [L, R, h, T, k] into the first T slots of trajectories [R]."""
    return jnp.asarray(cached).at[:, trajectory, :, :new.shape[-2]].set(new, mode="drop", unique_indices=True)


def _recompute(params: Params, spec: ModelSpec, cache: CacheSpec, state: State) -> jax.Array:
    batch = state.total.shape[0]
    blocks = -(-batch // cache.block)

    def one_block(trajectory: jax.Array) -> jax.Array:
        tokens, count = _last_tokens(spec, state, trajectory, spec.max_orders)
        x, _ = model.encode(params, spec, tokens, cache.compute)
        return model.finish(params, x[jnp.arange(cache.block), jnp.maximum(count - 1, 0)])

    trajectory = jnp.minimum(jnp.arange(blocks * cache.block), batch - 1).reshape(blocks, cache.block)
    return jax.lax.map(one_block, trajectory).reshape(blocks * cache.block, -1)[:batch]
