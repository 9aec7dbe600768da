"""One training of an order-batch model: images of minutes, tokenizer, batch model, readout, and how good they are."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.order_images import OrderBatchSpec
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.model.order_batch.proposals import OrderBatches
from marsjax.model.order_batch.specs import BatchModelSpec, TokenizerSpec
from marsjax.sim.refusals import Refusals
from marsjax.studies import order_batch_data
from marsjax.studies.order_batch_data import OwnMinutes
from marsjax.studies.order_model import PreparedModel
from marsjax.training.order_batch import batches, codebook, data, reading, report
from marsjax.training.order_batch.batches import BatchTraining
from marsjax.training.order_batch.codebook import CodebookTraining
from marsjax.training.order_batch.data import BatchData, Minutes

OnStage = Callable[[str], None]
"""Called with a line when a part of the training is done."""


@dataclasses.dataclass(frozen=True)
class OrderBatchSizes:
    """Of the model that is trained; the edges of volume bins are fitted.

    Examples:
      >>> OrderBatchSizes().codes
      256
    """

    price_slots: int = 16
    volume_slots: int = 8
    price_ticks_per_slot: int = 1
    every_s: int = 60
    compress: int = 4
    codes: int = 256
    code_dim: int = 8
    tokenizer_width: int = 64
    tokenizer_blocks: int = 2
    batches: int = 16
    """Minutes before the next one that the batch model sees."""
    layers: int = 2
    width: int = 64
    heads: int = 4

    def __post_init__(self) -> None:
        limits.check_whole("OrderBatchSizes.volume_slots", self.volume_slots, 2, 1024)
        try:
            self.specs(tuple(range(1, self.volume_slots)))
        except InputError as error:
            raise InputError(f"OrderBatchSizes: {error}") from error

    def images(self, edges: tuple[int, ...]) -> OrderBatchSpec:
        """Of the images, with edges of the bins of volume, shares."""
        return OrderBatchSpec(self.price_slots, self.price_ticks_per_slot, edges, every_s=self.every_s)

    def specs(self, edges: tuple[int, ...]) -> tuple[TokenizerSpec, BatchModelSpec]:
        """Of the parts."""
        tokenizer = TokenizerSpec(self.images(edges), self.compress, self.codes, self.code_dim, self.tokenizer_width,
                                  self.tokenizer_blocks)
        return tokenizer, BatchModelSpec(self.batches, tokenizer.places, self.codes, self.layers, self.width,
                                         self.heads)


@dataclasses.dataclass(frozen=True)
class OrderBatchTraining:
    """What is trained, and how."""

    validation_from_ns: int
    """Of each day, nanoseconds since midnight: orders from here decide when to stop, and none trains."""
    held_from_ns: int
    """Of each day: orders from here are for the report alone."""
    sizes: OrderBatchSizes = OrderBatchSizes()
    codebook: CodebookTraining = dataclasses.field(default_factory=CodebookTraining)
    batch: BatchTraining = dataclasses.field(default_factory=BatchTraining)
    own: OwnMinutes | None = dataclasses.field(default_factory=OwnMinutes)
    """Futures that are learnt from too; None: none."""
    phases: int = 6
    """Places of the first interval at which the runs of a day's intervals begin that are trained on."""
    seed: int = 0

    def __post_init__(self) -> None:
        limits.check_whole("OrderBatchTraining.phases", self.phases, 1, 60)
        limits.check_whole("OrderBatchTraining.seed", self.seed, 0, limits.SEED)
        if not self.validation_from_ns < self.held_from_ns:
            raise InputError("OrderBatchTraining.validation_from_ns: expected a time before held_from_ns="
                             f"{self.held_from_ns}, got {self.validation_from_ns}")


