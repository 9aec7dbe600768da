"""Sizes trained on amounts of orders: the parts of the orders, the best look, and what the writer itself loses."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from marsjax.checkpoint import load
from marsjax.core.errors import InputError
from marsjax.core.specs import ModelSpec, TokenSpec
from marsjax.data import made_days
from marsjax.model import row_head
from marsjax.model.llama import OrderModel
from marsjax.studies import order_model, scaling
from marsjax.studies.scaling import SIZES, Amount, MadeOrders, MadeOrdersSpec, Orders, ScalingSpec, Size
from marsjax.tokens import encoding
from marsjax.training import evaluate, loop, structured
from marsjax.training.loop import TrainingProgress, TrainSpec
from marsjax.training.split import Span
from marsjax.training.structured import Structured

pytestmark = pytest.mark.optimised  # trainings

TOKENS = TokenSpec(4, 4, 2)
SIZE = Size(8, 1, 2, 1)
SPEC = ScalingSpec(steps=40, batch=4, length=16, every=10, patience=2, dtype="float32")
GIVEN, LENGTH = 16, 40


def rows(futures: int, seed: int = 0) -> np.ndarray:
    """Tokens whose class is mostly the one before it plus one: int32 [F, GIVEN + LENGTH, 16], labels last."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 5, (futures, GIVEN + LENGTH, encoding.COLUMNS + 1), dtype=np.int32)
    steps = np.where(rng.random(found.shape[:2]) < 0.9, 1, rng.integers(0, TOKENS.classes, found.shape[:2]))
    found[..., 0] = found[..., -1] = np.cumsum(steps, axis=1) % TOKENS.classes
    return found


@pytest.fixture(scope="module")
def orders() -> Orders:
    made = MadeOrders(rows(80), GIVEN, 0, 80 * LENGTH, 80 * LENGTH)
    return scaling.of_made(TOKENS, made, [4, 16, 64], held_out=6)


def test_amounts_hold_one_another_and_share_nothing_with_what_is_held_out(orders: Orders) -> None:
    def keys(parts: list[np.ndarray]) -> set[bytes]:
        return {part.tobytes() for part in parts}

    training = [keys(amount.training) for amount in orders.amounts]
    assert training[0] < training[1] < training[2]
    assert [amount.orders for amount in orders.amounts] == [4 * LENGTH, 16 * LENGTH, 64 * LENGTH]
    assert [len(amount.validation) for amount in orders.amounts] == [1, 2, 8]
    held = keys([span.features[span.first : span.last] for span in orders.held_out])
    checked = keys([span.features[span.first : span.last] for span in orders.amounts[-1].validation])
    assert len(held) == 6 and not held & checked and not training[2] & (held | checked)
    with pytest.raises(InputError, match="72 futures"):
        scaling.of_made(TOKENS, MadeOrders(rows(80), GIVEN, 0, 0, 0), [72], held_out=8)


def test_what_is_held_out_and_validates_is_the_same_for_all_amounts() -> None:
    apart, training = (MadeOrders(rows(count, seed), GIVEN, 0, 0, 0) for count, seed in ((40, 1), (300, 2)))

    def numbers_of(spans: list[Span]) -> list[int]:
        found = [np.flatnonzero((apart.rows == span.features).all(axis=(1, 2))) for span in spans]
        return [int(number) for (number,) in found]

    few, more = (scaling.of_two(TOKENS, training, apart, amounts, 6) for amounts in ([4, 16], [16, 300]))
    for found in (few, more):
        assert numbers_of(found.held_out) == [0, 1, 2, 3, 4, 5]
    assert numbers_of(few.amounts[1].validation) == numbers_of(more.amounts[0].validation) == [36, 37]
    assert numbers_of(more.amounts[1].validation) == list(range(6, 38))
    np.testing.assert_array_equal(few.amounts[1].training, training.written()[:16])
    for futures, others, amount in ((300, 37, 4), (15, 40, 16)):
        with pytest.raises(InputError, match=f"got {min(futures, others)}"):
            scaling.of_two(TOKENS, training._replace(rows=training.rows[:futures]),
                           apart._replace(rows=apart.rows[:others]), [amount], 6)


