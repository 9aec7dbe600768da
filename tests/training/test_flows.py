"""Shares that orders bring: what is expected of a law, the distance of a right and of a wrong one, its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.specs import ModelSpec, TokenSpec
from marsjax.tokens import encoding, signals
from marsjax.tokens.bins import Converter
from marsjax.training import flows, loss, structured

CONVERTER = Converter(np.array([0.0, 10, 20, 30]), (np.array([5.0, 10]), np.array([20.0]), np.array([])),
                      (np.array([0.8, 0.2]), np.ones(1), np.array([])))
PRICES = 4


def test_a_bin_stands_for_the_mean_of_what_it_draws_and_an_empty_one_for_its_edge() -> None:
    found = flows.of_bins(2.0, CONVERTER)
    assert found.weight == 2.0
    np.testing.assert_allclose(found.mean, [6, 20, 30])
    np.testing.assert_allclose(found.mean_square, [0.8 * 25 + 0.2 * 100, 400, 900])


def _sample(law: np.ndarray, windows: int, length: int, seed: int) -> tuple[np.ndarray, ...]:
    drawn = np.random.default_rng(seed).choice(law.size, size=(windows, length), p=law.reshape(-1))
    return np.unravel_index(drawn, law.shape)


def test_distances_are_one_in_the_mean_under_the_right_law_and_more_under_another() -> None:
    rng = np.random.default_rng(0)
    law = rng.dirichlet(np.ones(3 * PRICES * 3)).reshape(3, PRICES, 3)
    fields = _sample(law, 400, 200, 1)
    # Of volumes without a law inside their bins the second moment is the mean squared.
    own = flows.Flows(2.0, (6.0, 20.0, 30.0), (36.0, 400.0, 900.0))
    length = fields[0].shape[1]

    def distance(told: np.ndarray) -> float:
        mean, square = flows.expected(own, jnp.asarray(told, jnp.float32))
        excess = length * mean - jnp.sum(flows.came(own, fields, PRICES), axis=1)[:, None]
        return float(jnp.mean(flows.distance(own, excess, jnp.broadcast_to(length * square, excess.shape))))

    groups = 3 * PRICES + 3
    # A sum of independent shares has a variance of its squares less those of its means: a little below 1 each.
    assert 0.8 * groups < distance(law) < 1.05 * groups
    tilted = law * np.array([1.0, 1.0, 3.0])
    assert distance(tilted / tilted.sum()) > 3 * distance(law)


def test_the_objective_adds_the_distance_of_its_windows_and_only_in_training() -> None:
    spec = ModelSpec(embed_dim=8, heads=2, context_length=16, tokens=TokenSpec(PRICES, 3, 2))
    params = structured.init(spec, jax.random.key(0))
    features = np.zeros((2, 9, 15), np.int32)
    features[..., 0] = np.random.default_rng(1).integers(spec.tokens.classes, size=(2, 9))
    own = flows.of_bins(3.0, CONVERTER)
    plain, key = loss.Factored(4), jax.random.key(3)
    with_flows = loss.Factored(4, flows=own)
    np.testing.assert_array_equal(with_flows(params, features), plain(params, features))
    added = np.asarray(with_flows(params, features, key) - plain(params, features, key))
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1], added.shape), rtol=1e-4)

    # The same by the expanded model's joint law.
    model = structured.expand(params)
    law = jax.nn.softmax(model(encoding.from_array(spec.tokens, features[:, :-1])), axis=-1)
    law = law.reshape(2, 8, 3, PRICES, 3, 2).sum(axis=-1)
    mean, square = flows.expected(own, law)
    fields = encoding.unpack(spec.tokens, features[:, 1:, 0])
    excess = (mean - flows.came(own, fields[:3], PRICES)).sum(axis=1)[:, None]
    expected = flows.distance(own, excess, square.sum(axis=1)[:, None]) / 8
    np.testing.assert_allclose(added[:, 0], expected, rtol=1e-3)


def test_orders_are_weighed_by_the_best_volumes_before_them_and_are_right_only_if_they_follow_these() -> None:
    """Volumes that follow the ask: a law that does not know it is further off, though right in the mean."""
    rng = np.random.default_rng(2)
    features = np.zeros((60, 256, 22), np.int32)
    features[..., 15 + signals.ASK] = rng.integers(-4, 5, (60, 256))
    weights = np.asarray(flows.weights(features))
    assert weights.shape == (60, 256, 3)
    np.testing.assert_allclose(weights[..., 1].mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(weights[..., 1].std(axis=1), 1, rtol=1e-2)
    assert (weights[..., 0] == 1).all() and (weights[..., 2] == 0).all()
    assert flows.weights(features[..., :15]).shape == (60, 256, 1)

    own = flows.Flows(2.0, (6.0, 20.0, 30.0), (36.0, 400.0, 900.0))
    chance = 1 / (1 + np.exp(-features[..., 15 + signals.ASK] / 2.0))
    volume = np.where(rng.random(chance.shape) < chance, 2, 0)
    right = np.zeros((60, 256, 3, PRICES, 3), np.float32)
    right[..., 0, 0, 0], right[..., 0, 0, 2] = 1 - chance, chance
    came = flows.came(own, (np.zeros_like(volume), np.zeros_like(volume), volume), PRICES)

    def distance(law: np.ndarray) -> float:
        mean, square = flows.expected(own, law)
        excess = np.einsum("btw,btkp->bwkp", weights, mean - came)
        # Nothing comes of most kinds and prices: their distance is 0 over next to nothing.
        sums = excess, np.einsum("btw,btkp->bwkp", 1e-6 + weights**2, 1e-6 + square)
        return float(np.mean(flows.distance(own, *sums)))

    flat = np.broadcast_to(right.mean(axis=(0, 1)), right.shape)
    assert distance(flat) > 5 * distance(right)


def test_where_nothing_is_expected_there_is_no_distance_and_its_gradient_is_0() -> None:
    own = flows.Flows(2.0, (6.0,), (36.0,))
    excess = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3, PRICES)), jnp.float32).at[:, 1].set(0.0)
    square = jnp.ones_like(excess).at[:, 1].set(0.0)
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(flows.distance(own, x, square)))(excess)
    alone = jnp.sum(flows.distance(own, excess[:, ::2], square[:, ::2])) * 2 / 3
    np.testing.assert_allclose(value, alone, rtol=1e-6)
    assert np.isfinite(gradient).all() and (gradient[:, 1] == 0).all() and (gradient[:, 0] != 0).all()


def test_a_weight_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Flows\.weight: expected 0 to 1000, got -1"):
        flows.of_bins(-1.0, CONVERTER)
    with pytest.raises(ValueError, match=r"Factored\.dropout"):
        loss.Factored(4, dropout=1.0)
