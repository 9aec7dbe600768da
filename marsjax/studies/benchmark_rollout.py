"""Orders a second of complete rollouts, end to end, and the time of their parts."""

import dataclasses
import functools
import re
import statistics
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.checkpoint.load import LoadedModel
from marsjax.core import kernels, limits, times
from marsjax.core.errors import InputError
from marsjax.core.records import Kind, Order
from marsjax.core.specs import CacheSpec, ComputeSpec, MarketSpec, ModelSpec, TokenSpec
from marsjax.core.times import SECOND_NS
from marsjax.model import llama
from marsjax.model.layers import FLOAT32
from marsjax.sim import step as sim_step
from marsjax.sim.devices import Devices
from marsjax.sim.initial import Start, Warmup
from marsjax.sim.rollout import Hooks
from marsjax.sim.simulator import Simulator
from marsjax.sim.state import SimState
from marsjax.studies import benchmark_parts, futures, order_model, starts
from marsjax.studies.checks import check_numbers
from marsjax.studies.futures import Batch, FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.starts import NoiseMarket
from marsjax.tokens import bins, encoding
from marsjax.tokens.bins import Converter

BANDWIDTH_GB_PER_S = {"H200": 4800, "H100": 3350, "A100": 2000}
"""Of device memory, by what the device's name holds (data sheets)."""
_LEVEL_BINS = 32
_HORIZON_MINUTES = 120
"""Long enough for a few thousand orders a trajectory: none is to end while it is timed."""


@dataclasses.dataclass(frozen=True)
class RolloutBenchmark:
    """How rollouts are timed."""

    minutes: int = 30
    """Of noise before the start."""
    seed: int = 0
    """Of the noise and of the rollouts."""
    chunk_steps: int = 64
    """Decisions of a compiled call."""
    chunks: int = 7
    """Of a timed stretch."""
    repeats: int = 3
    """Timed stretches; the median counts."""
    parts: bool = True
    """Whether the parts of a step are timed too, each compiled apart, on one device."""
    devices: int = 1
    """That share the trajectories; 0: all of this process."""

    def __post_init__(self) -> None:
        check_numbers(self, chunk_steps=(1, limits.STEPS_OF_A_CALL), chunks=(1, 10**6), repeats=(1, 1000),
                      minutes=(1, limits.MINUTES), seed=(0, limits.SEED), devices=(0, limits.TRAJECTORIES))


class Case(NamedTuple):
    """What is measured: a model and how many trajectories of it."""

    name: str
    model: ModelSpec
    cache: CacheSpec
    compute: ComputeSpec
    trajectories: int


class _EnoughError(Exception):
    """Ends a rollout after the chunks that are timed."""


def bandwidth(device_kind: str) -> float | None:
    """Of the device's memory, GB/s; None for a device that is not known."""
    return next((speed for name, speed in BANDWIDTH_GB_PER_S.items() if name in device_kind), None)


