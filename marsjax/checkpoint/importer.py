"""Import of a published order model: finds its parts, reads them, and settles what the files leave open.

The published models hold two tables [11, d] more than the reference's class reads. They are most likely embeddings of
features 1 and 2 (volume ratio and trade ratio), which that class leaves out, but neither their use nor their order is
documented. Validation samples decide: of the model without them and with them in both orders, the one with the lowest
loss is taken.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np

from marsjax.checkpoint import converter_files, downloads, hub, manifest, validation
from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.checkpoint import safetensors as safetensors_layout
from marsjax.checkpoint.folder import Checkpoint
from marsjax.checkpoint.hub import Fetched
from marsjax.checkpoint.safetensors import CONFIG, WEIGHTS, Imported
from marsjax.core.errors import InputError
from marsjax.model import layers
from marsjax.tokens.bins import Converter

VARIANTS = ("ignore", "sum", "swapped")
"""The two tables are left out; added; added with the features exchanged."""
AUTO = "auto"
MAX_SAMPLES = 256


class _Choice(NamedTuple):
    variant: str
    losses: dict[str, float]
    """Nats a token of the variants that were tried."""
    notes: list[str]
    samples: pathlib.Path | None
    """Folder of validation samples, if any are at hand."""


def import_published(source: str | os.PathLike[str], revision: str | None = None, dtype: str = "float32", *,
                     ratio_embeddings: str = AUTO, converters: str | os.PathLike[str] | None = None,
                     samples: str | os.PathLike[str] | None = None, ignore_keys: Collection[str] = (),
                     max_samples: int = MAX_SAMPLES) -> Checkpoint:
    """A published model with its converters; its weights are NumPy arrays, `about` holds source and report.

    Args:
      source: folder with `config.json` and `model.safetensors` (or shards with their index), or `owner/name` on the
        Hugging Face Hub.
      revision: commit, branch or tag on the hub.
      dtype: of the parameters, float32 or bfloat16.
      ratio_embeddings: one of `VARIANTS`, or `auto` to let the samples choose. `sum` goes by the names of the tables,
        else by the samples, else by the alphabet.
      converters: folder of converters, if they are not in `converters/` in or beside the model's folder.
      samples: folder of validation samples, if they are not in `validation-samples/` in or beside it.
      ignore_keys: unknown keys of `config.json` to pass over.
      max_samples: samples to choose by, 0 for all.

    Raises:
      InputError: a file is broken or does not fit the others, or there is nothing to choose by.
      OSError: a file or repository is missing or cannot be reached.
    """
    if ratio_embeddings not in (AUTO, *VARIANTS):
        raise InputError(f"ratio_embeddings: expected {', '.join((AUTO, *VARIANTS))}, got {ratio_embeddings!r}")
    origin = find(source, revision)
    imported = safetensors_layout.read(origin.model, dtype, ignore_keys)
    folder, known, notes = _converters(imported, origin, converters)
    choice = _Choice("ignore", {}, [], pathlib.Path(samples) if samples is not None else origin.samples)
    if imported.ratio_tables:
        most_level = validation.level_bins(known)
        find_samples = functools.partial(_samples_folder, origin, samples)
        choice = _choose(imported, ratio_embeddings, choice, find_samples, most_level, max_samples)
    elif ratio_embeddings in ("sum", "swapped") and not imported.model.spec.ratio_embeddings:
        raise InputError(f"ratio_embeddings={ratio_embeddings}: {imported.where} has no two tables "
                         f"[{layers.RATIO_ROWS}, {imported.model.spec.embed_dim}] to add")
    report = {"used": list(imported.used), "unused": list(imported.unused),
              "ignored_keys": list(imported.described), "dropout": imported.dropout,
              "ratio_tables": list(imported.ratio_tables), "ratio_embeddings": choice.variant,
              "losses": choice.losses, "samples": str(choice.samples) if choice.samples else None,
              "notes": notes + choice.notes}
    files = list(imported.files)
    files += [file for file in sorted(folder.iterdir()) if file.stem in known] if folder else []
    about = {"source": str(source), "revision": origin.revision, "assets": origin.assets,
             "assets_revision": origin.assets_revision, "sha256": {file.name: manifest.sha256(file) for file in files},
             "import": report}
    return Checkpoint(imported.variant(choice.variant), known, about)


def find(source: str | os.PathLike[str], revision: str | None = None) -> Fetched:
    """Where the parts of a published model lie: a folder, what is in or beside it, or a repository on the hub."""
    folder = pathlib.Path(source)
    if not folder.exists() and hub.is_repository(str(source)):
        return downloads.find(str(source), revision) or hub.fetch(str(source), revision)
    if not folder.is_dir():
        raise FileNotFoundError(f"{source}: expected a folder with {CONFIG} and {WEIGHTS}, or owner/name of a "
                                "repository on the Hugging Face Hub")
    if revision is not None:
        raise InputError(f"revision: expected none for a folder ({folder}), got {revision!r}")
    parts = {}
    for name in (hub.CONVERTERS, hub.SAMPLES):
        places = (folder / name, folder.absolute().parent / name)
        parts[name] = next((place for place in places if place.is_dir()), None)
    return Fetched(folder, None, None, parts[hub.CONVERTERS], parts[hub.SAMPLES], None, None)


def _converters(imported: Imported, origin: Fetched, given: str | os.PathLike[str] | None
                ) -> tuple[pathlib.Path | None, dict[str, Converter], list[str]]:
    """The folder of the converters, the converters, and notes; those that only lie beside may be another model's."""
    folder = pathlib.Path(given) if given is not None else origin.converters
    if folder is None:
        where = f" in {origin.repository} (offline: in what the cache has of it)" if origin.repository else ""
        return None, {}, [f"no converters found{where}: the model predicts tokens, but cannot turn them into orders"]
    try:
        found = converter_files.read_folder(folder)
        checkpoint_folder.check_converters(imported.model.spec, found)
    except (ValueError, OSError) as error:
        if given is None and origin.repository is None and folder.parent != origin.model:
            return None, {}, [f"left out the converters beside the model: {error}"]
        raise InputError(f"{folder}: {error}") from error
    return folder, found, []


