"""The order-batch model: a tokenizer's cuts and nearest codes, draws with a cache against a whole pass, the readout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.errors import InputError
from marsjax.core.order_images import OrderBatchSpec
from marsjax.model import sampling
from marsjax.model.order_batch import batch_model, readout, tokenizer
from marsjax.model.order_batch.batch_model import BatchModel
from marsjax.model.order_batch.proposals import OrderBatches
from marsjax.model.order_batch.readout import READ, Readout
from marsjax.model.order_batch.specs import BatchModelSpec, TokenizerSpec
from marsjax.model.order_batch.tokenizer import Tokenizer

IMAGES = OrderBatchSpec(price_slots=8, volume_edges=(100, 300, 500))
BOOK = TokenizerSpec(IMAGES, codes=16, code_dim=4, width=8, blocks=1)
MODEL = BatchModelSpec(batches=3, places=BOOK.places, codes=BOOK.codes, width=16, heads=2)


@pytest.fixture(scope="module")
def book() -> Tokenizer:
    return tokenizer.init(BOOK, jax.random.key(0))


@pytest.fixture(scope="module")
def model() -> BatchModel:
    """Of larger weights than fresh ones, so that what it reads matters."""
    return jax.tree.map(lambda x: 3 * x, batch_model.init(MODEL, jax.random.key(1)))


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).poisson(1.0, (*shape, *IMAGES.shape)).astype(np.uint8)


def test_an_image_cut_into_parts_is_put_together_again(book: Tokenizer) -> None:
    given = images(2, 3)
    parts = book.parts(given)
    np.testing.assert_array_equal(book.images(parts), given)
    # The second part of the first row of parts, of all channels.
    np.testing.assert_array_equal(parts[1, 2, 1], given[1, 2, :, :4, 4:8].reshape(-1))


def test_each_vector_gets_the_code_at_the_smallest_distance(book: Tokenizer) -> None:
    vectors = np.asarray(book.vectors(images(5)))
    away = np.linalg.norm(vectors[..., None, :] - np.asarray(book.codebook[...]), axis=-1)
    np.testing.assert_array_equal(book.encode(images(5)), away.argmin(axis=-1))


def test_a_code_that_changes_changes_the_image_and_every_mean_count_is_positive(book: Tokenizer) -> None:
    codes = np.arange(BOOK.places) % BOOK.codes
    first, second = book.decode(codes), book.decode(np.roll(codes, 1))
    assert first.shape == IMAGES.shape and (first > 0).all() and not np.array_equal(first, second)


def test_weights_have_the_names_and_shapes_that_are_announced(book: Tokenizer, model: BatchModel) -> None:
    for part, shapes in ((book, tokenizer.shapes(BOOK)), (model, batch_model.shapes(MODEL))):
        assert {name: x.shape for name, x in part.weights().items()} == shapes
    again = BatchModel(MODEL, model.weights())
    codes = np.arange(8)[None] % MODEL.codes
    np.testing.assert_array_equal(model.logits(codes), again.logits(codes))


def test_logits_depend_on_earlier_codes_alone(model: BatchModel) -> None:
    codes = np.random.default_rng(0).integers(0, MODEL.codes, MODEL.length)
    changed = codes.copy()
    changed[6] = (codes[6] + 1) % MODEL.codes
    first, second = np.asarray(model.logits(codes)), np.asarray(model.logits(changed))
    np.testing.assert_array_equal(first[:7], second[:7])
    assert (first[7:] != second[7:]).any(axis=-1).all()


def test_draws_with_a_cache_are_those_of_a_whole_pass(model: BatchModel) -> None:
    """However much of the history is known; what is not known has no effect."""
    known, count = np.arange(MODEL.batches + 1), 5
    history = np.random.default_rng(1).integers(0, MODEL.codes, (len(known), MODEL.batches, MODEL.places))
    key = jax.random.split(jax.random.key(5), len(known))
    drawn = np.asarray(model.sample(history, known, key, count))
    assert len(np.unique(drawn)) > 8
    for row in range(len(known)):
        past = history[row, MODEL.batches - known[row]:].reshape(-1)
        words = jax.random.bits(key[row], (MODEL.places, count, 2), jnp.uint32)
        for number in range(count):
            logits = model.logits(np.concatenate([past, drawn[row, number]]))[-MODEL.places:]
            np.testing.assert_array_equal(sampling.sample(logits, words[:, number]), drawn[row, number])
    history[1, :2] = 0
    np.testing.assert_array_equal(model.sample(history, known, key, count)[1], drawn[1])


def test_a_trajectory_draws_the_same_in_other_company(model: BatchModel) -> None:
    history = np.random.default_rng(1).integers(0, MODEL.codes, (4, MODEL.batches, MODEL.places))
    key = jax.random.split(jax.random.key(5), 4)
    whole = model.sample(history, np.full(4, 2), key, 3)
    np.testing.assert_array_equal(model.sample(history[2:], np.full(2, 2), key[2:], 3), whole[2:])


@pytest.mark.slow
def test_draws_follow_the_law(model: BatchModel) -> None:
    """Of the first code of a minute: frequencies of many draws, against its chances."""
    count, history = 4000, np.zeros((1, MODEL.batches, MODEL.places), int)
    drawn = model.sample(history, np.array([1]), jax.random.key(0)[None], count)[0, :, 0]
    chance = np.asarray(jax.nn.softmax(model.logits(np.zeros(2 * MODEL.places, int))[MODEL.places]))
    found = np.bincount(drawn, minlength=MODEL.codes)
    assert chance.max() > 2 / MODEL.codes
    assert (np.abs(found - count * chance) < 5 * np.sqrt(count * chance * (1 - chance)) + 3).all()


def test_a_readout_is_linear_and_keeps_values_where_they_can_be() -> None:
    count = readout.input_count(IMAGES)
    values = np.array([[-2.0, 3.0, 1000.0, -0.5, 1.5, 5e6, 70.0]], np.float32)
    np.testing.assert_allclose(readout.from_linear(readout.to_linear(values)), values, rtol=1e-5)
    weight = np.zeros((count, len(READ)), np.float32)
    weight[IMAGES.pixels, READ.index("orders")] = 100
    given = images(1)
    found = Readout(weight, np.zeros(len(READ), np.float32))(given)
    assert found[0, READ.index("orders")] == pytest.approx(given[0, 0, 0].sum())
    low = Readout(weight, np.full(len(READ), -1e3, np.float32))(given)[0]
    assert low.tolist() == [-1e3, 0, 0, -1e3, 0, 0, 0]


def test_candidates_are_draws_decoded_and_read(book: Tokenizer, model: BatchModel) -> None:
    count = readout.input_count(IMAGES)
    read = Readout(np.ones((count, len(READ)), np.float32), np.zeros(len(READ), np.float32))
    whole = OrderBatches(book, model, read)
    given, key = images(2, MODEL.batches), jax.random.split(jax.random.key(3), 2)
    found = jax.jit(lambda images, key: whole.propose(images, jnp.array([3, 1]), key, 4))(given, key)
    np.testing.assert_array_equal(found.codes, model.sample(book.encode(given), jnp.array([3, 1]), key, 4))
    np.testing.assert_allclose(found.images, book.decode(found.codes), rtol=1e-6)
    np.testing.assert_allclose(found.read, read(found.images), rtol=1e-5)


def test_parts_that_do_not_fit_are_named(book: Tokenizer) -> None:
    other = batch_model.init(BatchModelSpec(batches=3, places=BOOK.places, codes=8, width=16, heads=2),
                             jax.random.key(0))
    with pytest.raises(InputError, match="16 codes, got 4 and 8"):
        OrderBatches(book, other, Readout(np.zeros((1, 7)), np.zeros(7))).check()
    with pytest.raises(InputError, match="compress: expected a divisor"):
        TokenizerSpec(IMAGES, compress=3)
    with pytest.raises(InputError, match="width: expected a multiple"):
        BatchModelSpec(width=10, heads=4)
