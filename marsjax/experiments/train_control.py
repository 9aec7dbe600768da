"""Trains the order-batch model and the ensemble beside an order model. The config: configs/train_control.py."""

import dataclasses
import json
import pathlib
import shutil
import time

from ml_collections import ConfigDict

import marsjax
from marsjax.checkpoint import ensemble as ensemble_files
from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.checkpoint import load, order_batch
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.experiments import launcher, markets, run_folder, setup
from marsjax.experiments.run_folder import write_json
from marsjax.studies import ensemble_training, order_batch_training, order_model
from marsjax.studies.ensemble_training import EnsembleStudy
from marsjax.studies.futures import ACCOUNT
from marsjax.studies.order_batch_data import OwnMinutes
from marsjax.studies.order_batch_training import OrderBatchSizes, OrderBatchTraining
from marsjax.studies.order_model import PreparedModel
from marsjax.training.ensemble import EnsembleTraining
from marsjax.training.order_batch.batches import BatchTraining
from marsjax.training.order_batch.codebook import CodebookTraining


def main(config: ConfigDict) -> int:
    """Trains, evaluates and writes; returns 0, or INCOMPLETE where orders were refused that a right reading lets in.

    INCOMPLETE, too, where the order-batch model is written and the ensemble could not be trained.
    """
    began = time.perf_counter()
    training, study = training_of(config), ensemble_of(config)
    feeds = markets.open_feeds(config)
    market = markets.one_market(config, feeds, ACCOUNT + 1)
    if study:
        with setup.keyed({"EnsembleStudy.": "", "OwnMinutes.": "told_"}):
            ensemble_training.check_hours(study, training.sizes.every_s, market, feeds)
    output = run_folder.of_config(config, "train_control")
    with output as folder:
        prepared = setup.load_order_model(config)
        print(order_model.headline(prepared, config.model), flush=True)
        trained = order_batch_training.train(training, prepared, market, feeds, _say)
        refused = {name: markets.refused(name, each) for name, each in trained.refused.items()}
        names = ", ".join(feed.name for feed in feeds)
        about = {"source": f"trained on {names}", "marsjax": marsjax.__version__}
        place = _checkpoint(folder / "checkpoint", config.model, prepared)
        order_batch.save(place, trained.batches, json.loads(json.dumps(about | trained.report)))
        rows, report = trained.rows, dict(trained.report)
        told, problems = None, [problem for _, lost in refused.values() for problem in lost]
        try:
            told = study and ensemble_training.train(study, prepared, market, feeds, trained.batches, _say)
        except (InputError, MemoryError) as error:  # what has been trained before is not to be lost
            problems.append(f"no ensemble was written: {error}")
        if told:
            ensemble_files.save(place, told.ensemble, ensemble_files.trained_with(
                prepared.model.model, trained.batches.tokenizer, place), json.loads(json.dumps(about | told.report)))
            rows, report = [*rows, *told.rows], report | {"ensemble": told.report}
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        write_json(folder / "report.json", {**report, **setup.about(config, prepared),
                                            "feeds": {name: record for name, (record, _) in refused.items()}})
    print(f"{time.perf_counter() - began:.0f} s; {run_folder.told(output)}")
    return launcher.finish(problems)


def _say(line: str) -> None:
    print(line, flush=True)


def _checkpoint(place: pathlib.Path, model: str, prepared: PreparedModel) -> pathlib.Path:
    """A folder with the order model, but for what another training put beside it."""
    found = load.folder_of(model)
    if not checkpoint_folder.is_checkpoint(found):
        place.mkdir()
        checkpoint_folder.write(place, prepared.model.model, prepared.model.converters, prepared.model.about)
        return place
    shutil.copytree(found, place)
    shutil.rmtree(place / checkpoint_folder.CONTROL, ignore_errors=True)
    return place


def ensemble_of(config: ConfigDict) -> EnsembleStudy | None:
    """The config as the training of the ensemble, None where none is wanted; InputError names a key."""
    if not setup.at_least(config, "told_trajectories", 0):
        return None
    hours = _hours(config, "told_validation_from")
    setup.at_least(config, "seed", 0, limits.SEED)
    with setup.keyed({"OwnMinutes.": "told_", "EnsembleSpec.": "ensemble_", "TrainSpec.": "ensemble_"}):
        own = OwnMinutes(config.told_trajectories, config.told_minutes, config.told_every_minutes, config.seed)
        usual = EnsembleTraining()
        training = dataclasses.replace(usual, whole=dataclasses.replace(usual.whole, steps=config.ensemble_steps))
        return EnsembleStudy(*hours, own, training, config.ensemble_width, config.ensemble_heads,
                             config.ensemble_layers, config.seed)


def training_of(config: ConfigDict) -> OrderBatchTraining:
    """The config as specs; InputError names a key with a wrong value."""
    setup.at_least(config, "own_trajectories", 0)
    sizes = setup.spec_of(OrderBatchSizes, config)
    setup.at_least(config, "seed", 0, limits.SEED)
    own = None
    with setup.keyed({"OwnMinutes.": "own_", "CodebookTraining.peak_": "tokenizer_", "CodebookTraining.": "tokenizer_",
                      "BatchTraining.peak_": "batch_", "BatchTraining.": "batch_"}):
        if config.own_trajectories:
            own = OwnMinutes(config.own_trajectories, config.own_minutes, config.own_every_minutes, config.seed)
        codebook = CodebookTraining(config.tokenizer_steps, peak_rate=config.tokenizer_rate)
        batch = BatchTraining(config.batch_steps, peak_rate=config.batch_rate)
    validation_from_ns, held_from_ns = _hours(config, "validation_from")
    return setup.spec_of(OrderBatchTraining, config, sizes=sizes, codebook=codebook, batch=batch, own=own,
                         validation_from_ns=validation_from_ns, held_from_ns=held_from_ns)


def _hours(config: ConfigDict, first: str) -> tuple[int, int]:
    """From when on real orders validate, by the key `first`, and from when on they are held out, nanoseconds."""
    found = setup.time_ns(config, first), setup.time_ns(config, "held_from")
    if not found[0] < found[1]:
        raise InputError(f"config.{first}: expected a time before config.held_from, {config.held_from}, got "
                         f"{config[first]}")
    return found


if __name__ == "__main__":
    launcher.run("train_control", main)
