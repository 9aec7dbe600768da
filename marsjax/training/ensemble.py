"""From days and the codes of their order batches to an ensemble (`model.ensemble`); the order model stays as it is.

The loss is that of each next order, given the codes of the interval in which it came: what an order model can learn
from being told the whole interval at once. The hidden states before the orders are those of the order model, made once.

Orders say little one by one, and much by what those of an interval have in common. So the shift is learnt first, from
sums over intervals (`Pulls`), by which the best linear map is known in closed form; then, with that map as it is, all
other weights, order by order.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.model import ensemble as model_ensemble
from marsjax.model import row_head
from marsjax.model.ensemble import Ensemble
from marsjax.model.llama import OrderModel
from marsjax.model.row_head import RowHead
from marsjax.tokens import encoding
from marsjax.training import evaluate, loop
from marsjax.training.loop import TrainingProgress, TrainSpec
from marsjax.training.split import Span

NO_BATCH = -1
"""Stands for the batch of an order that lies in no interval with a batch."""
UNDECAYED = ("norm",)
"""Parts of names of weights that are not to be pulled to 0."""
_FIXED = ("shift", "further", "tokenizer")
"""Those that the second stage leaves as they are."""
RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Of the shift's map: its squares, of inputs of one standard deviation, cost so many times half the mean order's cost
of a change of one unit (`Pulls.cost`)."""
_WHOLE = TrainSpec(steps=200, batch=128, length=16, peak_rate=5e-4, warmup=50, decay=3.0, undecayed=UNDECAYED,
                   average=0.98)
_TOGETHER = 2048
"""Orders whose losses are measured at a time."""


@dataclasses.dataclass(frozen=True, eq=False)
class ToldSpan:
    """A span of a day, and the batches that its orders are a part of."""

    span: Span
    batch: np.ndarray
    """int32 [N], of each order of the span: its row of `codes`, never falling, or NO_BATCH."""
    codes: np.ndarray
    """int32 [M, C]."""

    def __post_init__(self) -> None:
        batch = np.asarray(self.batch)
        if len(batch) != self.span.count:
            raise InputError(f"{self.span.name}: expected the batch of each of {self.span.count} orders, got "
                             f"{len(batch)}")
        there = batch[batch != NO_BATCH]
        if there.size and (there.min() < 0 or there.max() >= len(self.codes) or (np.diff(there) < 0).any()):
            raise InputError(f"{self.span.name}: expected batches of 0 to {len(self.codes) - 1} that never fall, got "
                             f"{there.min()} to {there.max()}")


class ToldOrders(NamedTuple):
    """What an ensemble is trained or measured on: N orders of M batches, the orders of each one after the other."""

    hidden: Array
    """float32 [N, d], of the order model, before each order."""
    label: Array
    """int32 [N], the order's class."""
    batch: Array
    """int32 [N]."""
    codes: Array
    """int32 [M, C]."""

    @property
    def counts(self) -> np.ndarray:
        """Orders of each batch, int64 [M]."""
        return np.bincount(np.asarray(self.batch), minlength=len(self.codes))


def told(model: OrderModel, spans: Sequence[ToldSpan]) -> ToldOrders:
    """The orders of some spans, without those in no batch, NumPy arrays; InputError where none is left."""
    found, passed = [], 0
    for each in spans:
        hidden, label = evaluate.states(model, [each.span])
        kept = each.batch != NO_BATCH
        found.append((hidden[kept], label[kept], each.batch[kept] + passed))
        passed += len(each.codes)
    if not sum(len(label) for _, label, _ in found):
        raise InputError("ensemble: expected orders that lie in batches, got none")
    hidden, label, batch = (np.concatenate(x) for x in zip(*found, strict=True))
    return ToldOrders(hidden, label, batch.astype(np.int32), np.concatenate([each.codes for each in spans]))


def nats(model: OrderModel, hidden: Array, label: Array) -> jax.Array:
    """Negative log-probability, float32 [...], of classes int32 [...] at hidden states [..., d] of an order model."""
    head, label = model.head, jnp.asarray(label)
    if not isinstance(head, RowHead):
        return optax.softmax_cross_entropy_with_integer_labels(head(jnp.asarray(hidden)), label)
    scores = row_head.scores(head.tables(), jnp.asarray(hidden), head.compute)
    return row_head.log_partition(scores) - row_head.of_class(scores, encoding.unpack(model.spec.tokens, label))