class TrainedBatches(NamedTuple):
    """What came of a training."""

    batches: OrderBatches
    report: dict[str, Any]
    """Counts of minutes, seconds, and what `training.order_batch.report` says, of minutes held out."""
    rows: list[dict[str, Any]]
    """A row of each look, by its `part`."""
    refused: dict[str, Refusals]
    """Of the orders of each day, by its name."""


def train(training: OrderBatchTraining, prepared: PreparedModel, market: MarketSpec, feeds: Sequence[DayFeed],
          on_stage: OnStage = lambda line: None) -> TrainedBatches:
    """Trains an order-batch model on days and on futures of an order model from states of them.

    Args:
      training: what and how.
      prepared: the order model whose futures are learnt from.
      market: of the days and the futures; needs an account for the order model.
      feeds: the days.
      on_stage: told of progress.

    Errors are those of `order_batch_data`; InputError where a part of the days is too short, or a loss is no number.
    """
    began = time.perf_counter()
    parts, refused = order_batch_data.day_parts(market, feeds)
    early = [data.until(part.seen, training.held_from_ns) for part in parts]
    images = training.sizes.images(data.fitted_edges(early, training.sizes.volume_slots))
    found = data.split(images, parts, training.validation_from_ns, training.held_from_ns, training.phases)
    on_stage(f"{_count(found.training):,} minutes of days, in {training.phases} phases and mirrored, to train on, "
             f"{_count(found.validation):,} to validate, {_count(found.held_out):,} held out")
    own = [] if training.own is None else order_batch_data.of_futures(
        prepared, market, feeds, images, training.own, training.validation_from_ns)
    if own:
        on_stage(f"{_count(own):,} minutes of the order model's own futures; {time.perf_counter() - began:.0f} s")
    batches_of, told, rows = _fitted(training, found, own, images, on_stage)
    return TrainedBatches(batches_of, {**told, "seconds": round(time.perf_counter() - began, 1)}, rows, refused)


def _fitted(training: OrderBatchTraining, found: BatchData, own: Sequence[Minutes], images: OrderBatchSpec,
            on_stage: OnStage) -> tuple[OrderBatches, dict[str, Any], list[dict[str, Any]]]:
    """The parts, the report, and a row of each look."""
    began = time.perf_counter()
    book_key, model_key = jax.random.split(jax.random.key(training.seed))
    of_book, of_model = training.sizes.specs(images.volume_edges)
    learnt = (*found.training, *own)
    tokenizer, book_rows = codebook.fitted(of_book, training.codebook, data.images(learnt),
                                           data.images(found.validation), book_key)
    told: dict[str, Any] = {"tokenizer": report.of_tokenizer(tokenizer, found.training, found.held_out)}
    on_stage(f"tokenizer: perplexity {told['tokenizer']['perplexity']:.0f} of {of_book.codes} codes; "
             f"{time.perf_counter() - began:.0f} s")
    given, validation, held = (batches.windows(batches.encoded(tokenizer, runs), of_model.batches)
                               for runs in (learnt, found.validation, found.held_out))
    model, model_rows = batches.fitted(of_model, training.batch, given, validation, model_key)
    real = batches.windows(batches.encoded(tokenizer, found.training), of_model.batches)
    told["batches"] = report.of_batches(model, real, validation, held)
    on_stage(f"batch model: {told['batches']['model']:.3f} nats a code held out, by place "
             f"{told['batches']['by_place']:.3f}; {time.perf_counter() - began:.0f} s")
    read = reading.fitted(tokenizer, learnt, found.validation)
    told["readout"] = reading.explained(tokenizer, read, found.held_out)
    told |= {"minutes": {"training": _count(found.training), "own": _count(own), "validation": _count(found.validation),
                         "held_out": _count(found.held_out)}}
    rows = [{"part": part, **row} for part, some in (("tokenizer", book_rows), ("batches", model_rows)) for row in some]
    return OrderBatches(tokenizer, model, read), told, rows


def _count(runs: Sequence[Minutes]) -> int:
    return sum(len(run.images) for run in runs)
