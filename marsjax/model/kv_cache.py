"""The cached step of the order model: append new tokens, predict from the newest.

Every prediction is the exact model on an exact context; `CacheSpec.mode` says on which. Every array of a state has the
trajectories on its first axis. What a trajectory gets depends on nothing but its own tokens and the step, whatever the
other trajectories do.

- `rolling` (one layer): keys and values lie in a ring of context_length slots. A key is turned by its slot, not by its
  ever-growing position. A query in slot s meets a key in slot r <= s at distance s - r, and one in a slot r > s, from
  the lap before, at distance s + context_length - r. So the query is turned twice, by s and by s + context_length, and
  each key takes its own of the two products. All angles are below 2 context_length, so they are exact whatever the
  position.
- `refresh`: a context grows by one slot a token. When the step is a multiple of `refresh_every`, contexts are
  refreshed: only their last context_length - refresh_every - margin tokens are kept and encoded anew. A context that
  is full before that is refreshed by itself (`State.refreshes` counts these).
- `recompute`: the last context_length tokens are encoded for every prediction; the reference's behaviour, for parity.
- `recurrent` (linear attention): a memory of one size, of all tokens since the start (`model.memory`).

Layers up to the last but one are run when tokens are appended, since later tokens need them. The last layer only stores
keys and values then, and `predict` runs the rest of it for the newest token. Donate the state: each layer's arrays are
updated in place, by scatters whose masked rows are dropped. How keys and values are kept, as they are or in 8 bits, and
how they are read is `model.cached_attention`'s; of a context the kernel of a GPU reads the filled slots alone. Slots
that contexts have in common, those of one start, may be read once for all of them: `prefix_of`, `model.prefix`.
"""

import dataclasses
from typing import TypeAlias, cast

import jax
import jax.numpy as jnp

from marsjax.core import kernels
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Token
from marsjax.core.specs import CacheSpec
from marsjax.model import cached_attention, head_kernel, layers, memory, prefix, token_ring
from marsjax.model.blocks import Part, in_blocks
from marsjax.model.cached_attention import Slots
from marsjax.model.layers import LEVELS, SIGNALS, DecoderLayer
from marsjax.model.linear_attention import LayerMemory
from marsjax.model.llama import OrderModel
from marsjax.model.prefix import Prefix
from marsjax.model.row_head import RowHead

Cached: TypeAlias = tuple[Array, ...]
"""An array [B, h, W, k] a layer."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What B trajectories remember; L layers, h heads of k, W = `ModelSpec.context_length`."""

    keys: Cached | None
    """L arrays [B, h, W, k] in the dtype of `ComputeSpec` or int8, turned by slot; None in `recompute`. [B, h, k, W]
    where `cached_attention.has_columns`."""
    values: Cached | None
    """L arrays [B, h, W, k]."""
    scales: Cached | None
    """L float32 arrays [B, 2, h, W] of 8-bit keys and values (`CacheSpec.cache_dtype`), else None."""
    newest: Array | None
    """[B, d], residual stream of the newest token on its way into the last layer; None in `recompute`."""
    window: Token | None
    """[B, W], a ring of the last W tokens, token i in slot i mod W; None in `rolling`."""
    total: Array
    """[B], tokens so far; a rewritten one counts once."""
    length: Array
    """[B], tokens in the context of the next prediction, at most W; in `recurrent` older ones fade, and are not
    counted."""
    refreshes: Array
    """[B], times that a context was full before its refresh was due (agents, bursts): see `CacheSpec.margin`."""
    of_prefix: Array | None = None
    """int32 [B], how many of a context's first slots are those of the common `Prefix`; None where there is none."""
    memories: tuple[LayerMemory, ...] | None = None
    """One a layer in `recurrent`, else None; there are no keys and values then."""


