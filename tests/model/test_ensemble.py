"""The ensemble against a slow copy of it; what it must not change, and what it does to the law of the next order."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.kernels import CPU
from marsjax.core.order_images import OrderBatchSpec
from marsjax.core.specs import CacheSpec, ModelSpec, TokenSpec
from marsjax.model import ensemble, llama
from marsjax.model.ensemble import Ensemble, EnsembleSpec
from marsjax.model.order_batch import tokenizer
from marsjax.model.order_batch.specs import TokenizerSpec
from marsjax.model.order_batch.tokenizer import Tokenizer

BOOK = tokenizer.init(TokenizerSpec(OrderBatchSpec(4, volume_edges=(100,)), compress=2, codes=9, code_dim=3, width=8,
                                    blocks=1), jax.random.key(8))
SPEC = EnsembleSpec.of(6, BOOK.spec, width=8, heads=2, layers=2)


@pytest.fixture(scope="module")
def learnt() -> Ensemble:
    """An ensemble whose last weights are not 0."""
    fresh = ensemble.init(SPEC, jax.random.key(0), BOOK)
    return Ensemble(SPEC, {**fresh.weights(), "exit": jax.random.normal(jax.random.key(1), (8, 6)),
                           "shift": jax.random.normal(jax.random.key(7), (SPEC.inputs, 6)),
                           "shift_bias": jax.random.normal(jax.random.key(9), (6,)),
                           "further": jax.random.normal(jax.random.key(10), (SPEC.inputs, 6)),
                           "further_bias": jax.random.normal(jax.random.key(11), (6,))}, BOOK)


@pytest.fixture(scope="module")
def hidden() -> jax.Array:
    return jax.random.normal(jax.random.key(2), (7, 6))


@pytest.fixture(scope="module")
def codes() -> jax.Array:
    return jax.random.randint(jax.random.key(3), (7, 4), 0, 9)


def normed(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6) * weight


def layer(w: dict[str, np.ndarray], part: str, n: int, asks: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """States [A, w] after a layer in which they ask states [C, w], head by head."""
    q, k, v = (np.einsum("aw,whk->ahk", normed(x, w[f"{part}.attention_norm"][n]), w[f"{part}.qkv"][n][:, i])
               for i, x in enumerate((asks, answers, answers)))
    heads = []
    for h in range(SPEC.heads):
        score = q[:, h] @ k[:, h].T / np.sqrt(q.shape[-1])
        share = np.exp(score - score.max(axis=-1, keepdims=True))
        heads.append(share / share.sum(axis=-1, keepdims=True) @ v[:, h])
    x = asks + np.einsum("hak,hkw->aw", np.stack(heads), w[f"{part}.out"][n])
    gate, up = (normed(x, w[f"{part}.mlp_norm"][n]) @ w[f"{part}.gate_up"][n][:, i] for i in (0, 1))
    return x + gate / (1 + np.exp(-gate)) * up @ w[f"{part}.down"][n]


def slow_inputs(image: np.ndarray) -> np.ndarray:
    """Of one image [3, 2 V, P], count by count."""
    channels, rows, columns = image.shape
    of_row, of_column = np.zeros((channels, rows)), np.zeros((2, channels, columns))
    for (channel, row, column), count in np.ndenumerate(image):
        of_row[channel, row] += count
        of_column[row // (rows // 2), channel, column] += count
    counts = np.concatenate([of_row.ravel(), of_column.ravel()])
    return np.concatenate([np.log(1 + counts), counts / (image.sum() / 2 + 5)])


def slow(of: Ensemble, hidden: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """One trajectory's hidden state [d], changed by codes [C], in float64."""
    w = {name: np.asarray(x, np.float64) for name, x in of.weights().items()}
    batch = w["code"][codes] + w["place"]
    batch = layer(w, "reader", 0, batch, batch)
    x = hidden[None] @ w["entry"]
    for n in range(SPEC.layers):
        x = layer(w, "layers", n, x, batch)
    shift = slow_inputs(np.asarray(of.tokenizer.decode(codes), np.float64)) @ w["shift"] + w["shift_bias"]
    return hidden + shift + (normed(x, w["norm"]) @ w["exit"])[0]


def test_it_is_its_slow_copy(learnt: Ensemble, hidden: jax.Array, codes: jax.Array) -> None:
    found = learnt(hidden, learnt.prepared(codes))
    expected = [slow(learnt, *of) for of in zip(np.asarray(hidden, np.float64), np.asarray(codes), strict=True)]
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-4, atol=1e-4)


def test_what_has_learnt_nothing_or_is_told_nothing_changes_no_bit(learnt: Ensemble, hidden: jax.Array,
                                                                   codes: jax.Array) -> None:
    fresh = ensemble.init(SPEC, jax.random.key(4), BOOK)
    pairs = (fresh, fresh.prepared(codes)), (learnt, learnt.prepared(codes, 0.0)), (learnt, learnt.nothing(7))
    for of, read in pairs:
        np.testing.assert_array_equal(of(hidden, read), hidden)
    nothing, some = learnt.nothing(7), learnt.prepared(codes)
    assert [(x.shape, x.dtype) for x in nothing] == [(x.shape, x.dtype) for x in some]


