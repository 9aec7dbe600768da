"""Orders per second of whole rollouts, end to end, and the time of their parts. See configs/benchmark.py."""

import functools
import re
import statistics
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from marsjax import bins, clock, model, rollout, simulate, start, tokens
from marsjax.agents.noise import NoiseSpec
from marsjax.experiments import benchmark_parts, sources
from marsjax.experiments.output import output_folder, write_json
from marsjax.model import Params
from marsjax.simulate import SimulationSpec
from marsjax.specs import SECOND_NS, CacheSpec, ComputeSpec, MarketSpec, ModelSpec, TokenSpec
from marsjax.start import Start
from marsjax.types import Kind, Order

BANDWIDTH_GB_PER_S = {"H200": 4800, "H100": 3350, "A100": 2000}
"""Of device memory, by what the device's name holds (data sheets)."""
_LEVEL_BINS = 32
_HORIZON_MINUTES = 120
"""Long enough for a few thousand orders a trajectory: none is to end while it is timed."""


class Case(NamedTuple):
    """What is measured: a model and how many trajectories of it."""

    name: str
    model: ModelSpec
    cache: CacheSpec
    trajectories: int


class _EnoughError(Exception):
    """Ends a rollout after the chunks that are timed."""


def main(config: ConfigDict) -> int:
    """Measures every case, prints a table and writes results.json."""
    for key in ("chunk_steps", "chunks", "repeats", "minutes", "capacity"):
        if config[key] < 1:
            raise ValueError(f"config.{key}: expected at least 1, got {config[key]}")
    device = jax.devices()[0]
    cases = [_case(text, config, device.platform) for text in config.cases]
    limit = config.bandwidth_gb_per_s or bandwidth(device.device_kind)
    market = MarketSpec(capacity=config.capacity, trade_width=32, owners=2)
    orders = _noise_orders(market, config)
    tables = _tables(orders)
    rows: list[dict[str, Any]] = []
    with output_folder(config.output, config.overwrite) as folder:
        for case in cases:
            rows.append(_measure(case, market, orders, tables, config, limit))
            print(_table(rows[-1:], head=len(rows) == 1), flush=True)
        write_json(folder / "results.json", {"device": device.device_kind, "platform": device.platform,
                                             "jax": jax.__version__, "bandwidth_gb_per_s": limit,
                                             "config": config, "rows": rows})
    print(benchmark_parts.table(rows))
    print(f"results in {config.output}")
    return 0


def bandwidth(device_kind: str) -> float | None:
    """Of the device's memory, GB/s; None for a device that is not known."""
    return next((speed for name, speed in BANDWIDTH_GB_PER_S.items() if name in device_kind), None)


