"""The head whose rows are summed: logits by loops, its draw has the law of the logits, and a model of it is a model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.specs import CacheSpec, ModelSpec, TokenSpec
from marsjax.model import kv_cache, layers, llama, row_head, sampling
from marsjax.model.row_head import RowHead, Summands

BINS = TokenSpec(5, 4, 3)
SPEC = ModelSpec(embed_dim=8, heads=2, context_length=16, tokens=BINS, pair_width=3)
SHAPES = [(3, 5), (3, 4), (3, 3), (3, 5, 4), (3, 5, 3), (4, 3)]


@pytest.fixture(scope="module")
def head() -> RowHead:
    rng = np.random.default_rng(0)
    return RowHead({name: jnp.asarray(rng.normal(size=shape), jnp.float32)
                    for name, shape in row_head.shapes(SPEC).items()})


def some_scores(scale: float, batch: int, seed: int = 0) -> Summands:
    rng = np.random.default_rng(seed)
    return Summands(*(jnp.asarray(rng.normal(0, scale, (batch, *shape)), jnp.float32) for shape in SHAPES))


def by_loops(scores: Summands) -> np.ndarray:
    """Logits, float64 [B, classes]."""
    own = [np.asarray(x, np.float64) for x in scores]
    batch = range(len(own[0]))
    return np.array([[own[0][b, k, p] + own[1][b, k, v] + own[2][b, k, i] + own[3][b, k, p, v] + own[4][b, k, p, i]
                      + own[5][b, v, i] for k in range(3) for p in range(5) for v in range(4) for i in range(3)]
                     for b in batch])


def law(logits: np.ndarray) -> np.ndarray:
    chances = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return chances / chances.sum(axis=-1, keepdims=True)


def test_logits_are_sums_of_rows(head: RowHead) -> None:
    hidden = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    own = head.tables()
    scores = Summands(*(jnp.asarray(np.einsum("bd,...d->b...", hidden[:, : table.shape[-1]], np.asarray(table)))
                    for table in own))
    for expected in (by_loops(scores), hidden @ np.asarray(row_head.joint(own))):
        np.testing.assert_allclose(head(jnp.asarray(hidden)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1.0, 15.0])
def test_sums_over_classes(scale: float) -> None:
    scores = some_scores(scale, 4)
    logits = by_loops(scores)
    top = logits.max(axis=1)
    np.testing.assert_allclose(row_head.log_partition(scores), top + np.log(np.exp(logits - top[:, None]).sum(axis=1)),
                               rtol=1e-5)
    np.testing.assert_allclose(row_head.law_of_volumes(scores), law(logits).reshape(4, 3, 5, 4, 3).sum(axis=-1),
                               rtol=2e-4, atol=1e-9)


def drawn_law(scores: Summands, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The exact probabilities of `row_head.draw` for one row, by counting the words that lead to each class."""
    recorded: list[np.ndarray] = []
    original = sampling._draw

    def recording(weights: jax.Array, word: jax.Array) -> jax.Array:
        recorded.append(np.asarray(weights[0], np.int64))
        return original(weights, word)

    monkeypatch.setattr(sampling, "_draw", recording)

    def draw(word: int) -> tuple[np.ndarray, np.ndarray]:
        recorded.clear()
        row_head.draw(scores, jnp.asarray([[word, 0]], jnp.uint32))
        return recorded[0], recorded[1]

    outer, _ = draw(0)
    before, found = np.cumsum(outer) - outer, np.zeros((len(outer), 4 * 3))
    for place in np.flatnonzero(outer):
        _, inner = draw(int((before[place] + outer[place] / 2) / outer.sum() * 2**32))
        found[place] = outer[place] / outer.sum() * inner / inner.sum()
    return found.reshape(-1)


