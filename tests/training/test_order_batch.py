"""Training of the order-batch model: minutes of orders, code book, batch model, readout, and their baselines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.errors import InputError
from marsjax.core.order_images import OrderBatchSpec
from marsjax.core.records import Kind
from marsjax.core.times import SECOND_NS
from marsjax.model.order_batch import batch_model, readout, tokenizer
from marsjax.model.order_batch.readout import READ
from marsjax.model.order_batch.specs import BatchModelSpec, TokenizerSpec
from marsjax.training.order_batch import batches, codebook, data, reading, report
from marsjax.training.order_batch.batches import BatchTraining
from marsjax.training.order_batch.codebook import CodebookTraining
from marsjax.training.order_batch.data import DayPart, Minutes, SeenOrders

IMAGES = OrderBatchSpec(price_slots=8, volume_edges=(100, 300, 500), every_s=10)
BOOK = TokenizerSpec(IMAGES, codes=8, code_dim=4, width=8, blocks=1)
TICK, BEGIN_NS = 100, 36_000 * SECOND_NS


def some_orders(count: int = 400, seconds: int = 60) -> SeenOrders:
    """Random orders whose mids go on from one to the next."""
    rng = np.random.default_rng(0)
    mids = 2 * 100_000 + 100 * np.cumsum(rng.integers(-1, 2, count + 1))
    return SeenOrders(
        BEGIN_NS + np.sort(rng.integers(0, seconds * SECOND_NS, count)), rng.integers(0, 3, count),
        mids[:-1] // 200 * 100 + 100 * rng.integers(-3, 4, count), rng.choice([100, 200, 400, 1000], count),
        rng.integers(0, 3, count) * 100, mids[:-1], mids[1:], 100 * rng.integers(1, 4, count),
        rng.integers(0, 10**7, count))


def a_period(seconds: int = 60) -> tuple[int, int]:
    return BEGIN_NS, BEGIN_NS + seconds * SECOND_NS


def test_what_a_minute_did_is_what_its_orders_did() -> None:
    orders = some_orders()
    found = data.minutes(IMAGES, orders, TICK, a_period(), "day")
    assert found.images.shape == (6, *IMAGES.shape) and found.read.shape == (6, len(READ))
    np.testing.assert_array_equal(found.images[:, :, :4].sum(axis=(1, 2, 3)), found.read[:, READ.index("orders")])
    mine = (orders.time_ns - BEGIN_NS) // (10 * SECOND_NS) == 2
    move, volatility, volume, imbalance, spread, depth, count = found.read[2]
    after, before = orders.after_twice[mine] / 200, orders.before_twice[mine] / 200
    bought, sold = (orders.traded[mine & (orders.kind == kind)].sum() for kind in (Kind.BUY, Kind.SELL))
    assert move == after[-1] - before[0] and count == mine.sum() and volume == bought + sold
    assert imbalance == pytest.approx((bought - sold) / (bought + sold))
    assert volatility == pytest.approx(np.sqrt(((after - before) ** 2).sum()))
    assert spread == pytest.approx(orders.spread[mine].mean() / TICK)
    assert depth == pytest.approx(orders.depth[mine].mean(), rel=1e-6)
    # Moves of minutes one after the other add up.
    assert found.read[:, 0].sum() == (orders.after_twice[-1] - orders.before_twice[0]) / 200


def test_a_mirror_image_has_buys_for_sells_and_prices_reflected_and_is_its_own_inverse() -> None:
    orders = some_orders()
    plain = data.minutes(IMAGES, orders, TICK, a_period(), "day")
    mirror = data.minutes(IMAGES, orders, TICK, a_period(), "day", is_mirrored=True)
    sign = np.where(np.isin(READ, ("move_ticks", "imbalance")), -1, 1)
    np.testing.assert_array_equal(mirror.read, sign * plain.read)
    np.testing.assert_array_equal(mirror.images.sum(axis=3)[:, [1, 0, 2]], plain.images.sum(axis=3))
    # Where the mid lies between two ticks, as of an odd spread, columns are reflected exactly.
    between = orders._replace(before_twice=orders.before_twice // 200 * 200 + 100)
    plain, mirror = (data.minutes(IMAGES, between, TICK, a_period(), "day", is_mirrored=one) for one in (False, True))
    np.testing.assert_array_equal(mirror.images[:, [1, 0, 2], :, ::-1], plain.images)


def test_parts_of_a_day_do_not_overlap_and_a_minute_without_orders_says_nothing() -> None:
    orders = some_orders()
    parts = [DayPart(orders, *a_period(), TICK, "day")]
    found = data.split(IMAGES, parts, BEGIN_NS + 30 * SECOND_NS, BEGIN_NS + 50 * SECOND_NS, phases=2)
    assert [(run.begin_ns - BEGIN_NS) // SECOND_NS for run in found.training] == [0, 0, 5, 5]
    assert [len(run.images) for run in found.training] == [3, 3, 2, 2]
    assert [(run.begin_ns - BEGIN_NS) // SECOND_NS for run in (*found.validation, *found.held_out)] == [30, 50]
    assert [len(run.images) for run in (*found.validation, *found.held_out)] == [2, 1]
    with pytest.raises(InputError, match="held-out part"):
        data.split(IMAGES, parts, BEGIN_NS + 30 * SECOND_NS, BEGIN_NS + 60 * SECOND_NS)
    empty = data.minutes(IMAGES, data.until(orders, BEGIN_NS + 20 * SECOND_NS), TICK, a_period(), "day")
    assert np.isnan(empty.read[2:]).all() and not empty.images[2:].any() and np.isfinite(empty.read[:2]).all()


def test_edges_give_rows_of_about_equal_counts_and_too_few_volumes_are_named() -> None:
    orders = some_orders()._replace(volume=np.random.default_rng(1).integers(1, 10_000, 400))
    edges = data.fitted_edges([orders], 4)
    rows = np.searchsorted(edges, orders.volume)
    assert np.abs(np.bincount(rows, minlength=4) - 100).max() <= 2
    with pytest.raises(InputError, match="volume_slots"):
        data.fitted_edges([orders._replace(volume=np.repeat([100, 200], 200))], 8)


@pytest.fixture(scope="module")
def kinds() -> np.ndarray:
    """Images of four kinds, each with Poisson counts of its own rates; the kind of image i is i % 4."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(0.3, 6.0, (4, *IMAGES.shape))
    return rng.poisson(rates[np.arange(400) % 4]).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def book(kinds: np.ndarray) -> tuple[tokenizer.Tokenizer, list[dict[str, float]]]:
    training = CodebookTraining(steps=600, batch=32, peak_rate=2e-2, every=200, keep=0.9)
    return codebook.fitted(BOOK, training, kinds[:300], kinds[300:], jax.random.key(0))


