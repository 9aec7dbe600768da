"""A model adapted to a market: it predicts that market better, the same each time, and stays an ordinary model."""

import jax
import numpy as np
import pytest

from marsjax.core.specs import ModelSpec, TokenSpec
from marsjax.model import llama
from marsjax.model.llama import OrderModel
from marsjax.training import adapt, evaluate, structured
from marsjax.training.adapt import AdaptSpec
from marsjax.training.split import Span

SPEC = ModelSpec(embed_dim=8, heads=2, context_length=64, tokens=TokenSpec(5, 4, 3))


@pytest.fixture(scope="module")
def model() -> OrderModel:
    return structured.expand(structured.init(SPEC, jax.random.key(0), pair_width=2))


def day(seed: int, count: int) -> np.ndarray:
    """Tokens of a market where a few classes come most of the time."""
    rng = np.random.default_rng(seed)
    law = np.r_[np.full(6, 0.15), np.full(SPEC.tokens.classes - 6, 0.1 / (SPEC.tokens.classes - 6))]
    features = np.zeros((count, 15), np.int32)
    features[:, 0] = rng.choice(SPEC.tokens.classes, count, p=law)
    return features


def test_it_predicts_what_comes_next_better_and_the_same_each_time(model: OrderModel) -> None:
    def loss(of: OrderModel) -> float:
        later = day(2, 300)
        return float(evaluate.losses(of, [Span("later", later, 64, 300)])["order"].mean())

    spec = AdaptSpec(steps=60, rate=1e-2)
    found = adapt.adapt(model, [day(1, 500)], spec)
    assert found.spec == model.spec and found.compute == model.compute
    assert loss(found) < loss(model) - 0.5
    again = adapt.adapt(model, [day(1, 500)], spec)
    np.testing.assert_array_equal(found.head.price[...], again.head.price[...])
    other = adapt.adapt(model, [day(1, 500)], AdaptSpec(steps=60, rate=1e-2, seed=1))
    assert (found.head.price[...] != other.head.price[...]).any()


def test_half_a_window_is_enough_and_less_is_refused(model: OrderModel) -> None:
    adapt.adapt(model, [day(1, 40), day(2, 10)], AdaptSpec(steps=1))
    with pytest.raises(ValueError, match="expected a day of more than 32 orders before the start, got 32"):
        adapt.adapt(model, [day(1, 32)], AdaptSpec(steps=1))
    with pytest.raises(ValueError, match="got 0"):
        adapt.adapt(model, [], AdaptSpec(steps=1))


def test_a_window_need_not_be_a_power_of_two() -> None:
    spec = ModelSpec(embed_dim=8, heads=2, context_length=200, tokens=TokenSpec(5, 4, 3))
    given = structured.expand(structured.init(spec, jax.random.key(0)))
    found = adapt.adapt(given, [day(1, 300)], AdaptSpec(steps=3))  # the rate of the first is 0
    assert (found.head.price[...] != given.head.price[...]).any()


def test_a_model_with_another_head_is_refused() -> None:
    with pytest.raises(ValueError, match="trained with another head"):
        adapt.adapt(llama.init(SPEC, jax.random.key(0)), [day(1, 100)])
