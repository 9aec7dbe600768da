"""Laws of the tokens: equal to a float64 twin on random flow, for any bins, times and sizes."""

import dataclasses
import functools
from typing import Any

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from marsjax.checkpoint import converter_files
from marsjax.core import int64, sessions, times
from marsjax.core.records import BookView, Kind, Market, Order, Report, Status
from marsjax.core.sessions import continuous_session
from marsjax.core.specs import MarketSpec, TokenSpec
from marsjax.core.times import DAY_NS, SECOND_NS
from marsjax.market import book, exchange, orders
from marsjax.tokens import bins, encoding
from tests.helpers import fixture_folder
from tests.twin_tokens import Sent, Snapshot, TokenTwin

SPEC = TokenSpec()
MARKET = MarketSpec(capacity=128, trade_width=32, accounts=2, session=continuous_session(0, DAY_NS - 1))
LENGTH = 400
"""Orders of every random stream: one compilation serves them all."""


@functools.cache
def converters() -> dict[str, bins.Converter]:
    return converter_files.read_folder(fixture_folder() / "converters")


@functools.cache
def table() -> encoding.TokenTables:
    return encoding.tables(SPEC, converters())


@functools.partial(jax.jit, static_argnums=0)
def run(spec: MarketSpec, tables: encoding.TokenTables, stream: Order
        ) -> tuple[encoding.TokenState, Report, BookView, encoding.Encoded]:
    def one(carry: tuple[Market, encoding.TokenState], order: Order
            ) -> tuple[tuple[Market, encoding.TokenState], tuple[Report, BookView, encoding.Encoded]]:
        market, state = carry
        before = book.view(spec, market.book)
        market, report = exchange.step(spec, market, order)
        after = book.view(spec, market.book)
        counts = (report.status == Status.ACCEPTED) & (sessions.phase_at(spec.session, order.time) == 2)
        state, encoded = encoding.encode(spec, tables, state, order, report.trades, before, after, counts)
        return (market, state), (report, after, encoded)

    (_, state), rest = jax.lax.scan(one, (exchange.open_market(spec), encoding.start()), stream)
    return state, *rest


def random_stream(seed: int, length: int, volume_scale: int, start_s: int, end_s: int) -> Order:
    """Orders and cancels by two accounts, runs of cancels at one time among them; ids are rows."""
    rng = np.random.default_rng(seed)
    kind = rng.choice([Kind.SELL, Kind.BUY, Kind.CANCEL], length, p=[0.3, 0.3, 0.4])
    gap = rng.choice([0, 1, 10**6, 10**9, 60 * 10**9], length, p=[0.4, 0.1, 0.2, 0.2, 0.1]).cumsum()
    time_ns = start_s * SECOND_NS + (gap / gap[-1] * (end_s - start_s) * SECOND_NS).astype(np.int64)
    away = np.where(rng.random(length) < 0.75, rng.integers(1, 6, length), rng.integers(-12, 13, length))
    price = 100_000 + 100 * np.where(kind == Kind.BUY, -away, away)
    volume = rng.integers(1, 100, length) * volume_scale
    side, target, account = np.full(length, -1), np.full(length, -1), rng.integers(0, 2, length)
    placed: list[int] = []
    for i in range(length):
        if kind[i] != Kind.CANCEL:
            placed.append(i)
            continue
        if not placed:
            kind[i] = Kind.BUY
            placed.append(i)
            continue
        # Often the orders of one price in a row, as an agent that takes a level back.
        last = placed[int(rng.integers(len(placed)))]
        again = [j for j in placed if kind[i - 1] == Kind.CANCEL and price[j] == price[target[i - 1]]
                 and account[j] == account[target[i - 1]]]
        if again and rng.random() < 0.7:
            last, time_ns[i] = again[0], time_ns[i - 1]
        target[i], side[i], volume[i], account[i] = last, kind[last], volume[last], account[last]
        placed.remove(last)
    return orders.from_columns(time_ns, kind, price, volume, np.arange(length), side, target, account)


def twin_of(stream: Order, report: Report, views: BookView) -> TokenTwin:
    twin = TokenTwin(converters())
    before = Snapshot((), None)
    prices = {}
    for i in range(len(stream.kind)):
        after = snapshot(views, i)
        prices[i] = int(stream.price[i])
        if report.status[i] == Status.ACCEPTED:
            is_cancel = stream.kind[i] == Kind.CANCEL
            fills = zip(report.trades.price[i].tolist(), report.trades.volume_each[i].tolist(), strict=True)
            twin.see(Sent(
                time_ns=int(times.to_ns(stream.time)[i]), kind=int(stream.kind[i]),
                price=prices[int(stream.cancel_id[i])] if is_cancel else prices[i], volume=int(stream.volume[i]),
                account=int(stream.account[i]), fills=() if is_cancel else tuple(x for x in fills if x[1])), before,
                after)
        before = after
    return twin


