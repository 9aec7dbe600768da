"""Time of one query's attention to contexts of one layer: the kernel, cut by cut, and what the compiler makes.

    python experiments/throughput/attention.py                        # on a GPU, half a minute
    python experiments/throughput/attention.py --batch 2 --heads 2 --slots 64 --interpret    # on a CPU, as a check

One line of JSON a measurement. `gb_per_s` is by the bytes that had to be read: keys and values, and scales, of the
slots that are filled, whatever a way reads in truth. `copy` and `read` are what the device's memory reaches in this
run. `difference` is the largest one to `sums`; a way that fails has `error` instead.
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core import kernels
from marsjax.core.specs import CacheSpec, ComputeSpec
from marsjax.model import attention_kernel, cached_attention
from marsjax.model.attention_kernel import Cut
from marsjax.model.cached_attention import Slots

CUTS = (Cut(64, 4), Cut(128, 8), Cut(128, 4), Cut(64, 8), Cut(64, 2))
LOOPS, REPEATS = 16, 5
COMPUTE = ComputeSpec(dtype="bfloat16")


class Way(NamedTuple):
    """What is measured."""

    name: str
    dtype: str
    cut: Cut | None


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
        for way in [Way("products", "bfloat16", None), Way("sums", "bfloat16", None),
                    *(Way("kernel", dtype, cut) for place in range(len(CUTS)) for dtype in best
                      for cut in best[dtype][place:place + 1])]:
            if time.perf_counter() > ends:
                say(left_out=way._asdict(), batch=batch)
                continue
            for row in measured(way, inputs, given, plain):
                say(batch=batch, **row)
        # Larger batches are measured with what was fastest in the first.
        best = {dtype: fastest(dtype) for dtype in best}


def arguments() -> argparse.Namespace:
    """The sizes, those of the benchmark's deep model unless given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 256], help="trajectories")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--slots", type=int, default=1024, help="of a context")
    parser.add_argument("--size", type=int, default=64, help="of a head")
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
    """A query and full contexts, as they are kept in bfloat16 and in int8."""
    @jax.jit
    def draw() -> dict[str, Any]:
        keys = jax.random.split(jax.random.key(0), 3)
        query = jax.random.normal(keys[0], (batch, 1, heads, size), jnp.bfloat16)
        key, value = (jax.random.normal(one, (batch, heads, slots, size), jnp.bfloat16) for one in keys[1:])
        *both, scale = cached_attention.kept(CacheSpec(cache_dtype="int8"), key, value)
        return {"query": query, "bfloat16": Slots(key, value, None),
                "int8": Slots(*both, jnp.moveaxis(scale, 0, 1))}

    return jax.block_until_ready(draw())


def measured(way: Way, inputs: dict[str, Any], given: argparse.Namespace, plain: Callable[..., jax.Array]
             ) -> Iterator[dict[str, Any]]:
    """A row for each length: half of the slots, nearly three quarters, all."""
    query, slots = inputs["query"], inputs[way.dtype]
    batch, _, heads, size = query.shape
    attend = jax.jit(functools.partial(attention, way, given.interpret))
    loop = in_a_loop(attend)
    about = {"way": way.name, "dtype": way.dtype, "cut": way.cut and way.cut._asdict()}
    for length in (given.slots // 2, given.slots * 23 // 32, given.slots):
        filled = jnp.full((batch, 1), length, jnp.int32)
        try:
            began = time.perf_counter()
            us = median_us(functools.partial(loop, query, slots, filled)) / LOOPS
            row: dict[str, Any] = {"us": us, "first_s": time.perf_counter() - began}
            found, wanted = (of(query, slots, filled).astype(jnp.float32) for of in (attend, plain))
            row["difference"] = float(jnp.max(jnp.abs(found - wanted)))
        except Exception as error:  # noqa: BLE001  one way is not to end the others, whatever a compiler raises
            yield {**about, "length": length, "error": f"{type(error).__name__}: {error}"[:500]}
            return
        vector = size + 4 if way.dtype == "int8" else 2 * size
        yield {**about, "length": length, **row, "gb_per_s": 2 * batch * heads * length * vector / row["us"] / 1e3}


def attention(way: Way, interpret: bool, query: jax.Array, slots: Slots, length: jax.Array) -> jax.Array:
    """Attention [B, 1, h, k] by one of the ways."""
    if way.cut:
        return attention_kernel.attend(query, *slots, length, cut=way.cut, interpret=interpret)
    if way.name == "products":
        return cached_attention.attend(kernels.ACCELERATOR, query, slots, length, COMPUTE)
    seen = jnp.arange(slots.keys.shape[2]) < length[..., None]
    return cached_attention.attend_one(CacheSpec(kernels=kernels.ACCELERATOR), query, slots, seen, seen)[:, None]


def in_a_loop(attend: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Calls in one compiled loop, each of which takes the result of the one before."""
    @jax.jit
    def loop(query: jax.Array, slots: Slots, length: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, LOOPS, lambda _, x: query + attend(x, slots, length) * 0.125, query)

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
