"""Time of one query's attention to contexts of one layer: the kernel, cut by cut, and what the compiler makes.

    python experiments/throughput/attention.py                        # on a GPU, half a minute
    python experiments/throughput/attention.py --what shared --batch 128    # with a prefix that all contexts share
    python experiments/throughput/attention.py --what encode                # attention of a refresh, and its layer
    python experiments/throughput/attention.py --batch 2 --heads 2 --slots 64 --interpret    # on a CPU, as a check

One line of JSON a measurement. `gb_per_s` is by the bytes that had to be read: keys and values, and scales, of the
slots that are filled, whatever a way reads in truth. `copy` and `read` are what the device's memory reaches in this
run. `difference` is the largest one to `sums`; a way that fails has `error` instead.

The first half of the slots is the same in all contexts. `shared` reads it once for all queries, by the kernel
(`model.prefix_kernel`, `of_prefix` is how it is cut) or by products of JAX, and the others as `kernel` does; `common`
are the slots that it reads so, 0 as after a refresh.

`encode` are contexts of half the slots that are made anew, `--contexts` at a time, by the ways of `Kernels.encode`: the
attention alone, and a whole decoder layer. Their `difference` is to `xla`.
"""

import argparse
import functools
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core import kernels
from marsjax.core.specs import CacheSpec, ComputeSpec, ModelSpec
from marsjax.model import attention_kernel, cached_attention, layers, llama, prefix, prefix_kernel
from marsjax.model.attention_kernel import LOG2_E, Cut, Earlier
from marsjax.model.cached_attention import Slots
from marsjax.model.prefix import Prefix
from marsjax.model.prefix_kernel import PrefixCut

CUTS = (Cut(64, 4), Cut(128, 8), Cut(128, 4), Cut(64, 8), Cut(64, 2))
OF_PREFIX = (prefix_kernel.DEFAULT, PrefixCut(16, 128, 4, 2), PrefixCut(32, 64, 4, 2),
             PrefixCut(64, 64, 4, 2), PrefixCut(16, 64, 4, 3), PrefixCut(16, 64, 2, 2),
             PrefixCut(16, 64, 4, 1))
LOOPS, REPEATS = 16, 5
COMPUTE = ComputeSpec(dtype="bfloat16")


class Way(NamedTuple):
    """What is measured."""

    name: str
    dtype: str
    cut: Cut | None
    of_prefix: PrefixCut | str | None = None
    """How the kernel of common slots is cut, or `products`; None: each context reads its own copy."""


class Context(NamedTuple):
    """What a query meets."""

    slots: Slots
    length: jax.Array
    """int32 [B, 1], filled slots."""
    common: jax.Array
    """int32 [B, 1], those of them that are read once for all."""
    shared: Prefix | None


OWN = [Way("products", "bfloat16", None), Way("sums", "bfloat16", None)]
SHARED = [*(Way("kernel", dtype, attention_kernel.cut_of(dtype)) for dtype in ("bfloat16", "int8")),
          *(Way("shared", dtype, attention_kernel.cut_of(dtype), of_prefix)
            for of_prefix in (OF_PREFIX[0], "products", *OF_PREFIX[1:]) for dtype in ("bfloat16", "int8")
            if dtype == "bfloat16" or of_prefix == OF_PREFIX[0])]


def main() -> None:
    """Prints a line of JSON for each measurement, as long as there is time."""
    given = arguments()
    ends = time.perf_counter() + given.seconds
    device = jax.devices()[0]
    say(device=device.device_kind, platform=device.platform, jax=jax.__version__, kernel=kernels.has_triton())
    for name, us, size in memory(given.megabytes):
        say(way=name, us=us, gb_per_s=size / us / 1e3)
    best = {dtype: list(CUTS) for dtype in ("bfloat16", "int8")}
    for batch in given.batch:
        inputs = made(batch, given.heads, given.slots, given.size)
        plain = jax.jit(functools.partial(attention, Way("sums", "", None), False))
        own = [*OWN, *(Way("kernel", dtype, cut) for place in range(len(CUTS)) for dtype in best
                       for cut in best[dtype][place:place + 1])]
        for way in [*(own if "own" in given.what else ()), *(SHARED if "shared" in given.what else ())]:
            if time.perf_counter() > ends:
                say(left_out=way._asdict(), batch=batch)
                continue
            for row in measured(way, inputs, given, plain):
                say(batch=batch, **row)
        # Larger batches are measured with what was fastest in the first.
        best = {dtype: fastest(dtype) for dtype in best}
    for row in encoded(given) if "encode" in given.what else ():
        say(**row)