@pytest.mark.parametrize("scale", [0.0, 1.0, 8.0])
def test_the_law_of_a_draw_is_that_of_float64(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = some_scores(scale, 1, seed=3)
    exact, found = law(by_loops(scores))[0], drawn_law(scores, monkeypatch)
    assert abs(found.sum() - 1) < 1e-9
    assert 0.5 * np.abs(found - exact).sum() < 1e-5


def test_words_decide_and_the_temperature_counts(head: RowHead) -> None:
    hidden = jnp.asarray(np.random.default_rng(4).normal(size=(1, 8)), jnp.float32)
    words = jax.random.bits(jax.random.key(0), (100_000, 2), jnp.uint32)
    for temperature in (1.0, 3.0):
        drawn, has_law = head.draw(jnp.broadcast_to(hidden, (len(words), 8)), words, temperature)
        share = np.bincount(drawn, minlength=BINS.classes) / len(words)
        exact = law(np.asarray(head(hidden), np.float64) / temperature)[0]
        assert has_law.all() and 0.5 * np.abs(share - exact).sum() < 0.02
    np.testing.assert_array_equal(drawn[:50], head.draw(jnp.broadcast_to(hidden, (50, 8)), words[:50], 3.0)[0])


def test_where_it_is_cold_the_likeliest_class_is_drawn_and_none_is_lost() -> None:
    """The largest factors do not meet in one class: scaled by them all weights were 0, and no law was left."""
    rng = np.random.default_rng(7)
    steep = RowHead({name: jnp.asarray(rng.normal(size=shape), jnp.float32)
                     for name, shape in row_head.shapes(SPEC).items()})
    hidden = jnp.asarray(rng.normal(size=(20, 8)), jnp.float32)
    words = jax.random.bits(jax.random.key(2), (20, 2), jnp.uint32)
    for temperature in (0.25, 0.03, 1e-6):
        drawn, has_law = steep.draw(hidden, words, temperature)
        assert has_law.all()
    np.testing.assert_array_equal(drawn, jnp.argmax(steep(hidden), axis=-1))
    _, has_law = steep.draw(hidden.at[3, 0].set(jnp.nan), words, 0.03)
    assert np.flatnonzero(~np.asarray(has_law)).tolist() == [3]


def test_numbers_that_are_not_finite_have_no_law(head: RowHead) -> None:
    hidden = jnp.zeros((4, 8)).at[1, 0].set(jnp.nan).at[2, 5].set(jnp.inf)
    drawn, has_law = head.draw(hidden, jnp.full((4, 2), 2**32 - 1, jnp.uint32), 1.0)
    assert has_law.tolist() == [True, False, False, True]
    assert ((drawn >= 0) & (drawn < BINS.classes)).all()


def test_a_model_of_it_has_the_logits_of_the_joint_one() -> None:
    model = llama.init(SPEC, jax.random.key(0))
    assert {name: x.shape for name, x in model.weights().items()} == llama.shapes(SPEC)
    assert set(model.weights()) > {f"head.{name}" for name in Summands._fields} and "head" not in model.weights()
    plain = llama.OrderModel(dataclasses.replace(SPEC, pair_width=0), {
        **{name: x for name, x in model.weights().items() if not name.startswith("head.")},
        "head": row_head.joint(model.head.tables())})
    assert isinstance(plain.head, layers.Head)
    hidden = jnp.asarray(np.random.default_rng(5).normal(size=(7, 8)), jnp.float32)
    cache = CacheSpec(mode="rolling")
    np.testing.assert_allclose(*(kv_cache.logits(one, cache, hidden) for one in (model, plain)), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"ModelSpec\.pair_width: expected 0 to 8, got 9"):
        dataclasses.replace(SPEC, pair_width=9)


def test_a_row_is_drawn_the_same_in_any_batch() -> None:
    model, cache = llama.init(SPEC, jax.random.key(0)), CacheSpec(mode="rolling")
    model = model.replace({f"head.{name}": 50 * x for name, x in model.head.tables()._asdict().items()})
    hidden = jnp.asarray(np.random.default_rng(6).normal(size=(40, 8)), jnp.float32)
    words = jax.random.bits(jax.random.key(1), (40, 2), jnp.uint32)
    whole, _ = kv_cache.sample(model, cache, hidden, words, 1.0)
    assert len(set(whole.tolist())) > 10
    for rows in (slice(3, 4), slice(10, 33)):
        np.testing.assert_array_equal(kv_cache.sample(model, cache, hidden[rows], words[rows], 1.0)[0], whole[rows])
