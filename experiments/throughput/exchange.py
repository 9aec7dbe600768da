"""The exchange by its kernels and by XLA: whether both give the same, and how long each takes on this device.

    python experiments/throughput/exchange.py                                   # all of it
    python experiments/throughput/exchange.py --what=books --books=1024,16384
    python experiments/throughput/exchange.py --interpret --what=same           # without a GPU

Prints a line of JSON for each result:

- `same`: random orders to 64 books, or as many markets with cancels by price; `differ` names what is not the same bits.
  From `empty` books with orders as they are usual, and from `stocked` ones with odd orders: the largest volumes and
  prices, unknown kinds, ids that rest already, and orders that are collected and do not match.
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
from marsjax.core.records import (
    EMPTY_PRICE,
    MAX_PRICE,
    MAX_VOLUME,
    NO_ACCOUNT,
    NO_ID,
    NO_PRICE,
    Book,
    Kind,
    Order,
    Status,
)
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.market import book, exchange
from marsjax.market.process import NOT_MADE, ByPrice, MarketState, process

TICK, NEXT_ID = 100, 10**6


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


def stocked(rng: np.random.Generator, count: int, capacity: int) -> tuple[Book, np.ndarray, np.ndarray, np.ndarray]:
    """Books [B, ...], some of them full or empty; each one's middle and width in ticks, and whether it holds much."""
    shape, most = (count, 2, capacity), MAX_PRICE // TICK
    middle = np.where(rng.random(count) < 0.15, most - 3, 1000)
    width = rng.choice([1, 3, 6, capacity // 8 + 1], count)
    is_big = rng.random(count) < 0.4
    away = 1 + np.sort(rng.random(shape), axis=-1) * width[:, None, None]
    ticks = np.stack([middle[:, None] + away[:, 0].astype(np.int64), middle[:, None] + 1 - away[:, 1].astype(np.int64)],
                     axis=1)
    volume = np.where(is_big[:, None, None], rng.choice([MAX_VOLUME, 2**30, 2**16, 2**16 - 1, 2, 1], shape),
                      rng.integers(1, 6, shape))
    held = np.choose(rng.integers(0, 4, shape[:2]), [0, capacity, capacity - 1, rng.integers(0, capacity, shape[:2])])
    ids = np.argsort(rng.random((count, 2 * capacity)), axis=-1).reshape(shape)
    rests = np.arange(capacity) < held[..., None]
    fields = ((np.minimum(ticks, most) * TICK, EMPTY_PRICE), (volume, 0), (ids, NO_ID),
              (rng.integers(-1, 5, shape), NO_ACCOUNT))
    row = [np.where(rests, x, nothing).astype(np.int32) for x, nothing in fields]
    return Book(*row, rng.choice([NO_PRICE, 1000 * TICK], count).astype(np.int32)), middle, width, is_big


def odd_flow(rng: np.random.Generator, steps: int, count: int, capacity: int) -> tuple[Book, Order, np.ndarray]:
    """Stocked books, orders [T, B] to them, many of them odd, and which of them may match."""
    shape = steps, count
    books, middle, width, is_big = stocked(rng, count, capacity)
    usual = flow(rng, shape, 1, 0.2)

    def some(share: float, those: Any, others: Any) -> np.ndarray:
        return np.where(rng.random(shape) < share, those, others).astype(np.int32)

    number = NEXT_ID + usual.order_id
    away = np.floor(rng.random(shape) * (2 * width + 2)).astype(np.int64) - width
    far = rng.choice([0, -TICK, 7, MAX_PRICE, MAX_PRICE + 1, 2**31 - 1, -2**31], shape)
    volume = some(0.2, rng.integers(0, 3 * capacity, shape), rng.integers(-1, 7, shape))
    huge = rng.choice([MAX_VOLUME, MAX_VOLUME, 2**30, 2**16, 2**16 - 1, -2**31], shape)
    at = np.arange(count), rng.integers(0, 2, shape), rng.integers(0, capacity, shape)
    sent = dataclasses.replace(
        usual, kind=some(0.05, rng.choice([Kind.NONE, 7, -1], shape), usual.kind),
        price=some(0.03, far, (middle + away) * TICK), volume=np.where(is_big, some(0.3, huge, volume), some(
            0.01, huge, volume)), order_id=some(0.05, rng.integers(-1, 2 * capacity, shape), number),
        cancel_id=some(0.6, books.order_id[at], some(0.1, rng.integers(-1, 4 * capacity, shape), number - rng.integers(
            1, 60, shape))), cancel_side=some(0.9, at[1], rng.integers(-1, 3, shape)),
        account=rng.integers(-1, 5, shape).astype(np.int32), condition=some(0.01, 1, 0))
    return books, sent, rng.random(shape) < 0.85


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
def through_books(spec: MarketSpec, with_view: bool, states: Any, sent: Order, matching: Any = None) -> Any:
    """Orders [T, B] and all that they did; with views, or what a benchmark of books returns."""
    def one(states: Any, given: Any) -> tuple[Any, Any]:
        done = jax.vmap(functools.partial(book.handle, spec))(states, *given)
        view = jax.vmap(functools.partial(book.view, spec) if with_view else book.best)(done.book)
        return done.book, (done.trades, done.status, view, (done.hit, done.resting) if with_view else None)

    return jax.lax.scan(one, states, (sent,) if matching is None else (sent, matching))


@functools.partial(jax.jit, static_argnums=0)
def together(spec: MarketSpec, states: Any, sent: Order, matching: Any) -> Any:
    """Orders [T, B], those of a book in one call."""
    sent, matching = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), (sent, matching))
    return jax.vmap(functools.partial(book.submit_many, spec))(states, sent, matching)


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
        spec = MarketSpec(capacity=capacity, trade_width=width, accounts=3, tick=TICK)
        specs = {name: dataclasses.replace(spec, kernels=way) for name, way in ways(given.interpret).items()}
        usual = flow(rng, (steps, count), spread, cancels)
        cases = {"empty": (repeated(book.empty(spec), count), usual, np.ones((steps, count), bool)),
                 "stocked": odd_flow(rng, steps, count, capacity)}
        for begins, (states, sent, matching) in cases.items():
            facts = {"capacity": capacity, "books": begins}
            found = {name: through_books(own, True, states, sent, matching) for name, own in specs.items()}
            status = np.bincount(np.asarray(found["xla"][1][1]).ravel())
            say("same", of="books", **facts, differ=differing(*found.values()), status=status.tolist(),
                truncated=int(np.sum(found["xla"][1][0].is_truncated)))
            many = {name: together(own, states, sent, matching) for name, own in specs.items()}
            say("same", of="many", **facts, differ=differing(*many.values()))
            same_markets(specs, states, sent, rng.integers(0, 2**32, (steps, count), dtype=np.uint32), facts)


def same_markets(specs: dict[str, MarketSpec], states: Book, sent: Order, words: np.ndarray, facts: dict[str, Any]
                 ) -> None:
    """The same orders to markets with such books; all cancels name a price, not an order."""
    named = dataclasses.replace(sent, order_id=np.full_like(sent.order_id, NO_ID))
    for is_whole in (True, False):
        found = {}
        for name, own in specs.items():
            market = exchange.open_market(own, NEXT_ID)
            state = repeated(MarketState(market, book.view(own, market.book), NOT_MADE), words.shape[1])
            # The accounts do not know of what rests from the beginning; both ways are asked the same.
            state = dataclasses.replace(state, market=dataclasses.replace(state.market, book=states))
            found[name] = through_markets(own, is_whole, state, named, words)
        event = found["xla"][1]
        say("same", of="whole" if is_whole else "nearest", **facts, differ=differing(*found.values()),
            taken=int(np.sum(event.is_by_price & (event.status == Status.ACCEPTED))))


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