def case(text: str, context_length: int, platform: str) -> Case:
    """`2m:128` or `24x1024:128`: the model (2m, or layers x width), and the trajectories."""
    match = re.fullmatch(r"(2m|(\d+)x(\d+)):(\d+)", text)
    if not match or int(match[4]) < 1:
        raise InputError(f"expected MODEL:TRAJECTORIES, as 2m:128 or 24x1024:128, got {text!r}")
    limits.check_whole(f"trajectories of {text}", int(match[4]), 1, limits.TRAJECTORIES)
    width = int(match[3] or 16)
    spec = ModelSpec(embed_dim=width, layers=int(match[2] or 1), heads=max(2, width // 64),
                     context_length=context_length)
    ways, window = kernels.for_platform(platform), context_length
    if match[1] == "2m":
        return Case(match[1], spec, CacheSpec(mode="rolling", append=1, kernels=ways), FLOAT32, int(match[4]))
    cache = CacheSpec(mode="refresh", refresh_every=window * 7 // 16, margin=window // 16, append=1, kernels=ways)
    return Case(match[1], spec, cache, ComputeSpec(dtype="bfloat16"), int(match[4]))


def taken(case: Case, ways: Mapping[str, str], cache_dtype: str, prefix: str = "auto") -> Case:
    """The case with other ways, by their names in `Kernels` (empty: the device's), kind of cache and prefix.

    InputError where the device cannot run a kernel.
    """
    for name, is_there in (("kernel", kernels.has_triton), ("cudnn", kernels.has_cudnn)):
        if name in ways.values() and not is_there():
            raise InputError(f"expected another way than {name}, which this device cannot run: a line above says why")
    given: dict[str, Any] = {name: way for name, way in ways.items() if way}
    chosen = dataclasses.replace(kernels.chosen(case.cache.kernels), **given)
    cache = dataclasses.replace(case.cache, cache_dtype=cache_dtype, kernels=chosen,
                                prefix=order_model.prefix_of(prefix, case.cache.mode, chosen, case.model))
    return case._replace(cache=cache)


class Benchmark:
    """Times cases that start from one noise market."""

    def __init__(self, market: MarketSpec, spec: RolloutBenchmark, gb_per_s: float | None = None) -> None:
        self._market, self._spec, self._gb_per_s = market, spec, gb_per_s
        self._noise = NoiseMarket(warmup=Warmup(duration_ns=spec.minutes * 60 * SECOND_NS), seed=spec.seed)
        (self._orders,) = starts.noise_orders(market, self._noise)
        self._converters = _converters(self._orders)

    def measure(self, case: Case) -> dict[str, Any]:
        """Speed, bytes moved and memory of one case; times of its parts, if the spec wants them."""
        spec, prepared = self._spec, self._prepare(case)
        first = starts.start_after(self._market, prepared, self._orders, self._noise.end_ns, chunk_orders=256)
        first_chunk_s, chunk_s = self._chunks(prepared, first, case.trajectories)
        step_s = statistics.median(sum(part) for part in chunk_s) / spec.chunks / spec.chunk_steps
        end_ns = self._noise.end_ns + _HORIZON_MINUTES * 60 * SECOND_NS
        simulator = prepared.simulator(self._market, end_ns=end_ns)
        # Of each device, which reads all weights.
        devices = Devices.of(spec.devices).count
        bytes_moved = benchmark_parts.bytes_moved(simulator, case.trajectories // devices)
        gb_per_s = sum(bytes_moved.values()) / step_s / 1e9
        ways = kernels.chosen(case.cache.kernels)
        row: dict[str, Any] = {
            "model": case.name, "trajectories": case.trajectories, "devices": devices,
            "cache_dtype": case.cache.cache_dtype, "prefix": case.cache.prefix, "attention": ways.attention,
            "head": ways.head, "encode": ways.encode, "loops": ways.loops,
            "orders_per_s": case.trajectories / step_s, "us_per_step": step_s * 1e6,
            "us_per_chunk_step": [[s / spec.chunk_steps * 1e6 for s in part] for part in chunk_s],
            "first_step_s": first_chunk_s - statistics.median(min(part) for part in chunk_s),
            "bytes_per_step": bytes_moved, "gb_per_s": gb_per_s,
            "of_bandwidth": self._gb_per_s and gb_per_s / self._gb_per_s,
            "peak_gb": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 1e9 or None}
        if spec.parts:
            if case.cache.prefix == "shared":
                simulator = dataclasses.replace(simulator, prefix=sim_step.shared_prefix(simulator, first))
            state = _begin(simulator, first, case.trajectories)
            parts = benchmark_parts.seconds(simulator, state, spec.chunk_steps, spec.repeats)
            us = {name: s * 1e6 for name, s in parts.items()}
            row["us_of_parts"] = us | {"rest": step_s * 1e6 - sum(us.values())}
        return row

    def _prepare(self, case: Case) -> PreparedModel:
        """A model of random weights."""
        fresh = functools.partial(llama.init, case.model, dtype=case.compute.dtype, compute=case.compute)
        model = LoadedModel(jax.jit(fresh)(jax.random.key(0)), self._converters, {})
        return PreparedModel(model, case.cache, encoding.tables(case.model.tokens, self._converters),
                          encoding.draw_tables(case.model.tokens, self._converters), None)

    def _chunks(self, prepared: PreparedModel, first: Start, trajectories: int) -> tuple[float, list[list[float]]]:
        """Seconds from the call of a rollout to the end of its first chunk, and of each chunk after it, by repeat."""
        wanted = 1 + self._spec.chunks * self._spec.repeats
        moments = [time.perf_counter()]

        def on_chunk(_: Any) -> None:
            moments.append(time.perf_counter())
            if len(moments) > wanted:
                raise _EnoughError

        spec = FuturesSpec(trajectories, _HORIZON_MINUTES, self._spec.seed, chunk_steps=self._spec.chunk_steps,
                           devices=self._spec.devices)
        try:
            futures.simulate_batch(prepared, self._market, spec, Batch(first, trajectories), Hooks(on_chunk))
        except _EnoughError:
            seconds = np.diff(moments).tolist()
            return seconds[0], np.reshape(seconds[1:], (self._spec.repeats, self._spec.chunks)).tolist()
        raise InputError(f"chunks: all trajectories ended within {wanted} chunks of {self._spec.chunk_steps} steps; "
                         "set chunks, repeats or chunk_steps lower")


def _converters(orders: Order) -> dict[str, Converter]:
    """Bins fitted on the noise orders: for the flow it matters how many there are, not where."""
    spec, limit = TokenSpec(), orders.kind != Kind.CANCEL
    volume = np.asarray(orders.volume)[limit].astype(np.float64)
    values = {
        "price-level": (np.diff(np.asarray(orders.price)[limit]), spec.price_levels),
        "order-volume": (volume, spec.volumes), "pred-order-volume": (volume, spec.volumes),
        "order-interval": (np.diff(times.to_ns(orders.time)) / SECOND_NS, spec.intervals),
        "lob-volume": (np.convolve(volume, np.ones(5)), _LEVEL_BINS)}
    return {name: bins.fit(x.astype(np.float64), count) for name, (x, count) in values.items()}


@functools.partial(jax.jit, static_argnums=2)
def _begin(simulator: Simulator, first: Start, trajectories: int) -> SimState:
    return sim_step.begin(simulator, first, jnp.arange(trajectories, dtype=jnp.int32))


def table(rows: list[dict[str, Any]], head: bool) -> str:
    """Measured rows as text, with a heading if `head`."""
    title = (f"{'model':>8} {'trajectories':>12} {'orders/s':>10} {'us/step':>9} {'GB/s':>7} {'of limit':>8} "
             f"{'first step s':>12} {'peak GB':>8}")

    def shown(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    lines = [f"{row['model']:>8} {row['trajectories']:>12} {row['orders_per_s']:>10.0f} {row['us_per_step']:>9.1f} "
             f"{row['gb_per_s']:>7.1f} {shown(row['of_bandwidth'], 3):>8} {row['first_step_s']:>12.1f} "
             f"{shown(row['peak_gb'], 2):>8}" for row in rows]
    return "\n".join([title] * head + lines)
