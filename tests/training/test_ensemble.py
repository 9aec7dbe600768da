"""Training an ensemble: it learns what its codes tell and no more; gains have the standard errors of blocks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.order_images import OrderBatchSpec
from marsjax.core.specs import ModelSpec, TokenSpec
from marsjax.model import ensemble as model_ensemble
from marsjax.model import llama
from marsjax.model.ensemble import Ensemble, EnsembleSpec
from marsjax.model.llama import OrderModel
from marsjax.model.order_batch import tokenizer
from marsjax.model.order_batch.specs import TokenizerSpec
from marsjax.model.order_batch.tokenizer import Tokenizer
from marsjax.training import ensemble, ensemble_report, evaluate
from marsjax.training.ensemble import NO_BATCH, EnsembleTraining, ToldOrders, ToldSpan
from marsjax.training.loop import TrainSpec
from marsjax.training.split import Span

SPEC = ModelSpec(embed_dim=8, heads=2, context_length=16, tokens=TokenSpec(5, 4, 3), pair_width=2)
FRESH = tokenizer.init(TokenizerSpec(OrderBatchSpec(4, volume_edges=(100,)), compress=2, codes=6, code_dim=3, width=8,
                                     blocks=1), jax.random.key(8))
BOOK = Tokenizer(FRESH.spec, {**FRESH.weights(), "to_patch": 10 * FRESH.to_patch[...],
                              "rate": jnp.ones_like(FRESH.rate[...])})  # codes whose images differ much
SIZES = EnsembleSpec.of(8, BOOK.spec, width=8, heads=2, layers=1)
TRAINING = EnsembleTraining((0.01, 0.1, 1.0), whole=TrainSpec(steps=60, batch=16, length=8, peak_rate=1e-2, warmup=10,
                                                              decay=0.1), code_dropout=0.1, every=30)


@pytest.fixture(scope="module")
def model() -> OrderModel:
    return llama.init(SPEC, jax.random.key(0))


def market(seed: int, batches: int = 60) -> ToldOrders:
    """Orders of which the first code of their interval says whether they sell or buy, most of the time."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(5, 40, batches)
    batch = np.repeat(np.arange(batches), counts).astype(np.int32)
    codes = rng.integers(0, 6, (batches, 4)).astype(np.int32)
    kind = np.where(rng.random(len(batch)) < 0.9, codes[batch, 0] % 2, 2)
    label = (kind * 60 + rng.integers(0, 60, len(batch))).astype(np.int32)
    return ToldOrders(rng.normal(size=(len(batch), 8)).astype(np.float32), label, batch, codes)


@pytest.fixture(scope="module")
def fitted(model: OrderModel) -> tuple[Ensemble, list[dict[str, float]]]:
    fresh = model_ensemble.init(SIZES, jax.random.key(1), BOOK)
    return ensemble.fit(TRAINING, model, fresh, (market(0), market(1)), jax.random.key(2))


def test_it_learns_what_the_codes_tell_and_nothing_else_helps(model: OrderModel, fitted: tuple) -> None:
    best, curve = fitted
    later = market(2)
    told = {"real": later.codes, "shuffled": ensemble_report.shuffled(later.codes, 0)}
    gains = ensemble_report.measured(model, best, later, told)
    # Of about ln 3 nats of the kind those of a draw of 9 in 10 stay: 0.33.
    assert 0.3 < gains["real"]["type"].mean < 0.78
    assert gains["real"]["order"].mean > 10 * gains["real"]["order"].error
    assert gains["shuffled"]["order"].mean < 0.05
    assert [row["ridge"] for row in curve[:4]] == [None, 0.01, 0.1, 1.0]
    assert [(row["part"], row["step"]) for row in curve[4:]] == [("whole", step) for step in (0, 30, 60)]
    losses = [row["validation_loss"] for row in curve]
    assert min(losses[1:4]) < losses[0] - 0.05 and losses[4] == min(losses[:4])
    assert 0 < curve[3]["foretold"] < curve[2]["foretold"] < curve[1]["foretold"]
    half = ensemble_report.measured(model, best, later, {"half": later.codes}, 0.5)["half"]["order"].mean
    assert 0 < half < gains["real"]["order"].mean


