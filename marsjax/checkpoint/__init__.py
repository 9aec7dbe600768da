"""Order models on disk and on the Hugging Face Hub: load, save, import, export, check.

  `load`: the front door: a name, a folder or a repository -> `LoadedModel`. Start here.
  `folder`: checkpoints of marsjax: weights (Orbax), sizes, bins and origin in one folder; `save` and `restore`.
  `importer`: a published model with its bins -> `Checkpoint`; settles what its files leave open.
  `order_batch`: the order-batch model in a checkpoint's folder `control`.
  `ensemble`: the ensemble there. `control_files`: how the files of both are written and read.
  `manifest`: the hashes of a folder's files, written and checked.
  `safetensors`: the published files of a model, read and written.
  `tensor_files`: the tensors in them, of one file or of shards.
  `converter_files`: files of bin converters, read and written.
  `hub`: a published model from the Hugging Face Hub, by its client's cache.
  `downloads`: published models and their data in one folder, with hashes; what `marsjax download` fetches.
  `validation`: how well a model predicts published samples.
  `pickle`: reads the plain data in a pickle without running it.
  `load_order_model`: an order model from a name, a folder or a repository.
  `LoadedModel`: a model with its bins, ready to predict.
  `Checkpoint`: what a folder holds.
"""

from marsjax.checkpoint import (
    control_files,
    converter_files,
    downloads,
    ensemble,
    folder,
    hub,
    importer,
    load,
    manifest,
    order_batch,
    pickle,
    safetensors,
    tensor_files,
    validation,
)
from marsjax.checkpoint.folder import Checkpoint
from marsjax.checkpoint.load import LoadedModel, load_order_model

__all__ = [
    "Checkpoint", "LoadedModel", "control_files", "converter_files", "downloads", "ensemble", "folder", "hub",
    "importer", "load", "load_order_model", "manifest", "order_batch", "pickle", "safetensors", "tensor_files",
    "validation",
]  # fmt: skip
