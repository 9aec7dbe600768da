"""Laws of sampling: the integer law is that of float64 to 1e-5, impossible classes are never drawn, words decide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.model import sampling

COUNT = 49_152
LAWS = {
    "flat": lambda rng: np.zeros(COUNT),
    "normal": lambda rng: rng.normal(size=COUNT) * 2,
    "peaked": lambda rng: np.concatenate([[20.0], rng.normal(size=COUNT - 1)]),
    "steep": lambda rng: rng.normal(size=COUNT) * 30,
    "half_impossible": lambda rng: np.where(rng.random(COUNT) < 0.5, -np.inf, rng.normal(size=COUNT)),
    "one_block": lambda rng: np.where(np.arange(COUNT) // 128 == 7, rng.normal(size=COUNT), -np.inf),
    "odd_size": lambda rng: rng.normal(size=1001),
}


def drawn_law(logits: np.ndarray) -> np.ndarray:
    """The exact probabilities of `sample`, by counting: how many words of each draw lead to each class."""
    recorded: list[np.ndarray] = []
    original = sampling._draw

    def recording(weights: jax.Array, word: jax.Array) -> jax.Array:
        recorded.append(np.asarray(weights, np.int64))
        return original(weights, word)

    def draw(word: int) -> tuple[np.ndarray, np.ndarray]:
        recorded.clear()
        sampling.sample(jnp.asarray(logits, jnp.float32), jnp.asarray([word, 0], jnp.uint32))
        return recorded[0], recorded[1]

    sampling._draw = recording
    try:
        outer, _ = draw(0)
        before, law = np.cumsum(outer) - outer, np.zeros(len(outer) * sampling.BLOCK)
        for block in np.flatnonzero(outer):
            _, inner = draw(int((before[block] + outer[block] / 2) / outer.sum() * 2**32))
            at = slice(block * sampling.BLOCK, (block + 1) * sampling.BLOCK)
            law[at] = outer[block] / outer.sum() * inner / inner.sum()
    finally:
        sampling._draw = original
    return law[: len(logits)]


@pytest.mark.parametrize("name", LAWS)
def test_law_is_that_of_float64_and_impossible_classes_are_never_drawn(name: str) -> None:
    logits = LAWS[name](np.random.default_rng(0)).astype(np.float32)
    exact = np.exp(logits.astype(np.float64) - logits.max())
    exact /= exact.sum()
    law = drawn_law(logits)
    assert abs(law.sum() - 1) < 1e-9
    assert 0.5 * np.abs(law - exact).sum() < 1e-5
    assert not law[np.isneginf(logits)].any()


def test_first_and_last_words_draw_possible_classes() -> None:
    logits = jnp.where(jnp.arange(300) % 7 == 3, 0.0, -jnp.inf)
    ends = jnp.asarray([[a, b] for a in (0, 2**32 - 1) for b in (0, 2**32 - 1)], jnp.uint32)
    drawn = sampling.sample(jnp.broadcast_to(logits, (4, 300)), ends)
    assert (drawn % 7 == 3).all()
    assert int(drawn[0]) == 3
    assert int(drawn[3]) == 297


@pytest.mark.slow
def test_frequencies_follow_the_law_and_the_temperature() -> None:
    logits = jnp.asarray([0.0, 1.0, -jnp.inf, 2.0] + [-jnp.inf] * 200 + [0.5])
    words = jax.random.bits(jax.random.key(1), (200_000, 2), jnp.uint32)
    for temperature in (0.5, 1.0, 3.0):
        drawn = sampling.sample(jnp.broadcast_to(logits, (200_000, 205)), words, temperature)
        share = np.bincount(drawn, minlength=205) / 200_000
        exact = np.asarray(jax.nn.softmax(logits / temperature))
        np.testing.assert_allclose(share, exact, atol=5 * np.sqrt(0.25 / 200_000))
        assert not share[exact == 0].any()


def test_draws_do_not_depend_on_the_batch() -> None:
    logits = jax.random.normal(jax.random.key(2), (64, 1000)) * 3
    words = jax.random.bits(jax.random.key(3), (64, 2), jnp.uint32)
    together = sampling.sample(logits, words)
    assert together.tolist() == [int(sampling.sample(x, w)) for x, w in zip(logits, words, strict=True)]


def project(hidden: jax.Array, columns: jax.Array) -> jax.Array:
    """Logits that are the rows of the head themselves, for hidden states of one number that is 1."""
    return jnp.matmul(hidden, columns, precision="highest")


@pytest.mark.parametrize("name", ["normal", "steep", "half_impossible", "odd_size"])
def test_a_head_draws_what_its_logits_draw(name: str) -> None:
    logits = jnp.asarray(LAWS[name](np.random.default_rng(0)), jnp.float32)
    hidden, words = jnp.ones((20, 1)), jax.random.bits(jax.random.key(5), (20, 2), jnp.uint32)
    # All blocks at once, and in parts that do not come out even.
    few = 20 * 3 * sampling.BLOCK
    for most, temperature in ((2**23, 1.0), (20 * 37 * sampling.BLOCK, 0.7), (few, 1.0), (1, 1.0)):
        if most > few or len(logits) < COUNT:
            drawn, law = jax.jit(lambda w, most=most, t=temperature: sampling.sample_head(
                hidden, logits[None], w, t, project, most))(words)
            expected = sampling.sample(jnp.broadcast_to(logits, (20, len(logits))), words, temperature)
            np.testing.assert_array_equal(drawn, expected)
            assert law.all()


def test_a_row_without_a_law_is_told_and_its_neighbours_are_drawn() -> None:
    rows = jax.random.normal(jax.random.key(6), (5, 300))
    words = jax.random.bits(jax.random.key(7), (5, 2), jnp.uint32)
    broken = rows.at[1, 5].set(jnp.nan).at[2, 290].set(jnp.inf).at[3].set(-jnp.inf).at[4, :290].set(-jnp.inf)
    expected = [True, False, False, False, True]
    assert sampling.has_law(broken).tolist() == expected

    def of_row(hidden: jax.Array, columns: jax.Array) -> jax.Array:
        return columns[0] if columns.ndim == 2 else columns[:, 0][:, None]

    draw = jax.jit(lambda head, w: sampling.sample_head(jnp.ones((1, 1)), head[None], w[None], 1.0, of_row))
    for row, has_law in enumerate(expected):
        drawn, law = draw(broken[row], words[row])
        assert law.tolist() == [has_law]
        assert 0 <= int(drawn[0]) < 3 * sampling.BLOCK  # in range, though it may mean nothing
        if has_law:
            assert int(drawn[0]) == int(sampling.sample(broken[row], words[row]))


def test_the_logits_of_a_head_never_lie_in_memory_together() -> None:
    rows, most = 256, 2**18
    shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in (
        ((rows, 4), jnp.float32), ((4, COUNT), jnp.float32), ((rows, 2), jnp.uint32))]
    draw = jax.jit(lambda h, w, words: sampling.sample_head(h, w, words, 1.0, project, most))
    compiled = draw.lower(*shapes).compile()
    used = compiled.memory_analysis()
    assert used and used.temp_size_in_bytes < rows * COUNT * 4 / 4