def test_asking_the_codes_tells_too_and_the_same_draws_give_the_same_weights(model: OrderModel) -> None:
    training = dataclasses.replace(TRAINING, ridges=(1e9,))  # which leaves no shift

    def fitted(seed: int) -> tuple[Ensemble, list[dict[str, float]]]:
        fresh = model_ensemble.init(SIZES, jax.random.key(1), BOOK)
        return ensemble.fit(training, model, fresh, (market(0), market(1)), jax.random.key(seed))

    (first, curve), (again, _), (other, _) = fitted(2), fitted(2), fitted(3)
    assert curve[-1]["validation_loss"] < curve[0]["validation_loss"] - 0.05
    np.testing.assert_array_equal(again.exit[...], first.exit[...])
    assert (other.exit[...] != first.exit[...]).any()


def test_it_ends_when_nothing_gets_better(model: OrderModel) -> None:
    fresh = model_ensemble.init(SIZES, jax.random.key(1), BOOK)
    other = market(1)
    wrong = other._replace(label=np.random.default_rng(0).integers(0, 180, len(other.label)).astype(np.int32))
    training = dataclasses.replace(TRAINING, every=10, patience=2)
    best, curve = ensemble.fit(training, model, fresh, (market(0), wrong), jax.random.key(2))
    losses = [row["validation_loss"] for row in curve[4:]]
    assert len(losses) - 1 - int(np.argmin(losses)) == 2 and curve[-1]["step"] < 60
    assert not best.shift[...].any() and not best.shift_bias[...].any()
    assert float(np.mean(ensemble.losses(model, best, wrong), dtype=np.float64)) == pytest.approx(min(losses), abs=1e-6)


def test_the_shift_is_the_best_linear_map_and_stays_as_it_is(model: OrderModel, fitted: tuple) -> None:
    best, curve = fitted
    of = market(0)
    found, told = ensemble.pulls(model, of), np.asarray(best.prepared(of.codes).shift, np.float64)
    ridge = min(curve[1:4], key=lambda row: row["validation_loss"])
    gained = np.sum(found.pull * told) - np.sum(found.orders * np.einsum("md,de,me->m", told, found.cost, told)) / 2
    assert gained / len(of.label) == pytest.approx(ridge["foretold"], rel=1e-3)
    smooth, _ = ensemble.fit(dataclasses.replace(TRAINING, ridges=(TRAINING.further,)), model, model_ensemble.init(
        SIZES, jax.random.key(1), BOOK), (of, of), jax.random.key(2))
    np.testing.assert_array_equal(smooth.shift[...], best.further[...])
    np.testing.assert_array_equal(smooth.shift_bias[...], best.further_bias[...])
    for name, weight in BOOK.weights().items():  # nor is the tokenizer trained
        np.testing.assert_array_equal(best.tokenizer.weights()[name], weight)
    free, _ = ensemble.fit(dataclasses.replace(TRAINING, ridges=(1e-6,)), model, model_ensemble.init(
        SIZES, jax.random.key(1), BOOK), (of, of), jax.random.key(2))
    x = np.asarray(model_ensemble.inputs(BOOK.decode(of.codes)), np.float64)
    # At the best map no direction of the weights gains: the pulls less their costs are 0 against every input.
    rest = found.pull - found.orders[:, None] * (np.asarray(free.prepared(of.codes).shift, np.float64) @ found.cost)
    assert np.abs((x - x.mean(axis=0)).T @ rest).max() < 0.02 * np.abs((x - x.mean(axis=0)).T @ found.pull).max()


@pytest.mark.parametrize(("ridges", "further"), [((), 1.0), ((0.0,), 1.0), ((0.1, np.inf), 1.0), ((0.1,), -1.0)])
def test_ridges_that_are_no_positive_numbers_are_refused(ridges: tuple[float, ...], further: float) -> None:
    with pytest.raises(ValueError, match=r"EnsembleTraining\.ridges: expected some positive numbers"):
        EnsembleTraining(ridges, further=further)


@pytest.mark.parametrize("pair_width", [0, 2])
def test_nats_are_those_of_the_logits(pair_width: int) -> None:
    model = llama.init(dataclasses.replace(SPEC, pair_width=pair_width), jax.random.key(3))
    of = market(4, batches=3)
    law = jax.nn.log_softmax(model.head(jnp.asarray(of.hidden)))
    np.testing.assert_allclose(ensemble.nats(model, of.hidden, of.label), -law[np.arange(len(of.label)), of.label],
                               rtol=1e-4)


