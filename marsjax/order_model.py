"""The front door to order models: from a folder, a checkpoint or the Hugging Face Hub to something that predicts."""

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax import checkpoints, importer, model, tokens, validation
from marsjax.bins import Converter
from marsjax.model import Params
from marsjax.specs import ComputeSpec, ModelSpec
from marsjax.types import Array

DEFAULT = "default"
"""Name of the checkpoint that comes with marsjax."""


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """An order model, ready to predict; windows of orders come as `features`, int32 [B, T, 15] or [B, T * 15].

    T is at most `spec.max_orders`; columns are the reference's (order tokens). The change since the open (column 3) is
    clipped as the reference clips it; anything else out of range is a ValueError with its place and value.
    """

    spec: ModelSpec
    params: Params
    converters: Mapping[str, Converter]
    """By the names of `bins.NAMES`; empty if there are none."""
    about: Mapping[str, Any]
    """Where the model is from: source, revision, hashes, and the report of its import."""
    compute: ComputeSpec = model.FLOAT32

    @property
    def level_bins(self) -> int:
        """Bins of lob-volume, or the most there can be."""
        return validation.level_bins(self.converters)

    def logits(self, features: Array) -> jax.Array:
        """Logits of the token after the last one, float32 [B, classes]."""
        return _logits(self.params, self.spec, self._checked(features), self.compute)

    def top(self, features: Array) -> jax.Array:
        """The most likely token, int32 [B]; the lowest of several."""
        return jnp.argmax(self.logits(features), axis=-1).astype(jnp.int32)

    def sample(self, key: jax.Array, features: Array, temperature: float = 1.0) -> jax.Array:
        """One draw a row, int32 [B], from softmax(logits / temperature).

        Row i draws with `jax.random.fold_in(key, i)`, whatever the other rows are. ValueError unless 0 < temperature.
        """
        if isinstance(temperature, bool) or not 0 < temperature < math.inf:
            raise ValueError(f"temperature: expected a number above 0, got {temperature!r}")
        return _draw(key, self.logits(features), temperature)

    def _checked(self, features: Array) -> np.ndarray:
        found = np.asarray(features)
        if found.ndim == 2 and found.shape[-1] and found.shape[-1] % tokens.COLUMNS == 0:
            found = found.reshape(len(found), -1, tokens.COLUMNS)
        return validation.check_features(self.spec, found, self.level_bins)


@functools.partial(jax.jit, static_argnames=("spec", "compute"))
def _logits(params: Params, spec: ModelSpec, features: Array, compute: ComputeSpec) -> jax.Array:
    return model.logits(params, spec, tokens.from_array(spec.tokens, features), compute)


@jax.jit
def _draw(key: jax.Array, logits: jax.Array, temperature: float) -> jax.Array:
    # Less their maximum, so that a low temperature does not eat the digits of the noise that is added.
    scaled = (logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(logits)))
    draw = functools.partial(jax.random.categorical, mode="high")
    return jax.vmap(draw)(keys, scaled).astype(jnp.int32)


def load_order_model(source: str | os.PathLike[str] = DEFAULT, revision: str | None = None, dtype: str = "float32", *,
                     ratio_embeddings: str = "auto", converters: str | os.PathLike[str] | None = None,
                     samples: str | os.PathLike[str] | None = None,
                     sharding: jax.sharding.Sharding | None = None) -> LoadedModel:
    """An order model from wherever it is.

    Args:
      source: `default` (comes with marsjax), a checkpoint folder of marsjax, a folder with `config.json` and
        `model.safetensors`, or `owner/name` on the Hugging Face Hub.
      revision: commit, branch or tag on the hub.
      dtype: of parameters and matrix products: float32 or bfloat16.
      ratio_embeddings: published models hold two tables that the reference's class does not read, likely embeddings
        of features 1 and 2. `ignore` leaves them out; `sum` adds them, `swapped` with the features exchanged; `auto`
        takes what predicts validation samples best.
      converters: folder of bin converters, if they are not in `converters/` in or beside the model's folder.
      samples: folder of validation samples, likewise from `validation-samples/`.
      sharding: where the parameters go; by default one device.

    Raises:
      ValueError: a file is broken or does not fit the others, or `auto` has no samples to choose by.
      OSError: a file or repository is missing or cannot be reached.
    """
    place = _packaged(DEFAULT) if source == DEFAULT else pathlib.Path(source)
    if (place / checkpoints.SPEC).is_file():
        if revision is not None:
            raise ValueError(f"revision: expected none for a folder ({place}), got {revision!r}")
        found = checkpoints.restore(place, sharding)
    else:
        found = importer.import_published(source, revision, dtype, ratio_embeddings=ratio_embeddings,
                                          converters=converters, samples=samples)
    compute = ComputeSpec(dtype=dtype)
    params = jax.device_put(jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), found.params), sharding)
    return LoadedModel(found.spec, params, found.converters, found.about, compute)


def _packaged(name: str) -> pathlib.Path:
    """The folder of a checkpoint that comes with marsjax: inside a wheel, or beside the package in a checkout."""
    package = pathlib.Path(__file__).parent
    folders = [folder / name for folder in (package / "packaged" / "checkpoints", package.parent / "checkpoints")]
    found = next((folder for folder in folders if (folder / checkpoints.SPEC).is_file()), None)
    if found is None:
        raise FileNotFoundError(f"no checkpoint {name!r} comes with this copy of marsjax (looked in "
                                f"{' and '.join(map(str, folders))}); name a folder, or owner/name on the hub")
    return found
