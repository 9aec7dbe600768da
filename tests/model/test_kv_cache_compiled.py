"""What holds for the decode step as users' compiler makes it: nothing is copied, and chunks change no bit."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from marsjax.core import kernels
from marsjax.core.specs import CacheSpec
from marsjax.model import kv_cache
from tests.model.test_kv_cache import (
    BATCH,
    REFRESH,
    ROLLING,
    decoded,
    decoded_at_once,
    random_flow,
    random_params,
    spec_of,
    step_of,
)

pytestmark = pytest.mark.optimised


def test_steps_in_chunks_are_bitwise_the_steps_at_once() -> None:
    spec = spec_of(2)
    model, flow = random_params(spec), random_flow(60, BATCH, 2)
    _, at_once = decoded_at_once(model, REFRESH, kv_cache.empty(model, REFRESH, BATCH), flow)
    _, in_chunks = decoded(model, REFRESH, kv_cache.empty(model, REFRESH, BATCH), flow)
    np.testing.assert_array_equal(in_chunks, at_once)


@pytest.mark.parametrize(("layers", "cache"), [
    (1, ROLLING), (2, REFRESH), pytest.param(2, dataclasses.replace(REFRESH, prefix="shared"), marks=pytest.mark.slow)],
    ids=["rolling", "refresh", "shared prefix"])
@pytest.mark.parametrize("ways", [dataclasses.replace(kernels.CPU, rows=4), kernels.ACCELERATOR],
                         ids=["blocks", "whole batch"])
def test_the_cache_is_updated_in_place(layers: int, cache: CacheSpec, ways: kernels.Kernels) -> None:
    cache = dataclasses.replace(cache, kernels=ways)
    model = random_params(dataclasses.replace(spec_of(layers), embed_dim=64))
    state = jax.eval_shape(lambda: kv_cache.empty(model, cache, 256))
    common = None
    if cache.prefix == "shared":
        one = jax.eval_shape(lambda: kv_cache.empty(model, cache, 1))
        common = jax.eval_shape(lambda state: kv_cache.prefix_of(model, cache, state), one)
        state = dataclasses.replace(state, of_prefix=state.length)
    tokens = jax.tree.map(lambda x: x[0], random_flow(1, 256, 4))
    args = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (model, state, *tokens))
    compiled = step_of(cache).lower(*args, np.int32(0), common).compile()
    used = compiled.memory_analysis()
    size = layers * int(np.prod(state.keys[0].shape)) * 4
    assert used.alias_size_in_bytes >= 2 * size
    shape = re.escape(f"f32[{','.join(map(str, state.keys[0].shape))}]")
    assert not re.findall(rf"= {shape}\S* copy\(", compiled.as_text())
    assert used.temp_size_in_bytes < (1.0 if ways.rows else 4.0 / layers + 1) * size
