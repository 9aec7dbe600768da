"""One training of an order model from prepared days: fitted, and trained once more on the orders that stopped it."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.specs import ComputeSpec, ModelSpec
from marsjax.model import llama
from marsjax.model.llama import OrderModel
from marsjax.training import fit, flows, loss, structured
from marsjax.training.fit import FitPlan
from marsjax.training.loop import TrainSpec
from marsjax.training.prepare import Prepared
from marsjax.training.state import Saved, StateFolder, digest

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
    mesh: Mesh | None = None
    """Devices that share a step; None: one."""

    def __post_init__(self) -> None:
        limits.check_whole("ModelTraining.seed", self.seed, 0, limits.SEED)
        if self.head not in ("structured", "joint"):
            raise InputError(f"ModelTraining.head: expected structured or joint, got {self.head!r}")
        for name in ("dropout", "flow_weight"):
            if self.head == "joint" and getattr(self, name):
                raise InputError(f"ModelTraining.{name}: expected 0 with head=joint, got {getattr(self, name)}")


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
    chunk = math.gcd(spec.context_length, _CHUNK)
    is_structured = training.head == "structured"
    weight = training.flow_weight
    shares = flows.of_bins(weight, data.converters["pred-order-volume"]) if weight else None
    objective: Any = loss.Factored(chunk, training.dropout, shares) if is_structured else loss.Joint(chunk)

    def fresh(days: list[np.ndarray]) -> Any:
        first = jax.random.fold_in(key, 0)
        if not is_structured:
            return llama.init(spec, first, compute=training.compute)
        frequencies = data.frequencies(spec.tokens, days)
        return structured.init(spec, first, frequencies, training.pair_width, training.compute)

    recipe = fit.Recipe(training.train, training.plan, objective, jax.random.fold_in(key, 1))
    known = {**identity, "data": digest(of.training)}
    with StateFolder(states / "fit", known) as folder, _bar(training.train.steps, "training") as bar:
        saved, is_complete = fit.fit(recipe, fresh(of.training), of, folder, training.mesh, _shown(bar))
    if not is_complete or not training.refit:
        return [saved], is_complete
    steps = int(fit.best_row(saved.curve)["step"])
    with StateFolder(states / "refit", known) as folder, _bar(steps, "refit") as bar:
        again, is_complete = fit.refit(recipe, steps, fresh(of.refit), of, folder, training.mesh, _shown(bar))
    return [saved, again], is_complete


def best_model(training: ModelTraining, saved: Saved[Any]) -> OrderModel:
    """The best model of a training, on one device."""
    best = structured.expand(saved.best) if training.head == "structured" else saved.best
    model: OrderModel = jax.device_put(jax.device_get(best))
    return model


def _bar(steps: int, name: str) -> "tqdm[Any]":
    return tqdm(total=steps, desc=name, unit="step", disable=None)


def _shown(bar: "tqdm[Any]") -> fit.OnRow:
    def on_row(row: dict[str, float]) -> None:
        bar.update(row["step"] - bar.n)
        bar.set_postfix({name: f"{row[name]:.3f}" for name in ("loss", "validation_loss") if name in row})

    return on_row
