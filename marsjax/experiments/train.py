"""Trains an order model on days of real orders. The config: configs/train.py."""

import contextlib
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from marsjax import checkpoints, model
from marsjax.experiments import launcher, sources
from marsjax.experiments.output import output_folder, write_json
from marsjax.model import Params
from marsjax.specs import ComputeSpec, ModelSpec, TokenSpec
from marsjax.training import fit, loop, loss, prepare, report, structured
from marsjax.training.fit import Plan
from marsjax.training.loop import TrainSpec
from marsjax.training.prepare import Feed, Prepared
from marsjax.training.state import Saved, StateFolder, digest

MAY_DIFFER = ("output", "checkpoint", "overwrite", "resume", "stop_at", "folder", "devices", "title", "made_by",
              "limits")
"""Keys of the config that may differ when a training is taken up again."""
CHUNK = 128
"""Positions of a window whose scores are made at a time, or the largest part of it that the window is made of."""


def main(config: ConfigDict) -> int:
    """Trains, evaluates and writes."""
    began = time.perf_counter()
    spec, train, compute, mesh = _specs(config)
    _check_folders(config)
    data = _prepare(config, spec)
    print(f"{data.counts()}; {time.perf_counter() - began:.0f} s", flush=True)
    with StateFolder(_state_folder(config), _identity(config, data)) as states:
        saved, is_done = _fit(config, spec, train, compute, data, states, mesh)
    if not is_done:
        print(f"broken off at step {int(saved.progress.step)}; to go on, give the argument resume")
        return 0
    params = structured.expand(saved.best, spec) if config.head == "structured" else saved.best
    params = jax.device_put(jax.device_get(params))  # off the mesh
    losses = report.measure(params, spec, data)
    facts: dict[str, Any] = {"device": f"{_devices(config)} x {jax.devices()[0].device_kind}", "jax": jax.__version__,
             "dtype": compute.dtype, "steps": int(saved.progress.step), "best": fit.best_row(saved.curve),
             "seconds": time.perf_counter() - began}
    _write(config, spec, params, data, saved.curve, losses, facts)
    shutil.rmtree(_state_folder(config))
    print(report.table(losses))
    print(f"kept step {facts['best']['step']} of {facts['steps']} after {facts['seconds']:.0f} s; {config.output}")
    return 0


def _specs(config: ConfigDict) -> tuple[ModelSpec, TrainSpec, ComputeSpec, Mesh | None]:
    """The config as specs; ValueError names a key with a wrong value."""
    if config.head not in ("structured", "joint"):
        raise ValueError(f"config.head: expected structured or joint, got {config.head!r}")
    for key, low in (("every", 1), ("patience", 0), ("stop_at", 0)):
        if config[key] < low:
            raise ValueError(f"config.{key}: expected at least {low}, got {config[key]}")
    bins = TokenSpec(config.price_bins, config.volume_bins, config.interval_bins)
    spec = ModelSpec(config.width, config.layers, config.heads, config.max_orders, bins)
    train = TrainSpec(config.steps, config.batch, config.max_orders, config.peak_rate, config.warmup, config.decay,
                      structured.UNDECAYED if config.head == "structured" else (), config.clip, config.accumulate,
                      config.average)
    is_cpu = jax.default_backend() == "cpu"
    dtype = ("float32" if is_cpu else "bfloat16") if config.dtype == "auto" else config.dtype
    count = _devices(config)
    mesh = Mesh(np.array(jax.devices()[:count]), (loop.DATA,)) if count > 1 else None
    return spec, train, ComputeSpec(dtype), mesh


def _devices(config: ConfigDict) -> int:
    found = len(jax.devices())
    if not 0 <= config.devices <= found:
        raise ValueError(f"config.devices: expected 0 (all) to {found}, got {config.devices}")
    return config.devices or found


def _state_folder(config: ConfigDict) -> Path:
    return Path(f"{config.output.rstrip('/')}.state")


def _check_folders(config: ConfigDict) -> None:
    """Before anything takes time: whether what is there may be replaced, or gone on from."""
    for key in ("output", "checkpoint"):
        if config[key] and Path(config[key]).exists() and not config.overwrite:
            raise ValueError(f"config.{key}: {config[key]} exists; name another folder, or allow overwriting it")
    state = _state_folder(config)
    if config.resume and not state.is_dir():
        raise ValueError(f"config.resume: there is no state of a training in {state}")
    if state.exists() and not config.resume:
        raise ValueError(f"{state} holds the state of a training that was broken off; go on with it (argument resume), "
                         "remove it, or name another output")


