"""The exchange's kernels, interpreted: many books at once give what one book after another gives, to the bit."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core import kernels, times
from marsjax.core.kernels import CPU
from marsjax.core.records import NO_ID, Condition, Kind, Order, Side, Status, Time
from marsjax.core.sessions import Period, Phase, Session
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.market import book, cancels, exchange, orders, slots_kernel
from marsjax.market.process import NOT_MADE, ByPrice, Event, MarketState, process

SESSION = Session((Period(Phase.CONTINUOUS, 16 * SECOND_NS, 40 * SECOND_NS),
                   Period(Phase.CLOSE_AUCTION, 41 * SECOND_NS, 50 * SECOND_NS, uncross_ns=60 * SECOND_NS)))
"""Orders are refused, taken, refused, collected so that books cross, and refused."""
BOOKS, LENGTH = 5, 150
SPECS = {"one block": MarketSpec(capacity=7, trade_width=2, levels=2),
         "blocks": MarketSpec(capacity=29, trade_width=3, levels=3)}
RARE = {Status.SIDE_FULL, Status.DUPLICATE_ID, Status.BAD_CONDITION, Status.OVER_CANCEL}

NAMES = pytest.mark.parametrize("name", ["blocks", pytest.param("one block", marks=pytest.mark.slow)])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks a side. What is compiled with them has specs of its own."""
    monkeypatch.setattr(slots_kernel, "BLOCK", 8)
    monkeypatch.setattr(slots_kernel, "_SCAN", 16)


def of_kernel(spec: MarketSpec, way: str = "interpreted") -> MarketSpec:
    return dataclasses.replace(spec, kernels=dataclasses.replace(CPU, book=way))


def flow(seed: int, huge: bool = False) -> Order:
    """Orders [LENGTH, BOOKS], odd ones among them: no kind, side, volume, tick, new id; unknown cancels.

    To the first book they do not cross, so that it gets full.
    """
    rng, shape = np.random.default_rng(seed), (LENGTH, BOOKS)
    number = np.broadcast_to(np.arange(LENGTH)[:, None], shape)
    volume = rng.choice([2**31 - 1, 2**30, 2**16, 2**16 - 1, 5, 1], shape) if huge else (
        np.where(rng.random(shape) < 0.05, 90, rng.integers(-1, 12, shape)))
    kind = rng.choice([Kind.SELL, Kind.BUY, Kind.CANCEL, Kind.NONE, 7], shape, p=[.37, .37, .22, .02, .02])
    apart = np.where(np.arange(BOOKS) == 0, np.where(kind == Kind.SELL, 5, -5), 0)
    columns = {
        "kind": kind, "price": (100 + apart + rng.integers(-4, 5, shape)) * 100 + 7 * (rng.random(shape) < 0.03),
        "volume": volume,
        "order_id": np.where(rng.random(shape) < 0.05, rng.integers(0, LENGTH, shape), number),
        "cancel_side": rng.choice([Side.ASK, Side.BID, 2], shape, p=[.49, .49, .02]),
        "cancel_id": np.maximum(number - rng.integers(0, 20, shape), 0), "account": rng.integers(-1, 3, shape),
        "condition": np.where(rng.random(shape) < 0.02, Condition.POST_ONLY, Condition.REST)}
    zeros = np.zeros(shape, np.int32)
    return Order(Time(zeros, zeros), **{name: x.astype(np.int32) for name, x in columns.items()})


def repeated(x: Any, count: int = BOOKS) -> Any:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), x)