def runs_of(images: np.ndarray) -> list[Minutes]:
    read = np.tile(np.arange(len(READ), dtype=np.float32) + 1, (len(images), 1))
    return [Minutes(images, read, 0, "day")]


@pytest.mark.slow
def test_a_tokenizer_tells_kinds_of_images_apart_and_the_mean_image_does_not(
        kinds: np.ndarray, book: tuple[tokenizer.Tokenizer, list[dict[str, float]]]) -> None:
    found, rows = book
    told = report.of_tokenizer(found, runs_of(kinds[:300]), runs_of(kinds[300:]))
    mine, flat = (sum(told[f"{kind}_{name}"] for name in report.CHANNEL_NAMES) for kind in ("nats", "mean_image_nats"))
    assert mine < 0.5 * flat
    assert min(row["validation_loss"] for row in rows) == pytest.approx(mine, rel=1e-4)
    assert 1.5 < told["perplexity"] <= BOOK.codes and told["error_buys"] < told["mean_image_error_buys"]


def test_errors_of_images_are_those_of_logarithms_in_more_than_half_precision() -> None:
    """NumPy's logarithm of bytes has three digits."""
    images = np.random.default_rng(0).poisson(3.0, (30, *IMAGES.shape)).astype(np.uint8)
    told = report.of_tokenizer(tokenizer.init(BOOK, jax.random.key(0)), runs_of(images[:20]), runs_of(images[20:]))
    exact = np.log1p(images.astype(np.float64))
    mean = exact[:20].mean(axis=0)
    for place, name in enumerate(report.CHANNEL_NAMES):
        assert told[f"zero_error_{name}"] == pytest.approx((exact[20:, place] ** 2).mean(), rel=1e-5)
        assert told[f"mean_image_error_{name}"] == pytest.approx(((exact[20:] - mean)[:, place] ** 2).mean(), rel=1e-5)


def test_codes_are_means_of_their_vectors_and_those_not_used_begin_anew() -> None:
    training = CodebookTraining(keep=0.0, restart_below=0.5)
    vectors = jnp.asarray(np.random.default_rng(0).normal(size=(50, 4)), jnp.float32)
    codes = jnp.arange(50) % 3  # codes 3 to 7 are not used
    state = codebook.CodebookState(None, None, jnp.ones(8), jnp.ones((8, 4)), jnp.zeros((), jnp.int32))
    uses, sums = codebook._moved(training, state, vectors, codes, jax.random.key(0))
    for code in range(3):
        np.testing.assert_allclose(sums[code] / uses[code], vectors[code::3].mean(axis=0), rtol=1e-5)
    for code in range(3, 8):
        assert (np.asarray(sums[code] / uses[code]) == np.asarray(vectors)).all(axis=1).any()


def test_the_loss_is_half_the_deviance_of_poisson() -> None:
    counts, rates = np.array([0, 1, 5, 200]), np.array([0.5, 1.0, 2.0, 150.0])
    deviance = 2 * (np.where(counts > 0, counts * np.log(np.maximum(counts, 1) / rates), 0) - counts + rates)
    np.testing.assert_allclose(codebook.poisson(counts, np.log(rates)), deviance / 2, rtol=1e-4, atol=1e-5)


