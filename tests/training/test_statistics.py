"""Statistics of tokens against plain loops, and what they do when the market is turned round."""

import numpy as np
import pytest

from marsjax.core.specs import TokenSpec
from marsjax.training import statistics

SPEC = TokenSpec(5, 4, 3, signals=True)


def tokens(seed: int, shape: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    features = np.zeros((*shape, 22), np.int32)
    features[..., 0] = rng.integers(0, SPEC.classes, shape)
    features[..., 2] = rng.integers(0, 3, shape)
    features[..., 3] = rng.integers(-50, 50, shape)
    features[..., 5:15] = rng.integers(0, 9, (*shape, 10))
    features[..., 15] = rng.integers(-9, 10, shape) * (rng.random(shape) < 0.2)
    features[..., 16:18] = rng.integers(-5, 6, (*shape, 2))
    features[..., 18] = rng.integers(0, 6, shape)
    features[..., 19:21] = rng.integers(-5, 9, (*shape, 2))
    return features


def turned(features: np.ndarray) -> np.ndarray:
    """The mirror image in all that the statistics look at; kinds apart, whose classes they keep."""
    found = features.copy()
    found[..., [3, 15, 16, 17]] *= -1
    found[..., 5:15] = features[..., 14:4:-1]
    found[..., [19, 20]] = features[..., [20, 19]]
    return found


def plain(rows: np.ndarray) -> list[list[float]]:
    """One sequence, token by token."""
    found = []
    for t, row in enumerate(rows):
        before = rows[t - 1] if t else np.zeros(22)
        kind, volume, interval = row[0] // 60, row[0] // 3 % 4, row[0] % 3
        moves = np.clip(rows[:t + 1, 15], -8, 8)
        move, short, long = moves[-1], abs(moves[-64:].sum()), abs(moves[-512:].sum())
        touch, limit = (row[19] + row[20]) / 2, kind != 2
        found.append([
            row[18] < 1, row[18] >= 3, touch, touch**2 / 10, row[15] != 0, move, move * before[16], move * before[17],
            short, min(short, 30)**2 / 10, long, min(long, 80)**2 / 10, interval, interval < 3 / 4, not limit,
            limit and row[2] > 0, abs(row[19] - row[20]), volume if limit else 0, limit and volume >= 3,
            move * np.sign(before[20] - before[19])])
    return found


def test_they_are_those_of_a_plain_loop() -> None:
    features = tokens(0, (2, 700))
    found = np.asarray(statistics.of_tokens(SPEC, features, 100))
    assert found.shape == (2, 600, len(statistics.NAMES))
    expected = np.array([plain(rows)[100:] for rows in features], np.float64)
    for k, name in enumerate(statistics.NAMES):
        np.testing.assert_allclose(found[..., k], expected[..., k], rtol=1e-5, err_msg=name)


def test_turned_round_only_the_direction_changes_its_sign() -> None:
    features = tokens(1, (3, 300))
    sign = np.where(statistics.SIGNED, -1, 1)
    found, again = (np.asarray(statistics.of_tokens(SPEC, x, 0)) for x in (features, turned(features)))
    np.testing.assert_allclose(again, found * sign, atol=1e-5)
    assert np.abs(found[..., statistics.NAMES.index("direction")]).max() > 0
    sign = np.where(statistics.HISTORY_SIGNED, -1, 1)
    history, other = (statistics.of_history(SPEC, x) for x in (features, turned(features)))
    np.testing.assert_allclose(other, history * sign, atol=1e-5)
    assert history.shape[1] == len(statistics.HISTORY) and (np.abs(history).max(axis=0) > 0).all()
    # What has a sign is compared under what has one, or under none: else a market and its image would not agree.
    signed, first = np.array(statistics.HISTORY_SIGNED), np.array(statistics.HISTORY) == "one"
    pairs = statistics.matters()
    assert (pairs.sum(axis=0) >= 2).all()
    assert not pairs[np.ix_(~(signed | first), np.array(statistics.SIGNED))].any()
    assert not pairs[np.ix_(signed, ~np.array(statistics.SIGNED))].any()


def test_means_are_of_the_orders_that_there_are() -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    values[1, 2:] = np.nan
    found = statistics.means(values, np.array([4, 2]))
    np.testing.assert_allclose(found, [values[0].mean(axis=0), values[1, :2].mean(axis=0)])
    assert not statistics.means(values[:1], np.array([0])).any()


def test_tokens_without_signals_are_refused() -> None:
    with pytest.raises(ValueError, match="expected tokens with signals"):
        statistics.check(TokenSpec(5, 4, 3))
