"""Laws of the limit order book on random order flow, against a plain-Python twin and by themselves."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsjax.core import int64, sessions, times
from marsjax.core.kernels import ACCELERATOR, CPU, Kernels
from marsjax.core.records import (
    EMPTY_PRICE,
    MAX_PRICE,
    MAX_VOLUME,
    NO_ACCOUNT,
    NO_ID,
    Book,
    BookView,
    Int64,
    Kind,
    Order,
    Side,
    Status,
    Time,
    Trades,
)
from marsjax.core.specs import MarketSpec
from marsjax.market import book, orders
from tests.helpers import Steps, fixture_folder, kinds_of, read_columns, replay
from tests.twin import (
    Flow,
    FlowParameters,
    Message,
    Resting,
    Result,
    TwinBook,
    expected_row,
    random_flow,
    stacked,
    stream_of,
)

SMALL = MarketSpec(capacity=16, trade_width=16)
NARROW = MarketSpec(capacity=16, trade_width=3, levels=3)
FINE = MarketSpec(capacity=16, tick=1, levels=32)
WIDE = MarketSpec(capacity=128, trade_width=64)
DEEP = MarketSpec(capacity=1024, trade_width=16)
ON_ACCELERATOR = dataclasses.replace(NARROW, kernels=ACCELERATOR)
DEEP_ON_ACCELERATOR = dataclasses.replace(DEEP, kernels=ACCELERATOR)
LENGTH, SHORT = 128, 64
"""Orders of a replay: with a spec in common they have a compilation in common, so shorter streams are filled up."""
PARAMETERS = st.builds(
    FlowParameters, seed=st.integers(0, 2**32 - 1), start_fullness=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    price_range_ticks=st.sampled_from([1, 3, 12, 60]), price_level=st.sampled_from(["low", "middle", "high"]),
    volumes=st.sampled_from(["shares", "lots", "huge"]), cancel_rate=st.sampled_from([0.05, 0.3, 0.6]),
    invalid_rate=st.sampled_from([0.0, 0.3]), collected_rate=st.sampled_from([0.0, 0.4]))
CONTINUOUS = PARAMETERS.map(lambda x: dataclasses.replace(x, collected_rate=0.0))
laws = settings(max_examples=15, deadline=None)

submit_jitted, cancel_jitted, cancel_where_jitted, cancel_account_jitted, view_jitted = (
    jax.jit(function, static_argnums=0)
    for function in (book.submit, book.cancel, book.cancel_where, book.cancel_account, book.view))


def name_of(spec: MarketSpec) -> str:
    kernels = "-accelerator" if spec.kernels == ACCELERATOR else ""
    return f"{spec.capacity}-{spec.trade_width}-tick{spec.tick}{kernels}"


def named_leaves(steps: Steps) -> dict[str, np.ndarray]:
    """All fields as int64 arrays, named as in `Flow.expected`."""
    def values(x: Any) -> np.ndarray:
        return int64.to_numpy(x) if isinstance(x, Int64) else np.asarray(x).astype(np.int64)

    named = {f"{name}.{x.name}": values(getattr(record, x.name))
             for name, record in (("book", steps.book), ("trades", steps.trades), ("view", steps.view))
             for x in dataclasses.fields(record)}
    # Where nothing is listed, no side is meant.
    named["trades.side"] = np.where(named["trades.count"] > 0, named["trades.side"], 0)
    return named | {"status": values(steps.status)}


def run(spec: MarketSpec, flow: Flow) -> dict[str, np.ndarray]:
    return named_leaves(replay(spec, flow.start, flow.stream, flow.matching)[1])


def replay_filled(spec: MarketSpec, start: Book, stream: Order, matching: bool = True, length: int = LENGTH
                  ) -> tuple[Book, Steps]:
    """A replay of at most `length` orders, filled up to it; the steps of those orders alone."""
    count = len(stream.kind)
    now, steps = replay(spec, start, orders.pad(stream, length), np.full(length, matching))
    return now, jax.tree.map(lambda x: np.asarray(x)[:count], steps)


def assert_equal(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values, err_msg=name)


def assert_bitwise_equal(a: Any, b: Any) -> None:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    for x, y in ((np.asarray(x), np.asarray(y)) for x, y in leaves):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def starts_and_steps(flow: Flow, got: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Prices and volumes [N + 1, 2, C] before the first order and after each."""
    return tuple(np.concatenate([np.asarray(getattr(flow.start, x))[None], got[f"book.{x}"]])
                 for x in ("price", "volume"))


