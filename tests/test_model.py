"""Laws of the order model: causality by gradients, sums of tables, dtypes; refusals that name what is wrong."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from marsjax import model
from marsjax.specs import ComputeSpec, ModelSpec, TokenSpec
from marsjax.types import Token

BINS = TokenSpec(8, 8, 4)
SPEC = ModelSpec(16, 2, 2, 64, BINS)


def random_tokens(rng: np.random.Generator, shape: tuple[int, ...], bins: TokenSpec) -> Token:
    """Tokens [*shape], with changes and times beyond their tables among them."""
    def draw(low: int, high: int, *more: int) -> np.ndarray:
        return rng.integers(low, high, (*shape, *more)).astype(np.int32)

    return Token(draw(0, 3), draw(0, bins.price_levels), draw(0, bins.volumes), draw(0, bins.intervals), draw(0, 10),
                 draw(0, 10), draw(-2300, 2300), draw(0, 15000), draw(0, bins.volumes + 1, 10))


def random_params(spec: ModelSpec, seed: int = 0, scale: float = 0.25) -> model.Params:
    """Parameters far from their start: matrices, biases and tables normal(scale), norms around 1."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: model.init(spec, jax.random.key(0)))

    def draw(path: Any, x: jax.ShapeDtypeStruct) -> np.ndarray:
        norm = any(word in jax.tree_util.keystr(path) for word in ("norm", "scale"))
        return rng.normal(float(norm), scale, x.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def tokens_of_one(length: int = 12) -> Token:
    return random_tokens(np.random.default_rng(0), (length,), BINS)


def test_a_state_depends_on_its_past_alone() -> None:
    params, length = random_params(SPEC), 12
    # A row of the table of changes for each position, so that its gradient is that of the position's embedding.
    tokens = dataclasses.replace(tokens_of_one(length), change=np.arange(length, dtype=np.int32))

    def states(change: jax.Array) -> jax.Array:
        embedding = dataclasses.replace(params.embedding, change=change)
        return model.logits(dataclasses.replace(params, embedding=embedding), SPEC, tokens, last_only=False)[:, :7]

    change = jnp.asarray(params.embedding.change)
    slopes = jax.jit(jax.jacrev(states))(change)[:, :, model.CHANGE_LIMIT : model.CHANGE_LIMIT + length]
    sees = np.any(np.asarray(slopes) != 0, axis=(1, 3))
    np.testing.assert_array_equal(sees, np.tril(np.ones((length, length), bool)))


def test_the_last_state_alone_is_the_last_of_all() -> None:
    params, tokens = random_params(SPEC), random_tokens(np.random.default_rng(0), (3, 12), BINS)
    logits = jax.jit(model.logits, static_argnums=1, static_argnames="last_only")
    last = logits(params, SPEC, tokens)
    assert last.shape == (3, BINS.classes) and last.dtype == jnp.float32
    np.testing.assert_allclose(last, logits(params, SPEC, tokens, last_only=False)[:, -1], rtol=1e-5, atol=1e-5)


def test_leading_axes_are_a_loop() -> None:
    params, tokens = random_params(SPEC), random_tokens(np.random.default_rng(0), (2, 3, 12), BINS)
    hidden = jax.jit(model.hidden, static_argnums=1)
    together = hidden(params, SPEC, tokens)
    for i in range(2):
        for j in range(3):
            one = hidden(params, SPEC, jax.tree.map(lambda x, i=i, j=j: x[i, j], tokens))
            np.testing.assert_allclose(together[i, j], one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("column", "beyond", "same"), [
    ("change", 2001, 2000), ("change", -2500, -2000), ("seconds", 14405, 14400), ("seconds", 30000, 14404),
    ("seconds", 4, 0)])
def test_values_beyond_a_table_take_its_last_row(column: str, beyond: int, same: int) -> None:
    params, tokens = random_params(SPEC), tokens_of_one(1)
    one, other = (model.embed(params, dataclasses.replace(tokens, **{column: np.array([x], np.int32)}))
                  for x in (beyond, same))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("column", "one", "other"), [
    ("change", 1999, 2000), ("change", -1999, -2000), ("change", 0, 1), ("seconds", 14399, 14400), ("seconds", 4, 5)])
def test_values_in_a_table_have_rows_of_their_own(column: str, one: int, other: int) -> None:
    params, tokens = random_params(SPEC), tokens_of_one(1)
    first, second = (model.embed(params, dataclasses.replace(tokens, **{column: np.array([x], np.int32)}))
                     for x in (one, other))
    assert not np.array_equal(first, second)


def test_levels_pass_a_layer_norm_with_its_epsilon() -> None:
    params, tokens = random_params(SPEC), tokens_of_one()
    quiet = jax.tree.map(lambda x: 0 * x, params.embedding)
    table = dataclasses.replace(params.embedding, levels=params.embedding.levels * 1e-4)
    table = dataclasses.replace(quiet, **{name: getattr(table, name) for name in ("levels", "levels_scale",
                                                                                   "levels_shift")})
    x = tokens.levels @ table.levels.astype(float)
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(model.embed(dataclasses.replace(params, embedding=table), tokens),
                               x * table.levels_scale + table.levels_shift, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Token)])
