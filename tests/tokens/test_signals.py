"""Signals of the market in tokens: by their formula in Python's whole numbers, alike for a mirror image."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.records import NO_PRICE, BookView, Kind
from marsjax.core.specs import MarketSpec, ModelSpec, TokenSpec
from marsjax.market import book, orders
from marsjax.model import layers, llama
from marsjax.tokens import encoding, signals

SPEC = MarketSpec(tick=100)


def run(twice: list[int], known: list[bool] | None = None) -> np.ndarray:
    """The columns of the trend, [N, 3], of orders after which twice the mid is so much, where it is known."""
    view = book.view(SPEC, book.empty(SPEC))

    def one(state: signals.Trend, x: tuple[jax.Array, jax.Array]) -> tuple[signals.Trend, jax.Array]:
        after: BookView = dataclasses.replace(view, mid_price_twice=x[0], has_mid=x[1])
        return signals.update(SPEC, state, after)

    given = np.array(twice, np.int32), np.array(known or [True] * len(twice))
    return np.asarray(jax.lax.scan(one, signals.start(), given)[1])[:, :3]


def plain(twice: list[int], known: list[bool]) -> list[list[int]]:
    """The same in Python."""
    last, gaps, found = None, [0, 0], []
    for mid, has_mid in zip(twice, known, strict=True):
        moved = mid - last if has_mid and last is not None else 0
        half_ticks = int(math.copysign(min(abs(moved) // SPEC.tick, 2**14), moved))
        last = mid if has_mid else last
        row = [max(-8, min(8, half_ticks))]
        for i, (weight, limit) in enumerate(((64, 8), (512, 10))):
            gap = gaps[i] + half_ticks * 4096
            size = min(abs(gap), 2**28)
            gaps[i] = int(math.copysign(size - size // weight, gap))
            steps = [k for k in range(1, limit + 1) if abs(gaps[i]) >= math.ceil((2 ** ((k - 0.5) / 2) - 1) * 4096)]
            row.append(int(math.copysign(max(steps, default=0), gaps[i])))
        found.append(row)
    return found


def walk(seed: int, count: int = 3000) -> tuple[list[int], list[bool]]:
    rng = np.random.default_rng(seed)
    moves = rng.choice([0, 0, 0, 100, -100, 200, -200, 5000, -4000], size=count)
    return (1_000_000 + np.cumsum(moves)).tolist(), (rng.random(count) > 0.02).tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_columns_are_those_of_the_formula(seed: int) -> None:
    twice, known = walk(seed)
    found = run(twice, known)
    np.testing.assert_array_equal(found, plain(twice, known))
    for column, (least, most) in enumerate(signals.LIMITS[:3]):
        assert {least, 0, most} <= set(found[:, column].tolist())


def test_a_mirror_image_has_the_mirror_image_of_a_trend() -> None:
    twice, known = walk(2)
    np.testing.assert_array_equal(run([4_000_000 - mid for mid in twice], known), -run(twice, known))


def test_a_jump_is_forgotten_in_time_and_the_fast_average_forgets_first() -> None:
    found = run([1_000_000] * 2 + [1_002_000] * 6000)
    assert found[1].tolist() == [0, 0, 0]
    assert found[2, 0] == 8 and found[2, 1] == 8 and found[2, 2] == 9
    assert (found[3:, 0] == 0).all()
    assert np.flatnonzero(found[:, 1] > 0)[-1] < np.flatnonzero(found[:, 2] > 0)[-1] < 4000
    assert (np.diff(found[2:, 1:], axis=0) <= 0).all()


def test_there_is_no_trend_before_there_is_a_mid() -> None:
    assert run([NO_PRICE, NO_PRICE, 500_000, 500_100], [False, False, True, True]).tolist() == [
        [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 2, 2]]


def shown(ask: int, ask_volume: int, bid: int, bid_volume: int) -> list[int]:
    """The columns after the trend of a book with one order a side; of no volume, none."""
    state = book.empty(SPEC)
    for kind, price, volume, number in ((Kind.SELL, ask, ask_volume, 1), (Kind.BUY, bid, bid_volume, 2)):
        if volume:
            state, _, _ = book.submit(SPEC, state, orders.limit_order(kind, price=price, volume=volume,
                                                                      order_id=number))
    _, columns = signals.update(SPEC, signals.start(), book.view(SPEC, state))
    assert columns.dtype == jnp.int32
    return np.asarray(columns)[3:].tolist()


def test_spread_best_volumes_and_price_are_half_steps_of_the_logarithm() -> None:
    def steps(number: float) -> int:
        return round(2 * math.log2(number))

    for ask, ask_volume, bid, bid_volume in ((100_200, 300, 100_100, 1_024), (100_900, 73_000, 100_100, 1),
                                             (2_147_000, 2, 1_000_000, 2**30)):
        assert shown(ask, ask_volume, bid, bid_volume) == [
            min(steps((ask - bid) // 100), 12), steps(ask_volume) - 20, min(steps(bid_volume) - 20, 20),
            steps((ask + bid) // 200) - 20]
    assert shown(100_200, 300, 100_100, 1_024) == [0, -4, 0, 0]
    # A side without orders: the widest spread, and the volume of none.
    assert shown(100_200, 300, 0, 0)[:3] == [12, -4, -20]


def test_features_have_the_columns_that_the_spec_asks_for_and_come_back() -> None:
    more = TokenSpec(5, 4, 3, signals=True)
    assert (encoding.columns(TokenSpec()), encoding.columns(more)) == (15, 22)
    rng = np.random.default_rng(0)
    features = rng.integers(0, [60, 9, 9, 2001, 14000, *[9] * 10, 9, 9, 11, 12, 20, 20, 22], (6, 22)).astype(np.int32)
    features[:, 15:18] -= [4, 4, 5]
    checked = encoding.check_array(more, features, 9)
    np.testing.assert_array_equal(encoding.to_array(more, encoding.from_array(more, checked)), features)
    features[2, 17] = 11
    with pytest.raises(ValueError, match=r"features\[2, 17\]: expected -10 to 10, got 11"):
        encoding.check_array(more, features, 9)


def test_a_model_with_signals_reads_them_and_one_without_does_not() -> None:
    def logits(is_read: bool, moved: int) -> np.ndarray:
        spec = ModelSpec(embed_dim=8, heads=2, context_length=16, tokens=TokenSpec(5, 4, 3, signals=is_read))
        features = np.zeros((7, encoding.columns(spec.tokens)), np.int32)
        tokens = dataclasses.replace(encoding.from_array(spec.tokens, features),
                                     signals=np.full((7, signals.COLUMNS), moved, np.int32))
        return np.asarray(llama.init(spec, jax.random.key(0))(tokens))

    assert layers.SIGNALS == signals.COLUMNS
    assert (logits(True, 0) != logits(True, 3)).any()
    np.testing.assert_array_equal(logits(False, 0), logits(False, 3))
