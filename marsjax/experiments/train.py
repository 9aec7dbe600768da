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
    fitted, is_done = _fit(config, spec, train, compute, data, mesh)
    if not is_done:
        where = " of the refit" if len(fitted) > 1 else ""
        print(f"broken off at step {int(fitted[-1].progress.step)}{where}; to go on, give the argument resume")
        return 0
    # Off the mesh.
    models = [jax.device_put(jax.device_get(structured.expand(saved.best, spec) if config.head == "structured"
                                            else saved.best)) for saved in fitted]
    losses = report.measure(models[-1], spec, data, models[0] if config.refit else None)
    facts: dict[str, Any] = {"device": f"{_devices(config)} x {jax.devices()[0].device_kind}", "jax": jax.__version__,
             "dtype": compute.dtype, "steps": int(fitted[0].progress.step), "best": fit.best_row(fitted[0].curve),
             "seconds": time.perf_counter() - began}
    _write(config, spec, models[-1], data, [saved.curve for saved in fitted], losses, facts)
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
         mesh: Mesh | None) -> tuple[list[Saved[Any]], bool]:
    """The training, with `config.refit` the one after it, and whether all is done."""
    key = jax.random.key(config.seed)
    chunk = math.gcd(config.max_orders, CHUNK)
    is_structured = config.head == "structured"
    objective: Any = loss.Factored(spec, compute, chunk) if is_structured else loss.Joint(spec, compute, chunk)

    def fresh(days: list[np.ndarray]) -> Any:
        first = jax.random.fold_in(key, 0)
        if not is_structured:
            return model.init(spec, first)
        return structured.init(spec, first, data.frequencies(spec.tokens, days), config.pair_width)

    plan = Plan(config.every, config.patience, config.stop_at)
    draws, folder, identity, of = jax.random.fold_in(key, 1), _state_folder(config), _identity(config, data), data.split
    with StateFolder(folder / "fit", identity) as states, _bar(config.steps, "training") as bar:
        saved, is_done = fit.fit(train, plan, objective, fresh(of.training), of, draws, states, mesh, _shown(bar))
    if not is_done or not config.refit:
        return [saved], is_done
    steps = int(fit.best_row(saved.curve)["step"])
    with StateFolder(folder / "refit", identity) as states, _bar(steps, "refit") as bar:
        again, is_done = fit.refit(train, plan, steps, objective, fresh(of.refit), of, draws, states, mesh, _shown(bar))
    return [saved, again], is_done


def _bar(steps: int, name: str) -> "tqdm[Any]":
    return tqdm(total=steps, desc=name, unit="step", disable=None)


def _shown(bar: "tqdm[Any]") -> fit.OnRow:
    def on_row(row: dict[str, float]) -> None:
        bar.update(row["step"] - bar.n)
        bar.set_postfix({name: f"{row[name]:.3f}" for name in ("loss", "validation_loss") if name in row})

    return on_row


def _write(config: ConfigDict, spec: ModelSpec, params: Params, data: Prepared, curves: list[list[dict[str, float]]],
           losses: dict[str, Any], facts: dict[str, Any]) -> None:
    """The output folder, and the checkpoint's."""
    curve, refit = curves[0], curves[1] if config.refit else []
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
                        f"{config.held_from}, " + "then trained as long on both (the losses of validation are those "
                        "before); " * bool(config.refit) + "held out from there on"}
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
        rows = curve + [{"refit": True, **row} for row in refit]
        (output / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        report.curve(curve, refit, losses).savefig(output / "curve.png", dpi=120)
        write_json(output / "report.json", {**facts, "losses": losses, "config": config})


if __name__ == "__main__":
    launcher.run("train", main)
