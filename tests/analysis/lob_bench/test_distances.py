"""L1 and Wasserstein-1 against plain slow ones; what changes nothing in them; what is refused, in words."""

import collections

import numpy as np
import pytest
from scipy import stats

from marsjax.analysis.lob_bench import distances
from marsjax.analysis.lob_bench.distances import Binning, Values

PLAIN, DISCRETE = Binning(), Binning(is_discrete=True)
GIVEN = Binning(is_conditional=True, is_given_discrete=True)


def drawn(seed: int, blocks: int = 8, each: int = 60, shift: float = 0.0, common: float = 0.0) -> Values:
    rng = np.random.default_rng(seed)
    parts = [[shift + common * rng.normal() + rng.normal(size=each)] for _ in range(blocks)]
    return distances.gathered(parts, [[rng.integers(0, 3, each).astype(float)] for _ in range(blocks)])


def rounded(one: Values) -> Values:
    return one._replace(values=np.round(one.values))


def slow_l1(first: list[float], second: list[float], edges: list[float]) -> float:
    """Bins have their right edges."""
    counts = [collections.Counter(sum(edge < x for edge in edges) for x in some) for some in (first, second)]
    return sum(abs(counts[0][k] / len(first) - counts[1][k] / len(second)) for k in {*counts[0], *counts[1]}) / 2


def test_bins_are_those_of_freedman_and_diaconis() -> None:
    one, other = drawn(1), drawn(2, shift=0.4)
    both = np.concatenate([one.values, other.values])
    edges = np.histogram_bin_edges(both, bins="fd")
    found = distances.freedman_diaconis(both)
    assert len(found) > 10 and all(np.isclose(edges, edge).any() for edge in found)
    shares = [np.histogram(x.values, edges)[0] / len(x.values) for x in (one, other)]
    got = distances.distances(one, other, PLAIN).l1.value
    assert got == pytest.approx(np.abs(shares[0] - shares[1]).sum() / 2)
    assert got == pytest.approx(slow_l1(one.values.tolist(), other.values.tolist(), found.tolist()))


def test_values_of_which_half_are_equal_still_have_bins() -> None:
    spiked = np.concatenate([np.zeros(80), np.arange(1, 21)])
    assert len(distances.freedman_diaconis(spiked)) > 3
    assert distances.freedman_diaconis(np.ones(5)).size == 0
    with pytest.raises(ValueError, match="freedman_diaconis: expected finite values, got 2 of which 1 are not"):
        distances.freedman_diaconis(np.array([1, np.nan]))


def test_a_far_value_makes_no_empty_bins() -> None:
    edges = distances.freedman_diaconis(np.append(np.arange(100.0), 1e12))
    assert len(edges) < 20


def test_discrete_values_are_bins_each() -> None:
    one, other = rounded(drawn(3)), rounded(drawn(4, shift=0.7))
    values = [collections.Counter(x.values.tolist()) for x in (one, other)]
    expected = sum(abs(values[0][k] / len(one.values) - values[1][k] / len(other.values))
                   for k in {*values[0], *values[1]}) / 2
    assert distances.distances(one, other, DISCRETE).l1.value == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_wasserstein_is_that_of_scipy_in_standard_deviations(seed: int) -> None:
    one, other = rounded(drawn(seed, each=40)), drawn(seed + 10, blocks=5, shift=1.0)
    unit = np.concatenate([one.values, other.values]).std()
    expected = stats.wasserstein_distance(one.values / unit, other.values / unit)
    assert distances.distances(one, other, PLAIN).wasserstein.value == pytest.approx(expected)


def test_given_another_statistic_both_are_means_over_groups_by_their_values() -> None:
    one, other = drawn(5), drawn(6, shift=0.5)
    l1, wasserstein = 0.0, 0.0
    count = len(one.values) + len(other.values)
    for group in (0, 1, 2):
        a, b = (x.values[x.given == group] for x in (one, other))
        inside = np.concatenate([a, b])
        edges = np.quantile(inside, np.arange(1, 10) / 10)
        l1 += slow_l1(a.tolist(), b.tolist(), edges.tolist()) * len(inside) / count
        wasserstein += stats.wasserstein_distance(a, b) / inside.std() * len(inside) / count
    found = distances.distances(one, other, GIVEN)
    assert (found.l1.value, found.wasserstein.value) == pytest.approx((l1, wasserstein))


def test_a_group_of_one_source_alone_counts_as_1_and_none_in_common_as_nothing() -> None:
    one, other = drawn(7, each=30), drawn(8, each=30)
    apart = other._replace(given=other.given + 3)
    assert np.isnan(distances.distances(one, apart, GIVEN).l1.value)
    mixed = other._replace(given=np.where(other.given == 2, 3, other.given))
    alone = (one.given == 2).sum() + (mixed.given == 3).sum()
    found = distances.distances(one, mixed, GIVEN).l1.value
    assert alone / 480 < found < alone / 480 + 0.4


