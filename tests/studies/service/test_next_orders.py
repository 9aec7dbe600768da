"""Next orders: the law of the model on whole windows, draws that only their keys decide, and no compilation later."""

import jax
import numpy as np
import pytest
from scipy import stats

from marsjax import testing
from marsjax.checkpoint.load import LoadedModel
from marsjax.core.errors import InputError
from marsjax.core.specs import ModelSpec
from marsjax.model import llama, sampling
from marsjax.model.llama import OrderModel
from marsjax.studies.order_model import DecodingSpec, PreparedModel, prepare
from marsjax.studies.service.next_orders import Draw, NextOrders, NextOrdersSpec, words_of
from marsjax.tokens import encoding

TINY = testing.tiny_model()


def model_of(layers: int) -> PreparedModel:
    spec = ModelSpec(embed_dim=4, layers=layers, heads=1, context_length=32, tokens=TINY.spec.tokens)
    # Larger weights than fresh ones: the law then depends on the window.
    model = jax.tree.map(lambda x: 8 * x, llama.init(spec, jax.random.key(1)))
    return prepare(LoadedModel(model, TINY.converters, {}), DecodingSpec(refresh_every=8, margin=8))


def windows_of(count: int, length: int = 32, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    found = np.zeros((count, length, 15), np.int64)
    found[..., 0], found[..., 3] = random.integers(0, 384, found.shape[:2]), random.integers(-99, 99, found.shape[:2])
    found[..., 4] = np.cumsum(random.integers(0, 3, found.shape[:2]), axis=1)
    found[..., 5:] = random.integers(0, 5, found[..., 5:].shape)
    return found


@pytest.fixture(scope="module")
def tiny() -> NextOrders:
    return NextOrders(model_of(1), NextOrdersSpec((1, 4), temperature=0.8))


@jax.jit
def logits_of(model: OrderModel, windows: np.ndarray) -> jax.Array:
    """After whole windows, without a cache."""
    return model.logits(encoding.from_array(model.spec.tokens, windows))


def test_tokens_are_those_that_the_model_draws_from_its_logits_after_the_whole_window(tiny: NextOrders) -> None:
    deep = NextOrders(model_of(2), NextOrdersSpec((4,), temperature=0.8))
    for layers, service in ((1, tiny), (2, deep)):
        model = model_of(layers).model.model
        for length in (32, 5):
            windows = service.checked(windows_of(3, length))
            words = words_of(np.full(3, 9, np.uint32), np.arange(3, dtype=np.uint32) + 7)
            got = service.tokens([Draw(window, 9, 7 + i) for i, window in enumerate(windows)])
            np.testing.assert_array_equal(got, sampling.sample(logits_of(model, windows), words, 0.8))


def test_a_token_depends_on_its_window_and_its_key_alone(tiny: NextOrders) -> None:
    draws = [Draw(window, 3, number) for number, window in enumerate(tiny.checked(windows_of(9)))]
    together = tiny.tokens(draws)
    assert together.dtype == np.int32 and len(set(together.tolist())) > 3
    np.testing.assert_array_equal(np.concatenate([tiny.tokens([draw]) for draw in draws]), together)
    np.testing.assert_array_equal(tiny.tokens(draws[::-1]), together[::-1])
    assert tiny.tokens([]).shape == (0,)
    others = [draw._replace(seed=4) for draw in draws], [draw._replace(number=draw.number + 9) for draw in draws]
    assert all((tiny.tokens(other) != together).sum() > 3 for other in others)


def test_each_size_is_traced_once_before_the_first_request(tiny: NextOrders) -> None:
    window = tiny.checked(windows_of(1))[0]
    for count in (1, 2, 3, 4, 5, 11):
        assert len(tiny.tokens([Draw(window[-1 - count :], 0, i) for i in range(count)])) == count
    assert tiny.traces == 2


def test_draws_have_the_law_of_the_logits(tiny: NextOrders) -> None:
    (window,) = tiny.checked(windows_of(1))
    logits = logits_of(model_of(1).model.model, window[None])[0] / 0.8
    chances, count = np.asarray(jax.nn.softmax(logits), np.float64), 8_000
    found = np.bincount(tiny.tokens([Draw(window, 5, number) for number in range(count)]), minlength=384)
    expected = count * chances / chances.sum()
    is_rare = expected < 5
    pooled = [np.append(x[~is_rare], x[is_rare].sum()) for x in (found, expected)]
    assert len(pooled[0]) > 30 and stats.chisquare(*pooled).pvalue > 1e-3
    assert stats.chisquare(np.roll(pooled[0], 1), pooled[1]).pvalue < 1e-9


@pytest.mark.parametrize(("given", "part"), [
    (np.zeros((1, 33, 15), np.int64), "at most context_length=32"),
    (np.zeros((1, 32, 14), np.int64), "expected integers"),
    (np.zeros((1, 32, 15)), "float64"),
    (np.zeros((0, 32, 15), np.int64), "features"),
    (np.full((1, 2, 15), 2**40), "features[0, 0, 0]: expected 0 to 383"),
    (np.full((1, 2, 15), -1), "expected 0 to 383, got -1"),
    (np.zeros((1, 2, 15), object), "object"),
])
def test_windows_that_do_not_fit_are_named(tiny: NextOrders, given: np.ndarray, part: str) -> None:
    with pytest.raises(InputError) as error:
        tiny.checked(given)
    assert part in str(error.value)


def test_a_flat_window_is_one_and_changes_are_clipped_as_the_reference_clips_them(tiny: NextOrders) -> None:
    windows = windows_of(2)
    windows[..., 3] = 5000
    checked = tiny.checked(windows.reshape(2, -1))
    assert checked.shape == (2, 32, 15) and checked.dtype == np.int32 and (checked[..., 3] == 2000).all()


@pytest.mark.parametrize("sizes", [(), (4, 1), (1, 1), (0, 1), (1.5,), (True,), (2**30,)])
def test_sizes_of_batches_rise(sizes: tuple) -> None:
    with pytest.raises(InputError, match="batch_sizes"):
        NextOrdersSpec(sizes)
