"""Orders per second of the parts of marsjax; compilation apart, median of repeats. See configs/benchmark.py."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.records import Order
from marsjax.core.specs import MarketSpec
from marsjax.data import neutral
from marsjax.experiments import launcher, run_folder, setup
from marsjax.experiments.run_folder import write_json
from marsjax.sim.initial import Warmup
from marsjax.studies import benchmark_book, benchmark_parts, benchmark_rollout, starts
from marsjax.studies.benchmark_book import BookBenchmark
from marsjax.studies.benchmark_rollout import Benchmark, RolloutBenchmark
from marsjax.studies.starts import NoiseMarket

NOISE_ORDERS = 500
"""Length of the stream when none is given."""


def main(config: ConfigDict) -> int:
    """Runs a benchmark and prints its table; what is measured is on disk at once, whatever ends a later case."""
    kinds = {"book": _books, "rollout": _rollouts}
    if config.what not in kinds:
        raise InputError(f"config.what: expected book or rollout, got {config.what!r}")
    device = jax.devices()[0]
    output = run_folder.of_config(config, f"benchmark_{config.what}")
    output.check()
    for number, found in enumerate(kinds[config.what](config)):
        record = {"device": device.device_kind, "platform": device.platform, "jax": jax.__version__, "config": config,
                  **found}
        if number:
            run_folder.write_whole(output.path / "results.json", run_folder.json_text(record))
        else:
            with output as folder:
                write_json(folder / "results.json", record)
    print(run_folder.told(output))
    return 0


def _books(config: ConfigDict) -> Iterator[dict[str, Any]]:
    for key in ("books", "capacity"):
        if not 1 <= min(config[key], default=0) <= max(config[key]) <= limits.TRAJECTORIES:
            raise InputError(f"config.{key}: expected numbers of at least 1, at most {limits.TRAJECTORIES}, got "
                             f"{config[key]}")
    spec, stream = setup.spec_of(BookBenchmark, config), _stream(config.stream)
    with setup.named("config.exchange"):
        benchmark_book.ways_of(spec.exchange)
    rows = [benchmark_book.measure(stream, count, capacity, spec)
            for count, capacity in itertools.product(config.books, config.capacity)]
    print(benchmark_book.table(rows))
    yield {"rows": rows}


def _stream(path: str) -> Order:
    """Orders [T] of a file, or of the noise agent."""
    if path:
        parts = [chunk.orders for chunk in neutral.read(path)]
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)
    noise = NoiseMarket()
    noise = dataclasses.replace(noise, warmup=Warmup(duration_ns=NOISE_ORDERS * noise.agent.interval_ns))
    (orders,) = starts.noise_orders(MarketSpec(capacity=256, trade_width=32), noise)
    return jax.tree.map(lambda x: x[:NOISE_ORDERS], orders)


def _rollouts(config: ConfigDict) -> Iterator[dict[str, Any]]:
    """After each case, all rows so far."""
    if not config.cases:
        raise InputError(f"config.cases: expected at least one MODEL:TRAJECTORIES, got {config.cases}")
    device, spec = jax.devices()[0], setup.spec_of(RolloutBenchmark, config)
    with setup.named("config.cases"):
        cases = [benchmark_rollout.case(text, config.context_length, device.platform) for text in config.cases]
    with setup.named("config.attention, config.head, config.encode, config.loops, config.cache_dtype, "
                     "config.prefix"):
        ways = {name: config[name] for name in ("attention", "head", "encode", "loops")}
        cases = [benchmark_rollout.taken(case, ways, config.cache_dtype, config.prefix) for case in cases]
    limit = config.bandwidth_gb_per_s or benchmark_rollout.bandwidth(device.device_kind)
    with setup.named("config.exchange"):
        market = MarketSpec(capacity=config.capacity, trade_width=32, accounts=2,
                            kernels=benchmark_book.ways_of(config.exchange))
    benchmark = Benchmark(market, spec, limit)
    rows: list[dict[str, Any]] = []
    for case in cases:
        rows.append(benchmark.measure(case))
        print(benchmark_rollout.table(rows[-1:], head=len(rows) == 1), flush=True)
        yield {"bandwidth_gb_per_s": limit, "rows": rows}
    print(benchmark_parts.table(rows))


if __name__ == "__main__":
    launcher.run("benchmark", main)
