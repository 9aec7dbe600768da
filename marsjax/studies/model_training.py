"""One training of an order model: fitted, trained once more on the orders that stopped it, taught by its futures."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from marsjax.checkpoint.load import LoadedModel
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.specs import ComputeSpec, MarketSpec, ModelSpec
from marsjax.data.feed import DayFeed
from marsjax.model import llama
from marsjax.model.layers import FLOAT32
from marsjax.model.llama import OrderModel
from marsjax.studies import own_futures
from marsjax.training import distill, evaluate, fit, flows, loss, structured
from marsjax.training.days import Tokens
from marsjax.training.distill import Teacher
from marsjax.training.fit import FitPlan
from marsjax.training.gaps import Beginning
from marsjax.training.loop import TrainSpec
from marsjax.training.own_futures import FuturesTraining
from marsjax.training.prepare import Prepared
from marsjax.training.state import Saved, StateFolder, digest
from marsjax.training.structured import Structured

_CHUNK = 128
"""Positions of a window whose scores are made at a time, or the largest part of it that the window is made of."""


@dataclasses.dataclass(frozen=True)
class ModelTraining:
    """What is trained, and how."""

    model: ModelSpec
    train: TrainSpec
    compute: ComputeSpec
    plan: FitPlan
    head: str
    """structured: rows for bins and pairs of bins; joint: a row for each class."""
    pair_width: int
    """Coordinates that the rows of pairs see, for a structured head."""
    dropout: float
    """Share of coordinates that a step leaves out, for a structured head."""
    flow_weight: float
    """Of shares by kind and price (`training.flows`), for a structured head; 0: none."""
    refit: bool
    """Whether to train once more, as long, on the orders that decided when to stop."""
    seed: int
    futures: FuturesTraining | None = None
    """How the model is taught by its own futures after that (`training.own_futures`), for a structured head with
    signals; None: not."""
    futures_every: int = 5
    """Minutes between two states that these start from."""
    mesh: Mesh | None = None
    """Devices that share a step; None: one."""
    teacher: Teacher | None = None
    """An order model whose law is learnt beside the orders; not by own futures. None: none."""

    def __post_init__(self) -> None:
        limits.check_whole("ModelTraining.seed", self.seed, 0, limits.SEED)
        if self.head not in ("structured", "joint"):
            raise InputError(f"ModelTraining.head: expected structured or joint, got {self.head!r}")
        for name in ("dropout", "flow_weight"):
            if self.head == "joint" and getattr(self, name):
                raise InputError(f"ModelTraining.{name}: expected 0 with head=joint, got {getattr(self, name)}")
        if self.futures and not (self.head == "structured" and self.model.tokens.signals):
            raise InputError("ModelTraining.futures: expected head=structured and tokens with signals, got "
                             f"head={self.head}, signals={self.model.tokens.signals}")


def run(training: ModelTraining, data: Prepared, states: Path, identity: Mapping[str, Any]
        ) -> tuple[list[Saved[Any]], bool]:
    """The training, with `refit` the one after it, and whether all is complete.

    Args:
      training: what, and how.
      data: the days.
      states: folder that keeps the state, from which a training that was broken off is taken up.
      identity: what a training that is taken up must have in common with the one before, beside the data.
    """
    key = jax.random.key(training.seed)
    spec, of = training.model, data.split
    is_structured = training.head == "structured"

    def fresh(days: Sequence[Tokens]) -> Any:
        first = jax.random.fold_in(key, 0)
        if not is_structured:
            return llama.init(spec, first, compute=training.compute)
        frequencies = data.frequencies(spec.tokens, days)
        return structured.init(spec, first, frequencies, training.pair_width, training.compute)

    aim = objective(training, data)
    if training.teacher is not None:
        training.teacher.check(spec, data.converters)
        aim = distill.objective(aim, training.teacher)
    recipe = fit.Recipe(training.train, training.plan, aim, jax.random.fold_in(key, 1))
    known = {**identity, "data": digest(of.training)}
    with StateFolder(states / "fit", known) as folder, _bar(training.train.steps, "training") as bar:
        saved, is_complete = fit.fit(recipe, fresh(of.training), of, folder, training.mesh, _shown(bar))
    if not is_complete or not training.refit:
        return [saved], is_complete
    steps = int(fit.best_row(saved.curve)["step"])
    with StateFolder(states / "refit", known) as folder, _bar(steps, "refit") as bar:
        again, is_complete = fit.refit(recipe, steps, fresh(of.refit), of, folder, training.mesh, _shown(bar))
    return [saved, again], is_complete


def objective(training: ModelTraining, data: Prepared) -> Any:
    """What a step on real orders makes small: `loss.Factored` or `loss.Joint`."""
    chunk = math.gcd(training.model.context_length, _CHUNK)
    if training.head == "joint":
        return loss.Joint(chunk)
    weight = training.flow_weight
    shares = flows.of_bins(weight, data.converters["pred-order-volume"]) if weight else None
    return loss.Factored(chunk, training.dropout, shares)


def beginnings(training: ModelTraining, data: Prepared, market: MarketSpec, feeds: Sequence[DayFeed], until_ns: int
               ) -> list[Beginning]:
    """The real states that `ModelTraining.futures` start from; none without it.

    Args:
      training: what, and how.
      data: the days' tokens.
      market: sizes and session.
      feeds: the days that are trained on, in their order; they are read again.
      until_ns: tokens before it are trained on.
    """
    if training.futures is None:
        return []
    bare = structured.expand(structured.init(training.model, jax.random.key(0)))
    return own_futures.of_days(market, LoadedModel(bare, data.converters, {}), feeds, _trained_on(training, data),
                               until_ns, training.futures_every)


def taught(training: ModelTraining, data: Prepared, weights: Structured, market: MarketSpec, given: Sequence[Beginning]
           ) -> tuple[Structured, list[dict[str, float]]]:
    """The weights after `ModelTraining.futures`, on one device, and a row of each of its rounds.

    `given` are the `beginnings`. No state is kept on the way: broken off it begins anew.
    """
    if training.futures is None:
        return weights, []
    alone: Structured = jax.device_put(jax.device_get(weights))
    return own_futures.teach(training.futures, market, data.converters, alone, objective(training, data), given,
                             _trained_on(training, data))


def _trained_on(training: ModelTraining, data: Prepared) -> list[np.ndarray]:
    return [day[:] for day in (data.split.refit if training.refit else data.split.training)]


def best_model(training: ModelTraining, best: Any) -> OrderModel:
    """The order model of the best weights, on one device."""
    best = structured.expand(best) if training.head == "structured" else best
    model: OrderModel = jax.device_put(jax.device_get(best))
    return model


def held_out_loss(model: OrderModel, data: Prepared) -> float:
    """Nats of an order held out, in the mean, computed in float32."""
    nats = evaluate.losses(model.replace(compute=FLOAT32), data.split.held_out)["order"]
    return float(np.mean(nats, dtype=np.float64))


def _bar(steps: int, name: str) -> "tqdm[Any]":
    return tqdm(total=steps, desc=name, unit="step", disable=None)


def _shown(bar: "tqdm[Any]") -> fit.OnRow:
    def on_row(row: dict[str, float]) -> None:
        bar.update(row["step"] - bar.n)
        bar.set_postfix({name: f"{row[name]:.3f}" for name in ("loss", "validation_loss") if name in row})

    return on_row
