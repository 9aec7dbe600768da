"""Orders per second of the parts of marsjax; compilation apart, median of repeats. See configs/benchmark.py."""

import functools
import itertools
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from marsjax import book as books
from marsjax import clock, start
from marsjax.agents.noise import NoiseSpec
from marsjax.data import neutral
from marsjax.experiments import benchmark_rollout, launcher
from marsjax.experiments.output import output_folder, write_json
from marsjax.specs import MarketSpec
from marsjax.types import Book, Order, Status

NOISE_ORDERS = 500
"""Length of the stream when none is given."""


def main(config: ConfigDict) -> int:
    """Runs a benchmark and prints its table."""
    if config.what == "rollout":
        return benchmark_rollout.main(config)
    if config.what != "book":
        raise ValueError(f"config.what: expected book or rollout, got {config.what!r}")
    if config.returned not in ("all", "best"):
        raise ValueError(f"config.returned: expected all or best, got {config.returned!r}")
    for key in ("repeats", "unroll", "books", "capacity"):
        if min(np.atleast_1d(config[key]), default=0) < 1:
            raise ValueError(f"config.{key}: expected numbers of at least 1, got {config[key]}")
    stream = _stream(config.stream)
    device = jax.devices()[0]
    with output_folder(config.output, config.overwrite) as folder:
        rows = [_book(stream, count, capacity, config)
                for count, capacity in itertools.product(config.books, config.capacity)]
        write_json(folder / "results.json", {"device": device.device_kind, "platform": device.platform,
                                             "jax": jax.__version__, "config": config, "rows": rows})
    print(_table(rows))
    print(f"results in {config.output}")
    return 0


def _stream(path: str) -> Order:
    """Orders [T] of a file, or of the noise agent."""
    if path:
        parts = [chunk.orders for chunk in neutral.read(path)]
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)
    warmup = start.Warmup(duration_ns=NOISE_ORDERS * NoiseSpec().interval_ns)
    _, orders = start.noise(MarketSpec(capacity=256, trade_width=32), NoiseSpec(), warmup, seed=0)
    return jax.tree.map(lambda x: x[:NOISE_ORDERS], orders[0])


def _book(stream: Order, count: int, capacity: int, config: ConfigDict) -> dict[str, Any]:
    """The same orders to `count` books, what came of each order returned for all of them."""
    spec = MarketSpec(capacity=capacity, trade_width=config.trade_width)

    def step(state: Book, order: Order) -> tuple[Book, Any]:
        state, trades, status = jax.vmap(functools.partial(books.submit, spec), in_axes=(0, None))(state, order)
        best = jax.vmap(books.best)(state)
        return state, (best, (trades, status) if config.returned == "all" else None)

    run = jax.jit(lambda state, orders: jax.lax.scan(step, state, orders, unroll=config.unroll))
    state = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), books.empty(spec))
    began = time.perf_counter()
    compiled = run.lower(state, stream).compile()
    compile_s = time.perf_counter() - began
    facts = _facts(compiled(state, stream)[1], config.returned == "all")
    seconds = []
    for _ in range(config.repeats):
        began = time.perf_counter()
        jax.block_until_ready(compiled(state, stream))
        seconds.append(time.perf_counter() - began)
    median, orders = statistics.median(seconds), len(stream.kind)
    return {"books": count, "capacity": capacity, "orders": orders, "orders_per_s": count * orders / median,
            "us_per_step": median / orders * 1e6, "spread": (max(seconds) - min(seconds)) / median,
            "compile_s": compile_s} | facts


def _facts(answers: Any, has_all: bool) -> dict[str, Any]:
    """What the first book did: the same on every device and for every number of books."""
    best, rest = answers
    facts: dict[str, Any] = {"books_agree": bool(all(jnp.all(x == x[:, :1]) for x in best))}
    if has_all:
        trades, status = jax.tree.map(lambda x: np.asarray(x[:, 0]), rest)
        facts |= {"accepted": int(np.sum(status == Status.ACCEPTED)), "fills_and_cancels": int(trades.count.sum()),
                  "shares": int(clock.wide_to_numpy(trades.volume).sum()),
                  "cut_lists": int(trades.cut.sum())}
    return facts


def _table(rows: list[dict[str, Any]]) -> str:
    head = f"{'books':>7} {'capacity':>8} {'M orders/s':>11} {'us/step':>9} {'compile s':>9}"
    return "\n".join([head, *(f"{row['books']:>7} {row['capacity']:>8} {row['orders_per_s'] / 1e6:>11.2f} "
                              f"{row['us_per_step']:>9.1f} {row['compile_s']:>9.1f}" for row in rows)])


if __name__ == "__main__":
    launcher.run("benchmark", main)
