"""An order-batch model beside an order model on disk: written, read, and what is refused."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from marsjax import load_order_model, testing
from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.checkpoint import order_batch
from marsjax.core.errors import InputError
from marsjax.core.order_images import OrderBatchSpec
from marsjax.model.order_batch import batch_model, readout, tokenizer
from marsjax.model.order_batch.proposals import OrderBatches
from marsjax.model.order_batch.readout import READ, Readout
from marsjax.model.order_batch.specs import BatchModelSpec, TokenizerSpec

IMAGES = OrderBatchSpec(price_slots=8, volume_edges=(100, 300, 500))


def small() -> OrderBatches:
    book = TokenizerSpec(IMAGES, codes=16, code_dim=4, width=8, blocks=1)
    model = BatchModelSpec(batches=3, places=book.places, codes=16, width=8, heads=2)
    weight = np.random.default_rng(0).normal(size=(readout.input_count(IMAGES), len(READ))).astype(np.float32)
    return OrderBatches(tokenizer.init(book, jax.random.key(0)), batch_model.init(model, jax.random.key(1)),
                        Readout(weight, np.ones(len(READ), np.float32)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = testing.tiny_model()
    checkpoint_folder.save(tmp_path / "mine", model.model, model.converters, model.about)
    order_batch.save(tmp_path / "mine", small(), {"source": "a test"})
    return tmp_path / "mine"


def test_what_is_read_is_what_was_written_and_the_order_model_is_as_it_was(folder: Path) -> None:
    found, about = order_batch.load(folder)
    assert about == {"source": "a test"}
    assert (found.tokenizer.spec, found.model.spec) == (small().tokenizer.spec, small().model.spec)
    assert jax.tree.structure(found) == jax.tree.structure(small())
    for got, expected in zip(jax.tree.leaves(found), jax.tree.leaves(small()), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert load_order_model(folder).spec == testing.tiny_model().spec


def test_the_default_order_model_has_one_that_fits_its_context_of_minutes() -> None:
    found, about = order_batch.load()
    assert about["batches"]["model"] < about["batches"]["by_place"] < about["batches"]["even"]
    images = np.zeros((1, found.model.spec.batches, *found.tokenizer.spec.images.shape), np.uint8)
    quiet = found.readout(found.tokenizer.decode(found.tokenizer.encode(images)))[0, 0]
    assert quiet[READ.index("orders")] < 60  # of a minute without orders, by the nearest codes


def test_a_checkpoint_without_one_says_how_to_make_it(tmp_path: Path) -> None:
    model = testing.tiny_model()
    checkpoint_folder.save(tmp_path / "plain", model.model, model.converters, model.about)
    with pytest.raises(FileNotFoundError, match="no order-batch model; train one"):
        order_batch.load(tmp_path / "plain")
    with pytest.raises(FileNotFoundError, match="no checkpoint of marsjax to put"):
        order_batch.save(tmp_path / "nothing", small(), {})


def test_a_flipped_bit_is_found(folder: Path) -> None:
    path = folder / "control" / order_batch.FILES.weights
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"order_batch.safetensors: cut off or changed"):
        order_batch.load(folder)


def changed(folder: Path, change: object) -> None:
    """Changes the record or the weights on purpose, with the hashes of what is there then."""
    path = folder / "control" / order_batch.FILES.spec
    record = json.loads(path.read_text())
    weights = safetensors.numpy.load_file(folder / "control" / order_batch.FILES.weights)
    change(record, weights)  # type: ignore[operator]
    path.write_text(json.dumps(record))
    safetensors.numpy.save_file(weights, folder / "control" / order_batch.FILES.weights)
    checkpoint_folder.seal(folder)


@pytest.mark.parametrize(("change", "match"), [
    (lambda record, weights: record.update(format="other"), "format: expected 'marsjax order batches 1', got 'other'"),
    (lambda record, weights: record["model"].pop("heads"), "order_batch.json: model: expected the keys"),
    (lambda record, weights: record.pop("tokenizer"), "order_batch.json: tokenizer: expected the keys"),
    (lambda record, weights: record["model"].update(layers=0), "BatchModelSpec.layers: expected at least 1"),
    (lambda record, weights: record["tokenizer"]["images"].update(volume_edges=7), "volume_edges: expected a list"),
    (lambda record, weights: record["tokenizer"]["images"].update(volume_edges=["x", 2]), "expected a whole number"),
    (lambda record, weights: record["model"].update(width=16), "model.code'?: .*asks for"),
    (lambda record, weights: record.update(about=[]), "about: expected an object"),
    (lambda record, weights: weights.pop("model.head"), "model.head"),
    (lambda record, weights: weights.update(other=np.zeros(1, np.float32)), "'other'"),
    (lambda record, weights: weights.update({"model.norm": np.full(8, np.nan, np.float32)}), "norm: expected fin"),
    (lambda record, weights: weights.update({"model.norm": np.ones(8)}), "float64"),
])
def test_what_does_not_fit_is_named(folder: Path, change: object, match: str) -> None:
    changed(folder, change)
    with pytest.raises(InputError, match=match):
        order_batch.load(folder)


def test_a_file_that_is_no_safetensors_is_named(folder: Path) -> None:
    (folder / "control" / order_batch.FILES.weights).write_bytes(b"\x80\x04K\x01." + b"\0" * 40)
    checkpoint_folder.seal(folder)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        order_batch.load(folder)
