"""What the noise agent draws follows its weights, and its specification refuses what cannot be drawn from."""

import itertools
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from marsjax.agents import noise
from marsjax.agents.noise import NoiseOrder, NoiseSpec
from marsjax.core import times
from marsjax.core.records import NO_PRICE, Kind

SPEC = NoiseSpec()
DRAWS = 200_000
LEAST_P = 1e-4
"""Seeds are fixed: these tests pass always or never."""
REFERENCE = {
    "kind": {Kind.BUY: 0.4, Kind.SELL: 0.4, Kind.CANCEL: 0.2},
    "offset": {0: 0.2, **{sign * x: p for x, p in ((100, 0.2), (200, 0.1), (300, 0.05), (400, 0.025), (500, 0.025))
                          for sign in (1, -1)}},
    "volume": {100: 0.5, 200: 0.3, 500: 0.15, 1000: 0.025, 2000: 0.025},
}


def draw(spec: NoiseSpec, last_price: int, seed: int = 3, count: int = DRAWS) -> NoiseOrder:
    keys = jax.random.split(jax.random.key(seed, impl="threefry2x32"), count)
    plans = jax.jit(jax.vmap(lambda key: noise.act(spec, key, np.int32(last_price))))(keys)
    return jax.tree.map(np.asarray, plans)


@pytest.fixture(scope="module")
def plans() -> NoiseOrder:
    return draw(SPEC, 123_400)


def values(plans: NoiseOrder, name: str) -> np.ndarray:
    return plans.price - 123_400 if name == "offset" else getattr(plans, name)


@pytest.mark.parametrize("name", REFERENCE)
def test_draws_follow_the_probabilities_of_the_reference(plans: NoiseOrder, name: str) -> None:
    expected = REFERENCE[name]
    assert sum(expected.values()) == pytest.approx(1)
    found, counts = np.unique(values(plans, name), return_counts=True)
    assert found.tolist() == sorted(expected)
    assert stats.chisquare(counts, [DRAWS * expected[x] for x in found.tolist()]).pvalue > LEAST_P


def test_draws_of_one_wake_up_do_not_depend_on_each_other(plans: NoiseOrder) -> None:
    quarter = np.digitize(times.to_ns(plans.sleep), [7.5e8, 1e9, 1.25e9])
    columns = {name: values(plans, name) for name in REFERENCE} | {"coin": plans.upper_wins, "sleep": quarter}
    for a, b in itertools.combinations(columns, 2):
        table = stats.contingency.crosstab(columns[a], columns[b]).count
        assert stats.chi2_contingency(table).pvalue > LEAST_P, (a, b)


def test_the_coin_is_fair(plans: NoiseOrder) -> None:
    assert stats.binomtest(int(plans.upper_wins.sum()), DRAWS).pvalue > LEAST_P


@pytest.mark.parametrize("interval_ns", [2, 10**9, 10 * 10**9])
def test_wake_ups_come_after_half_to_one_and_a_half_intervals(interval_ns: int) -> None:
    plans = draw(NoiseSpec(interval_ns=interval_ns), NO_PRICE)
    slept = times.to_ns(plans.sleep)
    low, high = interval_ns // 2, interval_ns // 2 + interval_ns
    assert low <= slept.min() and slept.max() < high
    if interval_ns == 2:
        assert np.bincount(slept).tolist()[0] == 0 and set(slept.tolist()) == {1, 2}
        return
    share = (slept - low) / interval_ns
    assert share.min() < 1e-4 and share.max() > 1 - 1e-4
    assert slept.mean() == pytest.approx(interval_ns, rel=4 / np.sqrt(12 * DRAWS))
    assert stats.kstest(share, "uniform").pvalue > LEAST_P


@pytest.mark.parametrize(("last_price", "anchor"), [(NO_PRICE, 100_000), (100, 100), (123_400, 123_400)])
def test_prices_lie_around_the_last_one_or_the_first(last_price: int, anchor: int) -> None:
    plans = draw(SPEC, last_price, count=2000)
    assert set((plans.price - anchor).tolist()) == set(REFERENCE["offset"])


def test_equal_keys_draw_equal_orders_and_others_do_not() -> None:
    a, b, c = (draw(SPEC, 500, seed, 100) for seed in (1, 1, 2))
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert not np.array_equal(times.to_ns(a.sleep), times.to_ns(c.sleep))


@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 3, 1), (2**30, 1, 2**30 - 2)])
def test_values_without_weight_are_never_drawn(weights: tuple[int, ...]) -> None:
    spec = NoiseSpec(volumes=(10, 20, 30), volume_weights=weights)
    plans = draw(spec, NO_PRICE, count=20_000)
    total = sum(weights)
    counts = np.array([(plans.volume == x).sum() for x in spec.volumes])
    assert counts.sum() == 20_000
    assert all(count == 0 for count, weight in zip(counts, weights, strict=True) if not weight)
    likely = np.array(weights) / total > 1e-3
    assert all(counts[likely] > 0)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"init_price": 0}, r"NoiseSpec\.init_price: expected a positive price, got 0"),
    ({"init_price": -5}, r"init_price.*got -5"),
    ({"interval_ns": 1}, r"NoiseSpec\.interval_ns: expected 2 .* got 1"),
    ({"interval_ns": 10**12}, r"interval_ns.*got 1000000000000"),
    ({"kind_weights": (1, 1)}, r"NoiseSpec\.kind_weights: expected 3 weights.*got \(1, 1\)"),
    ({"volume_weights": (1, 1, 1, 1, -1)}, r"NoiseSpec\.volume_weights.*-1"),
    ({"volume_weights": (0,) * 5}, r"volume_weights.*got \(0, 0, 0, 0, 0\)"),
    ({"volume_weights": (2**31 - 1, 1, 0, 0, 0)}, "volume_weights.*2147483647"),
    ({"offsets": (), "offset_weights": ()}, r"NoiseSpec\.offset_weights: expected some weights"),
])
def test_a_bad_spec_is_refused_with_field_and_value(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoiseSpec(**arguments)