def _prepare(config: ConfigDict, spec: ModelSpec) -> Prepared:
    market = sources.market_spec(config)
    held_out = [symbol for symbol in config.held_out_symbols.split("+") if symbol]
    opened = sources.open_sources(config, market)
    again = sources.open_sources(config, market) if config.mirror else [None] * len(opened)
    feeds = [Feed(source.name, source.feed, image.feed if image else None, source.name.split("_")[0] in held_out)
             for source, image in zip(opened, again, strict=True)]
    unknown = set(held_out) - {feed.name.split("_")[0] for feed in feeds}
    if unknown:
        raise ValueError(f"config.held_out_symbols: no day of {', '.join(sorted(unknown))} among "
                         f"{', '.join(feed.name for feed in feeds)}")
    return prepare.prepare(market, spec.tokens, feeds, level_bins=config.level_bins, length=config.max_orders,
                           validation_from_ns=sources.time_ns(config, "validation_from"),
                           held_from_ns=sources.time_ns(config, "held_from"))


def _identity(config: ConfigDict, data: Prepared) -> dict[str, Any]:
    """What a resumed training must have in common with the one before."""
    keys = {key: value for key, value in config.to_dict().items() if key not in MAY_DIFFER}
    return {**json.loads(json.dumps(keys)), "data": digest(data.split.training)}


def _fit(config: ConfigDict, spec: ModelSpec, train: TrainSpec, compute: ComputeSpec, data: Prepared,
         states: StateFolder, mesh: Mesh | None) -> tuple[Saved[Any], bool]:
    key = jax.random.key(config.seed)
    chunk = math.gcd(config.max_orders, CHUNK)
    objective: Any = loss.Joint(spec, compute, chunk)
    params: Any
    if config.head == "structured":
        objective = loss.Factored(spec, compute, chunk)
        params = structured.init(spec, jax.random.fold_in(key, 0), data.frequencies(spec.tokens), config.pair_width)
    else:
        params = model.init(spec, jax.random.fold_in(key, 0))
    plan = Plan(config.every, config.patience, config.stop_at)
    with tqdm(total=config.steps, desc="training", unit="step", disable=None) as bar:
        def on_row(row: dict[str, float]) -> None:
            bar.update(row["step"] - bar.n)
            bar.set_postfix(loss=f"{row['loss']:.3f}", validation=f"{row['validation_loss']:.3f}")

        return fit.fit(train, plan, objective, params, data.split, jax.random.fold_in(key, 1), states, mesh, on_row)


def _write(config: ConfigDict, spec: ModelSpec, params: Params, data: Prepared, curve: list[dict[str, float]],
           losses: dict[str, Any], facts: dict[str, Any]) -> None:
    """The output folder, and the checkpoint's."""
    names = [span.name for span in data.split.held_out]
    about = {"source": f"trained on {', '.join(names)}", "revision": None, "losses": losses, "training": facts}
    written = {"made by": config.made_by,
               "data": f"{', '.join(names)}; {data.counts()}",
               "bins": "fitted on the orders before the held-out part, each day with the same weight",
               "size": f"{sum(x.size for x in jax.tree.leaves(params)):,} numbers, float32",
               "training": f"kept step {facts['best']['step']} of {facts['steps']}, {config.batch} windows of "
                           f"{config.max_orders} orders a step, {facts['dtype']}, {facts['seconds']:.0f} s in all on "
                           f"{facts['device']}, JAX {facts['jax']}",
               "parts": f"trained on orders before {config.validation_from}, stopped by those from there to "
                        f"{config.held_from}, held out from there on"}
    card = report.card(config.title, spec, written, losses, config.limits)
    with contextlib.ExitStack() as folders:
        output = folders.enter_context(output_folder(config.output, config.overwrite))
        places = [output / "checkpoint"]
        if config.checkpoint:
            places.append(folders.enter_context(output_folder(config.checkpoint, config.overwrite)))
        for place in places:
            place.mkdir(exist_ok=True)
            checkpoints.write(place, spec, params, data.converters, json.loads(json.dumps(about)))
            (place / "README.md").write_text(card, encoding="utf-8")
        (output / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve), encoding="utf-8")
        report.curve(curve, losses).savefig(output / "curve.png", dpi=120)
        write_json(output / "report.json", {**facts, "losses": losses, "config": config})


if __name__ == "__main__":
    launcher.run("train", main)