def snapshot(views: BookView, i: int) -> Snapshot:
    sides = ((views.ask_price, views.ask_volume), (views.bid_price, views.bid_volume))
    levels = [(int(p), int(v)) for price, volume in sides
              for p, v in zip(price[i], int64.to_numpy(jax.tree.map(lambda x: x[i], volume)), strict=True)]
    return Snapshot(tuple(x for x in levels if x[0] > 0), int(views.mid_price[i]) if views.has_mid[i] else None)


@pytest.mark.parametrize(("seed", "scale", "start_s", "end_s"), [
    (0, 100, 34_200, 34_300), (1, 1, 34_200, 57_600), (2, 20_000_000, 40_000, 50_000), (3, 7, 46_790, 46_810),
    (4, 100, 34_200, 34_200), (5, 3, 0, 86_399), (6, 100, 54_000, 54_060)])
def test_tokens_equal_the_float64_twin(seed: int, scale: int, start_s: int, end_s: int) -> None:
    stream = random_stream(seed, LENGTH, scale, start_s, end_s)
    state, report, views, encoded = jax.tree.map(np.asarray, run(MARKET, table(), stream))
    made, _ = encoding.collect(encoding.Encoded(*encoded))
    twin = twin_of(stream, report, views)
    assert len(twin.tokens) > 100
    assert int(state.count) == len(twin.tokens)
    np.testing.assert_array_equal(encoding.to_array(SPEC, made), np.array(twin.tokens))


def test_merged_cancels_occur_in_the_random_flow() -> None:
    _, _, _, encoded = run(MARKET, table(), random_stream(0, LENGTH, 100, 34_200, 34_300))
    assert int(encoded.replaces.sum()) > 10


def test_a_session_of_six_and_a_half_hours_clips_and_counts() -> None:
    day = random_stream(1, LENGTH, 1, 34_200, 57_600)
    state, _, _, encoded = run(MARKET, table(), day)
    late = (times.to_ns(day.time) >= 13 * 3600 * SECOND_NS)
    first_ns = int(times.to_ns(state.first))
    seconds = (times.to_ns(day.time) - first_ns) // SECOND_NS - np.where(late, 5400, 0)
    over = np.asarray(encoded.is_new) & (seconds > encoding.SECONDS_LIMIT)
    assert over.sum() > 10
    assert int(state.clipped) == over.sum()
    assert int(jnp.max(encoded.token.seconds)) == encoding.SECONDS_LIMIT