def test_pulls_foretell_what_a_small_change_gains(model: OrderModel) -> None:
    of = market(5, batches=40)
    law = jax.nn.softmax(model.head(jnp.asarray(of.hidden)))
    drawn = jax.random.categorical(jax.random.key(0), jnp.log(jnp.tile(law, (1, 1))))
    of = of._replace(label=np.asarray(drawn, np.int32))
    found = ensemble.pulls(model, of)
    shift = 0.3 * np.random.default_rng(1).normal(size=8).astype(np.float32)
    foretold = found.orders / 2 * (shift @ found.cost @ shift) - found.pull @ shift
    real = np.asarray(ensemble.nats(model, of.hidden + shift, of.label) - ensemble.nats(model, of.hidden, of.label))
    np.testing.assert_allclose(np.bincount(of.batch, real), foretold, atol=0.02 * np.abs(foretold).max())
    assert found.orders.tolist() == of.counts.tolist()


def test_told_orders_have_the_order_models_hidden_states(model: OrderModel) -> None:
    rng = np.random.default_rng(0)
    features = np.zeros((40, 15), np.int32)
    features[:, 0] = rng.integers(0, SPEC.tokens.classes, 40)
    span = Span("day", features, 10, 30)
    batch = np.repeat([NO_BATCH, 0, 2, NO_BATCH], 5)
    codes = rng.integers(0, 6, (3, 4)).astype(np.int32)
    other = ToldSpan(Span("other", features, 1, 3), np.array([0, 1]), codes[:2])
    found = ensemble.told(model, [ToldSpan(span, batch, codes), other])
    hidden, label = evaluate.states(model, [span])
    np.testing.assert_array_equal(found.hidden[:10], hidden[5:15])
    np.testing.assert_array_equal(found.label, np.r_[label[5:15], features[1:3, 0]])
    assert found.batch.tolist() == [0] * 5 + [2] * 5 + [3, 4]
    assert found.counts.tolist() == [5, 0, 5, 1, 1]
    np.testing.assert_array_equal(found.codes, np.concatenate([codes, codes[:2]]))
    fresh = model_ensemble.init(SIZES, jax.random.key(0), BOOK)
    np.testing.assert_allclose(ensemble.losses(model, fresh, found)[:10],
                               evaluate.losses(model, [span])["order"][5:15], rtol=1e-4)


@pytest.mark.parametrize(("batch", "message"), [
    ([0, 1, 0], "that never fall"), ([0, 1, 2], "expected batches of 0 to 1"), ([0, 1], "each of 3 orders, got 2")])
def test_batches_that_do_not_fit_their_orders_are_refused(batch: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ToldSpan(Span("day", np.zeros((9, 15), np.int32), 2, 5), np.array(batch), np.zeros((2, 4), np.int32))


def test_orders_in_no_batch_teach_nothing(model: OrderModel) -> None:
    span = ToldSpan(Span("day", np.zeros((9, 15), np.int32), 2, 5), np.full(3, NO_BATCH), np.zeros((2, 4), np.int32))
    with pytest.raises(ValueError, match="expected orders that lie in batches, got none"):
        ensemble.told(model, [span])


def test_a_standard_error_is_that_of_blocks() -> None:
    rng = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(300):
        noise = rng.normal(size=402)
        of_interval = noise[:-2] + noise[1:-1] + noise[2:]
        batch = np.repeat(np.arange(400), 3)
        found = ensemble_report.gain(of_interval[batch] + 0.1 * rng.normal(size=1200), batch, block=20)
        means.append(found.mean)
        errors.append(found.error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)
    with pytest.raises(ValueError, match="at least 5 intervals for a standard error, got 2"):
        ensemble_report.gain(np.zeros(4), np.array([0, 0, 1, 1]))


def test_shuffled_codes_are_all_those_of_another_interval() -> None:
    codes = np.arange(17)[:, None]
    for seed in range(20):
        found = ensemble_report.shuffled(codes, seed)
        assert sorted(found[:, 0]) == list(range(17)) and (found != codes).all()
