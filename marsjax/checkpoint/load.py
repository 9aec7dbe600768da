"""The front door to order models: from a folder, a checkpoint or the Hugging Face Hub to something that predicts."""

import dataclasses
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.checkpoint import converter_files, importer, validation
from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.core import keys, limits
from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.core.specs import ComputeSpec, ModelSpec
from marsjax.model import sampling
from marsjax.model.llama import OrderModel
from marsjax.tokens import encoding
from marsjax.tokens.bins import Converter

DEFAULT = "default"
"""Name of the checkpoint that comes with marsjax."""


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """An order model, ready to predict; windows of orders come as `features`, int32 [B, T, 15] or [B, T * 15].

    T is at most `spec.context_length`; columns are the reference's (order tokens). The change since the open (column 3)
    is clipped as the reference clips it; anything else out of range is an InputError with its place and value.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from marsjax import testing
      >>> model = testing.tiny_model()
      >>> orders = jnp.zeros((2, 5, 15), jnp.int32)
      >>> model.logits(orders).shape, model.sample(jax.random.key(0), orders).shape
      ((2, 384), (2,))
    """

    model: OrderModel
    converters: Mapping[str, Converter]
    """By the names of `bins.NAMES`; empty if there are none."""
    about: Mapping[str, Any]
    """Where the model is from: source, revision, hashes, and the report of its import."""

    @property
    def spec(self) -> ModelSpec:
        """The model's sizes."""
        return self.model.spec

    @property
    def level_bins(self) -> int:
        """Bins of lob-volume, or the most there can be."""
        return validation.level_bins(self.converters)

    def logits(self, features: Array) -> jax.Array:
        """Logits of the token after the last one, float32 [B, classes]."""
        return _logits(self.model, self._checked(features))

    def top(self, features: Array) -> jax.Array:
        """The most likely token, int32 [B]; the lowest of several. InputError where a logit is no finite number."""
        return jnp.argmax(self._finite_logits(features), axis=-1).astype(jnp.int32)

    def sample(self, key: Array, features: Array, temperature: float = 1.0) -> jax.Array:
        """One draw a row, int32 [B], from softmax(logits / temperature), by the law that rollouts draw with.

        Row i draws with `jax.random.fold_in(key, i)`, whatever the other rows are. `key` is of `jax.random.key`, or of
        the older `jax.random.PRNGKey`. InputError for what is no key, unless 0 < temperature, and where a logit is no
        finite number.
        """
        key = keys.typed(key)
        if key.ndim:
            raise InputError(f"key: expected one key, got {list(key.shape)} of them")
        limits.check_temperature("temperature", temperature)
        return _draw(key, self._finite_logits(features), temperature)

    def _finite_logits(self, features: Array) -> jax.Array:
        """Logits to choose a token by: of such that are no numbers the first would be chosen, whatever they mean."""
        logits = self.logits(features)
        broken = np.flatnonzero(~np.isfinite(np.asarray(logits)).all(axis=-1))
        if broken.size:
            weights = [name for name, x in self.model.weights().items() if not jnp.isfinite(jnp.asarray(x)).all()]
            raise InputError(f"logits of row {broken[0]}: expected finite numbers, got others: the model is damaged"
                             + (f" (not finite: weights.{', weights.'.join(weights[:3])})" if weights else ""))
        return logits

    def _checked(self, features: Array) -> np.ndarray:
        found, columns = np.asarray(features), encoding.columns(self.spec.tokens)
        if found.ndim == 2 and found.shape[-1] and found.shape[-1] % columns == 0:
            found = found.reshape(len(found), -1, columns)
        return validation.check_features(self.spec, found, self.level_bins)


@jax.jit
def _logits(model: OrderModel, features: Array) -> jax.Array:
    return model.logits(encoding.from_array(model.spec.tokens, features))


@jax.jit
def _draw(key: jax.Array, logits: jax.Array, temperature: float) -> jax.Array:
    words = jax.vmap(lambda row: jax.random.bits(jax.random.fold_in(key, row), (2,), jnp.uint32))
    return sampling.sample(logits, words(jnp.arange(len(logits))), temperature)


