"""The kernels of head and draw, interpreted: logits to float32 rounding, the law by counting, the plain draws."""

import dataclasses
import functools
import importlib
import logging
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core import kernels
from marsjax.core.specs import CacheSpec, ComputeSpec, ModelSpec, TokenSpec
from marsjax.model import head_kernel, kv_cache, layers, llama, sampling

BFLOAT16, DEFAULT = ComputeSpec("bfloat16"), ComputeSpec(precision="default")
SIZES = 70, 16, 300
"""Rows, width and classes of what is drawn: one program for many tests."""


def given(rows: int, width: int, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    key = jax.random.split(jax.random.key(rows + count), 3)
    return (jax.random.normal(key[0], (rows, width)), jax.random.normal(key[1], (width, count)) * 3 / width**0.5,
            jax.random.bits(key[2], (rows, 2), jnp.uint32))


@functools.partial(jax.jit, static_argnums=(3, 4))
def sampled(hidden: jax.Array, head: jax.Array, words: jax.Array, temperature: float, compute: ComputeSpec
            ) -> tuple[jax.Array, jax.Array]:
    return head_kernel.sample(hidden, head_kernel.prepared(head, compute), words, temperature, compute, interpret=True)


@pytest.mark.parametrize(("rows", "width", "count", "compute"), [
    (70, 48, 300, layers.FLOAT32),  # no power of two
    (20, 160, 300, layers.FLOAT32),  # in parts
    (33, 32, 1000, BFLOAT16),
])
def test_highest_logits_and_masses_of_blocks_are_those_of_float64(rows: int, width: int, count: int,
                                                                  compute: ComputeSpec) -> None:
    hidden, head, _ = given(rows, width, count)
    stored = [np.asarray(x.astype(compute.dtype), np.float64) for x in (hidden, head)]
    logits = np.pad(stored[0] @ stored[1] / 0.7, ((0, 0), (0, -count % 128)), constant_values=-np.inf)
    blocks = logits.reshape(rows, -1, 128)
    tiles = head_kernel.Tiles(32, least_programs=1)  # several blocks a program, and the last one has fewer
    highest, mass = head_kernel.block_masses(hidden, head_kernel.prepared(head, compute), 0.7,
                                             head_kernel.products_of(compute), tiles, interpret=True)
    np.testing.assert_allclose(highest.T, blocks.max(-1), rtol=1e-6, atol=3e-6)
    np.testing.assert_allclose(np.log(mass.T) + highest.T, np.log(np.exp(blocks).sum(-1)), rtol=1e-6, atol=3e-6)


def test_float32_keeps_more_bits_than_a_product_of_bfloat16() -> None:
    """Were the parts of the split lost on the way, the logits would be those of bfloat16."""
    hidden, head, _ = given(40, 32, 128)
    exact = np.asarray(hidden, np.float64) @ np.asarray(head, np.float64)
    far = {}
    for compute in (layers.FLOAT32, DEFAULT, BFLOAT16):
        highest, _ = jax.jit(lambda h, w, c=compute: head_kernel.block_masses(
            h, head_kernel.prepared(w, c), 1.0, head_kernel.products_of(c), interpret=True))(hidden, head)
        far[compute] = np.abs(highest.T - exact.reshape(40, -1, 128).max(-1)).max()
    assert far[layers.FLOAT32] < 3e-6
    assert 10 * far[layers.FLOAT32] < far[DEFAULT] < far[BFLOAT16] / 20


@pytest.mark.slow
@pytest.mark.parametrize("count", [640, 1001])
def test_law_is_that_of_float64_by_counting(count: int) -> None:
    """How many words of each of the two draws lead to each class, from the integers that the kernels draw with."""
    hidden, head, _ = given(6, 32, count)
    exact = np.exp(np.asarray(hidden, np.float64) @ np.asarray(head, np.float64))
    exact /= exact.sum(-1, keepdims=True)
    weights = head_kernel.prepared(head, layers.FLOAT32)
    highest, mass = head_kernel.block_masses(hidden, weights, 1.0, head_kernel.products_of(layers.FLOAT32),
                                             interpret=True)
    outer = shares(lambda word: head_kernel.draw_blocks(highest, mass, word, interpret=True)[0], 6)
    law = np.zeros((6, len(mass) * 128))
    for block in range(len(mass)):
        inner = shares(lambda word, b=block: head_kernel.draw_classes(
            hidden, weights, jnp.full(6, b, jnp.int32), word, 1.0, interpret=True), 6, block * 128)
        law[:, block * 128 : (block + 1) * 128] = outer[:, block, None] * inner[:, :128]
    assert not law[:, count:].any()
    assert (0.5 * np.abs(law[:, :count] - exact).sum(-1)).max() < 1e-5


def shares(draw, rows: int, first: int = 0) -> np.ndarray:
    """Share of the words that draw each number from `first` on, [rows, 128]; draws rise with the word."""
    draw, wanted = jax.jit(jax.vmap(draw)), np.arange(first, first + 128)
    low = np.zeros((128, rows), np.int64)
    for bit in range(31, -1, -1):  # the number of words below the first that draws more than is wanted
        word = low + 2**bit
        below = np.asarray(draw(jnp.asarray(word - 1, jnp.uint32))) <= wanted[:, None]
        low = np.where(below, word, low)
    last = np.asarray(draw(jnp.full((1, rows), 2**32 - 1, jnp.uint32)))[0]
    ends = np.where(wanted[:, None] >= last, 2**32, low) / 2**32
    return np.diff(ends, axis=0, prepend=0.0).T


@pytest.mark.parametrize("compute", [layers.FLOAT32, BFLOAT16])
def test_classes_are_those_that_the_plain_way_draws(compute: ComputeSpec) -> None:
    hidden, head, words = given(*SIZES)
    drawn, law = sampled(hidden, head, words, 0.5, compute)
    expected = sampling.sample(layers.dense(hidden, head, compute, jnp.float32), words, 0.5)
    assert law.all()
    assert (drawn == expected).mean() > 0.98


def test_equal_logits_give_equal_draws() -> None:
    """Logits that both ways have exactly: whole numbers, and -inf beyond the last class."""
    rows, width, count = SIZES
    head = jax.random.randint(jax.random.key(0), (width, count), -2, 3).astype(jnp.float32)
    hidden = jax.random.randint(jax.random.key(1), (rows, width), -1, 2).astype(jnp.float32)
    words = jax.random.bits(jax.random.key(2), (rows, 2), jnp.uint32)
    drawn, law = sampled(hidden, head, words, 0.5, layers.FLOAT32)
    np.testing.assert_array_equal(drawn, sampling.sample(hidden @ head, words, 0.5))
    assert law.all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("compute", [layers.FLOAT32, BFLOAT16])
def test_a_row_without_a_law_is_told_and_its_neighbours_are_drawn(value: float, compute: ComputeSpec) -> None:
    hidden, head, words = given(*SIZES)
    drawn, law = sampled(hidden.at[3, 5].set(value), head, words, 0.5, compute)
    np.testing.assert_array_equal(law, np.arange(len(hidden)) != 3)
    assert ((drawn >= 0) & (drawn < 384)).all()
    same, _ = sampled(hidden, head, words, 0.5, compute)
    np.testing.assert_array_equal(np.delete(drawn, 3), np.delete(same, 3))
    _, law = sampled(hidden, head.at[5, 170].set(value), words, 0.5, layers.FLOAT32)
    assert not law.any()


def test_the_step_takes_the_kernel_where_the_ways_say_so() -> None:
    spec = ModelSpec(embed_dim=16, heads=2, context_length=16, tokens=TokenSpec(8, 8, 4))
    model, hidden = jax.jit(lambda: llama.init(spec, jax.random.key(0)))(), np.ones((50, 16), np.float32)
    words = jax.random.bits(jax.random.key(2), (50, 2), jnp.uint32)
    plain, by_kernel = (CacheSpec(mode="rolling", kernels=dataclasses.replace(kernels.ACCELERATOR, head=head))
                        for head in ("xla", "interpreted"))
    weights = kv_cache.prepared(model, by_kernel)
    assert weights is not None and kv_cache.prepared(model, plain) is None
    (expected, law), (drawn, same) = (jax.jit(lambda h, c=c, w=w: kv_cache.sample(model, c, h, words, 1.0, w))(hidden)
                                      for c, w in ((plain, None), (by_kernel, weights)))
    assert law.all() and same.all()
    assert (expected == drawn).mean() > 0.95
    # Without what is made before the steps the step makes it.
    programs = [str(jax.make_jaxpr(lambda h, c=c, w=w: kv_cache.sample(model, c, h, words, 1.0, w))(hidden))
                for c, w in ((plain, None), (by_kernel, weights), (by_kernel, None))]
    assert ["pallas_call" in program for program in programs] == [False, True, True]
    splits = [program.count("reduce_precision") for program in programs]
    assert splits[0] == 0 < splits[1] < splits[2]


@pytest.mark.parametrize(("capability", "expected"), [("9.0", True), ("12.0", True), ("7.5", False),
                                                      ("gfx942", False), (None, False)])
def test_a_gpu_takes_the_kernel_where_it_can(capability: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch,
                                             caplog: pytest.LogCaptureFixture) -> None:
    device = types.SimpleNamespace(device_kind="A GPU", compute_capability=capability)
    monkeypatch.setattr(jax, "devices", lambda platform: [device])
    monkeypatch.setattr(kernels, "_try_triton", lambda: None)
    monkeypatch.setattr(kernels, "has_cudnn", lambda: False)
    monkeypatch.setattr(kernels, "has_graphs", lambda: False)
    kernels.has_triton.cache_clear()
    with caplog.at_level(logging.WARNING):
        found = [kernels.for_platform("gpu") for _ in range(3)]
    kernels.has_triton.cache_clear()
    assert found == [kernels.GPU if expected else kernels.ACCELERATOR] * 3
    assert len([line for line in caplog.messages if "A GPU" in line]) == (not expected)  # once


@pytest.mark.parametrize("there", [True, False])
def test_a_gpu_with_cudnn_encodes_contexts_by_it(there: bool, monkeypatch: pytest.MonkeyPatch,
                                                 caplog: pytest.LogCaptureFixture) -> None:
    def attention(query: jax.Array, *_: jax.Array, is_causal: bool, implementation: str) -> jax.Array:
        assert (is_causal, implementation) == (True, "cudnn")
        if there:
            return query
        raise RuntimeError("cuDNN is not detected.")

    monkeypatch.setattr(kernels, "has_triton", lambda: True)
    monkeypatch.setattr(kernels, "has_graphs", lambda: False)
    monkeypatch.setattr(jax.nn, "dot_product_attention", attention)
    kernels.has_cudnn.cache_clear()
    found = [kernels.for_platform("gpu") for _ in range(2)]
    kernels.has_cudnn.cache_clear()
    assert found == [dataclasses.replace(kernels.GPU, encode="cudnn" if there else "xla")] * 2
    assert len([line for line in caplog.messages if "cuDNN is not detected" in line]) == (not there)  # once


@pytest.mark.parametrize(("option", "expected"), [("xla_gpu_graph_min_graph_size", "graph"),
                                                  ("xla_unheard_of", "host")])
def test_a_gpu_with_graphs_runs_loops_from_them(option: str, expected: str, monkeypatch: pytest.MonkeyPatch,
                                                caplog: pytest.LogCaptureFixture) -> None:
    """A CPU takes a GPU's options, and refuses those that no compiler knows."""
    monkeypatch.setattr(kernels, "has_triton", lambda: True)
    monkeypatch.setattr(kernels, "has_cudnn", lambda: False)
    monkeypatch.setattr(kernels, "compiler_options", lambda ways: {option: "1"})
    kernels.has_graphs.cache_clear()
    found = [kernels.for_platform("gpu") for _ in range(2)]
    kernels.has_graphs.cache_clear()
    assert found == [dataclasses.replace(kernels.GPU, loops=expected)] * 2
    assert len([line for line in caplog.messages if "CUDA graphs" in line]) == (expected == "host")  # once


@pytest.mark.parametrize("lost", ["jax.experimental.pallas.triton", "CompilerParams", "load", "next_power_of_2"])
def test_a_jax_without_triton_takes_the_plain_way(lost: str, monkeypatch: pytest.MonkeyPatch,
                                                  caplog: pytest.LogCaptureFixture) -> None:
    """Without the module, or with one that has lost a name."""
    def imported(name: str) -> types.SimpleNamespace:
        if name == lost:
            raise ImportError(f"no module {name}")
        return types.SimpleNamespace(**{key: value for key, value in vars(find(name)).items() if key != lost})

    find, device = importlib.import_module, types.SimpleNamespace(device_kind="A GPU", compute_capability="9.0")
    monkeypatch.setattr(jax, "devices", lambda *_: [device])
    monkeypatch.setattr(importlib, "import_module", imported)
    kernels.has_triton.cache_clear()
    found = [kernels.for_platform("gpu") for _ in range(2)]
    kernels.has_triton.cache_clear()
    monkeypatch.undo()
    assert found == [kernels.ACCELERATOR] * 2
    (line,) = [line for line in caplog.messages if "by XLA" in line]
    assert lost in line


def test_the_trial_of_triton_is_lowered() -> None:
    try:
        kernels._try_triton()
    except NotImplementedError:  # a RuntimeError too: something in them cannot be lowered
        raise
    except RuntimeError as error:
        pytest.skip(f"this JAX lowers it where a GPU is: {error}")
