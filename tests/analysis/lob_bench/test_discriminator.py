"""The discriminator cannot tell equal laws apart, tells shifted ones, and refuses what it cannot learn from."""

import dataclasses

import jax
import numpy as np
import pytest

from marsjax.analysis.lob_bench import discriminator
from marsjax.analysis.lob_bench.discriminator import DiscriminatorSpec, OrderWindows
from tests.analysis.lob_bench.made_up import made, parts

SPEC = DiscriminatorSpec(window=8, channels=8, width=3, steps=100)


def drawn(seed: int, shift: float = 0.0, blocks: int = 9, count: int = 270) -> OrderWindows:
    rng = np.random.default_rng(seed)
    return OrderWindows((rng.normal(size=(count, 8, 3)) + shift).astype(np.float32), np.arange(count) * blocks // count,
                        blocks)


def test_equal_laws_are_not_told_apart_and_shifted_ones_are() -> None:
    key = jax.random.key(1)
    same, why = discriminator.score(drawn(1), drawn(2), SPEC, key)
    assert not why and abs(same.value - 0.5) < 0.1 and same.low < same.value < same.high
    shifted, _ = discriminator.score(drawn(1), drawn(2, 0.3), SPEC, key)
    assert 0.75 < shifted.low < shifted.value < 1
    assert discriminator.score(drawn(1), drawn(2, 0.3), SPEC, key)[0] == shifted
    assert discriminator.score(drawn(1), drawn(2, 0.3), SPEC, jax.random.key(2))[0] != shifted
    # All pairs are in order; the interval still says of how few.
    far, _ = discriminator.score(drawn(1), drawn(2, 5.0), SPEC, key)
    assert far.value == far.high == 1 and far.low == pytest.approx(1 - 3 / 270)


def test_an_order_within_windows_is_seen_that_no_single_number_shows() -> None:
    """The same numbers, but rising in every window of one source."""
    one, other = drawn(1), drawn(2)
    rising = other._replace(features=np.sort(other.features, axis=1))
    assert discriminator.score(one, rising, SPEC, jax.random.key(0))[0].low > 0.9


def test_pairs_are_counted_one_by_one_and_ties_are_half() -> None:
    real, generated = np.array([0.0, 1.0, 1.0, 3.0]), np.array([1.0, 2.0, 0.0])
    blocks = np.array([0, 0, 1, 1]), np.array([0, 1, 1])
    won, counts = discriminator.pairs_won([real, generated], blocks, (2, 2))
    expected = np.zeros((2, 2))
    for a, i in zip(real, blocks[0], strict=True):
        for b, j in zip(generated, blocks[1], strict=True):
            expected[i, j] += (b > a) + (b == a) / 2
    np.testing.assert_array_equal(won, expected)
    np.testing.assert_array_equal(counts, [[2, 4], [2, 4]])


def test_windows_lie_side_by_side_within_sequences() -> None:
    spec = dataclasses.replace(SPEC, features=discriminator.FEATURES, window=10)
    sequences = [[made(1, 26), made(2, 10)], [], [made(3, 21)]]
    got = discriminator.windows(sequences, spec)
    # The first order of a sequence is compared with none before it: 25, 9 and 20 are left.
    assert got.features.shape == (4, 10, 7) and got.block.tolist() == [0, 0, 2, 2] and got.blocks == 3
    assert np.isfinite(got.features).all()
    one = discriminator.windows([[sequences[0][0].between(0, int(sequences[0][0].time_ns[10]))]], spec)
    assert len(one.block) == 1
    np.testing.assert_array_equal(one.features[0], got.features[0])


def test_features_are_changes_of_mid_distance_and_signed_shares() -> None:
    messages = made(4, 3, kind=[1, 2, 1], ask=[200, 300, 300], bid=[100, 100, 200], price=[0, 180, 260],
                    volume=[1, 40, 70], traded=[0, 0, 70], rest=[1, 0, 0])
    got = discriminator.windows([[messages]], DiscriminatorSpec(window=2, width=1)).features[0]
    expected = np.arcsinh(np.array([[50, 30, -40], [50, 60, -70]]) / 100)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_book_without_a_mid_has_that_of_before() -> None:
    messages = made(5, 3, kind=[1, 1, 1], ask=[200, 0, 200], bid=[100, 100, 200], price=[0, 180, 180],
                    volume=[1, 1, 1], traded=[0, 0, 0], rest=[1, 1, 1])
    got = discriminator.windows([[messages]], DiscriminatorSpec(window=2, width=1)).features[0]
    np.testing.assert_allclose(np.sinh(got[:, 0]) * 100, [0, 50], atol=1e-4)


@pytest.mark.parametrize(("real", "generated", "expected"), [
    (drawn(1, blocks=1), drawn(2), "too few: real has windows in 1 stretches, expected 2 at least"),
    (drawn(1), drawn(2, count=30), "too few: generated has 17 windows held out, expected 20 at least"),
    (drawn(1)._replace(features=np.ones((270, 8, 3), np.float32)), drawn(2),
     "constant: real has windows that are all the same"),
    (discriminator.windows([], SPEC), drawn(1), "too few: real has windows in 0 stretches, expected 2 at least"),
])
def test_what_cannot_be_learnt_from_is_refused_in_words(real: OrderWindows, generated: OrderWindows, expected: str
                                                        ) -> None:
    found, why = discriminator.score(real, generated, SPEC, jax.random.key(0))
    assert why == expected and np.isnan(found.value)


def test_two_folds_do_where_three_leave_too_few_windows() -> None:
    found, why = discriminator.score(drawn(1, count=45), drawn(2, 1.0), SPEC, jax.random.key(0))
    assert not why and found.value > 0.9


def test_specs_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"features: expected some of mid_change, .*, got colour"):
        DiscriminatorSpec(features=("colour",))
    with pytest.raises(ValueError, match=r"DiscriminatorSpec.window: expected a larger number, got 1"):
        DiscriminatorSpec(window=1)
    with pytest.raises(ValueError, match=r"DiscriminatorSpec.window: expected .* width"):
        DiscriminatorSpec(window=8)


def test_most_windows_are_drawn_of_more() -> None:
    few = dataclasses.replace(SPEC, most_windows=60)
    found, why = discriminator.score(drawn(1), drawn(2, 0.3), few, jax.random.key(1))
    assert not why and found.value > 0.7
    assert discriminator.windows(parts(1), SPEC).blocks == 6
