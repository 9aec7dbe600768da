"""Trains the order-batch model beside an order model. The config: configs/train_control.py."""

import json
import shutil
import time

from ml_collections import ConfigDict

import marsjax
from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.checkpoint import load, order_batch
from marsjax.core.errors import InputError
from marsjax.experiments import launcher, markets, run_folder, setup
from marsjax.experiments.run_folder import write_json
from marsjax.studies import order_batch_training, order_model
from marsjax.studies.futures import ACCOUNT
from marsjax.studies.order_batch_data import OwnMinutes
from marsjax.studies.order_batch_training import OrderBatchSizes, OrderBatchTraining
from marsjax.training.order_batch.batches import BatchTraining
from marsjax.training.order_batch.codebook import CodebookTraining


def main(config: ConfigDict) -> int:
    """Trains, evaluates and writes; returns 0, or INCOMPLETE where orders were refused that a right reading lets in."""
    began = time.perf_counter()
    training = training_of(config)
    feeds = markets.open_feeds(config)
    market = markets.one_market(config, feeds, ACCOUNT + 1)
    output = run_folder.of_config(config, "train_control")
    with output as folder:
        prepared = setup.load_order_model(config)
        print(order_model.headline(prepared, config.model), flush=True)
        trained = order_batch_training.train(training, prepared, market, feeds, lambda line: print(line, flush=True))
        refused = {name: markets.refused(name, each) for name, each in trained.refused.items()}
        names = ", ".join(feed.name for feed in feeds)
        about = {"source": f"trained on {names}", "marsjax": marsjax.__version__, **trained.report}
        place = folder / "checkpoint"
        found = load.folder_of(config.model)
        if checkpoint_folder.is_checkpoint(found):
            shutil.copytree(found, place)
        else:
            place.mkdir()
            checkpoint_folder.write(place, prepared.model.model, prepared.model.converters, prepared.model.about)
        order_batch.save(place, trained.batches, json.loads(json.dumps(about)))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in trained.rows),
                                              encoding="utf-8")
        write_json(folder / "report.json", {**trained.report, **setup.about(config, prepared),
                                            "feeds": {name: record for name, (record, _) in refused.items()}})
    print(f"{time.perf_counter() - began:.0f} s; {run_folder.told(output)}")
    return launcher.finish([problem for _, lost in refused.values() for problem in lost])


def training_of(config: ConfigDict) -> OrderBatchTraining:
    """The config as specs; InputError names a key with a wrong value."""
    setup.at_least(config, "own_trajectories", 0)
    sizes = setup.spec_of(OrderBatchSizes, config)
    own = None
    try:
        if config.own_trajectories:
            own = OwnMinutes(config.own_trajectories, config.own_minutes, config.own_every_minutes, config.seed)
        codebook = CodebookTraining(config.tokenizer_steps, peak_rate=config.tokenizer_rate)
        batch = BatchTraining(config.batch_steps, peak_rate=config.batch_rate)
    except InputError as error:
        text = str(error)
        for name, key in (("OwnMinutes.", "own_"), ("CodebookTraining.peak_", "tokenizer_"),
                          ("CodebookTraining.", "tokenizer_"), ("BatchTraining.peak_", "batch_"),
                          ("BatchTraining.", "batch_")):
            text = text.replace(name, f"config.{key}")
        raise InputError(text) from error
    hours = {f"{key}_ns": setup.time_ns(config, key) for key in ("validation_from", "held_from")}
    return setup.spec_of(OrderBatchTraining, config, sizes=sizes, codebook=codebook, batch=batch, own=own, **hours)


if __name__ == "__main__":
    launcher.run("train_control", main)
