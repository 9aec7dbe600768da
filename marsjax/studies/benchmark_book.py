"""Orders a second of books alone: the same orders to every book, one compiled loop."""

import dataclasses
import functools
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import int64, kernels
from marsjax.core.errors import InputError
from marsjax.core.kernels import Kernels
from marsjax.core.records import Book, Order, Status
from marsjax.core.specs import MarketSpec
from marsjax.market import book as books
from marsjax.studies.checks import check_numbers


@dataclasses.dataclass(frozen=True)
class BookBenchmark:
    """What is timed."""

    trade_width: int = 8
    """Transactions listed per order."""
    unroll: int = 1
    """Orders in one pass of the compiled loop."""
    returned: str = "all"
    """Of every order: `all` (transactions, status, best prices) or `best` (these alone)."""
    repeats: int = 5
    """Timed runs; the median counts."""
    together: bool = False
    """Whether all orders of a book are given in one call (`book.submit_many`), as a replay of given orders may; else
    each step gives one order to all books."""
    exchange: str = ""
    """How books are computed, as `Kernels.book` names it; empty: the device's way."""

    def __post_init__(self) -> None:
        check_numbers(self, repeats=(1, 1000), unroll=(1, 1024))
        if self.returned not in ("all", "best"):
            raise InputError(f"BookBenchmark.returned: expected all or best, got {self.returned!r}")


def measure(stream: Order, count: int, capacity: int, spec: BookBenchmark) -> dict[str, Any]:
    """Orders [T] to each of `count` books of `capacity` slots a side: speed, compile time, and what the first did."""
    market = MarketSpec(capacity=capacity, trade_width=spec.trade_width, kernels=ways_of(spec.exchange))
    run = jax.jit(functools.partial(_together if spec.together else _by_steps, spec, market))
    state = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), books.empty(market))
    began = time.perf_counter()
    compiled = run.lower(state, stream).compile()
    compile_s = time.perf_counter() - began
    facts = _facts(compiled(state, stream)[1], spec.returned == "all", spec.together)
    seconds = []
    for _ in range(spec.repeats):
        began = time.perf_counter()
        jax.block_until_ready(compiled(state, stream))
        seconds.append(time.perf_counter() - began)
    median, orders = statistics.median(seconds), len(stream.kind)
    return {"books": count, "capacity": capacity, "orders": orders, "orders_per_s": count * orders / median,
            "us_per_step": median / orders * 1e6, "spread": (max(seconds) - min(seconds)) / median,
            "compile_s": compile_s} | facts


def ways_of(exchange: str) -> Kernels | None:
    """Those of the device, with books computed as said, where it is said; InputError where it cannot run a kernel."""
    if exchange == "kernel" and not kernels.has_triton():
        raise InputError("expected another way than kernel, which this device cannot run: a line above says why")
    return dataclasses.replace(kernels.chosen(None), book=exchange) if exchange else None


def _by_steps(spec: BookBenchmark, market: MarketSpec, state: Book, stream: Order) -> tuple[Book, Any]:
    """The books after, and [T, B, ...] of every order."""
    def step(state: Book, order: Order) -> tuple[Book, Any]:
        state, trades, status = jax.vmap(functools.partial(books.submit, market), in_axes=(0, None))(state, order)
        best = jax.vmap(books.best)(state)
        return state, (best, (trades, status) if spec.returned == "all" else None)

    return jax.lax.scan(step, state, stream, unroll=spec.unroll)


def _together(spec: BookBenchmark, market: MarketSpec, state: Book, stream: Order) -> tuple[Book, Any]:
    """The same, in one call; what is of every order is [B, T, ...]."""
    many = jax.vmap(functools.partial(books.submit_many, market), in_axes=(0, None))
    state, best, trades, status = many(state, stream)
    return state, (best, (trades, status) if spec.returned == "all" else None)


def _facts(answers: Any, has_all: bool, together: bool) -> dict[str, Any]:
    """What the first book did: the same on every device and for every number of books."""
    best, rest = answers
    axis = 0 if together else 1
    facts: dict[str, Any] = {
        "books_agree": bool(all(jnp.all(x == jnp.take(x, jnp.zeros(1, jnp.int32), axis=axis)) for x in best))}
    if has_all:
        trades, status = jax.tree.map(lambda x: np.asarray(x[0] if together else x[:, 0]), rest)
        facts |= {"accepted": int(np.sum(status == Status.ACCEPTED)), "fills_and_cancels": int(trades.count.sum()),
                  "shares": int(int64.to_numpy(trades.volume).sum()),
                  "truncated_lists": int(trades.is_truncated.sum())}
    return facts


def table(rows: list[dict[str, Any]]) -> str:
    """Measured rows as text."""
    head = f"{'books':>7} {'capacity':>8} {'M orders/s':>11} {'us/step':>9} {'compile s':>9}"
    return "\n".join([head, *(f"{row['books']:>7} {row['capacity']:>8} {row['orders_per_s'] / 1e6:>11.2f} "
                              f"{row['us_per_step']:>9.1f} {row['compile_s']:>9.1f}" for row in rows)])
