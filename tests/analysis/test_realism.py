"""Measures of realism: laws of a distance, effects of the size of samples, and quantities of orders by hand."""

import dataclasses
import functools

import numpy as np
import pytest
from scipy import stats

from marsjax.analysis import quantities, realism
from marsjax.analysis.quantities import MINUTE_NS, OrderEvents
from marsjax.analysis.realism import Sample, sample
from marsjax.core.records import Kind
from marsjax.core.times import SECOND_NS

RNG = np.random.default_rng(0)
TRAINING = RNG.standard_normal(5000)
EDGES = realism.quantile_edges(TRAINING)


def drawn(seed: int, blocks: int = 40, each: int = 25, shift: float = 0.0, common: float = 0.0) -> Sample:
    """Normal values; `common` is the deviation of what a block's values share."""
    rng = np.random.default_rng(seed)
    return sample(list(shift + common * rng.standard_normal((blocks, 1)) + rng.standard_normal((blocks, each))))


def test_equal_samples_are_1_apart_0_and_disjoint_ones_0() -> None:
    one = drawn(1)
    assert realism.similarity(one, one, EDGES) == 1 and realism.wasserstein(one, one, 2.0) == 0
    assert realism.similarity_interval(one, one, EDGES, resamples=50).high == 1
    far = drawn(2, shift=100)
    assert realism.similarity(one, far, EDGES) == pytest.approx(0, abs=0.05)
    split = np.array([50.0])
    assert realism.similarity(one, far, split) == 0
    assert realism.similarity_interval(one, far, split, resamples=50) == (0, 0, 0)


def test_bins_are_the_quantiles_of_training_values_each_once() -> None:
    assert len(EDGES) == 49
    assert EDGES[24] == np.sort(TRAINING)[2499]
    shares = np.bincount(np.searchsorted(EDGES, TRAINING)) / len(TRAINING)
    np.testing.assert_allclose(shares, 0.02, atol=1e-3)
    lots = np.repeat([100, 200, 500], [60, 39, 1])
    assert realism.quantile_edges(lots).tolist() == [100, 200]
    # A bin has its right edge: all of 100 is in the first.
    assert realism.similarity(sample([[100] * 9]), sample([[101] * 9]), realism.quantile_edges(lots)) == 0


@pytest.mark.parametrize("seed", range(3))
def test_laws_of_both_distances(seed: int) -> None:
    a, b, c = drawn(seed), drawn(seed + 10, blocks=30, shift=0.4), drawn(seed + 20, shift=-0.3)
    measures = (lambda x, y: 1 - realism.similarity(x, y, EDGES), lambda x, y: realism.wasserstein(x, y, 1.3))
    for distance in measures:
        assert distance(a, b) == pytest.approx(distance(b, a)) and distance(a, b) > 0
        assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-12
        order = np.random.default_rng(seed).permutation(len(a.values))
        assert distance(a._replace(values=a.values[order], block=a.block[order]), b) == pytest.approx(distance(a, b))
        twice = sample([a.values, a.values])
        assert distance(twice, b) == pytest.approx(distance(a, b))


def test_wasserstein_of_a_shift_is_the_shift_and_of_points_the_way_between_them() -> None:
    one = drawn(3)
    moved = one._replace(values=one.values + 0.7)
    assert realism.wasserstein(one, moved, realism.interquartile(np.arange(101))) == pytest.approx(0.7 / 50)
    # Of 0, 0, 3 and 1, 5: a third each to half each; |F - G| is 2/3 on [0, 1], 1/6 on [1, 3], 1/2 on [3, 5].
    assert realism.wasserstein(sample([[0, 0, 3]]), sample([[1], [5]]), 1.0) == pytest.approx(2 / 3 + 2 / 6 + 1)
    assert np.isnan(realism.wasserstein(one, moved, 0.0))
    assert np.isnan(realism.wasserstein_interval(one, moved, 0.0).low)


@pytest.mark.parametrize("seed", range(3))
def test_the_distance_of_weighted_values_is_that_of_scipy(seed: int) -> None:
    """What the bootstrap adds up in one order of the values, ties and values without weight among them."""
    rng = np.random.default_rng(seed)
    a, b = sample([np.round(rng.normal(size=40), 1)]), sample([np.round(rng.normal(0.5, 2, size=25), 1)])
    weights = rng.integers(0, 4, 40), rng.integers(0, 4, 25)
    expected = stats.wasserstein_distance(a.values, b.values, *weights)
    assert realism._distance(*realism._merged(a, b), *weights) == pytest.approx(expected, rel=1e-12)