def _case(text: str, config: ConfigDict, platform: str) -> Case:
    """`2m:128` or `24x1024:128`: the model (2m, or layers x width), and the trajectories."""
    match = re.fullmatch(r"(2m|(\d+)x(\d+)):(\d+)", text)
    if not match or int(match[4]) < 1:
        raise ValueError(f"config.cases: expected MODEL:TRAJECTORIES, as 2m:128 or 24x1024:128, got {text!r}")
    width = int(match[3] or 16)
    spec = ModelSpec(width=width, layers=int(match[2] or 1), heads=max(2, width // 64), max_orders=config.max_orders)
    # On a CPU a fixed number of rows, for the same bits in any batch, as rollouts have it there.
    rows, window = 16 if platform == "cpu" else None, config.max_orders
    if match[1] == "2m":
        return Case(match[1], spec, CacheSpec(mode="rolling", append=1, rows=rows), int(match[4]))
    cache = CacheSpec(mode="hop", hop=window * 7 // 16, margin=window // 16, append=1, rows=rows,
                      compute=ComputeSpec(dtype="bfloat16"))
    return Case(match[1], spec, cache, int(match[4]))


def _noise_orders(market: MarketSpec, config: ConfigDict) -> Order:
    warmup = start.Warmup(duration_ns=config.minutes * 60 * SECOND_NS)
    return start.noise(market, NoiseSpec(), warmup, config.seed)[1][0]


def _tables(orders: Order) -> tuple[tokens.TokenTables, tokens.DrawTables]:
    """Bins fitted on the noise orders: of what size the numbers are matters for the flow, not which they are."""
    spec, limit = TokenSpec(), orders.kind != Kind.CANCEL
    volume = np.asarray(orders.volume)[limit].astype(np.float64)
    values = {
        "price-level": (np.diff(np.asarray(orders.price)[limit]), spec.price_levels),
        "order-volume": (volume, spec.volumes), "pred-order-volume": (volume, spec.volumes),
        "order-interval": (np.diff(clock.time_to_ns(orders.time)) / SECOND_NS, spec.intervals),
        "lob-volume": (np.convolve(volume, np.ones(5)), _LEVEL_BINS)}
    converters = {name: bins.fit(x.astype(np.float64), count) for name, (x, count) in values.items()}
    return tokens.tables(spec, converters), tokens.draw_tables(spec, converters)


def _measure(case: Case, market: MarketSpec, orders: Order, tables: tuple[tokens.TokenTables, tokens.DrawTables],
             config: ConfigDict, limit_gb_per_s: float | None) -> dict[str, Any]:
    params = jax.jit(functools.partial(model.init, case.model, dtype=case.cache.compute.dtype))(jax.random.key(0))
    time_ns = start.Warmup().start_ns + config.minutes * 60 * SECOND_NS
    spec = SimulationSpec(market, case.model, case.cache, end_ns=time_ns + _HORIZON_MINUTES * 60 * SECOND_NS)
    first = start.from_feed(market, tables[0], iter([sources.as_chunk(orders)]), time_ns, case.model.max_orders,
                            chunk_orders=256)
    first_chunk_s, chunk_s = _chunks(params, spec, tables, first, case.trajectories, config)
    step_s = statistics.median(sum(part) for part in chunk_s) / config.chunks / config.chunk_steps
    bytes_moved = benchmark_parts.bytes_moved(params, spec, case.trajectories)
    moved = sum(bytes_moved.values())
    row = {
        "model": case.name, "trajectories": case.trajectories, "orders_per_s": case.trajectories / step_s,
        "us_per_step": step_s * 1e6, "us_per_chunk_step": [[s / config.chunk_steps * 1e6 for s in part]
                                                            for part in chunk_s],
        "first_step_s": first_chunk_s - statistics.median(min(part) for part in chunk_s),
        "bytes_per_step": bytes_moved, "gb_per_s": moved / step_s / 1e9,
        "of_bandwidth": limit_gb_per_s and moved / step_s / 1e9 / limit_gb_per_s,
        "peak_gb": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 1e9 or None}
    if config.parts:
        state = jax.jit(functools.partial(_begin, spec), static_argnums=2)(params, first, case.trajectories)
        parts = benchmark_parts.seconds(params, spec, tables, state, config.chunk_steps, config.repeats)
        row["us_of_parts"] = {name: s * 1e6 for name, s in parts.items()}
        row["us_of_parts"]["rest"] = step_s * 1e6 - sum(row["us_of_parts"].values())
    return row


def _begin(spec: SimulationSpec, params: Params, first: Start, trajectories: int) -> simulate.Simulation:
    every = jax.tree.map(lambda x: jnp.broadcast_to(x, (trajectories, *jnp.shape(x))), first)
    return simulate.begin(params, spec, every, jnp.arange(trajectories, dtype=jnp.int32))


def _chunks(params: Params, spec: SimulationSpec, tables: tuple[tokens.TokenTables, tokens.DrawTables], first: Start,
            trajectories: int, config: ConfigDict) -> tuple[float, list[list[float]]]:
    """Seconds from the call of `rollout` to the end of its first chunk, and of each chunk after it, by repeat."""
    wanted = 1 + config.chunks * config.repeats
    times = [time.perf_counter()]

    def on_chunk(*_: Any) -> None:
        times.append(time.perf_counter())
        if len(times) > wanted:
            raise _EnoughError

    try:
        rollout.rollout(params, spec, *tables, first, trajectories=trajectories, minutes=_HORIZON_MINUTES,
                        seed=config.seed, chunk_steps=config.chunk_steps, on_chunk=on_chunk)
    except _EnoughError:
        seconds = np.diff(times).tolist()
        return seconds[0], np.reshape(seconds[1:], (config.repeats, config.chunks)).tolist()
    raise ValueError(f"config.chunks: all trajectories ended within {wanted} chunks of {config.chunk_steps} steps; "
                     "set chunks, repeats or chunk_steps lower")


def _table(rows: list[dict[str, Any]], head: bool) -> str:
    title = (f"{'model':>8} {'trajectories':>12} {'orders/s':>10} {'us/step':>9} {'GB/s':>7} {'of limit':>8} "
             f"{'first step s':>12} {'peak GB':>8}")

    def shown(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    lines = [f"{row['model']:>8} {row['trajectories']:>12} {row['orders_per_s']:>10.0f} {row['us_per_step']:>9.1f} "
             f"{row['gb_per_s']:>7.1f} {shown(row['of_bandwidth'], 3):>8} {row['first_step_s']:>12.1f} "
             f"{shown(row['peak_gb'], 2):>8}" for row in rows]
    return "\n".join([title] * head + lines)
