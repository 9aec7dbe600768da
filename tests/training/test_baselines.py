"""The baselines against laws known by construction."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from marsjax.core.specs import TokenSpec
from marsjax.tokens import encoding
from marsjax.training import baselines
from marsjax.training.split import Span

SPEC = TokenSpec(price_levels=3, volumes=2, intervals=2)
STATES = 3 * SPEC.price_levels


def chain(rng: np.random.Generator, law: np.ndarray, count: int) -> np.ndarray:
    """Tokens int32 [count, 15] of a chain whose next state is drawn by law [S, S, S]; volume, interval uniform."""
    state = [0, 0]
    for _ in range(count):
        state.append(int(rng.choice(STATES, p=law[state[-2], state[-1]])))
    kind, price = np.divmod(np.array(state[2:]), SPEC.price_levels)
    features = np.zeros((count, 15), np.int32)
    features[:, 0] = encoding.pack(SPEC, kind, price, rng.integers(0, 2, count), rng.integers(0, 2, count))
    return features


@pytest.fixture(scope="module")
def days() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    law = rng.dirichlet(np.full(STATES, 0.15), size=(STATES, STATES))
    return [chain(rng, law, 6000) for _ in range(3)]


@pytest.fixture(scope="module")
def entropy() -> float:
    """Of the states of those days, nats, less noise: what a perfect order-2 chain would have."""
    rng = np.random.default_rng(0)
    law = rng.dirichlet(np.full(STATES, 0.15), size=(STATES, STATES))
    state = [0, 0]
    found = []
    rng = np.random.default_rng(9)
    for _ in range(6000):
        following = law[state[-2], state[-1]]
        state.append(int(rng.choice(STATES, p=following)))
        found.append(-np.log(following[state[-1]]))
    return float(np.mean(found))


def test_markov_finds_a_chain_and_frequencies_do_not(days: list[np.ndarray], entropy: float) -> None:
    spans = [Span("a", days[1], 3000, 6000)]
    held = [Span("b", days[2], 2, 6000)]
    model = baselines.markov(SPEC, days[:2], spans)
    found = {name: x.mean() for name, x in model.losses(held).items()}
    apart = {name: x.mean() for name, x in baselines.marginals(SPEC, days[:2], spans).losses(held).items()}
    assert found["order"] == pytest.approx(entropy + 2 * np.log(2), abs=0.15)
    assert apart["order"] > found["order"] + 0.3
    assert apart["type"] > found["type"] + 0.05
    for field in ("volume", "interval"):
        assert found[field] == pytest.approx(np.log(2), abs=0.01)
        assert apart[field] == pytest.approx(np.log(2), abs=0.01)


@pytest.mark.parametrize("baseline", [baselines.marginals, baselines.markov])
def test_a_refit_counts_other_days_by_the_strengths_tuned_before(days: list[np.ndarray], baseline: Callable[..., Any]
                                                                 ) -> None:
    spans = [Span("a", days[1], 3000, 6000)]
    few, many = baseline(SPEC, [days[0][:500]], spans), baseline(SPEC, [days[0][:500]], spans, days[:2])
    held = [Span("b", days[2], 2, 6000)]
    assert many.losses(held)["order"].mean() < few.losses(held)["order"].mean() - 0.01
    tuned = ("strength", "strengths")[baseline is baselines.markov]
    assert getattr(many, tuned) == getattr(few, tuned)


def test_laws_add_up_to_one_and_fields_are_their_sums(days: list[np.ndarray]) -> None:
    """Of the order after two given ones, over all classes, for a pair that was seen and for one that was not."""
    day = days[0][:40]
    seen = set(zip(day[:-1, 0].tolist(), day[1:, 0].tolist(), strict=True))
    unseen = next(pair for pair in itertools.product(range(SPEC.classes), repeat=2) if pair not in seen)
    for model in (baselines.markov(SPEC, [day], [Span("a", days[1], 2, 200)]),
                  baselines.marginals(SPEC, [day], [Span("a", days[1], 2, 200)])):
        for pair in (next(iter(seen)), unseen):
            spans = []
            for label in range(SPEC.classes):
                features = np.zeros((3, 15), np.int32)
                features[:, 0] = [*pair, label]
                spans.append(Span("x", features, 2, 3))
            chance = {name: np.exp(-x) for name, x in model.losses(spans).items()}
            assert chance["order"].sum() == pytest.approx(1)
            fields = encoding.unpack(SPEC, np.arange(SPEC.classes))
            for name, field in zip(("type", "price", "volume", "interval"), fields, strict=True):
                sums = np.bincount(field, chance["order"])
                np.testing.assert_allclose(chance[name], sums[field], rtol=1e-9)


def test_frequencies_of_fields_are_counts(days: list[np.ndarray]) -> None:
    found = baselines.marginals(SPEC, days[:2], [Span("a", days[2], 1, 500)])
    kind = np.bincount(encoding.unpack(SPEC, np.concatenate(days[:2])[:, 0])[0], minlength=3)
    np.testing.assert_allclose(found.law.sum(axis=(1, 2, 3)), kind / kind.sum(), atol=1e-4)


def test_more_data_ask_for_less_smoothing(days: list[np.ndarray]) -> None:
    spans = [Span("a", days[2], 2, 3000)]
    few, many = (baselines.markov(SPEC, [day], spans) for day in (days[0][:300], days[0]))
    assert few.losses(spans)["order"].mean() > many.losses(spans)["order"].mean()
    # Counted by themselves, 300 orders give the pairs never seen no chance at all; smoothed ones do.
    assert np.isfinite(few.losses(spans)["order"]).all()
