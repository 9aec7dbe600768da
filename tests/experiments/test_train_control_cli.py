"""The program that trains an order-batch model: from a file of orders to a checkpoint with `control/`; its errors."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import marsjax
from marsjax import testing
from marsjax.checkpoint import ensemble as ensemble_files
from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.checkpoint import order_batch
from marsjax.core.errors import InputError
from marsjax.core.order_images import OrderBatchSpec
from marsjax.experiments import config as configs
from marsjax.experiments import train_control
from marsjax.model.order_batch import batch_model, readout, tokenizer
from marsjax.model.order_batch.proposals import OrderBatches
from marsjax.model.order_batch.readout import READ, Readout
from marsjax.model.order_batch.specs import BatchModelSpec, TokenizerSpec
from marsjax.studies.order_batch_training import TrainedBatches
from tests.training import short_day

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]
SIZES = {"validation_from": "09:33:00", "held_from": "09:33:45", "capacity": 256, "phases": 2, "own_trajectories": 2,
         "own_minutes": 1, "own_every_minutes": 1, "price_slots": 8, "volume_slots": 4, "every_s": 5, "codes": 8,
         "code_dim": 4, "tokenizer_width": 8, "tokenizer_blocks": 1, "tokenizer_steps": 20, "batches": 3, "layers": 1,
         "width": 8, "heads": 2, "batch_steps": 10, "told_validation_from": "09:33:00", "told_trajectories": 2,
         "told_minutes": 1, "told_every_minutes": 1, "ensemble_width": 8, "ensemble_heads": 2, "ensemble_layers": 1,
         "ensemble_steps": 4}


def config(folder: Path, output: str = "out", **values: Any) -> ConfigDict:
    """Of a training on a short day beside a tiny order model, both in a folder."""
    orders = short_day.write(folder)
    model = testing.tiny_model()
    if not (folder / "model").exists():
        checkpoint_folder.save(folder / "model", model.model, model.converters, model.about)
    found = configs.load(ROOT / "configs" / "train_control.py",
                         f"csv,file={orders},output={folder / output},model={folder / 'model'}")
    with found.unlocked():
        found.update({**SIZES, **values})
    return found


@pytest.mark.slow
def test_a_training_writes_a_checkpoint_that_proposes_and_again_the_same(tmp_path: Path,
                                                                         capsys: pytest.CaptureFixture[str]) -> None:
    assert train_control.main(config(tmp_path)) == 0
    said = capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["minutes"]["own"] == 2 * 12 * 2 and "48 minutes of the order model's own futures" in said
    assert 0 < report["batches"]["model"] and set(report["readout"]) == {"all", "within"}
    found, about = order_batch.load(tmp_path / "out" / "checkpoint")
    assert about["source"] == "trained on noise_1" and found.tokenizer.spec.images.every_s == 5
    assert marsjax.load_order_model(tmp_path / "out" / "checkpoint").spec == testing.tiny_model().spec
    images = np.zeros((2, 3, *found.tokenizer.spec.images.shape), np.uint8)
    proposed = found.propose(images, np.array([0, 3]), jax.random.split(jax.random.key(0), 2), 4)
    assert np.isfinite(proposed.read).all() and proposed.codes.shape == (2, 4, 4)
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [row["part"] for row in rows] == ["tokenizer", "batches", *["shift"] * 8, *["whole"] * 2]
    own = testing.tiny_model().model
    of, told = ensemble_files.load(tmp_path / "out" / "checkpoint", ensemble_files.trained_with(own, found.tokenizer))
    assert told["gains"] == report["ensemble"]["gains"] and of.spec.places == 4 and "half shuffled" in said
    assert set(told["gains"]["real"]) == {"order", "type", "price", "volume", "interval"}
    assert min(report["ensemble"][name] for name in ("orders", "validation_orders", "held_out_orders")) > 50
    train_control.main(config(tmp_path, "again"))
    again, _ = order_batch.load(tmp_path / "again" / "checkpoint")
    of_again, _ = ensemble_files.load(tmp_path / "again" / "checkpoint")
    for first, second in zip(jax.tree.leaves((found, of)), jax.tree.leaves((again, of_again)), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("values", "match"), [
    ({"codes": 0}, "codes: expected at least 1"), ({"compress": 3}, "compress: expected a divisor"),
    ({"own_trajectories": -1}, r"^config\.own_trajectories: "), ({"own_minutes": 0}, r"^config\.own_minutes: "),
    ({"tokenizer_steps": 0}, r"^config\.tokenizer_steps: "), ({"tokenizer_rate": 0.0}, r"^config\.tokenizer_rate: "),
    ({"batch_rate": -1.0}, r"^config\.batch_rate: "), ({"batch_steps": 0}, r"^config\.batch_steps: "),
    ({"phases": 0}, r"^config\.phases: "), ({"seed": -1}, r"^config\.seed: expected at least 0, got -1$"),
    ({"held_from": "09:00:00"},
     r"^config\.validation_from: expected a time before config\.held_from, 09:00:00, got 09:33:00$"),
    ({"held_from": "soon"}, r"^config\.held_from: ")])
def test_a_wrong_key_is_named(tmp_path: Path, values: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        train_control.training_of(config(tmp_path, **values))


@pytest.mark.parametrize(("values", "match"), [
    ({"told_trajectories": -1}, r"^config\.told_trajectories: "), ({"told_minutes": 0}, r"^config\.told_minutes: "),
    ({"ensemble_heads": 3}, r"^config\.ensemble_width: expected a multiple of heads=3"),
    ({"ensemble_steps": 0}, r"^config\.ensemble_steps: "), ({"seed": -1}, r"^config\.seed: "),
    ({"told_validation_from": "09:40:00"},
     r"^config\.told_validation_from: expected a time before config\.held_from, 09:33:45, got 09:40:00$"),
    ({"told_validation_from": "soon"}, r"^config\.told_validation_from: ")])
def test_a_wrong_key_of_the_ensemble_is_named(tmp_path: Path, values: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        train_control.ensemble_of(config(tmp_path, **values))
    assert train_control.ensemble_of(config(tmp_path, told_trajectories=0)) is None


@pytest.mark.parametrize(("values", "match"), [
    ({"every_s": 30}, r"^config\.held_from: expected at least 5 intervals of 30 s held out, got \d; set it earlier"),
    ({"every_s": 70}, r"^config\.told_minutes: expected futures of 70 s \(every_s\) or more, got 1 minutes$"),
    ({"told_every_minutes": 60}, r"^config\.told_every_minutes: expected a state of a day to write futures")])
def test_what_is_too_short_for_an_ensemble_is_refused_before_anything_is_trained(
        tmp_path: Path, values: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        train_control.main(config(tmp_path, **values))
    assert not (tmp_path / "out").exists()


def test_an_ensemble_that_cannot_be_trained_leaves_the_order_batch_model(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    images = OrderBatchSpec(price_slots=8, volume_edges=(100, 300, 500), every_s=5)
    batches = tiny_batches(images)
    monkeypatch.setattr(train_control.order_batch_training, "train", lambda *_: TrainedBatches(batches, {}, [], {}))

    def fails(*_: Any) -> None:
        raise InputError("a loss is no number")

    monkeypatch.setattr(train_control.ensemble_training, "train", fails)
    assert train_control.main(config(tmp_path)) == 3
    assert "no ensemble was written: a loss is no number" in capsys.readouterr().err
    found, _ = order_batch.load(tmp_path / "out" / "checkpoint")
    assert found.tokenizer.spec.images == images and (tmp_path / "out" / "report.json").exists()
    with pytest.raises(FileNotFoundError):
        ensemble_files.load(tmp_path / "out" / "checkpoint")


def tiny_batches(images: OrderBatchSpec) -> OrderBatches:
    """Of fresh weights."""
    book = tokenizer.init(TokenizerSpec(images, codes=8, code_dim=4, width=8, blocks=1), jax.random.key(0))
    sizes = BatchModelSpec(batches=2, places=book.spec.places, codes=8, layers=1, width=8, heads=2)
    read = Readout(np.zeros((readout.input_count(images), len(READ)), np.float32), np.zeros(len(READ), np.float32))
    return OrderBatches(book, batch_model.init(sizes, jax.random.key(1)), read)