def load_order_model(source: str | os.PathLike[str] = DEFAULT, revision: str | None = None, dtype: str = "float32", *,
                     ratio_embeddings: str = "auto", converters: str | os.PathLike[str] | None = None,
                     samples: str | os.PathLike[str] | None = None,
                     sharding: jax.sharding.Sharding | None = None, ignore_keys: Collection[str] = ()) -> LoadedModel:
    """An order model from wherever it is.

    Args:
      source: `default` (comes with marsjax), a checkpoint folder of marsjax, a folder with `config.json` and
        `model.safetensors` (or shards with their index), or `owner/name` on the Hugging Face Hub.
      revision: commit, branch or tag on the hub.
      dtype: of parameters and matrix products: float32 or bfloat16.
      ratio_embeddings: published models hold two tables that the reference's class does not read, likely embeddings
        of features 1 and 2. `ignore` leaves them out; `sum` adds them, `swapped` with the features exchanged; `auto`
        takes what predicts validation samples best.
        The choice is for published models only; a checkpoint folder of marsjax has made it.
      converters: folder of bin converters to take, by default those in `converters/` in (or, of a published model,
        beside) the model's folder.
      samples: folder of validation samples that `auto` chooses by, likewise from `validation-samples/`.
      sharding: where the parameters go; by default one device.
      ignore_keys: unknown keys of a published `config.json` to pass over, since they do not change the model.

    Raises:
      InputError: a file is broken or does not fit the others, or `auto` has no samples to choose by.
      OSError: a file or repository is missing or cannot be reached.

    Examples:
      >>> from marsjax import load_order_model
      >>> model = load_order_model("default")
      >>> model.spec.layers, model.spec.embed_dim, model.spec.context_length
      (1, 32, 1024)
    """
    place = folder_of(source)
    if checkpoint_folder.is_checkpoint(place):
        found = _own(place, sharding, converters, {
            "revision": revision, "samples": samples, "ratio_embeddings": ratio_embeddings,
            "ignore_keys": ", ".join(ignore_keys) or None})
    else:
        found = importer.import_published(source, revision, dtype, ratio_embeddings=ratio_embeddings,
                                          converters=converters, samples=samples, ignore_keys=ignore_keys)
    model = found.model.replace(compute=ComputeSpec(dtype=dtype))
    model = jax.device_put(jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), model), sharding)
    return LoadedModel(model, found.converters, found.about)


def _own(place: pathlib.Path, sharding: jax.sharding.Sharding | None, converters: str | os.PathLike[str] | None,
         others: Mapping[str, Any]) -> checkpoint_folder.Checkpoint:
    """A checkpoint folder of marsjax, with other converters if any are given.

    `others` are arguments that such a folder leaves nothing to choose by; InputError for one that is not its default.
    """
    for name, value in others.items():
        if value is not None and (name, value) != ("ratio_embeddings", importer.AUTO):
            raise InputError(f"{name}: expected none for a folder of marsjax ({place}), whose model is settled, got "
                             f"{str(value)!r}")
    found = checkpoint_folder.restore(place, sharding)
    if converters is None:
        return found
    try:
        given = converter_files.read_folder(pathlib.Path(converters))
        checkpoint_folder.check_converters(found.model.spec, given)
    except ValueError as error:
        raise InputError(f"converters {converters}: {error}") from None
    return dataclasses.replace(found, converters=given)


def folder_of(source: str | os.PathLike[str]) -> pathlib.Path:
    """Where an order model lies, `source` as of `load_order_model`; FileNotFoundError where the default is missing."""
    return _packaged(DEFAULT) if source == DEFAULT else pathlib.Path(source)


def _packaged(name: str) -> pathlib.Path:
    """The folder of a checkpoint that comes with marsjax: inside a wheel, or beside the package in a checkout."""
    package = pathlib.Path(__file__).parent.parent
    folders = [folder / name for folder in (package / "packaged" / "checkpoints", package.parent / "checkpoints")]
    found = next((folder for folder in folders if (folder / checkpoint_folder.SPEC).is_file()), None)
    if found is None:
        raise FileNotFoundError(f"no checkpoint {name!r} comes with this copy of marsjax (looked in "
                                f"{' and '.join(map(str, folders))}); name a folder, or owner/name on the hub")
    return found