def halves(seed: int) -> tuple[list[Any], BookView, encoding.TokenState, encoding.Encoded]:
    """Orders, reports and views of a random stream in two parts, the view before it, and what came of all of it."""
    stream = random_stream(seed, LENGTH, 100, 34_200, 40_000)
    state, report, views, encoded = run(MARKET, table(), stream)
    parts = slice(LENGTH // 2), slice(LENGTH // 2, None)
    return ([jax.tree.map(lambda x, part=part: np.asarray(x)[part], (stream, report, views)) for part in parts],
            book.view(MARKET, book.empty(MARKET)), state, encoded)


encode_stream = jax.jit(encoding.encode_stream, static_argnums=0)
ALL_OPEN = np.ones(LENGTH // 2, bool)


def test_orders_outside_continuous_trading_make_no_tokens_and_start_no_clock() -> None:
    (half, _), empty, _, _ = halves(8)
    orders_sent, report, _ = half
    first = int(np.flatnonzero(report.status[50:] == Status.ACCEPTED)[0]) + 50
    state, encoded = encode_stream(MARKET, table(), encoding.start(), *half, empty, np.arange(LENGTH // 2) >= 50)
    assert times.to_ns(state.first) == times.to_ns(orders_sent.time)[first]
    # The first order that counts starts the clock and makes no token.
    assert not np.asarray(encoded.is_new | encoded.replaces)[:first + 1].any()
    assert int(state.count) == np.asarray(encoded.is_new).sum() > 50


def test_encode_stream_equals_encoding_order_by_order() -> None:
    half, empty, state, encoded = halves(7)
    middle, first = encode_stream(MARKET, table(), encoding.start(), *half[0], empty, ALL_OPEN)
    last = jax.tree.map(lambda x: x[-1], half[0][2])
    end, second = encode_stream(MARKET, table(), middle, *half[1], last, ALL_OPEN)
    chex.assert_trees_all_equal(end, state)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)
    chex.assert_trees_all_equal(both, encoded)


@pytest.mark.parametrize("spec", [SPEC, TokenSpec(8, 8, 4), TokenSpec(1, 5, 3)])
def test_pack_and_unpack_are_inverse_over_all_tokens(spec: TokenSpec) -> None:
    number = np.arange(spec.classes)
    parts = encoding.unpack(spec, number)
    np.testing.assert_array_equal(encoding.pack(spec, *parts), number)
    for part, count in zip(parts, (3, spec.price_levels, spec.volumes, spec.intervals), strict=True):
        assert set(part) == set(range(count))


def test_arrays_of_features_go_there_and_back() -> None:
    expected = np.load(fixture_folder() / "features_full_expected.npy")
    np.testing.assert_array_equal(encoding.to_array(SPEC, encoding.from_array(SPEC, expected)), expected)
    np.testing.assert_array_equal(encoding.check_array(SPEC, expected[:20].reshape(2, 150), 32),
                                  expected[:20].reshape(2, 10, 15))


@pytest.mark.parametrize(("place", "value", "message"), [
    ((3, 0), 49_152, r"features\[3, 0\]: expected 0 to 49151, got 49152"), ((0, 3), 2001, "expected -2000 to 2000"),
    ((5, 4), -1, "got -1"), ((1, 14), 33, "expected 0 to 32, got 33"), ((1, 1), 11, "expected 0 to 10")])
def test_features_out_of_range_are_refused_with_their_place(place: tuple[int, int], value: int, message: str) -> None:
    features = np.load(fixture_folder() / "features_full_expected.npy")[:10]
    features[place] = value
    with pytest.raises(ValueError, match=message):
        encoding.check_array(SPEC, features, 32)


@pytest.mark.parametrize("features", [np.zeros((2, 14), np.int32), np.zeros((2, 15)), np.int32(3)])
def test_features_of_another_shape_or_type_are_refused(features: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected integers"):
        encoding.check_array(SPEC, features, 32)


def test_converters_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="price-level: expected 8 bins, got 32"):
        encoding.tables(TokenSpec(8, 32, 16), converters())
    without = {name: x for name, x in converters().items() if name != "pred-order-volume"}
    with pytest.raises(ValueError, match="expected pred-order-volume"):
        encoding.draw_tables(SPEC, without)


tenths = jax.jit(encoding._tenths)


@hypothesis.given(st.integers(1, 2**40), st.integers(0, 2**40))
@hypothesis.settings(deadline=None, max_examples=200)
def test_ratio_in_tenths_is_that_of_float64(part: int, rest: int) -> None:
    whole = [part + rest, part]
    got = tenths(*(int64.from_numpy(np.array(x)) for x in ([part, part], whole)))
    assert got.tolist() == [int(part / x * 0.99 * 10) for x in whole]


def test_ratio_in_tenths_at_every_edge() -> None:
    k, size = np.arange(1, 10), 1_000
    part, whole = 10 * k * size, np.full(9, 99 * size)
    got = tenths(int64.from_numpy(part), int64.from_numpy(whole))
    assert got.tolist() == [int(p / w * 0.99 * 10) for p, w in zip(part.tolist(), whole.tolist(), strict=True)]


@hypothesis.given(st.integers(1, 10**7), st.integers(1, 2 * 10**7))
@hypothesis.settings(deadline=None, max_examples=300)
def test_change_since_the_open_is_that_of_float64(open_ticks: int, mid_ticks: int) -> None:
    assert change(open_ticks * 100, mid_ticks * 100) == int(min(max(mid_ticks / open_ticks - 1, -0.2), 0.2) * 10000)


@hypothesis.given(st.integers(1, 10_000), st.integers(-2100, 2100))
@hypothesis.settings(deadline=None, max_examples=300)
def test_change_of_a_whole_number_follows_the_float64_quirk(scale: int, k: int) -> None:
    base, mid = 10_000 * scale, (10_000 + k) * scale
    assert change(base, mid) == int(min(max(mid / base - 1, -0.2), 0.2) * 10000)


@jax.jit
def _change(table: encoding.TokenTables, view: BookView, base: jax.Array) -> jax.Array:
    return encoding._change(table, view, base)


@functools.cache
def no_levels() -> BookView:
    return book.view(MARKET, book.empty(MARKET))


def change(base: int, mid: int) -> int:
    view = dataclasses.replace(no_levels(), mid_price=np.int32(mid), has_mid=np.bool_(True))
    return int(_change(table(), view, np.int32(base)))


def test_first_values_are_drawn_with_zero_bits_and_bins_come_back() -> None:
    draws, number = encoding.draw_tables(SPEC, converters()), jnp.arange(SPEC.classes, dtype=jnp.int32)
    plan = encoding.draw_plan(SPEC, draws, number, jnp.zeros((SPEC.classes, 3), jnp.uint32))
    kind, price_bin, _, interval_bin = encoding.unpack(SPEC, number)
    np.testing.assert_array_equal(plan.kind, kind)
    np.testing.assert_array_equal(bins.lookup(table().price, plan.offset), price_bin)
    np.testing.assert_array_equal(bins.lookup_time(table().interval, plan.wait), interval_bin)


def test_each_value_of_a_sampled_token_is_drawn_from_its_own_table_with_its_own_word() -> None:
    draws, rng = encoding.draw_tables(SPEC, converters()), np.random.default_rng(4)
    number = rng.integers(0, SPEC.classes, 500).astype(np.int32)
    bits = rng.integers(0, 2**32, (500, 3)).astype(np.uint32)
    plan = encoding.draw_plan(SPEC, draws, number, bits)
    kind, price_bin, volume_bin, interval_bin = encoding.unpack(SPEC, number)
    np.testing.assert_array_equal(plan.kind, kind)
    named = converters()
    np.testing.assert_array_equal(
        plan.offset, bins.draw(bins.draw_table(named["price-level"]), price_bin, bits[:, 0]))
    np.testing.assert_array_equal(
        plan.volume, bins.draw(bins.draw_table(named["pred-order-volume"]), volume_bin, bits[:, 1]))
    np.testing.assert_array_equal(times.to_ns(plan.wait), times.to_ns(
        bins.draw(bins.time_draw_table(named["order-interval"]), interval_bin, bits[:, 2])))


def made(number: list[int]) -> encoding.Token:
    """Tokens that only their seconds tell apart."""
    zeros = np.zeros(len(number), np.int32)
    return encoding.from_array(SPEC, np.stack([*[zeros] * 4, np.array(number, np.int32), *[zeros] * 10], axis=-1))


def test_merged_tokens_are_collected_once_as_they_were_last() -> None:
    is_new = np.array([0, 1, 0, 0, 1, 1, 0, 0], bool)
    replaces = np.array([0, 0, 1, 1, 0, 0, 0, 1], bool)
    tokens, after = encoding.collect(encoding.Encoded(made(list(range(8))), is_new, replaces))
    assert np.asarray(tokens.seconds).tolist() == [3, 4, 7]
    assert after.tolist() == [0, 1, 1, 1, 2, 3, 3, 3]
    with pytest.raises(ValueError, match="merged with one before it"):
        encoding.collect(encoding.Encoded(made([0, 1]), np.array([False, True]), np.array([True, False])))
    nothing, after = encoding.collect(encoding.Encoded(made([0, 1]), np.zeros(2, bool), np.zeros(2, bool)))
    assert (len(nothing.seconds), after.tolist()) == (0, [0, 0])


def test_features_at_the_ends_of_their_ranges_are_taken() -> None:
    row = np.zeros(15, np.int64)
    low, high = row.copy(), row.copy()
    low[3], high[:] = -2000, [SPEC.classes - 1, 10, 10, 2000, 14_404, *[32] * 10]
    np.testing.assert_array_equal(encoding.check_array(SPEC, np.stack([low, high]), 32), [low, high])
    for column in range(15):
        for end, step in ((low, -1), (high, 1)):
            outside = end.copy()
            outside[column] += step
            with pytest.raises(ValueError, match=rf"features\[0, {column}\]: expected .*, got {outside[column]}"):
                encoding.check_array(SPEC, outside[None], 32)


def test_a_new_token_state_knows_nothing() -> None:
    state = encoding.start()
    assert (bool(state.started), bool(state.last_is_cancel), int(state.open_price)) == (False, False, -1)
    assert (int(state.count), int(state.clipped), int(state.cancel_account)) == (0, 0, -1)
    assert (int(int64.to_numpy(state.cancel_volume)), int(times.to_ns(state.first))) == (0, 0)
    leaves = jax.tree.leaves(state)
    assert len({x.unsafe_buffer_pointer() for x in leaves}) == len(leaves)


def test_tokens_do_not_depend_on_the_64_bit_switch() -> None:
    """On given answers of the market: that those do not is a law of the exchange."""
    (half, _), empty, _, _ = halves(0)
    expected = table(), encode_stream(MARKET, table(), encoding.start(), *half, empty, ALL_OPEN)
    with jax.enable_x64(True):
        wide = encoding.tables(SPEC, converters())
        got = wide, encode_stream(MARKET, wide, encoding.start(), *half, empty, ALL_OPEN)
    assert np.asarray(expected[1][1].is_new).sum() > 50 and np.asarray(expected[1][1].replaces).any()
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype
        np.testing.assert_array_equal(x, y)