def test_the_first_looks_are_early_and_the_others_every_so_many_steps(orders: Orders,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    looks: list[int] = []

    def run(how: TrainSpec, objective: object, progress: TrainingProgress[Structured], days: object, key: object,
            every: int) -> Iterator[tuple[TrainingProgress[Structured], float]]:
        """No training: the steps alone."""
        for step in [*range(every, how.steps, every), how.steps]:
            steps.append(step)
            yield dataclasses.replace(progress, step=np.int32(step)), 0.0

    def better(measured: object, weights: Structured) -> float:
        looks.append(steps[-1])
        return -float(steps[-1])

    monkeypatch.setattr(loop, "run", run)
    monkeypatch.setattr(scaling._Measured, "__call__", better)
    for every, wanted in ((10, [2, 4, 6, 8, 10, 20, 30, 37]), (4, [1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 36, 37])):
        looks.clear()
        found = scaling.train(dataclasses.replace(SPEC, steps=37, every=every), SIZE, TOKENS, orders.amounts[0])
        assert looks == wanted and found.step == found.steps == 37


def test_the_best_look_is_kept_and_amounts_share_a_program(orders: Orders) -> None:
    few, _, many = orders.amounts
    before = loop._steps._cache_size()
    of_few = scaling.train(SPEC, SIZE, TOKENS, few, repeated=16)
    of_many = scaling.train(SPEC, SIZE, TOKENS, many)
    assert loop._steps._cache_size() == before + 1
    for found, amount in ((of_few, few), (of_many, many)):
        again = scaling.held_out(SPEC, found.weights, orders._replace(held_out=amount.validation))
        assert float(again.mean()) == pytest.approx(found.validation, abs=1e-5)
        assert found.step <= found.steps <= SPEC.steps and found.numbers == scaling.numbers(SIZE, TOKENS)
    losses = [float(scaling.held_out(SPEC, found.weights, orders).mean()) for found in (of_few, of_many)]
    assert losses[1] < losses[0]


def test_a_training_that_gets_worse_ends_and_gives_its_best_weights(orders: Orders) -> None:
    one = orders.amounts[0]
    wrong = np.roll(one.training[0][:, -1:], 7, axis=0)  # labels that say nothing: all that is learnt is by heart
    amount = Amount([np.concatenate([one.training[0][:, :-1], wrong], axis=1)], one.validation)
    spec = dataclasses.replace(SPEC, steps=400)
    found = scaling.train(spec, SIZE, TOKENS, amount)
    waited = spec.patience * spec.every
    assert found.step + waited <= found.steps < found.step + waited + spec.every < spec.steps
    again = scaling.held_out(spec, found.weights, orders._replace(held_out=one.validation))
    assert float(again.mean()) == pytest.approx(found.validation, abs=1e-5)


def a_writer() -> OrderModel:
    """A model whose laws differ from order to order."""
    model = structured.expand(structured.init(ModelSpec(8, 1, 2, 16, TOKENS), jax.random.key(1), pair_width=2))
    return model.replace({name: x + 0.3 * jax.random.normal(jax.random.key(2), x.shape)
                          for name, x in model.weights().items() if name.startswith("head")})


def bare(span: Span) -> Span:
    """Without the labels."""
    return dataclasses.replace(span, features=span.features[:, :-1])


def test_the_writers_loss_is_that_of_its_evaluation() -> None:
    spans = [Span(str(place), row, GIVEN, len(row) - 5 * place) for place, row in enumerate(rows(3, seed=5))]
    found = scaling.floor(a_writer(), Orders(TOKENS, [], spans), 16)
    for place, span in enumerate(spans):
        assert found[place] == pytest.approx(evaluate.losses(a_writer(), [bare(span)])["order"].mean(), abs=2e-5)


def test_labels_are_predicted_and_not_the_classes_of_the_tokens() -> None:
    (row,) = rows(1, seed=6)
    row[:, -1] = np.random.default_rng(0).integers(0, TOKENS.classes, len(row))
    span = Span("other labels", row, GIVEN, len(row))
    hidden, own = evaluate.states(a_writer(), [bare(span)])
    labels = row[GIVEN:, -1]
    assert (labels != own).mean() > 0.9
    (found,) = scaling.floor(a_writer(), Orders(TOKENS, [], [span]), 16)
    assert found == pytest.approx(evaluate.losses_at(a_writer(), hidden, labels)["order"].mean(), abs=2e-5)


def test_sizes_have_about_the_numbers_that_they_are_named_by() -> None:
    tokens = TokenSpec(signals=True)
    named = {"k": 1e3, "M": 1e6}
    for name, size in SIZES.items():
        assert scaling.numbers(size, tokens) == pytest.approx(float(name[:-1]) * named[name[-1]], rel=0.06)
    model = structured.expand(structured.init(SIZE.spec(TOKENS, 16), jax.random.key(0), pair_width=1))
    whole = {name: x.shape for name, x in model.weights().items()}
    alike = sum((whole[f"embedding.{name}"][0] - 1) * SIZE.embed_dim for name in ("change", "time"))
    assert sum(np.prod(shape, dtype=int) for shape in whole.values()) - alike == scaling.numbers(SIZE, TOKENS)


@pytest.mark.slow
def test_what_a_model_writes_it_predicts_as_well_as_its_law_says() -> None:
    """The mean loss of the classes drawn is the mean entropy of the law, but for chance and short contexts."""
    prepared = order_model.prepare(load.load_order_model())
    days = [made_days.open_day(load.folder_of("default"), name) for name in ("quiet", "default")]
    found = scaling.made_orders(prepared, days, MadeOrdersSpec(24, orders=160, more=16, together=16))
    length, tokens = prepared.model.spec.context_length, prepared.model.spec.tokens
    assert found.rows.shape == (24, length + 160, 23) and found.left_out == 0 and found.given == length
    assert len(np.unique(found.written()[:, -1], axis=0)) == 24
    orders = scaling.of_made(tokens, found, [1], held_out=22)
    nats = scaling.floor(prepared.model.model, orders, length)
    states, _ = evaluate.states(prepared.model.model, [bare(span) for span in orders.held_out])
    head = prepared.model.model.head.tables()

    @jax.jit
    def entropy(hidden: np.ndarray) -> jax.Array:
        law = jax.nn.softmax(row_head.logits(row_head.scores(head, hidden, prepared.model.model.compute)))
        return -jax.numpy.sum(jax.scipy.special.xlogy(law, law), axis=-1)

    of_law = np.concatenate([np.asarray(entropy(part)) for part in np.split(states, 22)]).reshape(22, -1).mean(axis=1)
    gap = nats - of_law
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    assert error < 0.06 and abs(gap.mean()) < 3 * error
    # What came of an order may have another class than the one that was drawn: a cancel hits another price.
    written = found.written()
    assert 0.02 < (written[..., -1] != written[..., 0]).mean() < 0.3
