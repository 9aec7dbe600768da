"""Trains an order model on days of real orders. The config: configs/train.py."""

import contextlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.checkpoint import load
from marsjax.core import limits, times
from marsjax.core.errors import InputError
from marsjax.core.specs import ComputeSpec, MarketSpec, ModelSpec, TokenSpec
from marsjax.data.feed import DayFeed
from marsjax.experiments import launcher, markets, run_folder, setup, train_record
from marsjax.experiments.prepare import held_out, problems
from marsjax.experiments.run_folder import write_json
from marsjax.studies import model_training, order_model, token_shards
from marsjax.studies.futures import ACCOUNT
from marsjax.studies.model_training import ModelTraining
from marsjax.studies.token_shards import ShardFolder
from marsjax.training import fit, loop, prepare, report, structured
from marsjax.training.distill import Teacher
from marsjax.training.fit import FitPlan
from marsjax.training.gaps import Beginning
from marsjax.training.loop import TrainSpec
from marsjax.training.own_futures import FuturesTraining
from marsjax.training.prepare import Feed, Prepared

MAY_DIFFER = ("output", "checkpoint", "overwrite", "resume", "stop_at", "folder", "shards", "devices", "title",
              "made_by", "limits", "futures_rounds", "futures_every", "futures_starts", "futures_trajectories",
              "futures_orders", "futures_scored", "futures_weight")
"""Keys of the config that may differ when a training is taken up again."""