def notional(price: np.ndarray, volume: np.ndarray) -> int:
    return sum(p * v for p, v in zip(price.tolist(), volume.tolist(), strict=True))


@pytest.mark.parametrize(("spec", "length", "examples"), [
    (SMALL, LENGTH, 40),
    (NARROW, LENGTH, 30),
    (FINE, LENGTH, 15),
    (WIDE, LENGTH, 15),
    (DEEP, SHORT, 8),
    (MarketSpec(capacity=1024, trade_width=1024), SHORT, 5),
    (ON_ACCELERATOR, LENGTH, 15),
    (DEEP_ON_ACCELERATOR, SHORT, 4),
], ids=lambda x: name_of(x) if isinstance(x, MarketSpec) else "")
def test_book_equals_twin(spec: MarketSpec, length: int, examples: int) -> None:
    @settings(laws, max_examples=examples)
    @given(PARAMETERS)
    def check(parameters: FlowParameters) -> None:
        flow = random_flow(spec, length, parameters)
        assert_equal(run(spec, flow), flow.expected)

    check()


def test_random_flow_meets_every_status_and_truncated_lists() -> None:
    flows = [random_flow(NARROW, LENGTH, FlowParameters(seed, fullness, invalid_rate=0.4))
             for seed, fullness in enumerate((0.0, 1.0, 1.0))]
    statuses = set(np.concatenate([flow.expected["status"] for flow in flows]).tolist())
    assert statuses == set(range(Status.DUPLICATE_ID + 1))
    assert any(flow.expected["trades.is_truncated"].any() for flow in flows)
    assert any((flow.expected["trades.partial"] > 0).any() for flow in flows)