def test_a_monotone_change_of_both_leaves_the_similarity() -> None:
    one, other = drawn(4), drawn(5, shift=0.5)
    grown = [x._replace(values=np.exp(x.values)) for x in (one, other)]
    assert realism.similarity(*grown, np.exp(EDGES)) == pytest.approx(realism.similarity(one, other, EDGES))


def test_intervals_hold_the_value_and_are_wider_where_blocks_hang_together() -> None:
    far = drawn(7, shift=0.5)
    tight = realism.similarity_interval(drawn(6), far, EDGES, seed=1)
    wide = realism.similarity_interval(drawn(6, common=1.5), far, EDGES, seed=1)
    assert tight.low < tight.value < tight.high
    assert wide.high - wide.low > 1.5 * (tight.high - tight.low)
    distance = realism.wasserstein_interval(drawn(6), far, 1.35, seed=1, resamples=100)
    assert distance.low < distance.value < distance.high
    assert distance == realism.wasserstein_interval(drawn(6), far, 1.35, seed=1, resamples=100)


def test_the_interval_of_wasserstein_covers_the_truth() -> None:
    """A shift of 1 in 60 pairs of samples: 95% intervals miss few."""
    found = [realism.wasserstein_interval(drawn(seed, common=0.5), drawn(seed + 1000, common=0.5, shift=1.0), 1.0,
                                          resamples=60) for seed in range(60)]
    assert 52 <= sum(x.low < 1.0 < x.high for x in found) < 60


def test_the_ceiling_rises_with_the_size_of_the_samples_and_a_true_twin_reaches_it() -> None:
    history = drawn(8, blocks=400)
    metric = functools.partial(realism.similarity, edges=EDGES)
    small, large = (realism.ceiling(metric, history, (n, n), resamples=60) for n in (5, 100))
    assert small.high < large.low < large.value < 1
    twin = metric(drawn(9, blocks=100), drawn(10, blocks=100))
    assert large.low - 0.01 < twin < large.high + 0.01
    apart = realism.ceiling(functools.partial(realism.wasserstein, spread=1.0), history, (5, 100), resamples=60)
    assert 0 < apart.low < apart.value < apart.high
    with pytest.raises(ValueError, match=r"expected 2 blocks of history and samples of 1, got 1 and \(1, 1\)"):
        realism.ceiling(metric, sample([[1.0]]), (1, 1))


def test_samples_drop_and_count_what_is_no_number() -> None:
    got = sample([[1, np.nan], [], [np.inf, 2, 3]])
    assert got.values.tolist() == [1, 2, 3] and got.block.tolist() == [0, 2, 2] and got[2:] == (3, 2)
    with pytest.raises(ValueError, match="expected at least one finite value, got 1 of none"):
        sample([[np.nan]])
    with pytest.raises(ValueError, match="quantile_edges: expected finite values, got 2 of which 1 are not"):
        realism.quantile_edges(np.array([1, np.nan]))


def test_classes_are_voted_by_most_rollouts() -> None:
    edges = realism.class_edges(np.arange(300))
    np.testing.assert_allclose(edges, [299 / 3, 598 / 3])
    low, mid, high = 10.0, 150.0, 290.0
    rollouts = np.array([[low, low, high, high, mid], [high, high, low, np.nan, np.nan], [mid] * 5, [np.nan] * 5,
                         [low] * 5])
    # The first is a tie of low and high that its median, mid, does not settle: the lower class.
    got = realism.three_class_accuracy(rollouts, np.array([low, high, low, low, np.nan]), edges, resamples=50)
    assert got.value == pytest.approx(2 / 3) and 0 <= got.low < got.value < got.high <= 1
    order = np.array([2, 0, 3, 1, 4])
    again = realism.three_class_accuracy(rollouts[:, order], np.array([low, high, low, low, np.nan]), edges)
    assert again.value == got.value
    # Two low and two mid ones: the median settles it.
    tie = np.array([[low, low, mid, mid, high]])
    assert realism.three_class_accuracy(tie, np.array([mid]), edges, resamples=5).value == 1
    with pytest.raises(ValueError, match="expected starts with rollouts and a real value, got 0 of 1"):
        realism.three_class_accuracy(np.array([[np.nan]]), np.array([1.0]), edges)
    with pytest.raises(ValueError, match=r"expected rollouts \[K, B\] and realized \[K\]"):
        realism.three_class_accuracy(rollouts, np.zeros(3), edges)


START = 34_200 * SECOND_NS


