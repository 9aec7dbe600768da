"""Laws of the order model: causality by gradients, sums of tables, dtypes; refusals that name what is wrong."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from marsjax.core.records import Token
from marsjax.core.specs import ComputeSpec, ModelSpec, TokenSpec
from marsjax.model import layers, llama
from marsjax.model.llama import OrderModel

BINS = TokenSpec(8, 8, 4)
SPEC = ModelSpec(16, 2, 2, 64, BINS)


def random_tokens(rng: np.random.Generator, shape: tuple[int, ...], bins: TokenSpec) -> Token:
    """Tokens [*shape], with changes and times beyond their tables among them."""
    def draw(low: int, high: int, *more: int) -> np.ndarray:
        return rng.integers(low, high, (*shape, *more)).astype(np.int32)

    return Token(draw(0, 3), draw(0, bins.price_levels), draw(0, bins.volumes), draw(0, bins.intervals), draw(0, 10),
                 draw(0, 10), draw(-2300, 2300), draw(0, 15000), draw(0, bins.volumes + 1, 10), draw(-8, 9, 7))


def random_params(spec: ModelSpec, seed: int = 0, scale: float = 0.25) -> OrderModel:
    """A model far from its start: matrices, biases and tables normal(scale), norms around 1."""
    rng = np.random.default_rng(seed)
    return OrderModel(spec, {
        name: rng.normal(float("norm" in name or "scale" in name), scale, shape).astype(np.float32)
        for name, shape in llama.shapes(spec).items()})


def tokens_of_one(length: int = 12) -> Token:
    return random_tokens(np.random.default_rng(0), (length,), BINS)


def test_a_state_depends_on_its_past_alone() -> None:
    model, length = random_params(SPEC), 12
    # A row of the table of changes for each position, so that its gradient is that of the position's embedding.
    tokens = dataclasses.replace(tokens_of_one(length), change=np.arange(length, dtype=np.int32))

    def states(change: jax.Array) -> jax.Array:
        return model.replace({"embedding.change": change})(tokens)[:, :7]

    change = jnp.asarray(model.embedding.change[...])
    slopes = jax.jit(jax.jacrev(states))(change)[:, :, layers.CHANGE_LIMIT : layers.CHANGE_LIMIT + length]
    sees = np.any(np.asarray(slopes) != 0, axis=(1, 3))
    np.testing.assert_array_equal(sees, np.tril(np.ones((length, length), bool)))


def test_the_last_state_alone_is_the_last_of_all() -> None:
    model, tokens = random_params(SPEC), random_tokens(np.random.default_rng(0), (3, 12), BINS)
    last = jax.jit(lambda model, tokens: model.logits(tokens))(model, tokens)
    every = jax.jit(lambda model, tokens: model(tokens))(model, tokens)
    assert last.shape == (3, BINS.classes) and last.dtype == jnp.float32
    np.testing.assert_allclose(last, every[:, -1], rtol=1e-5, atol=1e-5)


def test_leading_axes_are_a_loop() -> None:
    model, tokens = random_params(SPEC), random_tokens(np.random.default_rng(0), (2, 3, 12), BINS)
    hidden = jax.jit(lambda model, tokens: model.hidden(tokens))
    together = hidden(model, tokens)
    for i in range(2):
        for j in range(3):
            one = hidden(model, jax.tree.map(lambda x, i=i, j=j: x[i, j], tokens))
            np.testing.assert_allclose(together[i, j], one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("column", "beyond", "same"), [
    ("change", 2001, 2000), ("change", -2500, -2000), ("seconds", 14405, 14400), ("seconds", 30000, 14404),
    ("seconds", 4, 0)])
def test_values_beyond_a_table_take_its_last_row(column: str, beyond: int, same: int) -> None:
    model, tokens = random_params(SPEC), tokens_of_one(1)
    one, other = (model.embedding(dataclasses.replace(tokens, **{column: np.array([x], np.int32)}))
                  for x in (beyond, same))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("column", "one", "other"), [
    ("change", 1999, 2000), ("change", -1999, -2000), ("change", 0, 1), ("seconds", 14399, 14400), ("seconds", 4, 5)])
def test_values_in_a_table_have_rows_of_their_own(column: str, one: int, other: int) -> None:
    model, tokens = random_params(SPEC), tokens_of_one(1)
    first, second = (model.embedding(dataclasses.replace(tokens, **{column: np.array([x], np.int32)}))
                     for x in (one, other))
    assert not np.array_equal(first, second)


def test_levels_pass_a_layer_norm_with_its_epsilon() -> None:
    model, tokens = random_params(SPEC), tokens_of_one()
    of = model.weights()
    levels, scale, shift = of["embedding.levels"] * 1e-4, of["embedding.levels_scale"], of["embedding.levels_shift"]
    quiet = jax.tree.map(lambda x: 0 * x, model).replace({
        "embedding.levels": levels, "embedding.levels_scale": scale, "embedding.levels_shift": shift})
    x = tokens.levels @ levels.astype(float)
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(quiet.embedding(tokens), x * scale + shift, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Token)])
def test_every_column_moves_the_embedding_the_ratios_and_signals_only_where_the_spec_has_them(field: str) -> None:
    rng = np.random.default_rng(0)
    tokens, other = (random_tokens(rng, (1,), BINS) for _ in range(2))
    if np.array_equal(getattr(tokens, field), getattr(other, field)):
        same = getattr(other, field)
        other = dataclasses.replace(other, **{field: np.where(same > 0, same - 1, same + 1)})
    changed = dataclasses.replace(tokens, **{field: getattr(other, field)})
    for more in (False, True):
        bins = dataclasses.replace(SPEC.tokens, signals=more)
        spec = dataclasses.replace(SPEC, ratio_embeddings=more, tokens=bins)
        model = random_params(spec)
        moves = not np.array_equal(model.embedding(tokens), model.embedding(changed))
        assert moves == (more or field not in ("volume_ratio", "trade_ratio", "signals"))


def test_parameters_count_as_the_published_models() -> None:
    def count(spec: ModelSpec) -> int:
        return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(jax.eval_shape(
            lambda: llama.init(spec, jax.random.key(0)))))

    # Of the 2,524,272 numbers of the reference's class, embed_tokens and linear_head are stored but unused.
    unused = 2 * 49152 * 16 + 49152 + 2 * 16
    assert count(ModelSpec()) == 2_524_272 - unused
    assert count(ModelSpec(ratio_embeddings=True)) == 2_524_624 - unused


def test_a_norm_divides_by_the_root_mean_square_with_its_epsilon() -> None:
    x = np.array([[3e-3, -1e-3, 2e-3, 1e-3], [30, 10, -20, 5]], np.float32)
    weight = np.array([1, 2, -1, 0.5], np.float32)
    expected = x / np.sqrt((x.astype(float) ** 2).mean(axis=-1, keepdims=True) + 1e-6) * weight
    np.testing.assert_allclose(layers.RmsNorm(weight)(jnp.asarray(x)), expected, rtol=1e-5)
    half = layers.RmsNorm(weight)(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), expected, rtol=1e-2)


@pytest.mark.parametrize("upto", [0, 1, 2, None])
def test_encoding_up_to_a_layer_is_the_beginning_of_the_whole(upto: int | None) -> None:
    model, tokens = random_params(SPEC), random_tokens(np.random.default_rng(0), (3, 5), BINS)
    _, every = model.encode(tokens)
    x, cached = model.encode(tokens, upto=upto)
    count = SPEC.layers if upto is None else upto
    assert cached.shape == (count, 2, 3, 5, 2, 8) and x.shape == (3, 5, 16)
    np.testing.assert_allclose(cached, every[:count], rtol=1e-5, atol=1e-6)
    if count < SPEC.layers:  # the next layer makes its keys and values of what is handed back
        layer = layers.layer_of(model.layers, count)
        np.testing.assert_allclose(layer.project(x)[2], every[count, 1], rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_allclose(model.norm(x), model.hidden(tokens), rtol=1e-5, atol=1e-6)
    apart = model.with_layers_apart().encode(tokens, upto=upto)
    np.testing.assert_allclose(apart[0], x, rtol=1e-5, atol=1e-6)
    assert len(apart[1]) == count
    for one, other in zip(apart[1], cached, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_rotary_angles_are_exact_to_float32() -> None:
    cos, sin = layers.rotary_table(2048, 16)
    angle = np.arange(2048, dtype=np.longdouble)[:, None] * np.longdouble(1e4) ** (-np.arange(8) / np.longdouble(8))
    np.testing.assert_allclose(cos, np.cos(angle).astype(float), rtol=0, atol=6e-8)
    np.testing.assert_allclose(sin, np.sin(angle).astype(float), rtol=0, atol=6e-8)


def test_rotation_depends_on_the_distance_alone() -> None:
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 16)).astype(np.float32)
    cos, sin = layers.rotary_table(2048, 16)

    def product(i: int, j: int) -> float:
        return float(layers.rotate(q, cos[i], sin[i]) @ layers.rotate(k, cos[j], sin[j]))

    np.testing.assert_allclose([product(1024 + i, i) for i in range(0, 1024, 50)], product(1024, 0), rtol=0, atol=2e-5)


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtypes_of_storage_and_of_computing(stored: str, dtype: str) -> None:
    def states(model: OrderModel) -> tuple[jax.Array, jax.Array]:
        hidden = model.hidden(tokens_of_one())
        return hidden, model.head(hidden)

    model = jax.jit(llama.init, static_argnums=(0, 2, 3))(SPEC, jax.random.key(0), stored, ComputeSpec(dtype))
    assert {x.dtype.name for x in jax.tree.leaves(model)} == {stored}
    hidden, logits = jax.jit(states)(model)
    assert hidden.dtype == dtype and logits.dtype == jnp.float32
    assert np.all(np.isfinite(logits)) and float(jnp.std(logits)) > 0.01


def test_64_bit_mode_changes_nothing() -> None:
    model, tokens = random_params(SPEC), tokens_of_one()
    plain = jax.jit(lambda model, x: model.logits(x))(model, tokens)
    with jax.enable_x64(True):
        wide = jax.jit(lambda model, x: model.logits(x))(model, tokens)
    assert wide.dtype == jnp.float32
    np.testing.assert_allclose(wide, plain, rtol=1e-4, atol=1e-5)


def test_too_many_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="at most context_length=64 tokens, got 65"):
        random_params(SPEC).hidden(tokens_of_one(65))


@pytest.mark.parametrize(("field", "value"), [("dtype", "float16"), ("dtype", None), ("precision", "high")])
def test_bad_compute_specs_name_the_field_and_the_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"ComputeSpec\.{field}: expected .* got {value!r}"):
        ComputeSpec(**{field: value})


def test_the_model_is_a_flax_module_and_a_pytree() -> None:
    model, tokens = random_params(SPEC), tokens_of_one()
    graph, state = nnx.split(model)
    plain = jax.jit(lambda model, x: model(x))(model, tokens)
    np.testing.assert_array_equal(jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, tokens), plain)
    np.testing.assert_array_equal(nnx.jit(lambda model, x: model(x))(model, tokens), plain)
    slopes = jax.jit(jax.grad(lambda model: jnp.sum(model(tokens) ** 2)))(model)
    assert isinstance(slopes, OrderModel) and jax.tree.structure(slopes) == jax.tree.structure(model)
    assert all(np.any(np.asarray(x) != 0) for x in jax.tree.leaves(slopes))


def test_one_compiled_function_serves_all_models_of_a_spec() -> None:
    traces = []

    @jax.jit
    def logits(model: OrderModel, tokens: Token) -> jax.Array:
        traces.append(1)
        return model.logits(tokens)

    first, tokens = random_params(SPEC), tokens_of_one()
    for model in (first, random_params(SPEC, seed=1), first.replace({"norm": 2 * first.norm.weight[...]})):
        logits(model, tokens)
    assert len(traces) == 1
    logits(first.replace(compute=ComputeSpec("bfloat16")), tokens)
    assert len(traces) == 2


def test_weights_have_the_names_and_shapes_of_the_spec() -> None:
    for spec in (SPEC, dataclasses.replace(SPEC, ratio_embeddings=True)):
        model = random_params(spec)
        weights = model.weights()
        assert {name: x.shape for name, x in weights.items()} == llama.shapes(spec)
        assert sum(x.size for x in weights.values()) == sum(x.size for x in jax.tree.leaves(model))
        again = OrderModel(spec, weights)
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, again, model)))
    changed = random_params(SPEC).replace({"layers.down": np.zeros(llama.shapes(SPEC)["layers.down"], np.float32)})
    assert not changed.layers.down[...].any() and changed.layers.out[...].any()
    with pytest.raises(ValueError, match=r"no weight is called 'layers\.up'; expected one of embedding\.kind,"):
        random_params(SPEC).replace({"layers.up": np.zeros(3)})