def empty(model: OrderModel, cache: CacheSpec, batch: int) -> State:
    """The state of `batch` trajectories without tokens; InputError if the model cannot be decoded so."""
    spec, dtype = model.spec, model.compute.dtype
    cache.kept(spec)

    def zeros(*shape: int, dtype: str = "int32") -> jax.Array:
        return jnp.zeros((batch, *shape), dtype)

    def contexts(in_columns: bool = False) -> Cached:
        length, size = spec.context_length, spec.embed_dim // spec.heads
        shape = (spec.heads, size, length) if in_columns else (spec.heads, length, size)
        return tuple(zeros(*shape, dtype="int8" if in_8_bits else dtype) for _ in range(spec.layers))

    window = None
    if cache.mode in ("refresh", "recompute"):
        columns = {field.name: zeros(spec.context_length) for field in dataclasses.fields(Token)}
        window = Token(**{**columns, "levels": zeros(spec.context_length, LEVELS),
                          "signals": zeros(spec.context_length, SIGNALS)})
    cached, in_8_bits = cache.mode in ("rolling", "refresh"), cache.cache_dtype == "int8"
    scales = tuple(zeros(2, spec.heads, spec.context_length, dtype="float32") for _ in range(spec.layers))
    return State(keys=contexts(cached_attention.has_columns(cache)) if cached else None,
                 values=contexts() if cached else None, scales=scales if in_8_bits else None,
                 newest=zeros(spec.embed_dim, dtype=dtype) if cache.mode != "recompute" else None, window=window,
                 total=zeros(), length=zeros(), refreshes=zeros(),
                 memories=memory.empty(spec, batch) if cache.mode == "recurrent" else None)


def start(model: OrderModel, cache: CacheSpec, tokens: Token, count: Array) -> State:
    """The state after the first `count` [B] of tokens [B, N]; contexts begin as after a refresh.

    InputError if N is more than context_length: give the last ones.
    """
    batch, given = tokens.kind.shape
    if given > model.spec.context_length:
        raise InputError(f"start of decoding: at most context_length={model.spec.context_length} tokens, got {given}")
    state = empty(model, cache, batch)
    if cache.mode in ("rolling", "recurrent"):
        return append(model, cache, state, tokens, count, jnp.zeros(batch, bool))
    count = jnp.clip(count, 0, given).astype(jnp.int32)
    state = _remember(state, tokens, count, jnp.zeros_like(count))
    state = dataclasses.replace(state, total=count, length=count)
    return state if cache.mode == "recompute" else _refresh(model, cache, state, count > 0)


def prefix_of(model: OrderModel, cache: CacheSpec, state: State) -> Prefix:
    """What contexts have in common that begin as the only one of a state [1], which `start` made."""
    slots = [_slots_of(state, layer) for layer in range(model.spec.layers)]
    return prefix.of_slots(slots, cache.kept(model.spec), model.compute)


def append_all(model: OrderModel, cache: CacheSpec, state: State, tokens: Token, count: Array, replaces_last: Array,
               step: Array | int, common: Prefix | None = None) -> State:
    """Appends the first `count` [B] of tokens [B, N], `CacheSpec.append` a pass, until none is left.

    `replaces_last` [B] bool: the first of them rewrites the newest token so far (a merged cancel). `step` [], the
    number of this decision, is the same for all trajectories and decides when contexts are refreshed. `common`, of a
    state with `of_prefix`, is read once for all contexts; without it each reads its own copy.
    """
    given = tokens.kind.shape[1]
    width = min(cache.append, given)
    passes = -(-given // width)
    tokens = jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, passes * width - given)] + [(0, 0)] * (x.ndim - 2)), tokens)
    count = jnp.clip(count, 0, given).astype(jnp.int32)
    is_due = (jnp.asarray(step) % cache.refresh_every == 0) & (cache.mode == "refresh")
    due = is_due & (state.length > cache.kept(model.spec))

    def one_pass(carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, done = carry
        part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, done, width, axis=1), tokens)
        left = jnp.clip(count - done, 0, width)
        first = done == 0
        return append(model, cache, state, part, left, replaces_last & first, due & first, common), done + width

    if passes == 1:
        return one_pass((state, jnp.int32(0)))[0]

    def any_left(carry: tuple[State, jax.Array]) -> jax.Array:
        return jnp.any(count > carry[1]) | (jnp.any(due) & (carry[1] == 0))

    return jax.lax.while_loop(any_left, one_pass, (state, jnp.int32(0)))[0]