@pytest.mark.parametrize("binning", [PLAIN, DISCRETE, GIVEN, Binning(is_conditional=True, is_discrete=True)])
def test_equal_samples_are_0_apart_and_what_should_not_matter_does_not(binning: Binning) -> None:
    one, other = drawn(9), drawn(10, shift=0.3)
    if binning.is_discrete:
        one, other = rounded(one), rounded(other)
    same = distances.distances(one, one, binning, 1, 20)
    assert (same.l1.value, same.wasserstein.value) == (0, 0)
    expected = distances.distances(one, other, binning)
    order = np.random.default_rng(0).permutation(len(one.values))
    shuffled = Values(one.values[order], one.given[order], one.block[order], one.blocks)
    for got in (distances.distances(shuffled, other, binning), distances.distances(other, one, binning),
                distances.distances(*(x._replace(values=x.values * 8 - 3) for x in (one, other)), binning)):
        np.testing.assert_allclose([got.l1.value, got.wasserstein.value],
                                   [expected.l1.value, expected.wasserstein.value], rtol=1e-9)


def test_intervals_hold_the_value_and_are_wider_where_blocks_hang_together() -> None:
    far = drawn(11, shift=0.6)
    tight, wide = (distances.distances(drawn(12, common=common), far, PLAIN, 3, 200) for common in (0.0, 1.5))
    for found in (tight, wide):
        for interval in (found.l1, found.wasserstein):
            assert interval.low < interval.value < interval.high
    assert wide.wasserstein.high - wide.wasserstein.low > 1.5 * (tight.wasserstein.high - tight.wasserstein.low)
    assert len(tight.l1_drawn) == 200
    again = distances.distances(drawn(12), far, PLAIN, 3, 200)
    assert again.l1 == tight.l1 and again.wasserstein == tight.wasserstein


def test_draws_of_few_places_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = drawn(13), drawn(14, shift=0.5)
    exact = distances.distances(one, other, PLAIN, 1, 30).wasserstein_drawn
    monkeypatch.setattr(distances, "_POINTS", 200)
    np.testing.assert_allclose(distances.distances(one, other, PLAIN, 1, 30).wasserstein_drawn, exact, atol=0.02)


def test_a_twin_of_history_is_what_other_draws_of_its_law_get() -> None:
    history = drawn(15, blocks=300, common=0.5)
    few, many = (distances.twin(history, (drawn(1, blocks=n), drawn(2, blocks=n)), PLAIN, 1, 60) for n in (4, 40))
    assert few[0] > 1.5 * many[0] and few[1] > 1.5 * many[1]
    pairs = [distances.distances(drawn(100 + k, blocks=40, common=0.5), drawn(200 + k, blocks=40, common=0.5), PLAIN)
             for k in range(20)]
    assert many[1] == pytest.approx(np.mean([found.wasserstein.value for found in pairs]), rel=0.25)


def test_a_twin_may_be_of_two_parts_of_history() -> None:
    history, later = drawn(16, blocks=50), drawn(17, blocks=50, shift=1.0)
    against = drawn(1), drawn(2)
    assert distances.twin(history, against, PLAIN, later=later)[1] > 3 * distances.twin(history, against, PLAIN)[1]


def test_the_interquartile_mean_leaves_out_what_is_outside() -> None:
    assert distances.interquartile_mean(np.array([0, 1, 2, 3, 100])) == 2
    rows = np.array([[5, 1, 3, 3], [1, 2, 3, np.nan]])
    np.testing.assert_array_equal(distances.interquartile_mean(rows), [3, np.nan])


def test_gathered_drops_what_is_no_number_and_blocks_without_any() -> None:
    got = distances.gathered([[np.array([1, np.nan]), np.array([2])], [], [np.array([np.inf])], [np.array([3.0])]])
    assert got.values.tolist() == [1, 2, 3] and got.block.tolist() == [0, 0, 1] and got.blocks == 2
    assert distances.gathered([[], []]).blocks == 0


@pytest.mark.parametrize(("one", "expected"), [
    (distances.gathered([[np.arange(40.0)]]), "too few: it has values in 1 stretches, expected 2 at least"),
    (distances.gathered([]), "too few: it has values in 0 stretches, expected 2 at least"),
    (distances.gathered([[np.arange(9.0)]] * 3), "too few: it has 27 values, expected 30 at least"),
    (distances.gathered([[np.full(20, 7.0)]] * 3), "constant: it has the one value 7"),
    (drawn(0), ""),
])
def test_samples_that_say_nothing_are_refused_in_words(one: Values, expected: str) -> None:
    assert distances.refusal("it", one) == expected


def test_distances_of_nothing_are_an_error() -> None:
    with pytest.raises(ValueError, match="lob_bench: expected values of both sources, got none of one"):
        distances.distances(drawn(0), distances.gathered([]), PLAIN)
