"""The files of an ensemble beside a checkpoint: what is written is read, and damage or other models are named."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from marsjax import testing
from marsjax.checkpoint import ensemble as ensemble_files
from marsjax.checkpoint import folder, load, order_batch
from marsjax.model import ensemble
from marsjax.model.ensemble import Ensemble, EnsembleSpec
from marsjax.model.order_batch import batch_model, readout, tokenizer
from marsjax.model.order_batch.proposals import OrderBatches
from marsjax.model.order_batch.readout import READ, Readout
from marsjax.model.order_batch.specs import BatchModelSpec, TokenizerSpec
from marsjax.model.order_batch.tokenizer import Tokenizer

BOOK = tokenizer.init(TokenizerSpec(codes=8), jax.random.key(0))
SPEC = EnsembleSpec.of(4, BOOK.spec, width=8, heads=2)


def batches(book: Tokenizer) -> OrderBatches:
    sizes = BatchModelSpec(batches=2, places=book.spec.places, codes=book.spec.codes, layers=1, width=8, heads=2)
    count = readout.input_count(book.spec.images)
    read = Readout(np.zeros((count, len(READ)), np.float32), np.zeros(len(READ), np.float32))
    return OrderBatches(book, batch_model.init(sizes, jax.random.key(1)), read)


@pytest.fixture(scope="module")
def of() -> dict[str, str]:
    return ensemble_files.trained_with(testing.tiny_model().model, BOOK)


@pytest.fixture
def place(tmp_path: Path, of: dict[str, str]) -> Path:
    model = testing.tiny_model()
    folder.save(tmp_path / "mine", model.model, model.converters, model.about)
    order_batch.save(tmp_path / "mine", batches(BOOK), {})
    ensemble_files.save(tmp_path / "mine", ensemble.init(SPEC, jax.random.key(0), BOOK), of, {"gain": 0.5})
    return tmp_path / "mine"


def test_what_is_written_is_read(place: Path, of: dict[str, str]) -> None:
    found, about = ensemble_files.load(place, of)
    expected = ensemble.init(SPEC, jax.random.key(0), BOOK).weights()
    assert found.spec == SPEC and about == {"gain": 0.5}
    assert list(found.weights()) == list(expected)
    for name, x in (found.weights() | found.tokenizer.weights()).items():
        np.testing.assert_array_equal(x, (expected | BOOK.weights())[name])
    folder.restore(place)


def test_other_models_are_told_apart(place: Path, of: dict[str, str]) -> None:
    other = ensemble_files.trained_with(testing.tiny_model(seed=1).model, BOOK)
    assert other["order_model"] != of["order_model"] and other["tokenizer"] == of["tokenizer"]
    with pytest.raises(ValueError, match=r"ensemble\.json: trained_with\.order_model: expected .* train the ensemble"):
        ensemble_files.load(place, other)
    order_batch.save(place, batches(tokenizer.init(BOOK.spec, jax.random.key(2))), {})
    with pytest.raises(ValueError, match=r"ensemble\.json: trained_with\.tokenizer: expected .* train the"):
        ensemble_files.load(place)


def test_it_is_of_its_order_model_in_any_dtype(place: Path, of: dict[str, str], tmp_path: Path) -> None:
    half = load.load_order_model(place, dtype="bfloat16").model
    assert np.asarray(half.weights()["norm"]).dtype == "bfloat16"
    assert ensemble_files.trained_with(half, BOOK, place) == of
    ensemble_files.load(place, ensemble_files.trained_with(half, BOOK, place))
    other = testing.tiny_model(seed=1)
    folder.save(tmp_path / "other", other.model, other.converters, other.about)
    wrong = load.load_order_model(tmp_path / "other", dtype="bfloat16").model
    assert ensemble_files.trained_with(wrong, BOOK, place)["order_model"] != of["order_model"]
    folder.save(tmp_path / "half", half, testing.tiny_model().converters, {})  # stored so, it is whole
    hashes = [ensemble_files.trained_with(load.load_order_model(tmp_path / "half", dtype=dtype).model, BOOK,
                                          tmp_path / "half") for dtype in ("bfloat16", "float32")]
    assert hashes[0] == hashes[1] != of


def test_a_checkpoint_without_one_says_how_to_make_it(tmp_path: Path) -> None:
    model = testing.tiny_model()
    folder.save(tmp_path / "bare", model.model, model.converters, model.about)
    with pytest.raises(FileNotFoundError, match=r"ensemble\.json is missing.* `marsjax train_control`"):
        ensemble_files.load(tmp_path / "bare")
    with pytest.raises(FileNotFoundError, match="no checkpoint of marsjax to put an ensemble into"):
        ensemble_files.save(tmp_path, ensemble.init(SPEC, jax.random.key(0), BOOK), {}, {})


@pytest.mark.parametrize(("key", "value", "message"), [
    ("format", "other", "format: expected 'marsjax ensemble 2', got 'other'"),
    ("sizes", {"width": 8}, "sizes: expected the keys codes, .* got 'width'"),
    ("about", [], "about, trained_with: expected two objects")])
def test_a_damaged_record_is_named(place: Path, key: str, value: object, message: str) -> None:
    path = place / folder.CONTROL / ensemble_files.FILES.spec
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match="SHA-256"):
        ensemble_files.load(place)
    folder.seal(place)
    with pytest.raises(ValueError, match=message):
        ensemble_files.load(place)


def test_files_that_the_manifest_does_not_vouch_for_are_refused(place: Path) -> None:
    path = place / "manifest.json"
    record = json.loads(path.read_text())
    del record["sha256"]["control/ensemble.safetensors"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"manifest\.json: expected the hash of control/ensemble\.safetensors too"):
        ensemble_files.load(place)


def test_weights_that_do_not_fit_or_are_cut_off_are_named(place: Path) -> None:
    names = ensemble_files.FILES.spec, ensemble_files.FILES.weights
    record, weights = (place / folder.CONTROL / name for name in names)
    whole, text = weights.read_bytes(), record.read_text()
    weights.write_bytes(whole[:-8])
    folder.seal(place)
    with pytest.raises(ValueError, match=r"ensemble\.safetensors: not a whole safetensors file"):
        ensemble_files.load(place)
    weights.write_bytes(whole)
    record.write_text(text.replace('"codes": 8', '"codes": 9'))
    folder.seal(place)
    with pytest.raises(ValueError, match=r"'code': ensemble\.json asks for \(\(9, 8\), .* stored is \(\(8, 8\)"):
        ensemble_files.load(place)


def test_a_weight_that_is_no_number_is_not_written(place: Path) -> None:
    weights = {**ensemble.init(SPEC, jax.random.key(0), BOOK).weights(), "norm": np.full(8, np.nan, np.float32)}
    with pytest.raises(ValueError, match="norm: expected finite numbers"):
        ensemble_files.save(place, Ensemble(SPEC, weights, BOOK), {}, {})