def append(model: OrderModel, cache: CacheSpec, state: State, tokens: Token, count: Array, replaces_last: Array,
           due: Array | bool = False, common: Prefix | None = None) -> State:
    """Appends the first `count` [B] of tokens [B, M] in one pass; the first may rewrite the newest, as above.

    In `refresh`, contexts that are full, or `due` [B], are refreshed before; they have nothing in `common` then.
    """
    # Made once: without the barrier XLA makes the tokens again in each kernel that reads them, from the state before
    # the step, which it then copies.
    tokens, count, replaces_last = jax.lax.optimization_barrier((tokens, count, replaces_last))
    context_length = model.spec.context_length
    count = jnp.clip(count, 0, tokens.kind.shape[1]).astype(jnp.int32)
    again = (replaces_last & (count > 0) & (state.total > 0)).astype(jnp.int32)
    if cache.mode == "refresh":
        full = state.length + count - again > context_length
        state = _refresh(model, cache, state, full | due)
        state = dataclasses.replace(state, refreshes=state.refreshes + (full & ~jnp.asarray(due)))
        if state.of_prefix is not None:
            # A rewritten token may be the last of the common ones.
            left = jnp.minimum(state.of_prefix, state.length - again)
            state = dataclasses.replace(state, of_prefix=jnp.where(full | due, 0, left))
    state = _remember(state, tokens, count, state.total - again)
    if state.memories is not None:
        memories, newest = memory.append(model, cache, state.memories, jnp.asarray(state.newest), tokens, count, again)
        state = dataclasses.replace(state, memories=memories, newest=newest)
    if state.keys is not None:
        first = (state.total if cache.mode == "rolling" else state.length) - again
        state = _run_layers(model, cache, state, tokens, count, first, common)
    return dataclasses.replace(state, total=state.total + count - again,
                               length=jnp.minimum(state.length + count - again, context_length))


