"""How an order model is decoded: errors in the words of the one who asks, and what is said of the model."""

import dataclasses

import jax
import pytest

from marsjax import testing
from marsjax.checkpoint.load import LoadedModel
from marsjax.core.errors import InputError
from marsjax.model import llama
from marsjax.studies import order_model
from marsjax.studies.order_model import DecodingSpec

pytestmark = pytest.mark.quick


def model(mixer: str = "attention", layers: int = 1) -> LoadedModel:
    """Small, with bins."""
    tiny = testing.tiny_model()
    spec = dataclasses.replace(tiny.spec, mixer=mixer, layers=layers)
    return LoadedModel(llama.init(spec, jax.random.key(0)), tiny.converters, {})


@pytest.mark.parametrize(("given", "decoding", "expected"), [
    (model(), {"context": "recurrent"}, "^DecodingSpec.context: expected rolling or refresh or recompute of a model"),
    (model("linear"), {"context": "rolling"}, "^DecodingSpec.context: expected recurrent or recompute of a model with"),
    (model(layers=2), {"context": "rolling"}, "^DecodingSpec.context: rolling is exact for models of one layer only"),
    (model(), {"context": "ring"}, "^DecodingSpec.context: expected rolling, refresh, recompute or recurrent, got 'ri"),
    (model(), {"context": "refresh"}, "^its window of .* orders does not fit context, refresh_every and margin: "),
    (model(), {"context": "refresh", "refresh_every": 0}, "^DecodingSpec.refresh_every: expected 1 to .*, got 0"),
    (model("linear"), {"cache_dtype": "int8"}, "^DecodingSpec.cache_dtype: expected model where mode is recurrent")])
def test_what_does_not_fit_is_named_as_it_was_given(given: LoadedModel, decoding: dict[str, object], expected: str
                                                    ) -> None:
    with pytest.raises(InputError, match=expected):
        order_model.prepare(given, DecodingSpec(**decoding))


@pytest.mark.parametrize("context", ["recompute", "recurrent"])
def test_8_bits_are_refused_where_no_keys_are_kept(context: str) -> None:
    with pytest.raises(InputError, match=r"DecodingSpec\.cache_dtype: expected model or int8, and model with context="):
        DecodingSpec(context, cache_dtype="int8")


@pytest.mark.parametrize(("mixer", "expected"), [
    ("attention", "parameters, reads {} orders;"), ("linear", "linear attention, trained on windows of {} orders;")])
def test_the_line_about_a_model_says_how_it_reads_orders(mixer: str, expected: str) -> None:
    given = model(mixer)
    line = order_model.headline(order_model.prepare(given), "mine")
    assert expected.format(given.spec.context_length) in line
