"""The exchange by its kernels and by XLA: whether both give the same, and how long each takes on this device.

    python experiments/throughput/exchange.py                                   # all of it
    python experiments/throughput/exchange.py --what=books --books=1024,16384
    python experiments/throughput/exchange.py --interpret --what=same           # without a GPU

Prints a line of JSON for each result:

- `same`: random orders to 64 books, or as many markets with cancels by price; `differ` names what is not the same bits.
- `books`: one order of each book a step, in a compiled loop; `us` of a step, by how the exchange is computed.
- `many`: all orders of a book in one call (`book.submit_many`).
"""

import argparse
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import kernels, times
from marsjax.core.kernels import Kernels
from marsjax.core.records import NO_ID, Kind, Order
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.market import book, exchange
from marsjax.market.process import NOT_MADE, ByPrice, MarketState, process


def flow(rng: np.random.Generator, shape: tuple[int, ...], spread: int, cancels: float) -> Order:
    """Random orders [T, B]: half of them cross, some are refused."""
    number = np.broadcast_to(np.arange(shape[0])[:, None], shape)
    kind = np.where(rng.random(shape) < cancels, Kind.CANCEL, rng.integers(0, 2, shape))
    columns = {"kind": kind, "price": (1000 + rng.integers(-spread, spread + 1, shape)) * 100,
               "volume": np.where(rng.random(shape) < 0.02, 400, rng.integers(0, 12, shape)),
               "order_id": np.where(rng.random(shape) < 0.01, number // 2, number), "cancel_side": number % 2,
               "cancel_id": np.maximum(number - rng.integers(1, 60, shape), 0), "account": rng.integers(-1, 3, shape),
               "condition": np.zeros(shape)}
    return Order(times.from_ns(36_000 * SECOND_NS + number * 10**7),
                 **{name: x.astype(np.int32) for name, x in columns.items()})


def repeated(x: Any, count: int) -> Any:
    """[B, ...] of one."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), x)


def ways(interpret: bool) -> dict[str, Kernels]:
    """The kernels and what stands in for them."""
    given = kernels.ACCELERATOR
    return {"xla": given, "kernel": dataclasses.replace(given, book="interpreted" if interpret else "kernel")}


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Of one call, the median."""
    jax.block_until_ready(call())
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def differing(a: Any, b: Any) -> list[str]:
    """Names of what is not the same."""
    pairs = zip(*(jax.tree_util.tree_leaves_with_path(x) for x in (a, b)), strict=True)
    return [jax.tree_util.keystr(path) for (path, x), (_, y) in pairs if not np.array_equal(x, y)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def through_books(spec: MarketSpec, with_view: bool, states: Any, sent: Order) -> Any:
    """Orders [T, B] and all that they did; with views, or what a benchmark of books returns."""
    def one(states: Any, order: Order) -> tuple[Any, Any]:
        done = jax.vmap(functools.partial(book.handle, spec))(states, order)
        view = jax.vmap(functools.partial(book.view, spec) if with_view else book.best)(done.book)
        return done.book, (done.trades, done.status, view, (done.hit, done.resting) if with_view else None)

    return jax.lax.scan(one, states, sent)


@functools.partial(jax.jit, static_argnums=(0, 1))
def through_markets(spec: MarketSpec, is_whole: bool, states: MarketState, sent: Order, words: jax.Array) -> Any:
    """Orders [T, B] through the exchange, cancels by price among them."""
    def handle(state: MarketState, order: Order, word: jax.Array) -> Any:
        by_price = ByPrice(order.kind == Kind.CANCEL, (0, 1), (word & 1) == 1, word if is_whole else None)
        return process(spec, None, state, order, by_price=by_price)

    return jax.lax.scan(lambda states, given: jax.vmap(handle)(states, *given), states, (sent, words))


def same(given: argparse.Namespace) -> None:
    """Random orders by both ways."""
    steps, count = (40, 4) if given.interpret else (600, 64)
    for capacity, width, spread, cancels in ((128, 8, 6, 0.2), (100, 32, 30, 0.3), (1280, 16, 300, 0.1)):
        rng = np.random.default_rng(capacity)
        sent = flow(rng, (steps, count), spread, cancels)
        spec = MarketSpec(capacity=capacity, trade_width=width, accounts=3)
        found = {name: through_books(dataclasses.replace(spec, kernels=way), True, repeated(book.empty(spec), count),
                                     sent) for name, way in ways(given.interpret).items()}
        status = np.bincount(np.asarray(found["xla"][1][1]).ravel())
        say("same", of="books", capacity=capacity, differ=differing(*found.values()), status=status.tolist(),
            truncated=int(np.sum(found["xla"][1][0].is_truncated)))
        batch = jax.tree.map(lambda x: np.moveaxis(np.asarray(x), 0, 1), sent)
        many = {name: jax.jit(jax.vmap(functools.partial(book.submit_many, dataclasses.replace(spec, kernels=way))))(
            repeated(book.empty(spec), count), batch) for name, way in ways(given.interpret).items()}
        say("same", of="many", capacity=capacity, differ=differing(*many.values()))
        named = dataclasses.replace(sent, order_id=np.full_like(sent.order_id, NO_ID))
        words = rng.integers(0, 2**32, (steps, count), dtype=np.uint32)
        for is_whole in (True, False):
            found = {}
            for name, way in ways(given.interpret).items():
                own = dataclasses.replace(spec, kernels=way)
                market = exchange.open_market(own)
                state = MarketState(market, book.view(own, market.book), NOT_MADE)
                found[name] = through_markets(own, is_whole, repeated(state, count), named, words)
            say("same", of="whole" if is_whole else "nearest", capacity=capacity, differ=differing(*found.values()),
                taken=int(np.sum(found["xla"][1].is_by_price & (found["xla"][1].status == 0))))


def speed(given: argparse.Namespace) -> None:
    """One order a step, and all in one call."""
    for count in given.books:
        for capacity in given.capacity:
            rng = np.random.default_rng(0)
            one = flow(rng, (given.orders, 1), 12, 0.25)
            spec = MarketSpec(capacity=capacity, trade_width=8)
            for name, way in ways(given.interpret).items():
                own, states = dataclasses.replace(spec, kernels=way), repeated(book.empty(spec), count)
                sent = jax.tree.map(lambda x, n=count: np.broadcast_to(x, (x.shape[0], n)), one)
                for with_view in (False, True):
                    us = 1e6 * seconds(lambda o=own, v=with_view, s=states, x=sent: through_books(o, v, s, x),
                                       given.repeats) / given.orders
                    say("books", way=name, books=count, capacity=capacity, view=with_view, us=round(us, 1),
                        orders_per_s=round(count / us * 1e6))
                if name == "kernel":
                    batch = jax.tree.map(lambda x: np.moveaxis(x, 0, 1), sent)
                    call = jax.jit(jax.vmap(functools.partial(book.submit_many, own)))
                    us = 1e6 * seconds(lambda c=call, s=states, x=batch: c(s, x), given.repeats) / given.orders
                    say("many", way=name, books=count, capacity=capacity, us=round(us, 1),
                        orders_per_s=round(count / us * 1e6))


def say(what: str, **facts: Any) -> None:
    """One result."""
    print(json.dumps({"what": what, **facts}), flush=True)


def main() -> None:
    """Checks, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"type": lambda text: [int(x) for x in text.split(",")]}
    parser.add_argument("--what", default="same,books")
    parser.add_argument("--books", default=[1024, 16384], **numbers)
    parser.add_argument("--capacity", default=[128, 4096], **numbers)
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--interpret", action="store_true")
    given = parser.parse_args()
    say("device", kind=jax.devices()[0].device_kind, jax=jax.__version__)
    if "same" in given.what:
        same(given)
    if "books" in given.what:
        speed(given)


if __name__ == "__main__":
    main()