def test_the_strength_scales_the_change_and_above_1_adds_of_the_second_map(learnt: Ensemble, hidden: jax.Array,
                                                                           codes: jax.Array) -> None:
    strength = jnp.array([0.0, 0.5, 1.0, 2.0, 4.0, 1.0, 0.25])
    whole, part = (learnt(hidden, learnt.prepared(codes, by)) - hidden for by in (1.0, strength))
    weights = learnt.weights()
    told = np.stack([slow_inputs(np.asarray(image, np.float64)) for image in BOOK.decode(codes)])
    further = told @ np.asarray(weights["further"], np.float64) + weights["further_bias"]
    by = np.asarray(strength)[:, None]
    expected = np.minimum(by, 1) * whole + np.maximum(by - 1, 0) * further
    np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pair_width", [0, 2])
def test_logits_move_by_what_the_head_makes_of_the_change(pair_width: int, hidden: jax.Array) -> None:
    spec = ModelSpec(embed_dim=6, heads=1, tokens=TokenSpec(5, 4, 3), pair_width=pair_width)
    head = llama.init(spec, jax.random.key(5)).head
    change = jax.random.normal(jax.random.key(6), hidden.shape)
    np.testing.assert_allclose(head(hidden + change), head(hidden) + head(change), rtol=1e-4, atol=1e-5)


def test_a_row_has_the_same_bits_in_any_batch(learnt: Ensemble, hidden: jax.Array, codes: jax.Array) -> None:
    cache = CacheSpec(kernels=dataclasses.replace(CPU, rows=4))
    run = jax.jit(ensemble.change, static_argnums=1)
    read = learnt.prepared(codes)
    whole = run(learnt, cache, hidden, read)
    for rows in (slice(0, 3), slice(2, 7), slice(6, 7)):
        some = jax.tree.map(lambda x, rows=rows: x[rows], read)
        np.testing.assert_array_equal(run(learnt, cache, hidden[rows], some), whole[rows])


def test_it_matters_which_code_is_where(learnt: Ensemble, hidden: jax.Array) -> None:
    codes = jnp.array([[1, 2, 3, 4], [2, 1, 3, 4], [1, 2, 3, 6]])
    found = learnt(jnp.repeat(hidden[:1], 3, axis=0), learnt.prepared(codes))
    assert (jnp.abs(found - found[:1]).max(axis=-1) > 1e-4).tolist() == [False, True, True]


def test_codes_that_are_alike_start_alike() -> None:
    vectors = np.random.default_rng(0).normal(size=(9, 3))
    vectors[1] = vectors[0]
    book = Tokenizer(BOOK.spec, {**BOOK.weights(), "codebook": jnp.asarray(vectors, jnp.float32)})
    code = ensemble.init(SPEC, jax.random.key(0), book).code[...]
    np.testing.assert_array_equal(code[0], code[1])
    assert float(jnp.std(code)) == pytest.approx(1, abs=0.5) and not (code[0] == code[2]).any()


def test_the_shift_reads_the_image_of_the_codes(learnt: Ensemble, codes: jax.Array) -> None:
    images = BOOK.decode(codes)
    told = np.stack([slow_inputs(np.asarray(image, np.float64)) for image in images])
    np.testing.assert_allclose(ensemble.inputs(images), told, rtol=1e-4, atol=1e-6)
    assert told.shape[1] == ensemble.input_count(BOOK.spec.images) == SPEC.inputs
    even = jnp.full((3, 4, 4), 2.0)
    shares = ensemble.inputs(even)[SPEC.inputs // 2 :]
    np.testing.assert_allclose(shares[:12], 8 / (48 + 5), rtol=1e-6)  # rows; each order counts twice in an image


def test_a_tokenizer_of_other_sizes_is_refused(learnt: Ensemble) -> None:
    with pytest.raises(ValueError, match=r"ensemble: expected the sizes of its tokenizer, .*codes=9.* got .*codes=8"):
        Ensemble(dataclasses.replace(SPEC, codes=8), learnt.weights(), BOOK)


def test_weights_have_the_names_and_shapes_of_the_plan(learnt: Ensemble, hidden: jax.Array, codes: jax.Array) -> None:
    weights = learnt.weights()
    assert {name: x.shape for name, x in weights.items()} == ensemble.shapes(SPEC)
    again = Ensemble(SPEC, weights, BOOK)
    np.testing.assert_array_equal(again(hidden, again.prepared(codes)), learnt(hidden, learnt.prepared(codes)))


@pytest.mark.parametrize(("sizes", "message"), [
    ({"width": 9}, "EnsembleSpec.width: expected a multiple of heads=2, got 9"),
    ({"codes": 0}, "EnsembleSpec.codes: expected at least 1, got 0"),
    ({"layers": 1.5}, "EnsembleSpec.layers: expected a whole number, got 1.5")])
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPEC, **sizes)