def arguments() -> argparse.Namespace:
    """The sizes, those of the benchmark's deep model unless given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 256], help="trajectories")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--slots", type=int, default=1024, help="of a context")
    parser.add_argument("--size", type=int, default=64, help="of a head")
    parser.add_argument("--what", nargs="+", choices=("own", "shared", "encode"), default=["own", "shared"])
    parser.add_argument("--contexts", type=int, default=16, help="made anew at a time")
    parser.add_argument("--megabytes", type=int, default=1024, help="of the copy")
    parser.add_argument("--seconds", type=float, default=40, help="after which no measurement begins")
    parser.add_argument("--interpret", action="store_true", help="the kernel step by step, on any device")
    return parser.parse_args()


_RECORDS: list[dict[str, Any]] = []


def say(**record: Any) -> None:
    """Prints a record."""
    _RECORDS.append(record)
    print(json.dumps({key: round(value, 5) if isinstance(value, float) else value for key, value in record.items()}),
          flush=True)


def fastest(dtype: str) -> list[Cut]:
    """The cut with the least time so far, summed over lengths."""
    total: dict[Cut, float] = {}
    for row in _RECORDS:
        if row.get("way") == "kernel" and row["dtype"] == dtype and "us" in row:
            total[Cut(**row["cut"])] = total.get(Cut(**row["cut"]), 0) + row["us"]
    return sorted(total, key=lambda cut: total[cut])[:2]


def made(batch: int, heads: int, slots: int, size: int) -> dict[str, Any]:
    """A query and full contexts, as they are kept in bfloat16 and in int8; their first halves are the same."""
    @jax.jit
    def draw() -> dict[str, Any]:
        keys = jax.random.split(jax.random.key(0), 3)
        query = jax.random.normal(keys[0], (batch, 1, heads, size), jnp.bfloat16)
        key, value = (jax.random.normal(one, (batch, heads, slots, size), jnp.bfloat16) for one in keys[1:])
        key, value = (x.at[:, :, :slots // 2].set(x[:1, :, :slots // 2]) for x in (key, value))
        *both, scale = cached_attention.kept(CacheSpec(cache_dtype="int8"), key, value)
        return {"query": query, "bfloat16": Slots(key, value, None),
                "int8": Slots(*both, jnp.moveaxis(scale, 0, 1))}

    return jax.block_until_ready(draw())


def measured(way: Way, inputs: dict[str, Any], given: argparse.Namespace, plain: Callable[..., jax.Array]
             ) -> Iterator[dict[str, Any]]:
    """A row for each length: half of the slots, nearly three quarters, 15 of 16, all."""
    query, slots, half = inputs["query"], inputs[way.dtype], given.slots // 2
    batch, _, heads, size = query.shape
    shared = prefix.of_slots([jax.tree.map(lambda x: x[:1], slots)], half, COMPUTE) if way.of_prefix else None
    attend = jax.jit(functools.partial(attention, way, given.interpret))
    loop = in_a_loop(attend)
    of_prefix = way.of_prefix._asdict() if isinstance(way.of_prefix, PrefixCut) else way.of_prefix
    about = {"way": way.name, "dtype": way.dtype, "cut": way.cut and way.cut._asdict(), "of_prefix": of_prefix}
    lengths = (half, given.slots * 23 // 32, given.slots * 15 // 16, given.slots)
    for length, common in itertools.product(lengths, (half, 0) if shared else (0,)):
        context = Context(slots, *(jnp.full((batch, 1), x, jnp.int32) for x in (length, common)), shared)
        about |= {"length": length, "common": common}
        try:
            began = time.perf_counter()
            us = median_us(functools.partial(loop, query, context)) / LOOPS
            row: dict[str, Any] = {"us": us, "first_s": time.perf_counter() - began}
            found, wanted = (of(query, context).astype(jnp.float32) for of in (attend, plain))
            row["difference"] = float(jnp.max(jnp.abs(found - wanted)))
        except Exception as error:  # noqa: BLE001  one way is not to end the others, whatever a compiler raises
            yield {**about, "error": f"{type(error).__name__}: {error}"[:500]}
            return
        vector = size + 4 if way.dtype == "int8" else 2 * size
        read = 2 * heads * (batch * (length - common) * vector + common * 2 * size)
        yield {**about, **row, "gb_per_s": read / row["us"] / 1e3}


def encoded(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Contexts made anew: a row for each way."""
    length, width = given.slots // 2, given.heads * given.size
    shape = (given.contexts, length, given.heads, given.size)
    of_attention = tuple(jax.random.normal(key, shape, jnp.bfloat16) for key in jax.random.split(jax.random.key(0), 3))
    spec = ModelSpec(embed_dim=width, layers=2, heads=given.heads, context_length=length)
    layer = llama.init(spec, jax.random.key(1), "bfloat16", COMPUTE).layer(0)
    residuals = jax.random.normal(jax.random.key(2), (given.contexts, length, width), jnp.bfloat16)

    def attend(way: str, q: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
        return layers.attend_to_earlier(q, keys, values, COMPUTE, way)

    def whole(way: str, x: jax.Array, layer: layers.DecoderLayer) -> jax.Array:
        return layer.after_attention(x, attend(way, *layer.project(x)))

    for what, function, arguments in (("attention", attend, of_attention), ("layer", whole, (residuals, layer))):
        plain = None
        for way in ("xla", "stand_in" if given.interpret else "cudnn"):
            row: dict[str, Any] = {"way": way, "encode": what, "contexts": given.contexts, "length": length}
            try:
                once = functools.partial(function, way)
                loop = jax.jit(lambda x, *others, once=once: jax.lax.fori_loop(
                    0, LOOPS, lambda _, y: once(x + y * jnp.bfloat16(0.125), *others), x))
                row["us"] = median_us(functools.partial(loop, *arguments)) / LOOPS
                found = jax.jit(once)(*arguments).astype(jnp.float32)
                plain = found if plain is None else plain
                row["difference"] = float(jnp.max(jnp.abs(found - plain)))
            except Exception as error:  # noqa: BLE001  as above
                row["error"] = f"{type(error).__name__}: {error}"[:500]
            yield row


def attention(way: Way, interpret: bool, query: jax.Array, context: Context) -> jax.Array:
    """Attention [B, 1, h, k] by one of the ways."""
    slots, length, common, shared = context
    if way.cut:
        earlier = None if shared is None else of_common(way, interpret, query, shared, common)
        return attention_kernel.attend(query, *slots, length, earlier, cut=way.cut, interpret=interpret)
    if way.name == "products":
        return cached_attention.attend(kernels.ACCELERATOR, query, slots, length, COMPUTE)
    seen = jnp.arange(slots.keys.shape[2]) < length[..., None]
    return cached_attention.attend_one(CacheSpec(kernels=kernels.ACCELERATOR), query, slots, seen, seen)[:, None]


def of_common(way: Way, interpret: bool, query: jax.Array, shared: Prefix, common: jax.Array) -> Earlier:
    """What the query meets in the slots that all contexts have in common."""
    keys, values = shared.keys[0], shared.values[0]
    if isinstance(way.of_prefix, PrefixCut):
        found = prefix_kernel.attend(query[:, 0], keys, values, common[:, 0], cut=way.of_prefix, interpret=interpret)
    else:
        found = prefix.by_products((keys, values), COMPUTE, LOG2_E, jnp.exp2, query[:, 0], common[:, 0])
    return Earlier(common, *(x[:, None] for x in found))


def in_a_loop(attend: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Calls in one compiled loop, each of which takes the result of the one before."""
    @jax.jit
    def loop(query: jax.Array, context: Context) -> jax.Array:
        return jax.lax.fori_loop(0, LOOPS, lambda _, x: query + attend(x, context) * 0.125, query)

    return loop


def memory(megabytes: int) -> Iterator[tuple[str, float, int]]:
    """Names, microseconds and bytes of a copy in the device's memory, and of one that only reads."""
    size = megabytes * 2**20
    x = jax.block_until_ready(jnp.zeros((size // 4096, 1024), jnp.float32))
    copy, read = jax.jit(lambda x: x + 1), jax.jit(lambda x: jnp.max(x, axis=1))
    yield "copy", median_us(lambda: copy(x)), 2 * size
    yield "read", median_us(lambda: read(x)), size


def median_us(call: Callable[[], Any]) -> float:
    """Microseconds of a call: the median of some after a first."""
    jax.block_until_ready(call())
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(call())
        found.append(time.perf_counter() - began)
    return statistics.median(found) * 1e6


if __name__ == "__main__":
    main()