def assert_bitwise_equal(a: Any, b: Any) -> None:
    for (path, x), (_, y) in zip(*(jax.tree_util.tree_leaves_with_path(t) for t in (a, b)), strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype, path
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


@functools.partial(jax.jit, static_argnums=0)
def run(spec: MarketSpec, sent: Order, matching: jax.Array) -> Any:
    """All that each order did, the views after it, and what the batch is after all of them."""
    def one(state: Any, given: Any) -> Any:
        done = jax.vmap(functools.partial(book.handle, spec))(state, *given)
        return done.book, (done, jax.vmap(functools.partial(book.view, spec))(done.book))

    return jax.lax.scan(one, repeated(book.empty(spec)), (sent, matching))


@NAMES
@pytest.mark.parametrize(("seed", "huge"), [(0, False), (1, True), (2, False)])
def test_orders_to_many_books_do_what_they_do_to_one(name: str, seed: int, huge: bool) -> None:
    sent, matching = flow(seed, huge), np.random.default_rng(seed).random((LENGTH, BOOKS)) < 0.95
    plain, by_kernel = (run(spec, sent, matching) for spec in (SPECS[name], of_kernel(SPECS[name])))
    assert_bitwise_equal(plain, by_kernel)
    seen = set(np.unique(plain[1][0].status).tolist())
    assert seen >= RARE | {Status.ACCEPTED, Status.NO_ORDER, Status.UNKNOWN_ID, Status.BAD_KIND, Status.BAD_PRICE}
    assert np.any(plain[1][0].trades.is_truncated)
    prices = np.asarray(plain[1][0].book.price)
    assert np.max(np.sum(np.diff(prices) != 0, axis=-1)) > SPECS[name].levels  # views do not hold all of them


def test_many_orders_in_one_call_do_what_they_do_one_by_one() -> None:
    """Some are collected as in a call auction."""
    spec, sent = of_kernel(SPECS["blocks"]), jax.tree.map(lambda x: np.moveaxis(x, 0, 1), flow(3))
    books, matching = repeated(book.empty(spec)), np.random.default_rng(3).random((BOOKS, LENGTH)) < 0.9
    ways = {way: jax.jit(jax.vmap(functools.partial(book.submit_many, of_kernel(spec, way))))(books, sent, matching)
            for way in ("xla", "interpreted")}
    assert_bitwise_equal(*ways.values())
    last, (ask, bid), _, _ = ways["interpreted"]
    assert_bitwise_equal(jax.vmap(book.best)(last), (ask[:, -1], bid[:, -1]))
    assert np.any((ask <= bid) & (ask > 0) & ~matching)  # they did not match


def test_no_orders_in_one_call_change_nothing() -> None:
    books = repeated(book.empty(SPECS["blocks"]))
    none = jax.tree.map(lambda x: x[:0].T, flow(3))
    for way in ("xla", "interpreted"):
        spec = of_kernel(SPECS["blocks"], way)
        last, (ask, bid), trades, status = jax.vmap(functools.partial(book.submit_many, spec))(books, none)
        assert_bitwise_equal(last, books)
        assert {x.shape for x in (ask, bid, trades.count, status)} == {(BOOKS, 0)}
        assert trades.price.shape == (BOOKS, 0, spec.trade_width)


@pytest.mark.parametrize("price", [-2**31, 200 - 2**31, 0, 2**31 - 1])
def test_the_farthest_prices_that_a_cancel_can_name_find_the_last_of_an_own_order(price: int) -> None:
    """Those whose distance to a price does not fit in 32 bits too."""
    top, nothing = np.int32(2**30 - 100), np.zeros(2, np.int32)
    plain = MarketSpec(capacity=4, trade_width=2, accounts=1)
    sides = np.array([[top - 100, top, 0, 0], [300, 200, 0, 0]], np.int32)
    states = repeated(dataclasses.replace(book.empty(plain), price=sides, volume=np.sign(sides),
                                          order_id=np.arange(8, dtype=np.int32).reshape(2, 4),
                                          account=np.where(sides > 0, 0, -1).astype(np.int32)), 2)
    yes = nothing == 0
    named = nothing + np.int32(price), nothing + 1, yes
    for way in ("xla", "interpreted"):
        spec = of_kernel(plain, way)
        taken = jax.vmap(lambda b, *x, s=spec: cancels.take_nearest(s, b, (0, 0), x[:3], x[3], x[3]))(
            states, *named, yes)
        found = jax.vmap(lambda b, *x, s=spec: cancels.whole_order(s, b, (0, 0), (*x[:3], x[4]), x[3]))(
            states, *named, yes, nothing.astype(np.uint32))
        expected = (top, 1, Side.ASK) if price > 0 else (200, 5, Side.BID)
        for i in range(2):
            assert (taken.trades.price[i, 0], taken.trades.resting_id[i, 0], taken.trades.side[i]) == expected
            assert (found.volume[i], found.order_id[i], found.side[i]) == (1, *expected[1:])


def test_axes_of_books_are_merged_into_one() -> None:
    """And what is the same for all of a batch is repeated: `together` gets whole arguments with one axis in front."""
    seen = []

    def together(x: jax.Array, y: dict[str, jax.Array]) -> dict[str, jax.Array]:
        seen.append((x.shape, y["y"].shape))
        return {"sum": jnp.sum(x, axis=1) + y["y"]}

    by_batch = slots_kernel.by_batch(lambda x, y: {"sum": jnp.sum(x) + y["y"]}, together)
    x, y = np.arange(24).reshape(2, 3, 4), np.array([10, 20])
    assert by_batch(x[0, 0], {"y": y[0]})["sum"] == 16 and not seen
    assert by_batch_of(by_batch)(x[0], {"y": y[0]})["sum"].tolist() == [16, 32, 48]
    found = jax.jit(jax.vmap(by_batch_of(by_batch)))(x, {"y": y})["sum"]
    np.testing.assert_array_equal(found, x.sum(-1) + y[:, None])
    assert seen[0] == ((3, 4), (3,)) and seen[-1] == ((6, 4), (6,))


def by_batch_of(function: Any) -> Any:
    return jax.vmap(function, in_axes=(0, None))


@functools.partial(jax.jit, static_argnums=(0, 1))
def market_day(spec: MarketSpec, is_whole: bool, sent: Order, is_asked: jax.Array, words: jax.Array
               ) -> tuple[MarketState, Event]:
    """Orders and cancels by price through the exchange."""
    def state() -> MarketState:
        market = exchange.open_market(spec)
        return MarketState(market, book.view(spec, market.book), NOT_MADE)

    def one(states: MarketState, given: Any) -> tuple[MarketState, Event]:
        def handle(state: MarketState, order: Order, is_asked: jax.Array, word: jax.Array) -> tuple[MarketState, Event]:
            by_price = ByPrice(is_asked, (0, 1), (word & 1) == 1, word if is_whole else None)
            return process(spec, None, state, order, by_price=by_price)

        return jax.vmap(handle)(states, *given)

    return jax.lax.scan(one, repeated(state()), (sent, is_asked, words))


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "nearest"])
@NAMES
def test_cancels_by_price_of_many_markets_do_what_they_do_to_one(name: str, is_whole: bool) -> None:
    spec = dataclasses.replace(SPECS[name], accounts=3, session=SESSION)
    sent, rng = flow(4), np.random.default_rng(5)
    is_asked = (sent.kind == Kind.CANCEL) | (rng.random(sent.kind.shape) < 0.1)
    when = times.from_ns(np.broadcast_to((15 + np.arange(LENGTH) // 4)[:, None] * SECOND_NS, is_asked.shape))
    # Many orders alike, among which the newest is not always taken.
    volume = np.where(rng.random(is_asked.shape) < 0.8, rng.integers(2, 4, is_asked.shape, np.int32), sent.volume)
    kind = np.where(is_asked, np.int32(Kind.CANCEL), sent.kind)
    sent = dataclasses.replace(sent, time=when, volume=volume, kind=kind, order_id=np.full_like(kind, NO_ID))
    words = rng.integers(0, 2**32, is_asked.shape, dtype=np.uint32)
    plain, by_kernel = (market_day(s, is_whole, sent, is_asked, words) for s in (spec, of_kernel(spec)))
    assert_bitwise_equal(plain, by_kernel)
    event = plain[1]
    taken = np.asarray(event.is_by_price & (event.status == Status.ACCEPTED))
    assert taken.sum() > 30 and set(np.unique(event.status[np.asarray(event.is_by_price)])) >= {
        Status.ACCEPTED, Status.NOTHING_TO_CANCEL, Status.CLOSED}
    if not is_whole:
        assert np.max(np.asarray(event.trades.count)[taken]) > 1


def test_the_kernels_lower_for_a_gpu_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    spec = MarketSpec(capacity=300, trade_width=20, kernels=dataclasses.replace(CPU, book="kernel"))
    order, state = (repeated(x, 3) for x in (jax.tree.map(jnp.asarray, orders.no_order()), book.empty(spec)))
    true, word = jnp.ones(3, bool), jnp.zeros(3, jnp.uint32)

    def all_of_them(state: Any, order: Order) -> Any:
        done = jax.vmap(functools.partial(book.handle, spec))(state, order)
        many = jax.vmap(functools.partial(book.submit_many, spec))(state, repeated(order, 3))
        named = order.price, order.volume, true
        return (done, many, jax.vmap(functools.partial(book.view, spec))(done.book),
                jax.vmap(lambda b, *x: cancels.take_nearest(spec, b, (0, 0), x[:3], x[3], x[3]))(state, *named, true),
                jax.vmap(lambda b, *x: cancels.whole_order(spec, b, (0, 0), x[:4], x[4]))(state, *named, word, true))

    try:
        text = jax.jit(all_of_them).trace(state, order).lower(lowering_platforms=("cuda",)).as_text()
    except NotImplementedError:  # a RuntimeError too: something in them cannot be lowered
        raise
    except RuntimeError as error:
        pytest.skip(f"this JAX lowers them where a GPU is: {error}")
    assert text.count("triton") >= 5


def test_what_the_kernels_do_not_take_goes_the_plain_way() -> None:
    """Conditions, long lists and very deep books; and no kernel is chosen but for a GPU."""
    def lowered(spec: MarketSpec) -> str:
        state, order = repeated(book.empty(spec), 2), repeated(jax.tree.map(jnp.asarray, orders.no_order()), 2)
        return str(jax.make_jaxpr(jax.vmap(functools.partial(book.submit, spec)))(state, order))

    kernel = dataclasses.replace(CPU, book="kernel")
    assert "pallas_call" in lowered(MarketSpec(capacity=200, trade_width=8, kernels=kernel))
    for other in ({"conditions": True}, {"trade_width": 200}, {"capacity": 2**14 + 1}, {"kernels": CPU}):
        sizes: dict[str, Any] = {"capacity": 200, "trade_width": 8, "kernels": kernel, **other}
        assert "pallas_call" not in lowered(MarketSpec(**sizes))
    assert [x.book for x in (kernels.CPU, kernels.ACCELERATOR, kernels.GPU)] == ["xla", "xla", "kernel"]
