"""Exact 64-bit numbers, exact times and session phases equal NumPy's int64 and Python's integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsjax.core import int64, sessions, times
from marsjax.core.records import Int64, Time
from marsjax.core.sessions import Period, Phase, Session, chinese_session, continuous_session
from marsjax.core.times import DAY_NS, SECOND_NS

laws = settings(deadline=None, max_examples=40)
# Extremes of a word, of its halves and of an int64: where carries and signs go wrong.
EDGES_32 = [0, 1, -1, 2**16 - 1, 2**16, -(2**16), 2**31 - 1, -(2**31), -(2**31) + 1]
EDGES_64 = [*EDGES_32, 2**31, 2**32 - 1, 2**32, -(2**32), -(2**32) - 1, 2**48, 2**63 - 1, -(2**63), -(2**63) + 1]
WIDTH = 32
int64s = st.one_of(st.sampled_from(EDGES_64), st.integers(-(2**63), 2**63 - 1))
int32s = st.one_of(st.sampled_from(EDGES_32), st.integers(-(2**31), 2**31 - 1))
counts = st.one_of(st.sampled_from([0, 1, 2**16 - 1, 2**16, 2**31 - 1]), st.integers(0, 2**31 - 1))
durations = st.one_of(st.sampled_from([0, 1, SECOND_NS - 1, SECOND_NS, DAY_NS - 1, DAY_NS]),
                      st.integers(0, 2 * DAY_NS))


def columns(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[np.ndarray]:
    return st.lists(numbers, min_size=WIDTH, max_size=WIDTH).map(lambda x: np.array(x, np.int64))


def grid(edges: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of edges."""
    a, b = np.meshgrid(np.array(edges, np.int64), np.array(edges, np.int64))
    return a.ravel(), b.ravel()


def assert_wide(got: Int64, expected: np.ndarray) -> None:
    assert (got.hi.dtype, got.lo.dtype) == (np.int32, np.uint32)
    np.testing.assert_array_equal(int64.to_numpy(got), expected)


@jax.jit
def all_pairs(a: Int64, b: Int64) -> dict[str, Int64 | jax.Array]:
    return {"add": int64.add(a, b), "subtract": int64.subtract(a, b), "negate": int64.negate(a),
            "minimum": int64.minimum(a, b), "less": int64.less(a, b), "equal": int64.equal(a, b),
            "select": int64.select(int64.equal(a, b), a, b), "to_int32": int64.to_int32(a)}


def assert_pairs(a: np.ndarray, b: np.ndarray) -> None:
    got = all_pairs(int64.from_numpy(a), int64.from_numpy(b))
    # NumPy's int64 wraps modulo 2**64 in silence.
    assert_wide(got["add"], a + b)
    assert_wide(got["subtract"], a - b)
    assert_wide(got["negate"], -a)
    assert_wide(got["minimum"], np.minimum(a, b))
    assert_wide(got["select"], np.where(a == b, a, b))
    np.testing.assert_array_equal(got["less"], a < b)
    np.testing.assert_array_equal(got["equal"], a == b)
    np.testing.assert_array_equal(got["to_int32"], np.clip(a, -(2**31), 2**31 - 1))
    assert got["to_int32"].dtype == np.int32


@laws
@given(columns(int64s), columns(int64s))
def test_wide_arithmetic_equals_int64(a: np.ndarray, b: np.ndarray) -> None:
    assert_pairs(a, b)
    assert_pairs(a, a)


def test_wide_arithmetic_equals_int64_at_every_pair_of_extremes() -> None:
    assert_pairs(*grid(EDGES_64))


@laws
@given(columns(int32s), columns(int32s))
def test_multiply_equals_int64(a: np.ndarray, b: np.ndarray) -> None:
    assert_wide(jax.jit(int64.multiply)(a.astype(np.int32), b.astype(np.int32)), a * b)


def test_multiply_equals_int64_at_every_pair_of_extremes() -> None:
    a, b = grid(EDGES_32)
    assert_wide(int64.multiply(a.astype(np.int32), b.astype(np.int32)), a * b)


def test_wide_of_python_and_int32_numbers_keeps_their_values() -> None:
    numbers = np.array(EDGES_32)
    assert_wide(int64.of_int32(numbers.astype(np.int32)), numbers)
    for number in EDGES_32:
        assert_wide(int64.of_int32(number), np.array(number))


def test_numpy_round_trip_keeps_every_extreme() -> None:
    numbers = np.array(EDGES_64, np.int64)
    assert_wide(int64.from_numpy(numbers), numbers)


@laws
@given(columns(counts), columns(counts))
def test_sums_equal_int64(price: np.ndarray, volume: np.ndarray) -> None:
    assert_sums(price, volume)