def test_what_counts_lose_reaches_the_vectors_through_their_codes_and_leaves_the_code_book_alone() -> None:
    model, images = tokenizer.init(BOOK, jax.random.key(0)), np.ones((2, *IMAGES.shape), np.uint8)
    training = CodebookTraining(commitment=0.0)
    gradient = jax.jit(jax.grad(lambda model: codebook._loss(training, model, images)[0]))(model).weights()
    assert np.abs(gradient["patch"]).max() > 0 and np.abs(gradient["to_patch"]).max() > 0
    assert not np.asarray(gradient["codebook"]).any()


MODEL = BatchModelSpec(batches=2, places=4, codes=6, layers=1, width=16, heads=2)


def test_windows_hold_the_minutes_before_each() -> None:
    codes = [np.arange(12).reshape(3, 4), np.arange(100, 104).reshape(1, 4)]
    found = batches.windows(codes, 1)
    assert found.lengths.tolist() == [1, 2, 2, 1]
    assert found.codes[2].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert found.codes[3].tolist() == [[100, 101, 102, 103], [0, 0, 0, 0]]


@pytest.mark.slow
def test_a_batch_model_learns_what_follows_what_and_the_baselines_do_not() -> None:
    """Each minute's codes are those of the minute before, moved on by one: neither frequent nor repeated."""
    rng = np.random.default_rng(0)
    runs = [(rng.integers(0, 6, 4) + np.arange(20)[:, None]) % 6 for _ in range(60)]
    given, validation, held = (batches.windows(part, MODEL.batches) for part in (runs[:40], runs[40:50], runs[50:]))
    training = BatchTraining(steps=300, batch=32, peak_rate=1e-2, decay=0.01, replaced=0.0, every=100)
    model, rows = batches.fitted(MODEL, training, given, validation, jax.random.key(0))
    told = report.of_batches(model, given, validation, held)
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"]
    later = held.lengths > 1
    assert batches.nats(model, held)[later].mean() < 0.1
    assert told["by_place"] == pytest.approx(np.log(6), abs=0.02) and told["last_repeated"] > 1.7
    assert told["even"] == pytest.approx(np.log(6))
    # Minutes that repeat are what the other baseline is good at.
    same = batches.windows([np.tile(run[:1], (20, 1)) for run in runs], MODEL.batches)
    assert report.of_batches(model, same, same, same)["last_repeated"] < 0.3


def test_a_code_that_never_repeats_is_best_told_without_the_minute_before() -> None:
    rng = np.random.default_rng(0)
    never = batches.windows([(rng.integers(0, 6, 4) + np.arange(12)[:, None]) % 6 for _ in range(20)], MODEL.batches)
    told = report.of_batches(batch_model.init(MODEL, jax.random.key(0)), never, never, never)
    assert told["share_repeated"] == 0 and told["last_repeated"] == pytest.approx(told["by_place"])


def test_costs_are_those_of_the_last_minute_of_each_window() -> None:
    model = batch_model.init(MODEL, jax.random.key(0))
    given = batches.windows([np.random.default_rng(0).integers(0, 6, (5, 4))], MODEL.batches)
    found = batches.nats(model, given)
    for row in (0, 4):
        length = given.lengths[row] * 4
        law = jax.nn.log_softmax(model.logits(given.codes[row].reshape(-1)[:length]))[-4:]
        expected = -np.take_along_axis(np.asarray(law), given.codes[row, given.lengths[row] - 1][:, None], axis=1)[:, 0]
        np.testing.assert_allclose(found[row], expected, rtol=1e-4)


@pytest.mark.slow
def test_a_readout_finds_what_is_linear_in_the_images(
        kinds: np.ndarray, book: tuple[tokenizer.Tokenizer, list[dict[str, float]]]) -> None:
    found, _ = book
    seen = reading.decoded(found, kinds)
    inputs = np.asarray(readout.inputs(seen), np.float64)
    rng = np.random.default_rng(0)
    linear = (inputs - inputs.mean(axis=0)) @ rng.normal(size=(inputs.shape[1], len(READ))) / 10
    linear += 5 - linear.min(axis=0)
    read = np.array(readout.from_linear(jnp.asarray(linear)), np.float32)
    read[3] = np.nan
    runs = [Minutes(kinds[first : first + 100], read[first : first + 100], 0, f"day {first}")
            for first in (0, 100, 200, 300)]
    fitted = reading.fitted(found, runs[:2], runs[2:3])
    shares = reading.explained(found, fitted, runs[3:])
    assert min(shares["all"].values()) > 0.95 and shares["within"] == shares["all"]
    other = [Minutes(run.images, np.random.default_rng(1).permutation(run.read), 0, run.source) for run in runs[3:]]
    assert max(reading.explained(found, fitted, other)["all"].values()) < 0.5


@pytest.mark.parametrize(("make", "match"), [
    (lambda: CodebookTraining(keep=1.0), "keep"), (lambda: CodebookTraining(steps=0), "steps"),
    (lambda: BatchTraining(replaced=1.0), "replaced"), (lambda: BatchTraining(peak_rate=float("nan")), "peak_rate")])
def test_a_wrong_number_is_named(make: object, match: str) -> None:
    with pytest.raises(InputError, match=match):
        make()  # type: ignore[operator]