def test_benchmark_stream_equals_twin() -> None:
    x = read_columns(fixture_folder() / "stream_benchmark.csv.gz")
    columns = (kinds_of(x["type"]), x["price"], x["volume"], x["order_id"], kinds_of(x["cancel_type"]), x["cancel_id"],
               x["agent_id"])
    messages = [Message(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    twin, now, parts = TwinBook(WIDE), book.empty(WIDE), []
    expected = stacked([expected_row(twin, twin.submit(message)) for message in messages])
    for first in range(0, len(messages), LENGTH):
        now, steps = replay_filled(WIDE, now, stream_of(messages[first : first + LENGTH]))
        parts.append(named_leaves(steps))
    assert_equal({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, expected)
    assert set(expected["status"].tolist()) == {Status.ACCEPTED, Status.UNKNOWN_ID}


@laws
@given(PARAMETERS)
def test_shares_are_conserved_on_each_side(parameters: FlowParameters) -> None:
    flow = random_flow(SMALL, LENGTH, parameters)
    got = run(SMALL, flow)
    _, volume = starts_and_steps(flow, got)
    accepted, kind, shares = got["status"] == Status.ACCEPTED, got["trades.kind"], got["trades.volume"]
    traded = int(shares[(kind == Kind.BUY) | (kind == Kind.SELL)].sum())
    for side in Side:
        submitted = int(flow.stream.volume[accepted & (flow.stream.kind == side)].astype(np.int64).sum())
        cancelled = int(shares[(kind == Kind.CANCEL) & (got["trades.side"] == side)].sum())
        resting_before, resting_after = int(volume[0, side].sum()), int(volume[-1, side].sum())
        assert resting_before + submitted == traded + cancelled + resting_after


@laws
@given(PARAMETERS)
def test_value_leaves_and_enters_the_book_exactly(parameters: FlowParameters) -> None:
    flow = random_flow(SMALL, LENGTH, parameters)
    got = run(SMALL, flow)
    price, volume = starts_and_steps(flow, got)
    worth = [[notional(p, v) for p, v in zip(*sides, strict=True)] for sides in zip(price, volume, strict=True)]
    for i in range(LENGTH):
        expected = list(worth[i])
        if got["status"][i] == Status.ACCEPTED:
            if flow.stream.kind[i] != Kind.CANCEL:
                expected[flow.stream.kind[i]] += int(flow.stream.price[i]) * int(got["trades.rest"][i])
            expected[got["trades.side"][i]] -= int(got["trades.value"][i])
        assert worth[i + 1] == expected


@laws
@given(PARAMETERS)
def test_sides_are_sorted_by_price_then_arrival_with_empty_slots_last(parameters: FlowParameters) -> None:
    got = run(SMALL, random_flow(SMALL, LENGTH, dataclasses.replace(parameters, invalid_rate=0.0)))
    price, volume, order_id, account = (got[f"book.{x}"] for x in ("price", "volume", "order_id", "account"))
    taken = volume > 0
    assert np.all(volume >= 0)
    assert np.all(taken[..., :-1] >= taken[..., 1:])
    both = taken[..., 1:]
    worse = np.diff(price, axis=-1) * np.array([1, -1])[:, None]
    assert np.all(worse[both] >= 0)
    # Ids of valid random flow grow, so within a price they grow along the side.
    assert np.all(np.diff(order_id, axis=-1)[both & (worse == 0)] > 0)
    for field, nothing in ((price, EMPTY_PRICE), (volume, 0), (order_id, NO_ID), (account, NO_ACCOUNT)):
        assert np.all(field[~taken] == nothing)


@laws
@given(CONTINUOUS)
def test_continuous_trading_never_leaves_a_crossed_book(parameters: FlowParameters) -> None:
    got = run(SMALL, random_flow(SMALL, LENGTH, parameters))
    ask, bid = got["book.price"][:, Side.ASK, 0], got["book.price"][:, Side.BID, 0]
    both = np.all(got["book.volume"][:, :, 0] > 0, axis=-1)
    assert np.all(ask[both] > bid[both])
    assert np.all(got["view.spread"] > 0)


@laws
@given(PARAMETERS)
def test_rejected_orders_change_nothing(parameters: FlowParameters) -> None:
    flow = random_flow(SMALL, LENGTH, dataclasses.replace(parameters, invalid_rate=0.5))
    _, steps = replay(SMALL, flow.start, flow.stream, flow.matching)
    rejected = np.flatnonzero(np.asarray(steps.status) != Status.ACCEPTED)
    assert rejected.size
    books = jax.tree.map(lambda first, rest: np.concatenate([np.asarray(first)[None], rest]), flow.start, steps.book)
    assert_bitwise_equal(jax.tree.map(lambda x: x[rejected + 1], books), jax.tree.map(lambda x: x[rejected], books))
    nothing = Result(Status.NO_ORDER).fields(SMALL.trade_width)
    got = named_leaves(steps)
    for name, value in nothing.items():
        np.testing.assert_array_equal(got[f"trades.{name}"][rejected], np.broadcast_to(
            value, got[f"trades.{name}"][rejected].shape), err_msg=name)


@pytest.mark.parametrize(("spec", "length", "examples"), [
    (SMALL, LENGTH, 4), (DEEP, SHORT, 1), (ON_ACCELERATOR, LENGTH, 2), (DEEP_ON_ACCELERATOR, SHORT, 1)],
    ids=["small", "deep", "accelerator", "deep-accelerator"])
def test_vmap_equals_loop(spec: MarketSpec, length: int, examples: int) -> None:
    @settings(laws, max_examples=examples)
    @given(st.integers(0, 1000), CONTINUOUS)
    def check(seed: int, parameters: FlowParameters) -> None:
        flows = [random_flow(spec, length, dataclasses.replace(parameters, seed=seed + i, start_fullness=i / 3))
                 for i in range(4)]
        batch = jax.tree.map(lambda *x: np.stack(x), *((x.start, x.stream, x.matching) for x in flows))
        together = jax.vmap(functools.partial(replay, spec))(*batch)
        for i, flow in enumerate(flows):
            alone = replay(spec, flow.start, flow.stream, flow.matching)
            assert_bitwise_equal(jax.tree.map(lambda x, i=i: x[i], together), alone)

    check()


def test_scan_equals_single_submits() -> None:
    flow = random_flow(SMALL, LENGTH, FlowParameters(seed=5))
    _, steps = replay(SMALL, flow.start, flow.stream, flow.matching)
    now = flow.start
    for i in range(LENGTH):
        now, trades, status = submit_jitted(SMALL, now, jax.tree.map(lambda x, i=i: x[i], flow.stream))
        assert_bitwise_equal((now, trades, status), jax.tree.map(lambda x, i=i: x[i], steps[:3]))


@settings(laws, max_examples=20)
@given(PARAMETERS, st.integers(0, 2**32 - 1))
def test_cancel_where_equals_twin(parameters: FlowParameters, seed: int) -> None:
    twin, now = twin_and_book(NARROW, parameters)
    rng = np.random.default_rng(seed)
    volume = np.asarray(now.volume).astype(np.int64)
    choice = rng.integers(0, 5, volume.shape)
    take = np.choose(choice, [0, volume, volume // 2, MAX_VOLUME, -5])
    on_cpu, on_accelerator = (cancel_where_jitted(spec, now, take.astype(np.int32))
                              for spec in (NARROW, ON_ACCELERATOR))
    assert_bitwise_equal(on_cpu, on_accelerator)
    assert_bulk_cancel_equals(on_cpu, twin, twin.cancel_where(take))


@settings(laws, max_examples=20)
@given(PARAMETERS, st.integers(-1, 3))
def test_cancel_account_equals_twin(parameters: FlowParameters, account: int) -> None:
    twin, now = twin_and_book(NARROW, parameters)
    assert_bulk_cancel_equals(cancel_account_jitted(NARROW, now, account), twin, twin.cancel_account(account))


def twin_and_book(spec: MarketSpec, parameters: FlowParameters) -> tuple[TwinBook, Book]:
    """A twin after a short random flow, and its book."""
    flow = random_flow(spec, 24, dataclasses.replace(parameters, invalid_rate=0.0))
    twin = TwinBook(spec)
    fields = ("price", "volume", "order_id", "account")
    last = {name: flow.expected[f"book.{name}"][-1] for name in fields}
    for side in Side:
        rows = zip(*(last[name][side].tolist() for name in fields), strict=True)
        for price, volume, order_id, account in rows:
            if volume:
                kind = Kind.BUY if side == Side.BID else Kind.SELL
                twin.submit(Message(kind, price, volume, order_id, account=account), matching=False)
    twin.last_price = int(flow.expected["book.last_price"][-1])
    return twin, twin.book()


def assert_bulk_cancel_equals(got: tuple[Book, Trades], twin: TwinBook, expected: list[Result]) -> None:
    assert_bitwise_equal(got[0], twin.book())
    rows = stacked([result.fields(twin.spec.trade_width) for result in expected])
    for name, values in rows.items():
        field = getattr(got[1], name)
        field = int64.to_numpy(field) if isinstance(field, Int64) else np.asarray(field)
        if name == "side":
            np.testing.assert_array_equal(field, list(Side))
        else:
            np.testing.assert_array_equal(field, values, err_msg=name)


def fill_side(spec: MarketSpec, kind: Kind, price: int, volume: int, count: int) -> Book:
    """A book with `count` equal orders, ids 0 to count - 1."""
    twin = TwinBook(spec)
    for order_id in range(count):
        twin.submit(Message(kind, price, volume, order_id, account=order_id % 2), matching=False)
    return twin.book()


def submit_one(spec: MarketSpec, now: Book, kind: Kind, price: int, volume: int, order_id: int, matching: bool = True
               ) -> tuple[Book, Trades, int, BookView]:
    """One limit order, and the view after it, by the compilation of `replay`."""
    order = jax.tree.map(lambda x: np.array([x], np.int32), orders.limit_order(kind, price, volume, order_id))
    now, steps = replay_filled(spec, now, order, matching)
    trades, status, view = jax.tree.map(lambda x: x[0], (steps.trades, steps.status, steps.view))
    return now, trades, int(status), view


@pytest.mark.parametrize("kind", [Kind.BUY, Kind.SELL])
def test_a_side_far_past_2_to_31_shares_matches_and_shows_exactly(kind: Kind) -> None:
    resting = Kind.SELL if kind == Kind.BUY else Kind.BUY
    price = MAX_PRICE // WIDE.tick * WIDE.tick
    now = fill_side(WIDE, resting, price, MAX_VOLUME, 100)

    def level(view: BookView) -> int:
        return int(int64.to_numpy(view.ask_volume if resting == Kind.SELL else view.bid_volume)[0])

    assert level(view_jitted(WIDE, now)) == 100 * MAX_VOLUME
    now, trades, status, view = submit_one(WIDE, now, kind, price, MAX_VOLUME - 1, 1000)
    assert (status, int(trades.count), int(trades.rest), int(trades.partial)) == (0, 1, 0, MAX_VOLUME - 1)
    assert int(int64.to_numpy(trades.value)) == price * (MAX_VOLUME - 1)
    assert level(view) == 99 * MAX_VOLUME + 1
    now, trades, status, view = submit_one(WIDE, now, kind, price, MAX_VOLUME, 1001)
    assert np.asarray(trades.volume_each[:3]).tolist() == [1, MAX_VOLUME - 1, 0]
    assert np.asarray(trades.resting_id[:3]).tolist() == [0, 1, NO_ID]
    assert level(view) == 98 * MAX_VOLUME + 1
    assert int(now.volume[resting, 0]) == 1 and int(now.order_id[resting, 0]) == 1


@pytest.mark.parametrize("kind", [Kind.BUY, Kind.SELL])
@pytest.mark.parametrize("count", [1, 127, 128, 129, 511, 512, 513, 1023, 1024])
def test_deep_sides_equal_twin_wherever_sweeps_and_levels_end(kind: Kind, count: int) -> None:
    spec = DEEP
    toward = 1 if kind == Kind.BUY else -1
    limit = 100_000 + toward * 100 * spec.levels
    got, expected = [], []
    # Up to the count, in part of the last one or past it, by its volume or by its limit.
    for volume, price in ((3 * count - 1, limit), (3 * count, limit), (3 * count + 1, limit),
                          (MAX_VOLUME, limit), (MAX_VOLUME, limit - toward * 100)):
        twin = TwinBook(spec)
        # The first `count` orders make all the levels that a view shows, the others one more.
        prices = 100_000 + toward * 100 * np.where(np.arange(1024) < count, np.arange(1024) * spec.levels // count,
                                                   spec.levels)
        twin.arrivals[Side(1 - kind)] = [Resting(int(x), 3, i, i % 3) for i, x in enumerate(prices)]
        start = twin.book()
        messages = [Message(Kind.NONE, 0, 0, NO_ID), Message(kind, price, volume, 5000)]
        expected.append(stacked([expected_row(twin, twin.submit(message)) for message in messages]))
        got.append(named_leaves(replay_filled(spec, start, stream_of(messages), length=SHORT)[1]))
    for one, other in zip(got, expected, strict=True):
        assert_equal(one, other)


def test_a_truncated_list_is_flagged_and_its_sums_are_exact() -> None:
    now = fill_side(NARROW, Kind.SELL, 100_000, 500, 10)
    for count, volume in ((3, 1500), (4, 1501)):
        after, trades, status, _ = submit_one(NARROW, now, Kind.BUY, 100_100, volume, 50)
        assert (status, int(trades.count), bool(trades.is_truncated)) == (0, count, count > 3)
        assert int(int64.to_numpy(trades.volume)) == volume
        assert int(int64.to_numpy(trades.value)) == volume * 100_000
        assert np.asarray(trades.resting_id).tolist() == [0, 1, 2]
        assert int(np.asarray(after.volume).sum()) == 5000 - volume


def test_mids_at_the_highest_price_do_not_wrap() -> None:
    now, _, _, seen = submit_one(FINE, book.empty(FINE), Kind.SELL, MAX_PRICE, 1, 1)
    assert (int(seen.mid_price), int(seen.mid_price_twice)) == (MAX_PRICE, 2 * MAX_PRICE)
    now, _, _, seen = submit_one(FINE, now, Kind.BUY, MAX_PRICE - 1, 1, 2)
    assert (int(seen.spread), int(seen.mid_price), int(seen.mid_price_twice)) == (1, MAX_PRICE - 1, 2 * MAX_PRICE - 1)
    _, _, status, _ = submit_one(FINE, now, Kind.SELL, MAX_PRICE + 1, 1, 3)
    assert status == Status.BAD_PRICE


def test_the_best_prices_are_those_of_the_view() -> None:
    twin = TwinBook(SMALL)
    assert [int(x) for x in book.best(twin.book())] == [EMPTY_PRICE, EMPTY_PRICE]
    for kind, price in ((Kind.SELL, 100_200), (Kind.SELL, 100_100), (Kind.BUY, 99_800), (Kind.BUY, 99_900)):
        twin.submit(Message(kind, price, 100, price))
    assert [int(x) for x in book.best(twin.book())] == [100_100, 99_900]


def test_a_partial_cancel_keeps_its_place_and_a_whole_one_gives_it_up() -> None:
    now = fill_side(SMALL, Kind.BUY, 100_000, 500, 3)
    now, trades, status = cancel_jitted(SMALL, now, Side.BID, 0, 200)
    assert (int(status), int(trades.kind), int(trades.slot)) == (Status.ACCEPTED, Kind.CANCEL, 0)
    assert np.asarray(now.order_id[Side.BID, :4]).tolist() == [0, 1, 2, NO_ID]
    assert np.asarray(now.volume[Side.BID, :4]).tolist() == [300, 500, 500, 0]
    _, trades, _, _ = submit_one(SMALL, now, Kind.SELL, 100_000, 400, 9)
    assert np.asarray(trades.resting_id[:3]).tolist() == [0, 1, NO_ID]
    now, _, _ = cancel_jitted(SMALL, now, Side.BID, 0, 300)
    assert np.asarray(now.order_id[Side.BID, :3]).tolist() == [1, 2, NO_ID]


def test_a_collected_order_rests_without_matching_and_leaves_the_last_price() -> None:
    now = fill_side(SMALL, Kind.BUY, 100_000, 500, 1)
    now, trades, status, view = submit_one(SMALL, now, Kind.SELL, 99_900, 300, 7, matching=False)
    assert (status, int(trades.count), int(trades.rest)) == (Status.ACCEPTED, 0, 300)
    assert int(now.last_price) == -1
    assert int(view.spread) == -100


def test_64_bit_mode_changes_neither_types_nor_results() -> None:
    """Every public function of the book once, with Python numbers where they are allowed."""
    flow = random_flow(SMALL, LENGTH, FlowParameters(seed=11, volumes="huge", collected_rate=0.2))

    def numbers(now: Book) -> Any:
        """What submits nothing: `replay` does."""
        return (book.cancel_where(SMALL, now, np.full((2, SMALL.capacity), 3, np.int32)),
                book.cancel(SMALL, now, 0, now.order_id[0, 0], 1), book.best(now),
                times.draw_uniform(np.arange(8, dtype=np.uint32) << 29, 5, 10**10), int64.of_int32(-7),
                sessions.phase_at(SMALL.session, orders.no_order().time), int64.to_int32(int64.multiply(-5, 7)))

    def others(now: Book) -> Any:
        return (book.empty(SMALL), book.submit(SMALL, now, orders.limit_order(1, 100_000, 700, 10**6), True),
                book.cancel_account(SMALL, now, 1), orders.no_order(), orders.cancel_order(0, 5, 100))

    found, shapes = [], []
    for wide in (False, True):
        with jax.enable_x64(wide):
            now, steps = replay(SMALL, flow.start, flow.stream, flow.matching)
            found.append((now, steps, jax.jit(lambda now: numbers(now))(now)))
            shapes.append(jax.eval_shape(lambda now: others(now), now))
    assert {str(x.dtype) for x in jax.tree.leaves((found, shapes))} == {"int32", "uint32", "bool"}
    assert_bitwise_equal(*found)
    assert shapes[0] == shapes[1]


def counted(function: Callable[..., Any]) -> tuple[Callable[..., Any], list[int]]:
    """The function jitted with a static spec, and a list that grows by one a trace."""
    traces: list[int] = []

    def call(spec: MarketSpec, *arguments: Any) -> Any:
        traces.append(1)
        return function(spec, *arguments)

    return jax.jit(call, static_argnums=0), traces


def test_contents_never_retrace() -> None:
    submit, submit_traces = counted(book.submit)
    view, view_traces = counted(book.view)
    cancel, cancel_traces = counted(book.cancel)
    take, take_traces = counted(book.cancel_where)
    now = book.empty(SMALL)
    stream = random_flow(SMALL, 4, FlowParameters(seed=3)).stream
    messages: list[Order] = [
        orders.limit_order(Kind.BUY, 100_000, 500, 1), orders.limit_order(int(Kind.SELL), 100_100, 500, 2, 0),
        orders.limit_order(np.int32(0), np.array(99_900), np.int64(100), 3, account=np.int32(1)),
        orders.limit_order(jax.numpy.int32(0), jax.numpy.int32(99_900), 100, 4, time=Time(np.int32(5), np.int32(6))),
        orders.cancel_order(Side.BID, 1, 100), orders.no_order(), orders.no_order(times.of_ns(5)),
        *(jax.tree.map(lambda x, i=i: x[i], stream) for i in range(4))]
    for i, message in enumerate(messages):
        spec = MarketSpec(capacity=16, trade_width=16)
        # Traced alone: nothing need be compiled.
        now, _, _ = submit.eval_shape(spec, now, message, np.bool_(i % 2))
        now, _, _ = cancel.eval_shape(spec, now, i % 2, i, 1)
        now, _ = take.eval_shape(spec, now, np.full((2, 16), i, np.int32))
        view.eval_shape(spec, now)
    assert (submit_traces, cancel_traces, take_traces, view_traces) == ([1], [1], [1], [1])


@pytest.mark.parametrize("count", [5, 126, 127, 128, 129, 150])
@pytest.mark.parametrize("kernels", [CPU, ACCELERATOR], ids=["cpu", "accelerator"])
def test_books_of_a_batch_are_looked_at_as_deep_as_the_deepest_needs(count: int, kernels: Kernels) -> None:
    spec = MarketSpec(capacity=160, trade_width=4, levels=10, kernels=kernels)
    price = np.full((2, 2, 160), EMPTY_PRICE, np.int32)
    volume = np.zeros_like(price)
    price[:, Side.ASK, :150], volume[:, Side.ASK, :150] = 100_000, 100
    price[1, Side.ASK, count:150] += 100 * np.arange(1, 151 - count)  # levels that begin at a slot
    ids = np.broadcast_to(np.arange(160, dtype=np.int32), price.shape)
    last = np.full(2, -1, np.int32)
    books = Book(price, volume, np.where(volume > 0, ids, NO_ID), np.full_like(price, NO_ACCOUNT), last)
    wanted = np.array([100 * count + 50, 200], np.int32)  # the first order ends in the middle of slot `count`
    order = orders.limit_order(np.full(2, Kind.BUY), np.full(2, 100_000), wanted, 1000)
    found = ones_and_views(spec, books, order)
    for i in range(2):
        alone = one_and_view(spec, *jax.tree.map(lambda x, i=i: np.asarray(x)[i], (books, order)))
        assert_bitwise_equal(jax.tree.map(lambda x, i=i: np.asarray(x)[i], found), alone)
    resting = 100 * np.array([150, count])
    np.testing.assert_array_equal(int64.to_numpy(found[1].volume), np.minimum(wanted, resting))


@functools.partial(jax.jit, static_argnums=0)
def ones_and_views(spec: MarketSpec, before: Book, order: Order) -> tuple[Book, Trades, BookView]:
    return jax.vmap(functools.partial(one_and_view, spec))(before, order)


@functools.partial(jax.jit, static_argnums=0)
def one_and_view(spec: MarketSpec, before: Book, order: Order) -> tuple[Book, Trades, BookView]:
    after, trades, _ = book.submit(spec, before, order)
    return after, trades, book.view(spec, after)


@pytest.mark.slow
def test_a_book_of_70_000_slots_equals_twin() -> None:
    spec = MarketSpec(capacity=70_000, trade_width=16)
    rng, twin = np.random.default_rng(3), TwinBook(spec)
    for side in Side:
        for i in range(69_990):
            distance = 100 * int(rng.integers(1, 500))
            price = 10**6 + (distance if side == Side.ASK else -distance)
            twin.arrivals[side].append(Resting(price, int(rng.integers(1, 9)), 100_000 * side + i, int(side)))
    start = twin.book()
    messages = [Message(Kind.BUY, 10**6 + 100 * 500, 2**18, 300_000, account=1),
                Message(Kind.SELL, 10**6 - 100 * 400, 2**17, 300_001),
                Message(Kind.CANCEL, 0, 1, 300_002, Side.BID, 100_000 + 69_989),
                *(Message(Kind.BUY, 10**6 - 100 * i, 5, 300_003 + i) for i in range(500, 512))]
    flow = Flow(start, stream_of(messages), np.ones(len(messages), bool),
                stacked([expected_row(twin, twin.submit(message)) for message in messages]))
    assert_equal(run(spec, flow), flow.expected)
    assert flow.expected["status"].tolist()[-1] == Status.ACCEPTED and flow.expected["trades.count"].max() > 2**15