@pytest.mark.parametrize("count", [0, 1, 2**15, 2**15 + 1, 2**17])
def test_sums_of_the_most_and_largest_terms_are_exact(count: int) -> None:
    most = np.full(count, 2**31 - 1, np.int64)
    assert_sums(most, most)
    rng = np.random.default_rng(count)
    assert_sums(rng.integers(0, 2**31, count), rng.integers(0, 2**31, count))


def assert_sums(price: np.ndarray, volume: np.ndarray) -> None:
    p, v = price.astype(np.int32), volume.astype(np.int32)
    assert_wide(int64.total(v), volume.sum())
    assert_wide(int64.running(v), np.cumsum(volume))
    assert_wide(int64.total_product(p, v), (price * volume).sum())


def test_sums_go_along_the_axis_that_is_named() -> None:
    volume = np.random.default_rng(0).integers(0, 2**31, (3, 4, 5))
    narrow = volume.astype(np.int32)
    for axis in (0, 1, 2, -1):
        assert_wide(int64.total(narrow, axis), volume.sum(axis))
        assert_wide(int64.running(narrow, axis), np.cumsum(volume, axis))
        assert_wide(int64.total_product(narrow, narrow, axis), (volume * volume).sum(axis))


@laws
@given(columns(int64s))
def test_int64_add_up_like_int64_and_only_what_is_named(numbers: np.ndarray) -> None:
    given, flags = int64.from_numpy(numbers), numbers % 3 == 0
    assert_wide(int64.add_up(given), numbers.sum())
    assert_wide(int64.add_up(int64.from_numpy(numbers.reshape(4, -1)), 0), numbers.reshape(4, -1).sum(0))
    assert_wide(int64.only(flags, given), np.where(flags, numbers, 0))


def test_sums_of_the_most_int64_are_exact() -> None:
    for number in (-1, 2**63 - 1, 2**32 - 1, -(2**63)):
        many = np.full(2**15, number, np.int64)
        assert_wide(int64.add_up(int64.from_numpy(many)), many.sum())


def test_long_sums_go_along_the_axis_that_is_named() -> None:
    volume = np.random.default_rng(0).integers(0, 2**31, (2, 2**15 + 5, 3))
    narrow = volume.astype(np.int32)
    for axis in (1, -2):
        assert_wide(int64.total(narrow, axis), volume.sum(axis))
        assert_wide(int64.running(narrow, axis), np.cumsum(volume, axis))
        assert_wide(int64.total_product(narrow, narrow, axis), (volume * volume).sum(axis))


def test_too_many_int64_are_not_added_up() -> None:
    with pytest.raises(ValueError, match=r"at most 32768 terms.*\(32769,\)"):
        int64.add_up(int64.of_int32(np.zeros(2**15 + 1, np.int32)))


@laws
@given(columns(durations), columns(durations))
def test_time_arithmetic_equals_nanoseconds(a: np.ndarray, b: np.ndarray) -> None:
    first, second = times.from_ns(a), times.from_ns(b)
    np.testing.assert_array_equal(times.to_ns(times.add(first, second)), a + b)
    larger, smaller = times.from_ns(np.maximum(a, b)), times.from_ns(np.minimum(a, b))
    difference = times.subtract(larger, smaller)
    np.testing.assert_array_equal(times.to_ns(difference), np.abs(a - b))
    for time in (difference, times.add(first, second)):
        assert np.all((np.asarray(time.ns) >= 0) & (np.asarray(time.ns) < SECOND_NS))
    np.testing.assert_array_equal(times.before(first, second), a < b)
    np.testing.assert_array_equal(times.equal(first, second), a == b)
    np.testing.assert_array_equal(times.equal(first, first), np.ones(WIDTH, bool))
    np.testing.assert_array_equal(times.to_ns(times.select(a < b, first, second)), np.minimum(a, b))


def test_times_round_trip_and_static_times_agree() -> None:
    for ns in (0, 1, SECOND_NS - 1, SECOND_NS, DAY_NS, 2**31 * SECOND_NS - 1):
        assert int(times.to_ns(times.from_ns(ns))) == ns
        assert int(times.to_ns(times.of_ns(ns))) == ns


@pytest.mark.parametrize("ns", [-1, 2**31 * SECOND_NS])
def test_times_that_do_not_fit_are_refused_with_their_value(ns: int) -> None:
    with pytest.raises(ValueError, match=str(ns)):
        times.from_ns(np.array([5, ns]))
    assert times.from_ns(np.zeros(0, np.int64)).s.shape == (0,)


WIDTHS_NS = [1, 2, 3, 999_999_999, SECOND_NS, SECOND_NS + 1, 2**32 - 1, 2**32, 5 * SECOND_NS, 2**31 * 1000 - 1]