def predict(model: OrderModel, cache: CacheSpec, state: State, common: Prefix | None = None) -> jax.Array:
    """Final hidden states [B, d] of the newest tokens; numbers without meaning for a trajectory without tokens.

    `common` as in `append_all`.
    """
    if state.memories is not None and state.newest is not None:
        return memory.predict(model, cache, state.memories[-1], jnp.asarray(state.newest))
    if state.keys is None or state.values is None or state.newest is None:
        return _recompute(model, cache, state)
    newest, slots = state.newest, _slots_of(state, -1)
    spec, ways = model.spec, kernels.chosen(cache.kernels)
    layer = model.layer(spec.layers - 1)
    ring = cache.mode == "rolling"
    cos, sin = map(jnp.asarray, layers.rotary_table(2 * spec.context_length, spec.embed_dim // spec.heads))
    turns = jnp.arange(0, (1 + ring) * spec.context_length, spec.context_length)

    def block(part: Part) -> jax.Array:
        x, total, length = part(newest)[:, None], part(state.total), part(state.length)
        slot = jnp.maximum((total if ring else length) - 1, 0) % spec.context_length
        (query,) = layer.project(x, slice(0, 1))
        angle = slot[:, None] + turns
        query, of_part = layers.rotate(query, cos[angle][:, :, None], sin[angle][:, :, None]), jax.tree.map(part, slots)
        earlier = None
        if common is not None and state.of_prefix is not None:
            earlier = prefix.attend(common, -1, query, part(state.of_prefix)[:, None], of_part, ways, model.compute)
        if not ring and cached_attention.by_kernel(ways, of_part):
            mixed = cached_attention.attend(ways, query, of_part, slot[:, None] + 1, model.compute, earlier)
        else:
            # In a ring the slots beyond the query's hold the lap before; in a context, and in a first lap, they are
            # empty.
            this_lap = jnp.arange(spec.context_length) <= slot[:, None, None]
            seen = this_lap | (ring & (total > spec.context_length)[:, None, None])
            mixed = cached_attention.attend_one(cache, query, of_part, this_lap, seen, earlier)[:, None]
        return model.norm(layer.after_attention(x, mixed))[:, 0]

    return in_blocks(block, ways.rows, state.total.shape[0])


def logits(model: OrderModel, cache: CacheSpec, hidden: jax.Array) -> jax.Array:
    """Logits [B, classes], float32, of hidden states [B, d], bitwise the same for a row in any batch on a CPU."""
    return in_blocks(lambda part: model.head(part(hidden)), kernels.chosen(cache.kernels).rows, hidden.shape[0])


def prepared(model: OrderModel, cache: CacheSpec) -> head_kernel.Weights | None:
    """What `sample` reads of the head, where this is made of it first: once before many steps, or in each of them."""
    head = model.head
    if isinstance(head, RowHead) or kernels.chosen(cache.kernels).head == "xla":
        return None
    return head_kernel.prepared(head.weight[...], head.compute)


def sample(model: OrderModel, cache: CacheSpec, hidden: jax.Array, words: Array, temperature: float,
           weights: head_kernel.Weights | None = None) -> tuple[jax.Array, jax.Array]:
    """A class drawn from the law of each of the hidden states [B, d], int32 [B], and whether there is a law, bool [B].

    `words`, uint32 [B, 2], are the random words of the draws, `weights` what `prepared` gave, if it was called. The
    logits are made a part at a time and never lie in memory together.
    """
    ways, head = kernels.chosen(cache.kernels), model.head
    weights = prepared(model, cache) if weights is None else weights

    def block(part: Part) -> tuple[jax.Array, jax.Array]:
        if weights is not None:
            return head_kernel.sample(part(hidden), weights, part(words), temperature, head.compute,
                                      interpret=ways.head == "interpreted")
        return head.draw(part(hidden), part(words), temperature, ways.logits)

    return in_blocks(block, ways.rows, hidden.shape[0])


def _slots_of(state: State, layer: int) -> Slots:
    keys, values = state.keys or (), state.values or ()
    return Slots(keys[layer], values[layer], None if state.scales is None else state.scales[layer])


def _with_slots(state: State, slots: list[Slots]) -> State:
    scales = tuple(of.scales for of in slots if of.scales is not None)
    return dataclasses.replace(state, keys=tuple(of.keys for of in slots), values=tuple(of.values for of in slots),
                               scales=scales or None)


def _run_layers(model: OrderModel, cache: CacheSpec, state: State, tokens: Token, count: Array, first: Array,
                common: Prefix | None) -> State:
    """Writes the keys and values of new tokens [B, M] from slot `first` [B] on, layer by layer.

    The layers are a program one after the other, not a loop: a loop would copy each layer's weights out of the stack,
    and it would need the keys of all layers in one array.
    """
    (batch, width), spec, ways = tokens.kind.shape, model.spec, kernels.chosen(cache.kernels)
    place, trajectory = jnp.arange(width), jnp.arange(batch)
    rows = ways.rows if ways.rows is None or width == 1 else min(ways.rows, ways.contexts)
    slot_BxM = (first[:, None] + place) % spec.context_length
    # Masked rows get slots beyond the end, a different one each, so that the scatters may count on unique slots.
    # What is not appended sees nothing, and costs the kernel nothing.
    length_BxM = jnp.where(place < count[:, None], slot_BxM + 1, 0)
    of_prefix_BxM = None if state.of_prefix is None else jnp.where(length_BxM > 0, state.of_prefix[:, None], 0)
    target_BxM = jnp.where(place < count[:, None], slot_BxM, spec.context_length + place)
    cos, sin = map(jnp.asarray, layers.rotary_table(spec.context_length, spec.embed_dim // spec.heads))

    def turned(x: jax.Array, slot: jax.Array) -> jax.Array:
        return layers.rotate(x, cos[slot][:, :, None], sin[slot][:, :, None])

    def stored(old: Slots, key: jax.Array, value: jax.Array) -> Slots:
        def put(old: Array, new: jax.Array, in_columns: bool = False) -> jax.Array:
            old, rows = jnp.asarray(old), trajectory[:, None]
            at = old.at[rows, :, :, target_BxM] if in_columns else old.at[rows, :, target_BxM]
            return at.set(new, mode="drop", unique_indices=True)

        key, value, scale = cached_attention.kept(cache, key, value)
        scales = None if scale is None or old.scales is None else jnp.asarray(old.scales).at[
            trajectory[:, None], :, :, target_BxM].set(jnp.moveaxis(scale, 0, 2), mode="drop", unique_indices=True)
        return Slots(put(old.keys, key, cached_attention.has_columns(cache)), put(old.values, value), scales)

    slots = [_slots_of(state, number) for number in range(spec.layers)]
    x = in_blocks(lambda part: model.embedding(jax.tree.map(part, tokens)), rows, batch)
    for number in range(spec.layers):
        layer, is_last = model.layer(number), number == spec.layers - 1

        def projected(part: Part, x: jax.Array = x, layer: DecoderLayer = layer, is_last: bool = is_last
                      ) -> tuple[jax.Array, ...]:
            *query_key, value = layer.project(part(x), slice(1 if is_last else 0, 3))
            return *(turned(y, part(slot_BxM)) for y in query_key), value

        *query, key, value = in_blocks(projected, rows, batch)
        slots[number] = stored(slots[number], key, value)
        if is_last:
            break

        def rest(part: Part, x: jax.Array = x, layer: DecoderLayer = layer, query: jax.Array = query[0],
                 number: int = number) -> jax.Array:
            query, of_part, earlier = part(query), jax.tree.map(part, slots[number]), None
            if common is not None and of_prefix_BxM is not None:
                earlier = prefix.attend(common, number, query, part(of_prefix_BxM), of_part, ways, model.compute)
            mixed = cached_attention.attend(ways, query, of_part, part(length_BxM), model.compute, earlier)
            return layer.after_attention(part(x), mixed)

        x = in_blocks(rest, rows, batch)
    newest = jnp.where(count[:, None] > 0, x[trajectory, jnp.maximum(count - 1, 0)], jnp.asarray(state.newest))
    return dataclasses.replace(_with_slots(state, slots), newest=newest)


def _remember(state: State, tokens: Token, count: Array, first: Array) -> State:
    """With the first `count` [B] of tokens [B, M], from number `first` [B] on, in the rings of tokens."""
    if state.window is None:
        return state
    return dataclasses.replace(state, window=token_ring.remember(state.window, tokens, count, first))


def _refresh(model: OrderModel, cache: CacheSpec, state: State, due: Array) -> State:
    """Shortens the contexts of the trajectories that are `due` [B] and encodes what is kept, a block at a time."""
    spec, batch, ways = model.spec, state.total.shape[0], kernels.chosen(cache.kernels)
    kept, last = cache.kept(spec), model.layer(spec.layers - 1)
    cos, sin = (x[:, None] for x in layers.rotary_table(kept, spec.embed_dim // spec.heads))

    def one_block(carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, due = carry
        # As many of those due as a block holds; rows past the batch are computed and dropped.
        chosen = jnp.nonzero(due, size=cache.block, fill_value=batch)[0].astype(jnp.int32)
        target = jnp.where(chosen < batch, chosen, batch + jnp.arange(cache.block))
        tokens, count = token_ring.last(cast(Token, state.window), state.total, jnp.minimum(chosen, batch - 1), kept)
        x, cached = model.encode(tokens, upto=spec.layers - 1, way=ways.encode)
        key, value = last.project(x, slice(1, 3))
        of_last = layers.rotate(key, cos, sin), value

        def put(old: Array | None, new: jax.Array) -> jax.Array:
            return jnp.asarray(old).at[target].set(new, mode="drop", unique_indices=True)

        def stored(number: int) -> Slots:
            old, of_layer = _slots_of(state, number), of_last if number == spec.layers - 1 else cached[number]
            key, value, scale = cached_attention.kept(cache, *(jnp.swapaxes(x, -3, -2) for x in of_layer))
            keys, values = (jnp.asarray(x).at[target, :, :kept].set(new, mode="drop", unique_indices=True)
                            for x, new in ((old.keys, key), (old.values, value)))
            return Slots(keys, values, None if scale is None or old.scales is None else jnp.asarray(old.scales).at[
                target, :, :, :kept].set(jnp.moveaxis(scale, 0, 1), mode="drop", unique_indices=True))

        newest = x[jnp.arange(cache.block), jnp.maximum(count - 1, 0)]
        state = _with_slots(state, [stored(number) for number in range(spec.layers)])
        state = dataclasses.replace(state, newest=put(state.newest, newest), length=put(state.length, count))
        return state, due.at[target].set(False, mode="drop")

    return jax.lax.while_loop(lambda carry: jnp.any(carry[1]), one_block, (state, jnp.asarray(due)))[0]


def _recompute(model: OrderModel, cache: CacheSpec, state: State) -> jax.Array:
    """Final hidden states [B, d] of the newest tokens, from all the tokens in the windows."""
    batch = state.total.shape[0]
    blocks = -(-batch // cache.block)

    def one_block(trajectory: jax.Array) -> jax.Array:
        tokens, count = token_ring.last(cast(Token, state.window), state.total, trajectory, model.spec.context_length)
        x, _ = model.encode(tokens)
        return model.norm(x[jnp.arange(cache.block), jnp.maximum(count - 1, 0)])

    trajectory = jnp.minimum(jnp.arange(blocks * cache.block), batch - 1).reshape(blocks, cache.block)
    return jax.lax.map(one_block, trajectory).reshape(blocks * cache.block, -1)[:batch]