def main(config: ConfigDict) -> int:
    """Trains, evaluates and writes."""
    began = time.perf_counter()
    training = _training(config)
    # Errors of the input come before those of the output.
    feeds, shards = ([], _shards(config)) if config.shards else (markets.open_feeds(config), None)
    _check_folders(config)
    data = _opened(config, training) if shards else _prepare(config, training, feeds)
    data = data.bounded(setup.at_least(config, "most_scored", 1, limits.SEED), config.context_length)
    print(f"{data.counts()}; {time.perf_counter() - began:.0f} s", flush=True)
    of_teacher = train_record.teacher_facts(config, training.teacher, data)
    if of_teacher and of_teacher["teacher"]["may_know"]:
        print(f"warning: losses may come out too good: {of_teacher['teacher']['may_know']}", flush=True)
    refused = ({day["name"]: (day["refused"], problems([day])) for day in shards.days} if shards else
               {name: markets.refused(name, each) for name, each in data.refused.items()})
    market, given = _beginnings(config, training, data, feeds)
    fitted, is_complete = model_training.run(training, data, _state_folder(config), _identity(config, training))
    if not is_complete:
        where = " of the refit" if len(fitted) > 1 else ""
        print(f"broken off at step {int(fitted[-1].progress.step)}{where}; to go on, give the argument resume")
        return 0
    best = [saved.best for saved in fitted]
    best[-1], rounds, told = _taught(training, data, best[-1], market, given)
    models = [model_training.best_model(training, weights) for weights in best]
    losses = report.measure(models[-1], data, models[0] if config.refit else None)
    facts: dict[str, Any] = {"device": f"{_devices(config)} x {jax.devices()[0].device_kind}", "jax": jax.__version__,
             "dtype": training.compute.dtype, "steps": int(fitted[0].progress.step),
             "best": fit.best_row(fitted[0].curve), "seconds": time.perf_counter() - began,
             "trained_until": train_record.trained_until(config, training.teacher), **of_teacher, **told}
    about = {"source": train_record.source(data, training.teacher), "revision": None, "losses": losses,
             "training": facts}
    card = report.card(config.title, training.model,
                       train_record.card_facts(config, _size(models[-1]), data, facts), losses, config.limits)
    curve, refit = fitted[0].curve, fitted[1].curve if config.refit else []
    with contextlib.ExitStack() as folders:
        output = folders.enter_context(run_folder.output_folder(config.output, config.overwrite))
        places = [output / "checkpoint"]
        if config.checkpoint:
            places.append(folders.enter_context(
                run_folder.output_folder(config.checkpoint, config.overwrite, "config.checkpoint")))
        for place in places:
            place.mkdir(exist_ok=True)
            checkpoint_folder.write(place, models[-1], data.converters, json.loads(json.dumps(about)))
            (place / "README.md").write_text(card, encoding="utf-8")
        rows = [*curve, *({"refit": True, **row} for row in refit), *({"own_futures": True, **row} for row in rounds)]
        (output / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        drawn = report.curve(curve, refit, losses, train_record.objective(training.teacher))
        drawn.savefig(output / "curve.png", dpi=120)
        write_json(output / "report.json", {**facts, "losses": losses, "config": config,
                                             "feeds": {name: record for name, (record, _) in refused.items()}})
    shutil.rmtree(_state_folder(config))
    print(report.table(losses))
    print(f"kept step {facts['best']['step']} of {facts['steps']} after {facts['seconds']:.0f} s; {config.output}")
    return launcher.finish([problem for _, lost in refused.values() for problem in lost])


def _beginnings(config: ConfigDict, training: ModelTraining, data: Prepared, feeds: Sequence[DayFeed]
                ) -> tuple[MarketSpec, list[Beginning]]:
    """The market of the model's own futures, and the states that they start from."""
    if training.futures is None:
        return MarketSpec(), []
    own = [feed for feed in feeds if feed.symbol not in config.held_out_symbols.split("+")]
    market = markets.one_market(config, own, ACCOUNT + 1)
    until_ns = setup.time_ns(config, "held_from" if config.refit else "validation_from")
    return market, model_training.beginnings(training, data, market, own, until_ns)


def _taught(training: ModelTraining, data: Prepared, weights: Any, market: MarketSpec, given: Sequence[Beginning]
            ) -> tuple[Any, list[dict[str, float]], dict[str, Any]]:
    """The weights after the model's own futures, a row of each round, and what the report says of them."""
    began = time.perf_counter()
    taught, rows = model_training.taught(training, data, weights, market, given)
    if not rows:
        return weights, [], {}
    before = model_training.held_out_loss(model_training.best_model(training, weights), data)
    return taught, rows, {"own_futures": {
        "rounds": len(rows), "orders": int(sum(row["orders"] for row in rows)),
        "seconds": time.perf_counter() - began, "held_out_before": before}}


def _identity(config: ConfigDict, training: ModelTraining) -> dict[str, Any]:
    """What a training that is taken up again must have in common with the one before."""
    found: dict[str, Any] = json.loads(json.dumps(
        {key: value for key, value in config.to_dict().items() if key not in MAY_DIFFER}))
    teacher = training.teacher
    return found | ({"teacher_sha256": order_model.parameters_hash(teacher.model)} if teacher else {})


def _teacher(config: ConfigDict, student: ModelSpec, compute: ComputeSpec) -> Teacher | None:
    """Who teaches; InputError where it is another model than the student can learn from. None: nobody."""
    if not config.teacher:
        return None
    found = load.load_order_model(config.teacher)
    if not found.converters:
        raise InputError(f"config.teacher: {config.teacher} has no bins, with which the tokens would be made")
    if (levels := found.converters["lob-volume"].num_bins) != config.level_bins:
        raise InputError(f"config.level_bins: expected {levels}, as the teacher's, got {config.level_bins}")
    with setup.keyed({"Teacher.": "teacher_", "Teacher:": "teacher:"}):
        teacher = Teacher(found.model.replace(compute=compute),
                          {name: found.converters[name] for name in checkpoint_folder.TOKEN_CONVERTERS},
                          config.teacher_weight, config.teacher_temperature, config.teacher, found.about)
        teacher.check(student, {})
    return teacher


def _training(config: ConfigDict) -> ModelTraining:
    """The config as specs; InputError names a key with a wrong value."""
    for key, low in (("every", 1), ("patience", 0), ("stop_at", 0), ("futures_every", 1)):
        setup.at_least(config, key, low)
    bins = TokenSpec(config.price_bins, config.volume_bins, config.interval_bins, config.signals)
    spec = ModelSpec(config.embed_dim, config.layers, config.heads, config.context_length, bins,
                     whole_cancels=config.whole_cancels, mixer=config.mixer)
    train = TrainSpec(config.steps, config.batch, config.context_length, config.peak_rate, config.warmup, config.decay,
                      structured.UNDECAYED if config.head == "structured" else (), config.clip, config.accumulate,
                      config.average)
    is_cpu = jax.default_backend() == "cpu"
    dtype = ("float32" if is_cpu else "bfloat16") if config.dtype == "auto" else config.dtype
    count = _devices(config)
    mesh = Mesh(np.array(jax.devices()[:count]), (loop.DATA,)) if count > 1 else None
    limits.check_whole("config.seed", config.seed, 0, limits.SEED)
    try:
        futures = FuturesTraining(config.futures_rounds, seed=config.seed, **{
            key: config[f"futures_{key}"] for key in ("starts", "trajectories", "orders", "scored", "weight")})
    except InputError as error:
        raise InputError(str(error).replace("FuturesTraining.", "config.futures_")) from error
    compute = ComputeSpec(dtype)
    return setup.spec_of(ModelTraining, config, model=spec, train=train, compute=compute, mesh=mesh,
                         teacher=_teacher(config, spec, compute), futures=futures if config.futures_rounds else None,
                         plan=FitPlan(config.every, config.patience, config.stop_at))


def _devices(config: ConfigDict) -> int:
    found = len(jax.devices())
    if not 0 <= config.devices <= found:
        raise InputError(f"config.devices: expected 0 (all) to {found}, got {config.devices}")
    return config.devices or found


def _state_folder(config: ConfigDict) -> Path:
    return Path(f"{config.output.rstrip('/')}.state")


def _check_folders(config: ConfigDict) -> None:
    """Before anything takes time: whether what is there may be replaced, or gone on from."""
    for key in ("output", "checkpoint"):
        if config[key]:
            run_folder.output_folder(config[key], config.overwrite, f"config.{key}").check()
    state = _state_folder(config)
    if config.resume and not state.is_dir():
        raise InputError(f"config.resume: there is no state of a training in {state}")
    if state.exists() and not config.resume:
        raise InputError(f"{state} holds the state of a training that was broken off; go on with it (argument resume), "
                         "remove it, or name another output")


def _shards(config: ConfigDict) -> ShardFolder:
    """The index of the shards to train on; InputError where they were prepared otherwise than the config says."""
    if config.futures_rounds:
        raise InputError("config.futures_rounds: expected 0 with config.shards, which keep no states of the market to "
                         f"start from, got {config.futures_rounds}")
    found = token_shards.read(Path(config.shards))
    of = found.about
    prepared = {"price_bins": of["tokens"]["price_levels"], "volume_bins": of["tokens"]["volumes"],
                "interval_bins": of["tokens"]["intervals"], "signals": of["tokens"]["signals"],
                "level_bins": of["level_bins"], "mirror": of["mirror"], "held_out_symbols": "+".join(of["held_out"])}
    wanted = {key: config[key] for key in prepared}
    wanted["held_out_symbols"] = "+".join(sorted(filter(None, config.held_out_symbols.split("+"))))
    for key in ("validation_from", "held_from"):
        prepared[key], wanted[key] = of[f"{key}_ns"], setup.time_ns(config, key)
    for key, value in prepared.items():
        if wanted[key] != value:
            shown = str(times.clock(value)) if key.endswith("_from") else repr(value)
            raise InputError(f"config.{key}: expected {shown}, with which {config.shards} was prepared, got "
                             f"{config[key]!r}")
    return found


def _opened(config: ConfigDict, training: ModelTraining) -> Prepared:
    """The days of the shards; InputError where a teacher has other bins."""
    data = token_shards.opened(Path(config.shards))
    if training.teacher:
        try:
            training.teacher.check(training.model, data.converters)
        except InputError as error:
            raise InputError(f"config.teacher, config.shards: {config.teacher} and {config.shards}: {error}: take a "
                             "teacher that was trained on these shards, or a feed in place of shards, whose tokens are "
                             "made with the teacher's bins") from error
    return data


def _prepare(config: ConfigDict, training: ModelTraining, opened: Sequence[DayFeed]) -> Prepared:
    held = held_out(config, opened)
    market = markets.one_market(config, opened)
    feeds = [Feed(feed.name, feed.read(), feed.read() if config.mirror else None, feed.symbol in held)
             for feed in opened]
    return prepare.prepare(market, training.model.tokens, feeds,
                           level_bins=config.level_bins, length=config.context_length,
                           validation_from_ns=setup.time_ns(config, "validation_from"),
                           held_from_ns=setup.time_ns(config, "held_from"),
                           bins=training.teacher.bins if training.teacher else None)


def _size(model: Any) -> int:
    """Numbers of a pytree of arrays."""
    return sum(x.size for x in jax.tree.leaves(model))


if __name__ == "__main__":
    launcher.run("train", main)