@pytest.mark.parametrize("width_ns", WIDTHS_NS)
@pytest.mark.parametrize("low_ns", [0, 999_999_999, 34_200 * SECOND_NS + 1])
def test_uniform_times_are_exact_and_inside_their_bounds(low_ns: int, width_ns: int) -> None:
    rng = np.random.default_rng(width_ns)
    bits = np.concatenate([[0, 1, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1],
                           rng.integers(0, 2**32, 200)]).astype(np.uint32)
    unit = 1 if width_ns < 2**32 else 1000
    expected = [low_ns + u * (width_ns // unit) // 2**32 * unit for u in bits.tolist()]
    drawn = times.draw_uniform(bits, low_ns, width_ns)
    assert times.to_ns(drawn).tolist() == expected
    assert low_ns <= min(expected)
    assert max(expected) < low_ns + width_ns


def test_uniform_times_are_uniform() -> None:
    bits = jax.random.bits(jax.random.key(0), (200_000,), jnp.uint32)
    low_ns, width_ns = SECOND_NS // 2, SECOND_NS
    drawn = times.to_ns(times.draw_uniform(bits, low_ns, width_ns))
    counts = np.histogram(drawn, bins=50, range=(low_ns, low_ns + width_ns))[0]
    # Chi-square of 49 degrees: mean 49, standard deviation 9.9; the draw is fixed by its key.
    assert ((counts - 4000) ** 2 / 4000).sum() < 49 + 5 * 9.9


@pytest.mark.parametrize(("low_ns", "width_ns"), [(-1, 5), (0, 0), (0, -1), (0, 2**31 * 1000)])
def test_uniform_times_that_do_not_fit_are_refused(low_ns: int, width_ns: int) -> None:
    with pytest.raises(ValueError, match=f"{low_ns}, {width_ns}"):
        times.draw_uniform(np.zeros(1, np.uint32), low_ns, width_ns)


def at(hour: int, minute: int, second: int = 0, ns: int = 0) -> int:
    return (hour * 3600 + minute * 60 + second) * SECOND_NS + ns


@pytest.mark.parametrize(("time_ns", "expected"), [
    (0, Phase.CLOSED),
    (at(9, 10), Phase.CLOSED),
    (at(9, 15) - 1, Phase.CLOSED),
    (at(9, 15), Phase.OPEN_AUCTION),
    (at(9, 20, 30), Phase.OPEN_AUCTION),
    (at(9, 25), Phase.OPEN_AUCTION),
    (at(9, 25, ns=1), Phase.CLOSED),
    (at(9, 30) - 1, Phase.CLOSED),
    (at(9, 30), Phase.CONTINUOUS),
    (at(11, 30), Phase.CONTINUOUS),
    (at(11, 30, ns=1), Phase.CLOSED),
    (at(13, 0) - 1, Phase.CLOSED),
    (at(13, 0), Phase.CONTINUOUS),
    (at(14, 56, 59, 999_999_999), Phase.CONTINUOUS),
    (at(14, 57), Phase.CLOSE_AUCTION),
    (at(15, 0), Phase.CLOSE_AUCTION),
    (at(15, 0, ns=1), Phase.CLOSED),
    (DAY_NS - 1, Phase.CLOSED),
])
def test_phases_of_the_chinese_day(time_ns: int, expected: Phase) -> None:
    phase = sessions.phase_at(chinese_session(), times.from_ns(time_ns))
    assert phase.dtype == np.int32
    assert Phase(int(phase)) == expected


def test_phases_of_a_batch_of_times_and_of_a_session_of_one_nanosecond() -> None:
    session = Session((Period(Phase.CONTINUOUS, at(10, 0), at(10, 0)),))
    moments = np.array([[at(10, 0) - 1, at(10, 0), at(10, 0) + 1]])
    assert np.asarray(sessions.phase_at(session, times.from_ns(moments))).tolist() == [
        [Phase.CLOSED, Phase.CONTINUOUS, Phase.CLOSED]]
    whole = continuous_session()
    edges = np.array([at(9, 30) - 1, at(9, 30), at(16, 0), at(16, 0) + 1])
    assert np.asarray(sessions.phase_at(whole, times.from_ns(edges))).tolist() == [
        Phase.CLOSED, Phase.CONTINUOUS, Phase.CONTINUOUS, Phase.CLOSED]


@laws
@given(st.integers(0, DAY_NS - 1))
def test_phase_is_the_period_that_holds_the_time(time_ns: int) -> None:
    session = chinese_session()
    inside = [period.phase for period in session.periods if period.start_ns <= time_ns <= period.end_ns]
    assert int(sessions.phase_at(session, times.from_ns(time_ns))) == (inside or [Phase.CLOSED])[0]


def test_a_day_of_steps_loses_no_nanosecond() -> None:
    step_ns, steps = 999_999_937, 50_000
    step = times.of_ns(step_ns)
    last, _ = jax.lax.scan(lambda now, _: (times.add(now, step), None), times.of_ns(0), length=steps)
    assert isinstance(last, Time)
    assert int(times.to_ns(last)) == step_ns * steps