def events() -> OrderEvents:
    """Six orders: a sell, a buy that trades, a cancel after 5 s, a buy, a sell that trades, a cancel of unknown age."""
    nan = np.nan
    rows = [  # seconds, kind, price, volume, traded, mid before, after, spread, ask, bid, lifetime s
        (0, Kind.SELL, 101, 100, 0, 100, 100, 2, 10, 20, -1),
        (5, Kind.BUY, 101, 300, 100, 100, 101, 4, 30, 50, -1),
        (10, Kind.CANCEL, 99, 50, 0, 101, 101, nan, 30, 0, 5),
        (60, Kind.BUY, 100, 200, 0, 101, 102, 2, 40, 60, -1),
        (90, Kind.SELL, 100, 400, 400, 102, 99, 2, 40, 60, -1),
        (130, Kind.CANCEL, 100, 10, 0, 99, 99, 2, 40, 60, -1)]
    columns = [np.array(column, np.float64) for column in zip(*rows, strict=True)]
    time, age = START + (columns[0] * SECOND_NS).astype(np.int64), columns[-1]
    lifetime = np.where(age < 0, -1, age * SECOND_NS).astype(np.int64)
    return OrderEvents(time, columns[1].astype(int), *columns[2:-1], lifetime)


def test_quantities_of_orders_by_hand() -> None:
    got = {name: values.tolist() for name, values in quantities.of_orders(events()).items()}
    assert tuple(got) == quantities.OF_ORDERS
    assert got == {"spread": [2, 4, 2, 2, 2], "order_volume": [100, 300, 200, 400], "aggressive": [0, 1, 0, 1],
                   "buy": [0, 1, 1, 0], "interval_s": [5, 5, 50, 30, 40], "touch_volume": [15, 40, 50, 50, 50],
                   "cancel_lifetime_s": [5]}


def test_quantities_of_a_stretch_by_hand() -> None:
    got = quantities.of_stretch(events(), START - 1, 2)
    assert tuple(got) == quantities.OF_STRETCHES
    # 60 s after the start minus 1 ns: the mid is still 101.
    assert got["return_1"] == pytest.approx(np.log(101 / 100)) and got["return_2"] == pytest.approx(np.log(99 / 100))
    assert np.isnan(got["return_3"])
    steps = np.log([101 / 100, 102 / 101, 99 / 102])
    assert got["volatility"] == pytest.approx(np.sqrt((steps**2).sum()))
    assert (got["spread"], got["order_volume"], got["aggressive_ratio"], got["buy_ratio"]) == (2.5, 250, 0.5, 0.5)
    assert (got["interval_s"], got["touch_volume"], got["cancel_lifetime_s"]) == (22.5, 38.75, 5)


def test_a_stretch_ends_with_an_order_at_its_end_and_leaves_out_one_at_its_start() -> None:
    got = events().between(START, START + MINUTE_NS)
    assert ((got.time_ns - START) // SECOND_NS).tolist() == [5, 10, 60]


def test_minutes_apart_are_stretches_of_one_minute() -> None:
    got = quantities.by_minute(events(), START - 1, 3)
    assert [x["order_volume"] for x in got[:2]] == [200, 300] and np.isnan(got[2]["order_volume"])
    assert got[1]["return_1"] == pytest.approx(np.log(99 / 101))
    total = sum(x["volatility"] ** 2 for x in got)
    assert total == pytest.approx(quantities.of_stretch(events(), START - 1, 3)["volatility"] ** 2)


def test_an_empty_stretch_has_no_quantities() -> None:
    empty = events().between(0, 1)
    assert all(np.isnan(x) for x in quantities.of_stretch(empty, START, 1).values())
    quiet = quantities.of_stretch(events(), START + 200 * SECOND_NS, 1)
    assert (quiet["return_1"], quiet["volatility"]) == (0, 0) and np.isnan(quiet["spread"])


def test_units_that_should_not_matter_do_not() -> None:
    moved = dataclasses.replace(events(), time_ns=events().time_ns + MINUTE_NS, mid_before=events().mid_before * 3,
                                mid_after=events().mid_after * 3)
    expected = quantities.of_stretch(events(), START - 1, 2)
    for name, value in quantities.of_stretch(moved, START - 1 + MINUTE_NS, 2).items():
        assert value == pytest.approx(expected[name], nan_ok=True), name


def test_bad_events_are_refused() -> None:
    with pytest.raises(ValueError, match="time_ns falls after order 0"):
        dataclasses.replace(events(), time_ns=events().time_ns[::-1])
    with pytest.raises(ValueError, match="expected arrays of one length"):
        dataclasses.replace(events(), kind=events().kind[:2])
    with pytest.raises(ValueError, match="expected at least 1 minute, got 0"):
        quantities.of_stretch(events(), START, 0)