def test_every_column_but_the_ratios_moves_the_embedding(field: str) -> None:
    rng = np.random.default_rng(0)
    tokens, other = (random_tokens(rng, (1,), BINS) for _ in range(2))
    if np.array_equal(getattr(tokens, field), getattr(other, field)):
        other = dataclasses.replace(other, **{field: getattr(other, field) + 1})
    changed = dataclasses.replace(tokens, **{field: getattr(other, field)})
    for ratios in (False, True):
        spec = dataclasses.replace(SPEC, ratio_embeddings=ratios)
        params = random_params(spec)
        moves = not np.array_equal(model.embed(params, tokens), model.embed(params, changed))
        assert moves == (ratios or field not in ("volume_ratio", "trade_ratio"))


def test_parameters_count_as_the_published_models() -> None:
    def count(spec: ModelSpec) -> int:
        return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(jax.eval_shape(
            lambda: model.init(spec, jax.random.key(0)))))

    # Of the 2,524,272 numbers of the reference's class, embed_tokens and linear_head are stored but unused.
    unused = 2 * 49152 * 16 + 49152 + 2 * 16
    assert count(ModelSpec()) == 2_524_272 - unused
    assert count(ModelSpec(ratio_embeddings=True)) == 2_524_624 - unused


def test_rotary_angles_are_exact_to_float32() -> None:
    cos, sin = model.rotary_table(2048, 16)
    angle = np.arange(2048, dtype=np.longdouble)[:, None] * np.longdouble(1e4) ** (-np.arange(8) / np.longdouble(8))
    np.testing.assert_allclose(cos, np.cos(angle).astype(float), rtol=0, atol=6e-8)
    np.testing.assert_allclose(sin, np.sin(angle).astype(float), rtol=0, atol=6e-8)


def test_rotation_depends_on_the_distance_alone() -> None:
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 16)).astype(np.float32)
    cos, sin = model.rotary_table(2048, 16)

    def product(i: int, j: int) -> float:
        return float(model.rotate(q, cos[i], sin[i]) @ model.rotate(k, cos[j], sin[j]))

    np.testing.assert_allclose([product(1024 + i, i) for i in range(0, 1024, 50)], product(1024, 0), rtol=0, atol=2e-5)


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtypes_of_storage_and_of_computing(stored: str, dtype: str) -> None:
    def states(params: model.Params) -> tuple[jax.Array, jax.Array]:
        hidden = model.hidden(params, SPEC, tokens_of_one(), ComputeSpec(dtype))
        return hidden, model.head(params, hidden, ComputeSpec(dtype))

    params = jax.jit(model.init, static_argnums=(0, 2))(SPEC, jax.random.key(0), stored)
    assert {x.dtype.name for x in jax.tree.leaves(params)} == {stored}
    hidden, logits = jax.jit(states)(params)
    assert hidden.dtype == dtype and logits.dtype == jnp.float32
    assert np.all(np.isfinite(logits)) and float(jnp.std(logits)) > 0.01


def test_64_bit_mode_changes_nothing() -> None:
    params, tokens = random_params(SPEC), tokens_of_one()
    plain = jax.jit(model.logits, static_argnums=1)(params, SPEC, tokens)
    with jax.enable_x64(True):
        wide = jax.jit(model.logits, static_argnums=1)(params, SPEC, tokens)
    assert wide.dtype == jnp.float32
    np.testing.assert_allclose(wide, plain, rtol=1e-4, atol=1e-5)


def test_too_many_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="at most max_orders=64 tokens, got 65"):
        model.hidden(random_params(SPEC), SPEC, tokens_of_one(65))


@pytest.mark.parametrize(("field", "value"), [("dtype", "float16"), ("dtype", None), ("precision", "high")])
def test_bad_compute_specs_name_the_field_and_the_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"ComputeSpec\.{field}: expected .* got {value!r}"):
        ComputeSpec(**{field: value})


def test_the_flax_module_holds_the_same_model() -> None:
    params, tokens = random_params(SPEC), tokens_of_one()
    module = model.OrderModel(SPEC, params)
    np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(module, tokens),
                               model.logits(params, SPEC, tokens, last_only=False), rtol=1e-4, atol=1e-5)
    slopes = nnx.jit(nnx.grad(lambda m: jnp.sum(m(tokens) ** 2)))(module)
    shapes = sorted(x.shape for x in jax.tree.leaves(slopes))
    assert shapes == sorted(x.shape for x in jax.tree.leaves(params))
    assert all(np.any(np.asarray(x) != 0) for x in jax.tree.leaves(slopes))