def _samples_folder(origin: Fetched, given: str | os.PathLike[str] | None) -> pathlib.Path | None:
    if given is not None:
        return pathlib.Path(given)
    if origin.samples is None and origin.repository is not None:
        return hub.fetch(origin.repository, origin.revision, samples=True,
                         assets_revision=origin.assets_revision).samples
    return origin.samples


def _choose(imported: Imported, wanted: str, choice: _Choice, find_samples: Callable[[], pathlib.Path | None],
            most_level: int, max_samples: int) -> _Choice:
    """Settles what becomes of the two tables; InputError if `auto` has no samples."""
    names = ", ".join(imported.ratio_tables)
    if wanted in ("ignore", "swapped") or (wanted == "sum" and imported.ratio_by_name):
        return choice._replace(variant=wanted)
    folder = find_samples()
    if folder is None and wanted == "sum":
        return choice._replace(variant=wanted, notes=[
            f"{names}: taken for features 1 and 2 by the alphabet alone; validation samples would tell"])
    if folder is None:
        raise InputError(f"{imported.where}: two tables of unknown use ({names}); give validation samples to choose by "
                         "(--config.validation=FOLDER), or choose with --config.ratio_embeddings=ignore or =sum")
    samples = validation.read(folder, imported.model.spec, most_level, max_samples)
    found = {}
    for variant in VARIANTS if wanted == AUTO else ("sum", "swapped"):
        found[variant] = validation.predict(imported.variant(variant), samples)[0]
    best, second = sorted(found, key=lambda variant: float(found[variant].mean()))[:2]
    gap = found[second] - found[best]
    error = float(gap.std() / np.sqrt(len(gap)))
    notes = [f"{best} beats {second} by {gap.mean():.4f} nats a token (standard error {error:.4f}, {len(gap)} samples)"]
    if gap.mean() < 2 * error:
        notes.append(f"the samples do not tell {best} from {second} for sure")
    losses = {variant: float(loss.mean()) for variant, loss in found.items()}
    return _Choice(best, losses, notes, folder)

