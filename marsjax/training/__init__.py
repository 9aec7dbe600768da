"""From replayed days to an order model: days -> windows of tokens -> loss -> optimizer -> weights.

  `prepare`: feeds -> bins and split tokens. Start here.
  `days`: replays days and makes their tokens.
  `day_shard`: one day's tokens made into files; `stored`: such a file, and days that are streamed from them.
  `stream`: windows read from files while the device works.
  `converters`: bins fitted on days.
  `split`: what is trained on, what decides when to stop, what is held out; windows.
  `fit`: one training from its first step, or where it was broken off, to its best weights.
  `loop`: the steps of a training: optimizer, schedule, averages, devices.
  `loss`: what training makes small.
  `distill`: what a step makes small where another model teaches.
  `adapt`: a trained model taught a little more, by the orders of one market.
  `own_futures`: a model taught by its own futures; `gaps`, `statistics`: how far these are from what came, and in
    what.
  `flows`: shares that orders bring by kind and price, made right in training.
  `structured`: an order model with few weights, for few data, that becomes an ordinary one.
  `state`: the state of a training on disk.
  `order_batch`: an order-batch model, from images of minutes.
  `ensemble`: the order model told its minutes; `ensemble_report`: what that gains.
  `evaluate`: losses of a model on parts of days, by field of the order.
  `baselines`: what a model is compared with: frequencies, and a Markov chain.
  `report`: losses beside the baselines, a picture of the curve, the card of a checkpoint.

The public names are modules, each imported when it is first used: some need Matplotlib or Orbax.
"""

import importlib
from types import ModuleType

__all__ = [
    "adapt", "baselines", "converters", "day_shard", "days", "distill", "ensemble", "ensemble_report", "evaluate",
    "fit", "flows", "gaps", "loop", "loss", "order_batch", "own_futures", "prepare", "report", "split", "state",
    "statistics", "stored", "stream", "structured",
]  # fmt: skip


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