class Pulls(NamedTuple):
    """Which way the orders of M intervals pull the hidden states before them, and how much a change of these costs.

    Where a change c is small, the nats of the orders of interval m change by orders[m] c' cost c / 2 - pull[m]' c.
    """

    pull: Array
    """float32 [M, d], the sum over an interval's orders of minus the gradient of their nats."""
    orders: Array
    """float32 [M], how many there are."""
    cost: Array
    """float32 [d, d], the mean over all orders of the products of these gradients, which is the mean of the second
    derivatives of the nats where the order model's law is the true one."""


def pulls(model: OrderModel, of: ToldOrders) -> Pulls:
    """Of told orders, on the host."""
    found = []
    for rows in np.array_split(np.arange(len(of.label)), -(-len(of.label) // _TOGETHER)):
        pad = _TOGETHER - len(rows)
        gradient = _gradients(model, np.pad(of.hidden[rows], ((0, pad), (0, 0))), np.pad(of.label[rows], (0, pad)))
        found.append(-np.asarray(gradient)[: len(rows)])
    each = np.concatenate(found)
    pull = np.zeros((len(of.codes), each.shape[1]), np.float32)
    np.add.at(pull, of.batch, each)
    return Pulls(pull, of.counts.astype(np.float32), each.T @ each / len(each))


@jax.jit
def _gradients(model: OrderModel, hidden: jax.Array, label: jax.Array) -> jax.Array:
    return jax.grad(lambda at: jnp.sum(nats(model, at, label)))(hidden)


@dataclasses.dataclass(frozen=True)
class EnsembleTraining:
    """How an ensemble is trained: first its shift alone, by `Pulls`, then all else, by the nats of orders."""

    ridges: tuple[float, ...] = RIDGES
    """Of which the one that suits the validation part best is taken for the shift."""
    further: float = 10.0
    """The ridge of `Ensemble.further`: large, so that it keeps to what is told most surely."""
    whole: TrainSpec = _WHOLE
    """Of a step `batch` intervals and `length` orders of each, so that every order is as likely."""
    code_dropout: float = 0.5
    """Share of codes that a step exchanges for those of other intervals."""
    every: int = 50
    """Steps between two looks at the validation part."""
    patience: int = 4
    """Looks without a new best after which the second stage ends; 0: none."""

    def __post_init__(self) -> None:
        if not self.ridges or not all(0 < ridge < np.inf for ridge in (*self.ridges, self.further)):
            raise InputError(f"EnsembleTraining.ridges: expected some positive numbers, got {self.ridges}, and "
                             f"further={self.further}")
        if not 0 <= self.code_dropout < 1:
            raise InputError(f"EnsembleTraining.code_dropout: expected at least 0 and below 1, got {self.code_dropout}")
        for name, low in (("every", 1), ("patience", 0)):
            if getattr(self, name) < low:
                raise InputError(f"EnsembleTraining.{name}: expected at least {low}, got {getattr(self, name)}")


Row = dict[str, Any]
Steps = Callable[[TrainingProgress[Ensemble], int], tuple[TrainingProgress[Ensemble], jax.Array]]
"""So many steps, and the loss of each."""


def fit(training: EnsembleTraining, model: OrderModel, ensemble: Ensemble, parts: tuple[ToldOrders, ToldOrders],
        key: jax.Array, on_row: Callable[[Row], None] = lambda row: None) -> tuple[Ensemble, list[Row]]:
    """The ensemble of the lowest loss on the validation part.

    Args:
      training: how.
      model: the order model, which stays as it is.
      ensemble: to start from.
      parts: what is trained on, and what decides when to stop.
      key: of all draws.
      on_row: called with each new row.

    Returns it, and a row of each look: validation_loss, in nats an order, and part, shift or whole; of the shift the
    ridge, and the gain on the training part that `Pulls` foretell; of the whole step and loss. The first row of a part
    is that of the ensemble that it starts from.
    """
    def measure(of: Ensemble) -> float:
        return float(np.mean(losses(model, of, parts[1]), dtype=np.float64))

    curve: list[Row] = []
    best = ensemble
    for ridge, foretold, found in (None, 0.0, ensemble), *_shifted(training, model, ensemble, parts[0]):
        loss = measure(found)
        if loss < min((each["validation_loss"] for each in curve), default=np.inf):
            best = found
        curve.append({"part": "shift", "ridge": ridge, "foretold": foretold, "validation_loss": loss})
        on_row(curve[-1])
    given, counts = jax.tree.map(jnp.asarray, parts[0]), parts[0].counts
    bounds = (jnp.asarray(np.cumsum(counts) - counts, jnp.int32), jnp.asarray(counts, jnp.int32))
    whole = dataclasses.replace(training.whole, undecayed=(*training.whole.undecayed, *_FIXED))
    training = dataclasses.replace(training, whole=whole)
    for found, row in _descended(training, lambda progress, count: _steps(
            training, count, model, progress, (given, bounds), key), best, measure):
        best = found
        curve.append({"part": "whole", **row})
        on_row(curve[-1])
    return Ensemble(best.spec, best.weights(), ensemble.tokenizer), curve


def _shifted(training: EnsembleTraining, model: OrderModel, ensemble: Ensemble, of: ToldOrders
             ) -> Iterator[tuple[float, float, Ensemble]]:
    """Ridges, the gain in nats an order that `Pulls` foretell, and the ensemble with the shift of each."""
    pulled = pulls(model, of)
    x = _inputs(ensemble, of.codes)
    mean, scale, total = x.mean(axis=0), x.std(axis=0) + 1e-3, pulled.orders.sum(dtype=np.float64)
    unit = np.concatenate([(x - mean) / scale, np.ones((len(x), 1))], axis=1)
    cost = pulled.cost.astype(np.float64)
    # With the cost's root as the unit of changes the sums over intervals are those of a ridge regression.
    root = np.linalg.inv(np.linalg.cholesky(cost + 1e-6 * np.trace(cost) / len(cost) * np.eye(len(cost))))
    gram = (unit * pulled.orders[:, None]).T @ unit / total
    product = unit.T @ pulled.pull / total

    def solved(ridge: float, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The shifts [M, d], and the two weights of their map."""
        found = np.linalg.solve(gram + ridge * np.eye(len(gram)), product @ root.T) @ root
        weight = found[:-1] / scale[:, None]
        return unit @ found, {name: weight, f"{name}_bias": found[-1] - mean @ weight}

    _, further = solved(training.further, "further")
    for ridge in training.ridges:
        shift, weights = solved(ridge, "shift")
        gained = np.sum(pulled.pull * shift) - np.sum(pulled.orders * np.einsum("md,de,me->m", shift, cost, shift)) / 2
        yield ridge, float(gained / total), Ensemble(ensemble.spec, {**ensemble.weights(), **{
            name: x.astype(np.float32) for name, x in (further | weights).items()}}, ensemble.tokenizer)


def _inputs(ensemble: Ensemble, codes: Array) -> np.ndarray:
    """What the shift is a map of, float64 [M, F]."""
    read = jax.jit(lambda part: model_ensemble.inputs(ensemble.tokenizer.decode(part)))
    parts = np.array_split(np.asarray(codes), -(-len(codes) // _TOGETHER))
    return np.concatenate([np.asarray(read(part), np.float64) for part in parts])


def _descended(training: EnsembleTraining, steps: Steps, ensemble: Ensemble,
               measure: Callable[[Ensemble], float]) -> Iterator[tuple[Ensemble, Row]]:
    """The best ensemble so far of the second stage, and the row, at each look."""
    train, best = training.whole, ensemble
    progress = loop.begin(train, ensemble)
    curve: list[Row] = [{"step": 0, "loss": None, "validation_loss": measure(ensemble)}]
    yield best, curve[-1]
    while int(progress.step) < train.steps:
        progress, trained = steps(progress, min(training.every, train.steps - int(progress.step)))
        loss = float(jnp.mean(trained))
        if not np.isfinite(loss):
            raise InputError(f"ensemble: the loss before step {int(progress.step)} is no finite number; lower the rate "
                             f"(peak_rate={train.peak_rate})")
        curve.append({"step": int(progress.step), "loss": loss, "validation_loss": measure(progress.average)})
        since = len(curve) - 1 - int(np.argmin([row["validation_loss"] for row in curve]))
        if since == 0:
            best = jax.tree.map(jnp.copy, progress.average)  # the loop gives its own arrays away
        yield best, curve[-1]
        if training.patience and since >= training.patience:
            break


def _exchanged(share: float, codes: jax.Array, key: jax.Array) -> jax.Array:
    """Codes [B, C], a share of which is exchanged for those of others of the batch at the same place."""
    of_swap, of_other = jax.random.split(key)
    other = jax.random.permutation(of_other, codes, axis=0, independent=True)
    return jnp.where(jax.random.bernoulli(of_swap, share, codes.shape), other, codes)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _steps(training: EnsembleTraining, count: int, model: OrderModel, progress: TrainingProgress[Ensemble],
           data: tuple[ToldOrders, tuple[jax.Array, jax.Array]], key: jax.Array
           ) -> tuple[TrainingProgress[Ensemble], jax.Array]:
    """`count` steps of all but the shift, and the loss of each."""
    train, (given, (firsts, counts)) = training.whole, data

    def one(now: TrainingProgress[Ensemble], _: None) -> tuple[TrainingProgress[Ensemble], jax.Array]:
        of_batch, of_order, of_swap = jax.random.split(jax.random.fold_in(key, now.step), 3)
        # The batch of an order drawn evenly: a batch is as likely as it has orders.
        batch = jnp.asarray(given.batch)[jax.random.randint(of_batch, (train.batch,), 0, len(given.batch))]
        share = jax.random.uniform(of_order, (train.batch, train.length))
        row = firsts[batch][:, None] + (share * counts[batch][:, None]).astype(jnp.int32)
        row = jnp.minimum(row, (firsts + counts)[batch][:, None] - 1)
        codes = _exchanged(training.code_dropout, jnp.asarray(given.codes)[batch], of_swap)
        hidden, label = jnp.asarray(given.hidden)[row], jnp.asarray(given.label)[row]

        def loss(ensemble: Ensemble) -> jax.Array:
            read = ensemble.prepared(codes)
            read = jax.tree.map(lambda x: x[:, None], read._replace(shift=jax.lax.stop_gradient(read.shift)))
            return jnp.mean(nats(model, ensemble(hidden, read), label))

        value, gradient = jax.value_and_grad(loss)(now.params)
        return loop.stepped(train, now, gradient), value

    return jax.lax.scan(one, progress, None, length=count)


def changed(ensemble: Ensemble, of: ToldOrders, codes: Array | None = None, strength: float = 1.0) -> np.ndarray:
    """Hidden states [N, d] of orders told their batches, or told other `codes` [M, C] in place of them."""
    codes = of.codes if codes is None else codes
    pad = -len(of.label) % _TOGETHER
    hidden, batch = (np.pad(x, [(0, pad)] + [(0, 0)] * (np.ndim(x) - 1)).reshape(-1, _TOGETHER, *np.shape(x)[1:])
                     for x in (of.hidden, of.batch))
    found = np.asarray(_changed(ensemble, (hidden, batch), jnp.asarray(codes), jnp.float32(strength)))
    return found.reshape(-1, found.shape[-1])[: len(of.label)]


@jax.jit
def _changed(ensemble: Ensemble, parts: tuple[jax.Array, jax.Array], codes: jax.Array, strength: jax.Array
             ) -> jax.Array:
    read = ensemble.prepared(codes, strength)
    return jax.lax.map(lambda x: ensemble(x[0], jax.tree.map(lambda of: jnp.asarray(of)[x[1]], read)), parts)


def losses(model: OrderModel, ensemble: Ensemble, of: ToldOrders) -> np.ndarray:
    """Nats of every order told its batch, float32 [N]."""
    hidden = changed(ensemble, of)
    pad = -len(hidden) % _TOGETHER
    parts = (np.pad(hidden, ((0, pad), (0, 0))).reshape(-1, _TOGETHER, hidden.shape[-1]),
             np.pad(of.label, (0, pad)).reshape(-1, _TOGETHER))
    return np.asarray(_nats(model, parts)).reshape(-1)[: len(hidden)]


@jax.jit
def _nats(model: OrderModel, parts: tuple[jax.Array, jax.Array]) -> jax.Array:
    return jax.lax.map(lambda x: nats(model, *x), parts)
