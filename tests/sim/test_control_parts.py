"""Laws of resampling, guides, scenarios by name and lineages."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from marsjax.core.errors import InputError
from marsjax.observers.features import Features
from marsjax.observers.trace import Log
from marsjax.sim.control import CurveGuide, Target, TargetGuide, guides, lineages, nearest, resampling, run, scenarios
from marsjax.sim.result import Trace

USUAL = Features(0.0, 0.0, 4.0, 1e4, 0.0, 2.0, 5e4, 120.0)
WEIGHTS = some.lists(some.one_of(some.just(0.0), some.floats(1e-6, 1e6)), min_size=7, max_size=7).filter(any)
KEEP = settings(max_examples=60, deadline=None)


def features(count: int, **given: Any) -> Features:
    none = {name: np.zeros(count, np.float32) for name in Features._fields}
    return Features(**{**none, **{name: np.asarray(x, np.float32) for name, x in given.items()}})


@KEEP
@example([0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 1.0], 1 - 2**-24)
@given(WEIGHTS, some.floats(0, 1, exclude_max=True, width=32))
def test_offspring_are_all_of_an_island_in_proportion_to_weight(weights: list[float], uniform: float) -> None:
    weight = np.array([weights, weights[::-1]]) / sum(weights)
    found = np.asarray(resampling.offspring(weight.astype(np.float32), np.full(2, uniform, np.float32)))
    assert (found.sum(axis=1) == 7).all() and not found[weight == 0].any()
    assert (np.abs(found - 7 * weight) < 1 + 1e-4).all()


def test_a_large_island_is_the_same_alone_and_beside_others() -> None:
    """XLA adds up long rows in an order that depends on how many rows there are."""
    random, weigh, offspring = np.random.default_rng(0), jax.jit(resampling.weigh), jax.jit(resampling.offspring)
    for _ in range(5):
        logs = (-0.5 * random.normal(0, 2, (4, 2048)) ** 2).astype(np.float32)
        uniform = random.random(4).astype(np.float32)
        every = weigh(logs)
        counts = np.asarray(offspring(every.weight, uniform))
        for i in range(4):
            alone = weigh(logs[i : i + 1])
            assert all(np.array_equal(x[0], y[i]) for x, y in zip(alone, every, strict=True))
            assert np.array_equal(offspring(alone.weight, uniform[i : i + 1])[0], counts[i])


def test_offspring_are_in_the_mean_what_weights_say() -> None:
    weight = np.random.default_rng(0).dirichlet(np.ones(7)).astype(np.float32)
    uniform = ((np.arange(4000) + 0.5) / 4000).astype(np.float32)
    found = np.asarray(resampling.offspring(np.tile(weight, (4000, 1)), uniform)).mean(axis=0)
    assert found == pytest.approx(7 * weight, abs=2e-3)


@KEEP
@given(WEIGHTS, some.floats(0, 1, exclude_max=True, width=32))
def test_who_goes_on_stays_and_copies_are_those_of_a_plain_choice(weights: list[float], uniform: float) -> None:
    count = np.asarray(resampling.offspring(np.array([weights], np.float32) / sum(weights),
                                            np.array([uniform], np.float32)))
    source = np.asarray(resampling.ancestors(count))[0]
    assert np.bincount(source, minlength=7).tolist() == count[0].tolist()
    assert (source[count[0] > 0] == np.flatnonzero(count[0] > 0)).all()


def test_rows_are_copied_in_blocks_as_by_a_plain_choice() -> None:
    random = np.random.default_rng(1)
    count = random.multinomial(100, random.dirichlet(np.full(100, 0.3)))
    source = resampling.ancestors(count[None])[0]
    tree = {"a": jnp.asarray(random.normal(size=(100, 3))), "b": jnp.arange(100), "c": jnp.arange(100) > 50}
    found = jax.jit(resampling.copied)(tree, source)
    assert (np.asarray(source) != np.arange(100)).sum() > 3 * 16
    assert all(np.array_equal(found[name], np.asarray(tree[name])[np.asarray(source)]) for name in tree)


def test_weights_are_those_of_numpy_and_no_weight_at_all_is_no_weight() -> None:
    logs = np.array([[0.0, -1.0, -np.inf, 2.0], [-np.inf] * 4, [-1e6] * 4, [-1e5, -1e5 - 3, -2e5, -3e5]], np.float32)
    found = resampling.weigh(logs)
    for row in (0, 3):
        raw = np.exp(logs[row].astype(np.float64) - logs[row].max())
        assert np.asarray(found.weight[row]) == pytest.approx(raw / raw.sum(), rel=1e-5)
        assert float(found.ess[row]) == pytest.approx(raw.sum() ** 2 / (raw**2).sum() / 4, rel=1e-5)
        assert float(found.log_mean[row]) == pytest.approx(float(logs[row].max()) + math.log(raw.mean()), rel=1e-5)
    assert not np.asarray(found.weight[1]).any() and float(found.ess[1]) == 0 and float(found.log_mean[1]) == -math.inf
    assert float(found.ess[2]) == 1 and np.asarray(found.is_even).tolist() == [False, True, True, False]


def test_uniform_numbers_differ_by_seed_interval_and_island_and_are_no_draws_of_trajectories() -> None:
    numbers = np.array([0, 16, 32, 2**31 - 1], np.int32)
    found = [np.asarray(resampling.uniform(np.uint32(seed), np.int32(interval), numbers)).tolist()
             for seed in (0, 1) for interval in (0, 1, 2)]
    assert len({x for row in found for x in row}) == 24 and all(0 <= x < 1 for row in found for x in row)
    assert np.asarray(resampling.uniform(np.uint32(0), np.int32(0), numbers[1:])).tolist() == found[0][1:]


def test_lineages_are_those_of_following_each_trajectory_back() -> None:
    ancestors = np.random.default_rng(2).integers(0, 6, (5, 6))
    places = lineages.places(ancestors)
    for last in range(6):
        at = last
        for interval in reversed(range(5)):
            at = ancestors[interval, at]
            assert places[interval, last] == at
    assert lineages.distinct(ancestors, 1)[-1, 0] == len(set(places[0].tolist()))


def test_events_without_room_are_those_of_the_trajectories_that_are_left() -> None:
    def log(*dropped: int) -> Log:
        none = np.zeros(2, np.int32)
        return Log(none, np.array(dropped, np.int32), none, none, None)  # type: ignore[arg-type]

    chunks, at = tuple((np.arange(2), log(*dropped)) for dropped in ((3, 0), (0, 5))), np.array([[1, 1], [0, 1]])
    assert lineages.dropped(chunks, at).tolist() == [0, 5] and lineages.dropped((), at).tolist() == [0, 0]
    assert lineages.of_trace(Trace(chunks), at).missing.startswith("5 events found no room")
    # Place 0 lost three events; those who are left all come from place 1.
    assert lineages.of_trace(Trace(chunks[:1], "3 events found no room"), at[:1]).missing == ""
    assert lineages.of_trace(Trace(), at) == Trace()


def test_scores_are_squares_of_distances_in_scales_and_nothing_where_nothing_is_wanted() -> None:
    curve = CurveGuide((-10.0, math.nan), scale_bp=2.0)
    seen = features(3, return_bp=[-10.0, -6.0, 0.0], volume=[100.0, 300.0, 100.0])
    assert np.asarray(curve.score(jnp.int32(0), seen)).tolist() == [0.0, -2.0, -12.5]
    assert not np.asarray(curve.score(jnp.int32(1), seen)).any()
    both = TargetGuide((Target("return_bp", (-10.0, math.nan), 2.0), Target("volume", (100.0, 100.0), 100.0)))
    assert np.asarray(both.score(jnp.int32(0), seen)).tolist() == [0.0, -4.0, -12.5]
    assert np.asarray(both.score(jnp.int32(1), seen)).tolist() == [0.0, -2.0, 0.0]
    # Equal guides are one static argument, whatever NaN they were made of.
    same = CurveGuide((-10, float("nan")), 2)
    assert same == curve and hash(same) == hash(curve)
    assert guides.wanted(both)["volume"].tolist() == [100.0, 100.0]


def test_scores_that_are_no_number_or_too_large_are_made_usable() -> None:
    found = np.asarray(guides.usable(np.array([math.nan, -math.inf, math.inf, -3e38, 2.0], np.float32)))
    most = np.float32(guides.MOST)
    assert found.tolist() == [-math.inf, -math.inf, most, -most, 2.0]
    assert np.isfinite(np.float32(1e6) * most * np.float32(1e6)), "the strongest control of a million intervals"


def test_the_nearest_candidate_is_the_best_by_its_guide_with_the_price_it_leads_to() -> None:
    random = np.random.default_rng(3)
    guide = TargetGuide((Target("return_bp", (5.0, -20.0), 2.0), Target("volume", (1e3, 2e3), 300.0)))
    seen = features(4, return_bp=[0.0, -15.0, -30.0, 40.0])
    predicted = Features(*random.normal(size=(len(Features._fields), 4, 9)).astype(np.float32))
    predicted = predicted._replace(move_bp=20 * predicted.move_bp, volume=2e3 + 300 * predicted.volume)
    for interval in (0, 1):
        found = np.asarray(nearest(guide, jnp.int32(interval), seen, predicted))
        for row in range(4):
            ends = ((1 + seen.return_bp[row] / 1e4) * (1 + predicted.move_bp[row].astype(float) / 1e4) - 1) * 1e4
            cost = ((ends - guide.targets[0].values[interval]) / 2) ** 2 + (
                (predicted.volume[row] - guide.targets[1].values[interval]) / 300) ** 2
            assert found[row] == np.argmin(cost)
    same = jax.tree.map(lambda x: np.repeat(x[:, :1], 9, axis=1), predicted)
    assert not np.asarray(nearest(guide, jnp.int32(0), seen, same)).any(), "of those alike the first"
    broken = predicted._replace(volume=np.where(np.arange(9) == 2, predicted.volume, np.nan))
    assert np.asarray(nearest(guide, jnp.int32(0), seen, broken)).tolist() == [2] * 4, "NaN is never chosen"


def test_looks_at_trajectories_of_their_own_are_told_of_by_islands() -> None:
    ess = np.array([[1, 1, 1, np.nan], [1, np.nan, np.nan, np.nan]], np.float32)
    looks = run.Looked(None, None, ess, np.zeros((2, 4), bool), np.zeros((2, 4), np.float32), None)
    for island, expected in ((2, [[1, 1], [1, math.nan]]), (0, [[1], [1]]), (3, [[1], [1]])):
        found = lineages.together(looks, island)
        np.testing.assert_array_equal(found.ess, expected)
        assert found.resampled.shape == found.log_mean_weight.shape == found.ess.shape


def test_a_guide_prefers_something_where_it_wants_anything_of_an_interval() -> None:
    seen, one, two = (Features(*[np.array(x, np.float32)] * len(Features._fields))
                      for x in ([0.0, 5.0], [[1.0], [5.0]], [[1.0, 1.0], [2.0, 3.0]]))
    guide = CurveGuide((math.nan, -3.0), scale_bp=1.0)
    for predicted in (one, two):
        assert np.asarray(guides.prefers(guide, jnp.int32(0), seen, predicted)).tolist() == [False, False]
        assert np.asarray(guides.prefers(guide, jnp.int32(1), seen, predicted)).tolist() == [True, True]


def test_scenarios_by_name_are_curves_and_multiples_of_what_is_usual() -> None:
    def values(name: str, strength: float, intervals: int = 4) -> dict[str, list[float]]:
        return {key: x.tolist() for key, x in guides.wanted(scenarios.of(name, strength, intervals, USUAL)).items()}

    assert values("drop", 40) == {"return_bp": [-10.0, -20.0, -30.0, -40.0]}
    assert values("rise", 40) == {"return_bp": [10.0, 20.0, 30.0, 40.0]}
    assert values("reversal", 40) == {"return_bp": [-20.0, -40.0, -20.0, 0.0]}
    assert values("reversal", 40, 2) == {"return_bp": [-40.0, 0.0]}
    assert values("reversal", 30, 5) == {"return_bp": pytest.approx([-15, -30, -20, -10, 0])}
    assert values("calm", 0.5) == {"volatility_bp": [2.0] * 4, "return_bp": [0.0] * 4}
    assert values("burst", 3) == {"volume": [3e4] * 4, "orders": [360.0] * 4}
    assert values("illiquid", 0.5) == {"depth": [2.5e4] * 4, "spread_ticks": [4.0] * 4}
    by_interval = Features(*(np.array([[x, x], [3 * x, x]]) for x in USUAL))
    assert scenarios.of("burst", 1, 2, by_interval).targets[1].values == (120.0, 240.0)


@pytest.mark.parametrize(("name", "expected"), [("drop", (-24, -30)), ("rise", (24, 30)), ("reversal", (-30, 0))])
def test_scenarios_go_by_the_time_at_which_intervals_end(name: str, expected: tuple[float, float]) -> None:
    """The last one of 240 s in 5 minutes has 60 s."""
    guide = scenarios.of(name, 30, 2, USUAL, ends=np.array([240, 300]))
    assert guides.wanted(guide)["return_bp"] == pytest.approx(expected)


@pytest.mark.parametrize(("call", "match"), [
    (lambda: scenarios.of("reversal", 30, 1, USUAL), "scenario reversal: intervals: expected 2 at least"),
    (lambda: scenarios.of("drop", 30, 2, USUAL, ends=np.array([60, 60])), "ends: expected 2 numbers above 0 that rise"),
    (lambda: scenarios.of("crash", 1, 2, USUAL), "drop, rise, reversal"),
    (lambda: scenarios.of("drop", -1, 2, USUAL), "strength"), (lambda: scenarios.of("drop", 1, 0, USUAL), "intervals"),
    (lambda: scenarios.of("calm", 2, 2, USUAL), "below 1"),
    (lambda: scenarios.of("drop", 10_000, 2, USUAL), "scenario drop: strength: expected at most 5000"),
    (lambda: scenarios.of("rise", 5_001, 2, USUAL), "at most 5000"),
    (lambda: scenarios.of("burst", 101, 2, USUAL), "at most 100"),
    (lambda: scenarios.of("burst", 2, 3, USUAL._replace(orders=np.ones(2))), "normal.orders"),
    (lambda: scenarios.of("burst", 2, 3, USUAL._replace(volume=0.0)), "volume"),
    (lambda: CurveGuide((), 1.0), "return_bp"), (lambda: CurveGuide((math.inf,), 1.0), "return_bp"),
    (lambda: CurveGuide((1.0,), 0.0), "scale_bp"), (lambda: Target("price", (1.0,), 1.0), "volatility_bp"),
    (lambda: guides.check(None, 2), "score\\(interval, seen\\), got None"),  # type: ignore[arg-type]
    (lambda: guides.check(Features, 2), "score"),  # type: ignore[arg-type]
    (lambda: TargetGuide(()), "one target or more"),
    (lambda: TargetGuide((Target("volume", (1.0,), 1.0), Target("depth", (1.0, 2.0), 1.0))), "number of intervals"),
])
def test_what_is_no_guide_is_refused_by_name(call: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        call()


def test_guides_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CurveGuide((1.0,)).scale_bp = 2.0  # type: ignore[misc]
